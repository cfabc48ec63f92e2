//! Manifests of TenantContainers, built step by step: a small service of the test image unless told otherwise.
//!
//! Owns: the defaults. Must never: talk to a cluster.

use serde_json::{Value, json};

/// The test service's image, as `e2e/images/build` calls it.
pub const IMAGE: &str = "localhost/berth-e2e/testservice:dev";

/// A manifest.
#[derive(Clone, Debug)]
pub struct Tenant(Value);

impl Tenant {
    /// A service of that name: one replica of the test image. Its organisation is filled in by the scenario.
    pub fn named(name: &str) -> Self {
        Self(json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "TenantContainer",
            "metadata": {"name": name},
            "spec": {
                "user": "alice@acme.example",
                "serviceName": name,
                "image": IMAGE,
                "imagePullPolicy": "Never",
                // Enough to start at once: what a pod may not use it waits for.
                "resources": {"cpu": "100m", "memory": "64Mi"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
                "probes": {"readinessPath": "/readyz"},
                "drainSeconds": 1,
            },
        }))
    }

    /// Sets a field of the spec, by its path with slashes: `resources/disk`.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        let place = path.split('/').fold(&mut self.0["spec"], |place, key| &mut place[key]);
        *place = value.into();
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, variable: Value) -> Self {
        match self.0["spec"]["env"].as_array_mut() {
            Some(all) => all.push(variable),
            None => self.0["spec"]["env"] = json!([variable]),
        }
        self
    }

    /// On the simulated nodes, whose pods are ready without running.
    #[must_use]
    pub fn simulated(self) -> Self {
        self.with(
            "placement",
            json!({
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
            }),
        )
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The manifest, for an organisation.
    pub fn of(&self, org: &str) -> Value {
        let mut manifest = self.0.clone();
        manifest["spec"]["tenantOrg"] = json!(org);
        manifest
    }
}

/// The status of a condition: `True`, `False`, or empty where it is missing.
pub fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name, "status")
}

/// The reason of a condition.
pub fn reason<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name, "reason")
}

/// The message of a condition.
pub fn message<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name, "message")
}

/// Whether the status is about the newest generation.
pub fn is_current(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn field<'a>(object: &'a Value, name: &str, field: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|condition| condition["type"] == name)
        .find_map(|condition| condition[field].as_str())
        .unwrap_or_default()
}
