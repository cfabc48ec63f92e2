//! The simulated nodes, parted: small ones with room for one service as it is, and the rest.
//!
//! Owns: labels and sizes of simulated nodes, which are as they were when this is dropped.

use berth_e2e::{
    kubectl::{Error, Kubectl},
    scenario::PATIENCE,
};
use serde_json::{Value, json};

const POOL: &str = "berth-e2e/pool";

pub(crate) struct Nodes(Vec<String>);

impl Nodes {
    /// So many small ones, with so much memory each.
    pub(crate) fn prepare(small: usize, memory: &str) -> Self {
        let admin = Kubectl::admin();
        let found = admin.run(&["get", "nodes", "--selector=type=kwok", "--output=name"]).unwrap();
        let nodes = Self(found.lines().map(str::to_owned).collect());
        assert!(nodes.0.len() > small, "more simulated nodes are needed: NODES=kwok:9 e2e/cluster/up");
        // What a run that was stopped has left there would take the room of the fleet, which then never serves.
        let others = "the simulated nodes are free (if not, remove what is on them, or `make down`)";
        admin.wait_for(others, PATIENCE, |admin| Ok(nodes.are_free(admin)?.then_some(()))).unwrap();
        for (number, node) in nodes.0.iter().enumerate() {
            let is_small = number < small;
            let pool = if is_small { format!("small-{number}") } else { "large".to_owned() };
            admin.run(&["label", node, "--overwrite", &format!("{POOL}={pool}")]).unwrap();
            if is_small {
                resize(&admin, node, memory).unwrap();
            }
        }
        nodes
    }

    /// Whether no pod on them takes room.
    fn are_free(&self, admin: &Kubectl) -> Result<bool, Error> {
        let pods = admin.json(&["get", "pods", "--all-namespaces"])?;
        let takes_room = |pod: &Value| {
            let node = format!("node/{}", pod["spec"]["nodeName"].as_str().unwrap_or_default());
            let is_over = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
            self.0.contains(&node) && !is_over
        };
        Ok(!pods["items"].as_array().is_some_and(|pods| pods.iter().any(takes_room)))
    }
}

fn resize(admin: &Kubectl, node: &str, memory: &str) -> Result<String, Error> {
    let status = json!({"status": {"allocatable": {"memory": memory}, "capacity": {"memory": memory}}}).to_string();
    admin.run(&["patch", node, "--subresource=status", "--type=merge", "--patch", &status])
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let admin = Kubectl::admin();
        for node in &self.0 {
            let back = resize(&admin, node, "256Gi").and_then(|_| admin.run(&["label", node, &format!("{POOL}-")]));
            if let Err(error) = back {
                eprintln!("node {node} is not as it was: {error}");
            }
        }
    }
}
