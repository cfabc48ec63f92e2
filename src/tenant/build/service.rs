//! The Services: the one that clients use, and the headless one that names each replica.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{super::validate::Tenant, Shape, metadata, selector};
use crate::tenant::names;

/// What a Service selects that should reach nobody: no pod has this label. One write takes a service out of use and
/// another brings it back, without a readiness gate that would hold up rollouts.
fn nobody() -> BTreeMap<String, String> {
    [("berth.dev/nobody".to_owned(), "paused".to_owned())].into()
}

/// The Service that clients use.
pub fn build(tenant: &Tenant, shape: Shape) -> Service {
    Service {
        metadata: metadata(tenant, names::main(&tenant.target.name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(if shape.serving { selector(tenant) } else { nobody() }),
            ports: Some(ports(tenant)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The headless Service. It names replicas that are not ready as well: they may need each other to become so.
pub fn build_headless(tenant: &Tenant) -> Service {
    Service {
        metadata: metadata(tenant, names::headless(&tenant.target.name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector(tenant)),
            ports: Some(ports(tenant)),
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn ports(tenant: &Tenant) -> Vec<ServicePort> {
    tenant
        .spec
        .ports
        .iter()
        .map(|port| ServicePort {
            name: Some(port.name.clone()),
            port: port.port,
            target_port: Some(IntOrString::String(port.name.clone())),
            protocol: Some(port.protocol.as_str().to_owned()),
            ..ServicePort::default()
        })
        .collect()
}
