//! Every file below `manifests/valid` is accepted. Every file below `manifests/invalid` is refused, for one reason only,
//! with the sentence that it predicts. A manifest begins with comments that say how it is applied:
//!
//! - `# refused: SENTENCE`: what the API server has to say;
//! - `# as: USER`: who applies it (alice, if left out; `manifests/ground.yaml` says who may do what);
//! - `# after: valid/OTHER.yaml`: it changes the object of that file;
//! - `# kubectl: ARGUMENTS`: how, if not by `kubectl apply`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use berth_e2e::kubectl::{Error, Kubectl};
use serde_json::json;

use crate::ground::{self, clear, delete_quota, ground};

#[test]
fn every_valid_manifest_is_accepted() {
    let Some(admin) = ground("the valid manifests") else { return };
    let admin = admin.in_namespace("schema-valid");
    let manifests = Manifest::all("valid");
    let refusal = |manifest: &Manifest| {
        let answer = manifest.try_out(&admin.as_user(manifest.author()));
        answer.err().map(|error| format!("{}: {error}", manifest.path))
    };
    let refused: Vec<String> = manifests.iter().filter_map(refusal).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
    assert!(manifests.len() >= 10, "only {} manifests were found", manifests.len());
}

#[test]
fn every_invalid_manifest_is_refused_with_the_sentence_that_it_predicts() {
    let Some(admin) = ground("the invalid manifests") else { return };
    let admin = admin.in_namespace("schema-acme");
    let manifests = Manifest::all("invalid");
    for path in manifests.iter().filter_map(|manifest| manifest.header("after")).collect::<BTreeSet<_>>() {
        let manifest = Manifest::read(path);
        admin.as_user(manifest.author()).feed(&["apply", "--filename", "-"], &manifest.text).unwrap();
    }
    let wrong: Vec<String> = manifests.iter().filter_map(|manifest| manifest.objection(&admin)).collect();
    clear(&admin);
    // Not of a namespace: by its name, since other tests have theirs.
    delete_quota(&admin, "acme-corp.eu");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(manifests.len() >= 40, "only {} manifests were found", manifests.len());
}

#[test]
fn explain_reads_like_documentation() {
    let Some(admin) = ground("kubectl explain") else { return };
    for (field, sentence) in [
        ("tc", "Berth runs it and keeps a permanent ledger"),
        ("tc.spec", "Tenant organisation that the service belongs to and is accounted to"),
        ("tc.spec.resources.disk", "It can grow, never shrink"),
        ("tc.spec.desiredState", "Stopped drains it"),
        ("tc.status.ledger.pending", "at most 32"),
        ("ag", "Access that ends by itself"),
        ("ag.spec.permissions", "what is not known there is kept"),
        ("ag.spec.expiresAt", "to end sooner or later"),
        ("tq", "what runs is never stopped by a quota"),
        ("tq.spec.limits.disk", "those that outlive their service"),
        ("tq.status.reservations", "only after it stands here"),
        ("bdeploy", "A release rolled out over a fleet of TenantContainers"),
        ("bdeploy.spec.strategy.waves", "The last one takes whatever no other has"),
        ("tc.spec.release", "It is void once image is edited"),
    ] {
        let text = admin.run(&["explain", field]).unwrap();
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains(sentence), "`kubectl explain {field}` does not say \"{sentence}\":\n{text}");
    }
}

#[test]
fn deployments_are_still_those_of_apps() {
    let Some(admin) = ground("kubectl get deployments") else { return };
    for name in ["deployments", "deployment", "deploy"] {
        let found = admin.json(&["get", name, "--namespace", "schema-valid"]).unwrap();
        assert_eq!(found["items"], json!([]));
        let explained = admin.run(&["explain", name]).unwrap();
        assert!(explained.contains("GROUP:      apps"), "{explained}");
    }
    for name in ["bdeploy", "deployments.berth.dev", "deployment.v1alpha1.berth.dev"] {
        let explained = admin.run(&["get", name, "--all-namespaces", "--output=name"]);
        explained.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// One file of `manifests`, with what its first lines say.
pub(crate) struct Manifest {
    path: String,
    pub(crate) text: String,
    headers: BTreeMap<String, String>,
}

impl Manifest {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(ground::manifests().join(path)).unwrap();
        let comments = text.lines().map_while(|line| line.strip_prefix("# "));
        let headers = comments.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.into(), v.into())).collect();
        Self { path: path.to_owned(), text, headers }
    }

    fn all(folder: &str) -> Vec<Self> {
        let files = ground::files(&ground::manifests().join(folder));
        files.keys().map(|name| Self::read(&format!("{folder}/{name}"))).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn author(&self) -> &str {
        self.header("as").unwrap_or("alice")
    }

    /// Asks the API server, without leaving anything behind.
    fn try_out(&self, who: &Kubectl) -> Result<String, Error> {
        let mut arguments: Vec<&str> = self.header("kubectl").unwrap_or("apply").split(' ').collect();
        arguments.extend(["--dry-run=server", "--validate=strict", "--filename", "-"]);
        who.feed(&arguments, &self.text)
    }

    /// What is wrong with the API server's answer to a manifest that it has to refuse.
    fn objection(&self, admin: &Kubectl) -> Option<String> {
        let path = &self.path;
        let Some(sentence) = self.header("refused") else {
            return Some(format!("{path} does not begin with `# refused: SENTENCE`"));
        };
        let mut who = admin.as_user(self.author());
        if self.text.contains("\n  namespace: schema-nobodys\n") {
            who = who.in_namespace("schema-nobodys");
        }
        match self.try_out(&who) {
            Ok(_) => Some(format!("{path} was accepted; it should be refused: {sentence}")),
            Err(error) if !error.message().contains(sentence) => {
                Some(format!("{path} was refused, but without the sentence: {sentence}\n{error}"))
            }
            Err(error) if reasons(error.message()) != 1 => {
                Some(format!("{path} was refused for more than its reason: {sentence}\n{error}"))
            }
            Err(_) => None,
        }
    }
}

/// How many reasons a refusal gives. `kubectl` lists them with stars, if there are several; one of these may only say
/// that rules were left out.
fn reasons(message: &str) -> usize {
    let stars = message.lines().filter(|line| line.starts_with("* "));
    stars.filter(|line| !line.contains("some validation rules were not checked")).count().max(1)
}
