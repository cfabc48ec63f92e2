//! A release: what a rollout puts in the place of a service's own image, and how it stands beside the rest of the spec.
//!
//! Owns: the shape of a release, and the one function that computes the spec in effect from it. Must never: decide
//! whether a service should have it.

#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Quantity,
    tenant_container::{EnvVar, TenantContainerSpec},
};

/// What a release consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Image to run, with its tag or digest, in the place of each service's own.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')").message("image must be an image reference such as registry.example/engine:1.2, without spaces"))]
    pub image: String,

    /// What each replica gets in the place of what its service asks for. What is left out stays as it is; disks are each service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Amounts>,

    /// Environment variables, by name in the place of or beside those of each service. Literal values only: what a Secret or ConfigMap holds is each service's own to name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<Variable>,
}

/// Resources that a release changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// CPU, in cores: `500m` is half a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isLessThan(quantity('0')) || quantity(string(self)).compareTo(quantity('1m')) >= 0 && quantity(string(self)).compareTo(quantity('4096')) <= 0").message("cpu is counted in cores, from 1m to 4096: 500m is half a core"))]
    pub cpu: Option<Quantity>,

    /// Memory, in bytes: `512Mi`, `4Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isLessThan(quantity('0')) || quantity(string(self)).compareTo(quantity('1Mi')) >= 0").message("memory is counted in bytes, at least 1Mi: write 512Mi, not 512m or 512"))]
    pub memory: Option<Quantity>,

    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub gpu: Option<i32>,
}

/// A literal environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Name of the variable.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_.-]*$')").message("an environment variable's name may contain only letters, digits, '_', '-' and '.', and must not begin with a digit"))]
    pub name: String,

    /// Its value. Not a place for secrets.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("!self.contains('\\x00')").message("an environment variable must not contain NUL characters"))]
    pub value: String,
}

/// What a rollout has set on a service: desired state, so that a backup of the cluster's objects holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Image that runs in the place of `spec.image`.
    #[schemars(length(max = 512))]
    pub image: String,

    /// Resources in the place of those of `spec.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Amounts>,

    /// Environment variables in the place of or beside those of `spec.env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<Variable>,

    /// The `spec.image` that this release overrode. Once `spec.image` says something else the release is void: whoever edits the image has the last word.
    #[schemars(length(max = 512))]
    pub overrode: String,

    /// The rollout that set it.
    pub rollout: Origin,

    /// What was in effect before, and what a rollback puts back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Content>,
}

/// Which rollout a release comes from, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Namespace of the Deployment.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the Deployment.
    #[schemars(length(max = 253))]
    pub name: String,
    /// `metadata.uid` of the Deployment.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The revision that it rolled out: `status.revision` of the Deployment at that time.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// The wave that the service was in, from 1.
    #[schemars(range(min = 1))]
    pub wave: i32,
    /// Whether this is that revision, or what was before it, put back.
    pub step: Step,
}

/// What a rollout did to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// It gave the release.
    Released,
    /// It took the release back: what was in effect before is in effect again.
    RolledBack,
}

impl Release {
    /// Whether it counts: nobody has edited `spec.image` since.
    pub fn is_in_effect(&self, image: &str) -> bool {
        self.overrode == image
    }
}

impl TenantContainerSpec {
    /// The release that is in effect, if one is.
    pub fn release_in_effect(&self) -> Option<&Release> {
        self.release.as_ref().filter(|release| release.is_in_effect(&self.image))
    }

    /// What a release would have to say for everything to stay as it is.
    pub fn content(&self) -> Content {
        match self.release_in_effect() {
            Some(Release { image, resources, env, overrode: _, rollout: _, previous: _ }) => {
                Content { image: image.clone(), resources: resources.clone(), env: env.clone() }
            }
            None => Content { image: self.image.clone(), resources: None, env: vec![] },
        }
    }

    /// The spec that counts: this one, with what the release in effect puts in its place. The only place where the two are
    /// brought together.
    pub fn effective(&self) -> Cow<'_, Self> {
        let Some(release) = self.release_in_effect() else { return Cow::Borrowed(self) };
        let Release { image, resources, env, overrode: _, rollout: _, previous: _ } = release;
        // Without the release: it is in the rest now, and beside another image it would look void.
        let mut spec = Self { image: image.clone(), release: None, ..self.clone() };
        if let Some(Amounts { cpu, memory, gpu }) = resources.clone() {
            let own = spec.resources;
            spec.resources = super::tenant_container::Resources {
                cpu: cpu.unwrap_or(own.cpu),
                memory: memory.unwrap_or(own.memory),
                disk: own.disk,
                gpu: gpu.unwrap_or(own.gpu),
                gpu_resource: own.gpu_resource,
            };
        }
        for Variable { name, value } in env {
            let variable = EnvVar {
                name: name.clone(),
                value: Some(value.clone()),
                secret_key_ref: None,
                config_map_key_ref: None,
            };
            match spec.env.iter_mut().find(|own| own.name == *name) {
                Some(own) => *own = variable,
                None => spec.env.push(variable),
            }
        }
        Cow::Owned(spec)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(image: &str, release: serde_json::Value) -> TenantContainerSpec {
        serde_json::from_value(json!({
            "tenantOrg": "acme", "user": "alice", "serviceName": "engine", "image": image,
            "resources": {"cpu": "1", "memory": "1Gi", "disk": "10Gi"}, "ports": [{"name": "http", "port": 80}],
            "env": [{"name": "LEVEL", "value": "info"}, {"name": "KEY", "secretKeyRef": {"name": "s", "key": "k"}}],
            "release": release,
        }))
        .unwrap()
    }

    fn release(overrode: &str) -> serde_json::Value {
        json!({
            "image": "engine:2", "overrode": overrode, "resources": {"memory": "2Gi"},
            "env": [{"name": "LEVEL", "value": "debug"}, {"name": "NEW", "value": "1"}],
            "rollout": {"namespace": "ops", "name": "r", "uid": "u", "revision": "abc", "wave": 1, "step": "Released"},
        })
    }

    #[test]
    fn a_release_replaces_what_it_names_and_nothing_else() {
        let spec = spec("engine:1", release("engine:1"));
        let effective = spec.effective();
        assert_eq!(effective.image, "engine:2");
        assert_eq!(effective.resources.cpu.as_str(), "1");
        assert_eq!(effective.resources.memory.as_str(), "2Gi");
        assert_eq!(effective.resources.disk.as_ref().unwrap().as_str(), "10Gi");
        let env: Vec<_> = effective.env.iter().map(|one| (one.name.as_str(), one.value.as_deref())).collect();
        assert_eq!(env, [("LEVEL", Some("debug")), ("KEY", None), ("NEW", Some("1"))]);
        assert_eq!(spec.content().image, "engine:2");
    }

    #[test]
    fn an_edited_image_voids_all_of_a_release() {
        let spec = spec("engine:1.1", release("engine:1"));
        assert!(spec.release_in_effect().is_none());
        assert_eq!(*spec.effective(), spec);
        assert_eq!(spec.content(), Content { image: "engine:1.1".to_owned(), resources: None, env: vec![] });
    }
}
