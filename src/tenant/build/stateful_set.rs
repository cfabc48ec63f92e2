//! The StatefulSet: the replicas, with a security context that nobody can loosen.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{
            Capabilities, ConfigMapKeySelector, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
            EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference, PersistentVolumeClaim, PodSecurityContext,
            PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
            SecretVolumeSource, SecurityContext, TCPSocketAction, TopologySpreadConstraint, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{super::validate::Tenant, Shape, claim, labels, metadata, selector};
use crate::{
    api::{self, tenant_container as wanted},
    tenant::names,
};

/// User and group of every container: nobody's, and never root.
const USER: i64 = 65_532;
/// Size in the claim template, which nothing is made from unless somebody deletes a claim under a running replica:
/// Berth has made the claim before the StatefulSet controller looks, and grows it afterwards.
const TEMPLATE_SIZE: &str = "1Gi";
/// How often a replica is asked whether it is ready, in seconds. One: time to ready is what users wait for, and a
/// probe costs the kubelet a tenth of a millisecond.
const PROBE_PERIOD: i32 = 1;

/// Builds it.
pub fn build(tenant: &Tenant, shape: Shape) -> StatefulSet {
    let has_disk = tenant.spec.resources.disk.is_some();
    StatefulSet {
        metadata: metadata(tenant, names::main(&tenant.target.name)),
        spec: StatefulSetSpec {
            replicas: Some(shape.replicas),
            service_name: Some(names::headless(&tenant.target.name)),
            // Replicas start together, and one that is broken does not keep the others from being repaired
            // (with OrderedReady, a broken rollout has to be undone by hand).
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector { match_labels: Some(selector(tenant)), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(tenant)),
                    annotations: tenant
                        .request
                        .restarted_at
                        .as_ref()
                        .map(|at| BTreeMap::from([(api::RESTARTED_AT_ANNOTATION.to_owned(), at.clone())])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(tenant)),
            },
            volume_claim_templates: has_disk.then(|| vec![claim_template(tenant)]),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}

fn claim_template(tenant: &Tenant) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(labels(tenant)),
            ..ObjectMeta::default()
        },
        spec: Some(claim::spec(tenant, TEMPLATE_SIZE)),
        status: None,
    }
}

fn pod(tenant: &Tenant) -> PodSpec {
    let placement = tenant.spec.placement.clone().unwrap_or_default();
    PodSpec {
        service_account_name: Some(names::main(&tenant.target.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(tenant)],
        volumes: Some(volumes(tenant)),
        node_selector: (!placement.node_selector.is_empty()).then_some(placement.node_selector),
        tolerations: (!placement.tolerations.is_empty()).then_some(placement.tolerations),
        priority_class_name: placement.priority_class_name,
        image_pull_secrets: (!placement.image_pull_secrets.is_empty()).then(|| {
            placement.image_pull_secrets.into_iter().map(|secret| LocalObjectReference { name: secret.name }).collect()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector { match_labels: Some(selector(tenant)), ..LabelSelector::default() }),
            ..TopologySpreadConstraint::default()
        }]),
        ..PodSpec::default()
    }
}

fn container(tenant: &Tenant) -> Container {
    let spec = &tenant.spec;
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: spec.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        command: (!spec.command.is_empty()).then(|| spec.command.clone()),
        args: (!spec.args.is_empty()).then(|| spec.args.clone()),
        env: (!spec.env.is_empty()).then(|| spec.env.iter().map(variable).collect()),
        ports: Some(spec.ports.iter().map(port).collect()),
        resources: Some(resources(&spec.resources)),
        volume_mounts: Some(mounts(spec)),
        startup_probe: Some(Probe {
            failure_threshold: Some(spec.probes.as_ref().map_or(300, |probes| probes.startup_seconds)),
            ..ready(spec)
        }),
        readiness_probe: Some(Probe { failure_threshold: Some(3), ..ready(spec) }),
        liveness_probe: spec.probes.as_ref().and_then(|probes| probes.liveness_path.as_deref()).map(|path| Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..ask(spec, Some(path))
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn ready(spec: &wanted::TenantContainerSpec) -> Probe {
    ask(spec, spec.probes.as_ref().and_then(|probes| probes.readiness_path.as_deref()))
}

fn ask(spec: &wanted::TenantContainerSpec, path: Option<&str>) -> Probe {
    let named = spec.probes.as_ref().and_then(|probes| probes.port.clone());
    let port =
        IntOrString::String(named.or_else(|| spec.ports.first().map(|port| port.name.clone())).unwrap_or_default());
    let mut probe = Probe { period_seconds: Some(PROBE_PERIOD), timeout_seconds: Some(1), ..Probe::default() };
    match path {
        Some(path) => {
            probe.http_get = Some(HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() })
        }
        None => probe.tcp_socket = Some(TCPSocketAction { port, host: None }),
    }
    probe
}

fn variable(variable: &wanted::EnvVar) -> EnvVar {
    let wanted::EnvVar { name, value, secret_key_ref, config_map_key_ref } = variable;
    let from = EnvVarSource {
        secret_key_ref: secret_key_ref.as_ref().map(|reference| SecretKeySelector {
            name: reference.name.clone(),
            key: reference.key.clone(),
            optional: Some(false),
        }),
        config_map_key_ref: config_map_key_ref.as_ref().map(|reference| ConfigMapKeySelector {
            name: reference.name.clone(),
            key: reference.key.clone(),
            optional: Some(false),
        }),
        ..EnvVarSource::default()
    };
    EnvVar { name: name.clone(), value: value.clone(), value_from: value.is_none().then_some(from) }
}

fn port(port: &wanted::Port) -> ContainerPort {
    ContainerPort {
        name: Some(port.name.clone()),
        container_port: port.target_port.unwrap_or(port.port),
        protocol: Some(port.protocol.as_str().to_owned()),
        ..ContainerPort::default()
    }
}

fn resources(wanted: &wanted::Resources) -> ResourceRequirements {
    let wanted::Resources { cpu, memory, disk: _, gpu, gpu_resource } = wanted;
    let mut amounts = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu.as_str().to_owned())),
        ("memory".to_owned(), Quantity(memory.as_str().to_owned())),
    ]);
    if *gpu > 0 {
        amounts.insert(gpu_resource.clone(), Quantity(gpu.to_string()));
    }
    ResourceRequirements { requests: Some(amounts.clone()), limits: Some(amounts), claims: None }
}

fn mounts(spec: &wanted::TenantContainerSpec) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut all = vec![mount("tmp", "/tmp", false)];
    if spec.resources.disk.is_some() {
        all.push(mount(names::DATA_VOLUME, &spec.data_path, false));
    }
    all.extend(spec.volumes.iter().map(|volume| mount(&volume.name, &volume.mount_path, volume.empty_dir.is_none())));
    all
}

fn volumes(tenant: &Tenant) -> Vec<Volume> {
    let mut all =
        vec![Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }];
    all.extend(tenant.spec.volumes.iter().map(|volume| {
        let wanted::Volume { name, mount_path: _, secret, config_map, empty_dir } = volume;
        Volume {
            name: name.clone(),
            secret: secret.as_ref().map(|secret| SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                ..SecretVolumeSource::default()
            }),
            config_map: config_map.as_ref().map(|config_map| ConfigMapVolumeSource {
                name: config_map.name.clone(),
                ..ConfigMapVolumeSource::default()
            }),
            empty_dir: empty_dir.as_ref().map(|empty_dir| EmptyDirVolumeSource {
                size_limit: empty_dir.size_limit.as_ref().map(|size| Quantity(size.as_str().to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }
    }));
    all
}
