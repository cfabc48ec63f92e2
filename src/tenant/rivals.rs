//! Which live object is the service of a (tenantOrg, user, serviceName), if several claim to be.
//!
//! The one that was accepted already; else the one that a pass has reserved it for; else the oldest. Creation times
//! have whole seconds only, so age alone could name two winners in turn.
//!
//! Owns: an index that follows from the events it has heard and the reservations it has given.
//! Must never: talk to the API server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube_runtime::watcher::Event;

use crate::{api::TenantContainer, ledger::Micros};

/// What must be unique among live objects.
type Identity = (String, String, String);
/// Claims to one identity, by uid.
type Claims = HashMap<String, Claim>;

#[derive(Clone, Debug)]
struct Claim {
    accepted: bool,
    reserved: bool,
    created: Micros,
    place: (String, String),
}

#[derive(Default)]
struct Index {
    current: HashMap<Identity, Claims>,
    /// A complete list that is still arriving: until it is whole, the one before it counts.
    incoming: Option<HashMap<Identity, Claims>>,
}

/// The index.
#[derive(Clone, Default)]
pub struct Rivals(Arc<Mutex<Index>>);

impl Rivals {
    /// Reserves its identity for `object`, or says which object (namespace, name) has it. One that the watch has told is
    /// gone gets no reservation: nobody would ever give it back.
    pub fn reserve(&self, object: &TenantContainer) -> Result<(), (String, String)> {
        let Some((identity, uid, _)) = read(object) else { return Ok(()) };
        let mut index = self.index();
        let Some(claims) = index.current.get_mut(&identity) else { return Ok(()) };
        let winner = claims
            .iter()
            .min_by_key(|(uid, claim)| (!claim.accepted, !claim.reserved, claim.created, (*uid).clone()))
            .map(|(uid, claim)| (uid.clone(), claim.place.clone()));
        match winner {
            Some((first, place)) if first != uid => Err(place),
            _ => {
                if let Some(claim) = claims.get_mut(&uid) {
                    claim.reserved = true;
                }
                Ok(())
            }
        }
    }

    /// Takes in an event of the watch over all TenantContainers.
    pub fn heard(&self, event: &Event<TenantContainer>) {
        let mut index = self.index();
        match event {
            Event::Init => index.incoming = Some(HashMap::new()),
            Event::InitApply(object) => {
                if let (Some((identity, uid, claim)), Some(incoming)) = (read(object), index.incoming.as_mut()) {
                    incoming.entry(identity).or_default().insert(uid, claim);
                }
            }
            Event::InitDone => {
                if let Some(mut incoming) = index.incoming.take() {
                    for (identity, claims) in &mut incoming {
                        for (uid, claim) in claims {
                            let before = index.current.get(identity).and_then(|claims| claims.get(uid));
                            claim.reserved = before.is_some_and(|before| before.reserved);
                        }
                    }
                    index.current = incoming;
                }
            }
            Event::Apply(object) => {
                if let Some((identity, uid, claim)) = read(object) {
                    let claims = index.current.entry(identity).or_default();
                    let reserved = claims.get(&uid).is_some_and(|before| before.reserved);
                    claims.insert(uid, Claim { reserved, ..claim });
                }
            }
            Event::Delete(object) => {
                if let Some((identity, uid, _)) = read(object)
                    && let Some(claims) = index.current.get_mut(&identity)
                {
                    claims.remove(&uid);
                    if claims.is_empty() {
                        index.current.remove(&identity);
                    }
                }
            }
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(object: &TenantContainer) -> Option<(Identity, String, Claim)> {
    let metadata = &object.metadata;
    let identity = (object.spec.tenant_org.clone(), object.spec.user.clone(), object.spec.service_name.clone());
    let claim = Claim {
        accepted: object.status.as_ref().is_some_and(|status| status.phase.is_some()),
        reserved: false,
        created: metadata.creation_timestamp.as_ref().map(super::validate::time)?,
        place: (metadata.namespace.clone()?, metadata.name.clone()?),
    };
    Some((identity, metadata.uid.clone()?, claim))
}
