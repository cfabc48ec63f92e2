//! Deletes broken pods, so that their controller makes them anew.
//!
//! Owns: that request. Must never: decide which pods, or touch one that is not the very one that was seen.

use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};

use super::{cache::Cache, observe::Observed, retry::Broken, validate::Tenant, view::PodView};

/// The API server did not delete a broken pod, for a reason that may pass.
#[derive(Debug, thiserror::Error)]
#[error("the broken pod {namespace}/{name} could not be deleted")]
pub struct RemakeError {
    namespace: String,
    name: String,
    source: Box<kube::Error>,
}

/// Deletes `pods`, and takes them out of `observed`. Answers how many requests wrote.
pub(super) async fn remake(
    client: &Client,
    cache: &Cache<PodView>,
    tenant: &Tenant,
    pods: &[Broken],
    observed: &mut Observed,
) -> Result<u32, RemakeError> {
    let namespace = &tenant.target.namespace;
    let api: Api<PodView> = Api::namespaced(client.clone(), namespace);
    let mut writes = 0;
    for Broken { ordinal, name, uid } in pods {
        let this_one = DeleteParams {
            preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
            ..DeleteParams::background()
        };
        match api.delete(name, &this_one).await {
            Ok(answer) => {
                writes += 1;
                // It ends for a while: until the watch tells, no pass takes it for one that is broken.
                if let Some(view) = answer.left().filter(PodView::is_terminating) {
                    cache.wrote(view);
                }
            }
            // Gone, or another of that name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                return Err(RemakeError { namespace: namespace.clone(), name: name.clone(), source: Box::new(source) });
            }
        }
        observed.pods.remove(ordinal);
        observed.missing_files.remove(ordinal);
    }
    Ok(writes)
}
