//! Changes the CPU of running replicas in place, by the subresource `pods/resize`.
//!
//! Owns: that request, the only one that writes to a pod's resources. Must never: decide what a replica should have, or
//! change anything else of a pod.

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use kube_runtime::reflector::ObjectRef;
use serde_json::json;

use super::{cache::Cache, cpu::Resize, names, observe::Observed, validate::Tenant, view::PodView};

/// The API server did not change a replica's CPU, for a reason that may pass.
#[derive(Debug, thiserror::Error)]
#[error("the CPU of pod {namespace}/{name} could not be changed")]
pub struct ResizeError {
    namespace: String,
    name: String,
    source: Box<kube::Error>,
}

/// Requests of one pass at once.
const AT_ONCE: usize = 8;

/// Carries out `resizes`, and enters into `observed` what the API server returned, or why it refused. Answers how many
/// requests wrote.
pub(super) async fn resize(
    client: &Client,
    pods: &Cache<PodView>,
    tenant: &Tenant,
    resizes: Vec<Resize>,
    observed: &mut Observed,
) -> Result<u32, ResizeError> {
    let api: Api<PodView> = Api::namespaced(client.clone(), &tenant.target.namespace);
    let how = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let asked = stream::iter(resizes.into_iter().map(|resize| {
        let (api, how) = (&api, &how);
        async move {
            let name = resize.pod.metadata.name.clone().unwrap_or_default();
            let amounts = json!({"cpu": resize.cpu});
            let patch = json!({
                // This very pod or none: a namesake that came in between begins with all of its CPU.
                "metadata": {"uid": resize.pod.metadata.uid},
                "spec": {"containers": [{
                    "name": names::CONTAINER, "resources": {"requests": amounts, "limits": amounts},
                }]},
            });
            let answer = api.patch_subresource("resize", &name, how, &Patch::Strategic(&patch)).await;
            (resize, name, answer)
        }
    }))
    .buffered(AT_ONCE)
    .collect::<Vec<_>>()
    .await;
    let mut writes = 0;
    for (resize, name, answer) in asked {
        match answer {
            Ok(view) => {
                writes += 1;
                pods.wrote(view);
                if let Some(view) = pods.get(&ObjectRef::new(&name).within(&tenant.target.namespace)) {
                    observed.pods.insert(resize.ordinal, view);
                }
            }
            // Gone, or another of that name by now: its event comes.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 405 | 415 | 422) => {
                observed.unresized.insert(resize.ordinal, status.message.clone());
            }
            Err(source) => {
                let namespace = tenant.target.namespace.clone();
                return Err(ResizeError { namespace, name, source: Box::new(source) });
            }
        }
    }
    Ok(writes)
}
