//! The chart by itself: its forms, its values, and the definitions that it carries.

use crate::ground::{files, ground, template, top};

#[test]
fn the_chart_carries_the_generated_definitions() {
    let generated = files(&top().join("crds"));
    assert!(!generated.is_empty());
    let same = generated == files(&top().join("charts/berth/files/crds"));
    assert!(same, "charts/berth/files/crds is out of date: run `make generate`");
}

#[test]
fn every_form_of_the_chart_is_accepted() {
    let Some(admin) = ground("the chart's forms") else { return };
    let database = "database.existingSecret=berth-database";
    for values in [
        &[][..],
        &[database, "replicas=3"],
        &[database, "database.ca.configMap=authority"],
        &[database, "database.ca.secret=authority", "database.ca.key=ca.pem"],
        &[database, "database.migrate.existingSecret=owner", "database.key=uri"],
        &[database, "database.migrate.enabled=false"],
        &["policies.breakGlassGroup=", "rbac.aggregate=false", "crds.enabled=false"],
        &["policies.enabled=false"],
        &[
            "imagePullSecrets={registry}",
            "priorityClassName=high",
            "nodeSelector.pool=a",
            "spool.storageClassName=fast",
        ],
        &["tolerations[0].operator=Exists", "resources.limits.cpu=1", "image.tag=1.2.3", "image.pullPolicy=Never"],
    ] {
        // Under a name that nobody installs: what cannot be changed in an existing StatefulSet is no matter here.
        let text = template("schema-form", "schema-valid", values).unwrap();
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm"];
        let strictly = ["--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename", "-"];
        let answer = admin.feed(&[&apply[..], &strictly].concat(), &text);
        assert!(answer.is_ok(), "{values:?}: {}", answer.unwrap_err());
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_the_chart() {
    let Some(_) = ground("the chart's values") else { return };
    let database = "database.existingSecret=berth-database";
    for (values, sentence) in [
        (&["databse.existingSecret=x"][..], "additional properties 'databse' not allowed"),
        (&["replicas=0.5"], "at '/replicas': got string, want integer"),
        (&["image.pullPolicy=Sometimes"], "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        (&["spool.size=2GB"], "at '/spool/size'"),
        (&["replicas=2"], "without a database the spool of one replica is the only home of the records"),
        (&["database.ca.secret=a"], "no database is configured"),
        (&[database, "database.ca.secret=a", "database.ca.configMap=b"], "give configMap or secret, not both"),
    ] {
        let error = template("schema-form", "schema-valid", values).map(|_| "accepted").unwrap_err().to_string();
        assert!(error.contains(sentence), "{values:?}: {error}");
    }
}

#[test]
fn berth_may_bind_roles_only_where_policies_ask_whoever_grants_them() {
    let Some(_) = ground("the right to bind") else { return };
    let binds = |values: &[&str]| template("schema-form", "schema-valid", values).unwrap().contains("verbs: [bind]");
    assert!(binds(&[]));
    assert!(!binds(&["policies.enabled=false"]), "a grant's author is asked by nobody, and Berth gives all the same");
}
