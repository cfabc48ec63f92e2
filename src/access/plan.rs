//! From a grant, the RoleBindings that are there, and the time: which there should be, and when to look again.
//!
//! Owns: those decisions, and what makes a RoleBinding a grant's own. Must never: do I/O or read a clock.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::{Resource, ResourceExt, api::ObjectMeta};

use super::{names, permissions};
use crate::api::{AccessGrant, access_grant};

/// How often a grant is looked at when nothing happens: a safety net, which writes nothing.
pub const RESYNC: Duration = Duration::from_secs(600);
/// How long an ended grant's access may stay before it counts as overdue.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A grant in which nothing is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it ends.
    pub expires_at: Timestamp,
    /// It is on its way out.
    pub deleting: bool,
    /// Its namespace is: nothing can be made in it.
    pub namespace_terminating: bool,
    /// Whom it is for.
    pub subject: Subject,
    /// What it gives.
    pub meaning: permissions::Meaning,
}

/// The API server left out what it always sets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.{0} is missing or is not what Kubernetes writes there")]
pub struct Damaged(pub &'static str);

/// Reads `object`.
pub fn read(object: &AccessGrant, namespace_terminating: bool) -> Result<Grant, Damaged> {
    let metadata = &object.metadata;
    let namespace = metadata.namespace.clone().ok_or(Damaged("namespace"))?;
    Ok(Grant {
        name: metadata.name.clone().ok_or(Damaged("name"))?,
        uid: metadata.uid.clone().ok_or(Damaged("uid"))?,
        generation: metadata.generation.ok_or(Damaged("generation"))?,
        expires_at: object.spec.expires_at.0,
        deleting: metadata.deletion_timestamp.is_some(),
        namespace_terminating,
        subject: subject(&object.spec.subject, &namespace),
        meaning: match (object.spec.role, &object.spec.permissions) {
            (Some(role), _) => permissions::meaning_of(role),
            (None, Some(asked)) => permissions::meaning(asked),
            (None, None) => permissions::Meaning::default(),
        },
        namespace,
    })
}

/// The subject as a RoleBinding writes it.
fn subject(subject: &access_grant::Subject, home: &str) -> Subject {
    // The rest of it is for people, and for the database.
    let access_grant::Subject { kind, name, namespace, display_name: _, email: _ } = subject;
    let (api_group, namespace) = match kind {
        access_grant::SubjectKind::ServiceAccount => (None, Some(namespace.clone().unwrap_or_else(|| home.to_owned()))),
        access_grant::SubjectKind::User | access_grant::SubjectKind::Group => (Some(RBAC.to_owned()), None),
    };
    Subject { kind: kind.as_str().to_owned(), name: name.clone(), api_group, namespace }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// One thing to do to a RoleBinding.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make it so.
    Apply {
        /// As it should be.
        wanted: Box<RoleBinding>,
        /// The uid of the one that is there and ours; none where none is known.
        known: Option<String>,
    },
    /// Delete this one.
    Delete {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// It is being deleted and does not go (somebody's finalizer holds it): take everybody out of it.
    Empty {
        /// As it should be: without subjects.
        wanted: Box<RoleBinding>,
        /// Its uid.
        uid: String,
    },
}

/// What should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in this order.
    pub effects: Vec<Effect>,
    /// RoleBindings that bear a name of ours, and are somebody else's.
    pub foreign: Vec<String>,
    /// Whether the access should be there now.
    pub open: bool,
    /// When to look again, if nothing happens before.
    pub look_again: Duration,
}

/// What to do for `grant`, now. `observed` are the RoleBindings of its namespace, as far as they are known.
pub fn plan(grant: &Grant, observed: &[Arc<RoleBinding>], now: Timestamp) -> Plan {
    let open = !grant.deleting && now < grant.expires_at;
    let wanted = if open && !grant.namespace_terminating { wanted(grant) } else { vec![] };
    let mut plan = Plan { effects: vec![], foreign: vec![], open, look_again: look_again(grant, now) };
    // First what is missing, then what is too much: whoever is given something else is never without both.
    for binding in wanted.iter() {
        let there = observed.iter().find(|other| other.metadata.name == binding.metadata.name);
        match there {
            None => plan.effects.push(Effect::Apply { wanted: Box::new(binding.clone()), known: None }),
            Some(other) if !is_ours(other, &grant.uid) => plan.foreign.push(other.name_any()),
            // It comes again once it is gone. What it binds cannot be changed.
            Some(other) if is_going(other) || other.role_ref != binding.role_ref => {}
            Some(other) if is_same(other, binding) => {}
            Some(other) => plan
                .effects
                .push(Effect::Apply { wanted: Box::new(binding.clone()), known: other.metadata.uid.clone() }),
        }
    }
    for other in observed.iter().filter(|other| is_ours(other, &grant.uid)) {
        let keep = wanted.iter().any(|one| one.metadata.name == other.metadata.name && one.role_ref == other.role_ref);
        if !keep {
            plan.effects.extend(away(other));
        }
    }
    plan
}

/// How a RoleBinding goes that should not be there; none where nothing more can be done about it.
fn away(other: &RoleBinding) -> Option<Effect> {
    let (name, uid) = (other.name_any(), other.metadata.uid.clone()?);
    if !is_going(other) {
        return Some(Effect::Delete { name, uid });
    }
    let empties = other.subjects.as_ref().is_some_and(|subjects| !subjects.is_empty());
    empties.then(|| {
        let metadata =
            ObjectMeta { name: Some(name), namespace: other.metadata.namespace.clone(), ..ObjectMeta::default() };
        let wanted = RoleBinding { metadata, role_ref: other.role_ref.clone(), subjects: Some(vec![]) };
        Effect::Empty { wanted: Box::new(wanted), uid }
    })
}

/// RoleBindings of Berth's that belong to no grant any more, and that the garbage collector leaves alone, since somebody
/// cut them off from their grant: access that would never end. `lives` says whether a grant of this uid is there.
pub fn strays(bindings: &[Arc<RoleBinding>], lives: impl Fn(&str) -> bool) -> Vec<Arc<RoleBinding>> {
    let stray = |binding: &&Arc<RoleBinding>| {
        let uid = label(binding, names::OWNER_UID);
        owner(binding).is_none() && !is_going(binding) && uid.is_some_and(|uid| is_ours(binding, uid) && !lives(uid))
    };
    bindings.iter().filter(stray).cloned().collect()
}

/// Whether access is there that should not be: `grant` has ended for longer than [`PATIENCE`], and one of `observed` still
/// gives something in its name.
pub fn is_overdue(grant: &AccessGrant, observed: &[Arc<RoleBinding>], now: Timestamp) -> bool {
    let ended = grant.metadata.deletion_timestamp.as_ref().map_or(grant.spec.expires_at.0, |time| time.0);
    let ended = ended.min(grant.spec.expires_at.0);
    let uid = grant.metadata.uid.as_deref().unwrap_or_default();
    now.duration_since(ended) > patience()
        && observed.iter().any(|binding| is_ours(binding, uid) && gives_something(binding))
}

fn patience() -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(PATIENCE).unwrap_or_default()
}

/// Whether somebody has something by this binding.
pub fn gives_something(binding: &RoleBinding) -> bool {
    binding.subjects.as_ref().is_some_and(|subjects| !subjects.is_empty())
}

/// Whether a RoleBinding is that of the grant with this uid: it is controlled by it; or nobody controls it, and it bears name
/// and label of ours. (Whoever may patch a RoleBinding can cut it off from its owner, but not change its label, without holding what
/// it gives: the API server sees to that.)
pub fn is_ours(binding: &RoleBinding, uid: &str) -> bool {
    match owner(binding) {
        Some(owner) => owner == uid,
        None => label(binding, names::OWNER_UID) == Some(uid) && binding.name_any().starts_with(names::PREFIX),
    }
}

fn owner(binding: &RoleBinding) -> Option<&str> {
    let owners = binding.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str()).next()
}

fn label<'a>(binding: &'a RoleBinding, name: &str) -> Option<&'a str> {
    Some(binding.metadata.labels.as_ref()?.get(name)?.as_str())
}

fn is_going(binding: &RoleBinding) -> bool {
    binding.metadata.deletion_timestamp.is_some()
}

/// Whether a RoleBinding is as it should be: whom it is for, whose it is, and our labels.
fn is_same(there: &RoleBinding, wanted: &RoleBinding) -> bool {
    let labels = |binding: &RoleBinding| binding.metadata.labels.clone().unwrap_or_default();
    let known = labels(there);
    there.subjects == wanted.subjects
        && owner(there) == owner(wanted)
        && labels(wanted).iter().all(|(key, value)| known.get(key) == Some(value))
}

/// The RoleBindings of a grant that is open.
pub fn wanted(grant: &Grant) -> Vec<RoleBinding> {
    grant.meaning.cluster_roles.iter().map(|role| binding(grant, role)).collect()
}

fn binding(grant: &Grant, cluster_role: &str) -> RoleBinding {
    let owner = k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
        api_version: AccessGrant::api_version(&()).into_owned(),
        kind: AccessGrant::kind(&()).into_owned(),
        name: grant.name.clone(),
        uid: grant.uid.clone(),
        controller: Some(true),
        // Nobody's deletion waits for it.
        block_owner_deletion: None,
    };
    let labels = [
        (names::MANAGED_BY, names::BERTH.to_owned()),
        (names::ACCESS_GRANT, grant.name.clone()),
        (names::OWNER_UID, grant.uid.clone()),
    ];
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(names::binding(&grant.name, &grant.uid, cluster_role)),
            namespace: Some(grant.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: "ClusterRole".to_owned(),
            name: cluster_role.to_owned(),
        },
        subjects: Some(vec![grant.subject.clone()]),
    }
}

/// At its end, to the millisecond above; at the latest when everything is looked at anyway.
fn look_again(grant: &Grant, now: Timestamp) -> Duration {
    let left = grant.expires_at.duration_since(now);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => RESYNC.min(left + Duration::from_millis(1)),
        _ => RESYNC,
    }
}
