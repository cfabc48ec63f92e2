//! The present of an object, as the tables of the present and the spool's state files show it.
//!
//! Owns: what is common to the present of every kind, and what each kind adds. Must never: name a column or a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    entry::Target,
    record::{Actor, Head, Micros},
    rollout::Rollout,
};
use crate::lifecycle::State;

/// An object as it is now. `P` is what its kind adds: [`Present`] where any kind may come, one kind's own where only that can.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot<P = Present> {
    /// The object.
    pub target: Target,
    /// `metadata.creationTimestamp`.
    pub created_at: Micros,
    /// When this snapshot was taken.
    pub observed_at: Micros,
    /// `metadata.generation`.
    pub generation: i64,
    /// The leader that took it; with `head.sequence` and `observed_at` it guards against going back.
    pub epoch: u64,
    /// The chain's end that this belongs to.
    pub head: Head,
    /// What its kind adds.
    #[serde(flatten)]
    pub present: P,
}

/// What each kind of object has, besides its place in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Present {
    /// A TenantContainer.
    Service(Service),
    /// An AccessGrant.
    Grant(Grant),
    /// A Deployment.
    Rollout(Rollout),
    /// A TenantQuota.
    Quota(Quota),
}

/// The keys of presents in JSON. A service's stands without one, as it did when there was no other kind: journals are read by
/// later releases.
const GRANT: &str = "grant";
const ROLLOUT: &str = "rollout";
const QUOTA: &str = "quota";

impl Serialize for Present {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Service(service) => return service.serialize(serializer),
            Self::Grant(_) | Self::Rollout(_) | Self::Quota(_) => serializer.serialize_map(Some(1))?,
        };
        match self {
            Self::Service(_) => {}
            Self::Grant(grant) => map.serialize_entry(GRANT, grant)?,
            Self::Rollout(rollout) => map.serialize_entry(ROLLOUT, rollout)?,
            Self::Quota(quota) => map.serialize_entry(QUOTA, quota)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            target: Target,
            created_at: Micros,
            observed_at: Micros,
            generation: i64,
            epoch: u64,
            head: Head,
            #[serde(flatten)]
            rest: Map<String, Value>,
        }
        let Parts { target, created_at, observed_at, generation, epoch, head, mut rest } =
            Parts::deserialize(deserializer)?;
        // Not by trying one after the other: what is wrong with a part is to be said.
        let present = if let Some(grant) = rest.remove(GRANT) {
            serde_json::from_value(grant).map(Present::Grant)
        } else if let Some(rollout) = rest.remove(ROLLOUT) {
            serde_json::from_value(rollout).map(Present::Rollout)
        } else if let Some(quota) = rest.remove(QUOTA) {
            serde_json::from_value(quota).map(Present::Quota)
        } else {
            serde_json::from_value(Value::Object(rest)).map(Present::Service)
        };
        let present = present.map_err(D::Error::custom)?;
        Ok(Self { target, created_at, observed_at, generation, epoch, head, present })
    }
}

impl Snapshot {
    /// The state of its lifecycle. Kinds that have none end as `deleted` all the same.
    pub fn state(&self) -> Option<State> {
        match &self.present {
            Present::Service(service) => service.state,
            Present::Grant(grant) => (grant.access == Access::Removed).then_some(State::Deleted),
            Present::Rollout(rollout) => rollout.removed.then_some(State::Deleted),
            Present::Quota(quota) => quota.removed.then_some(State::Deleted),
        }
    }

    /// As that of a TenantContainer; none where it is another kind's.
    pub fn into_service(self) -> Option<Snapshot<Service>> {
        let Self { target, created_at, observed_at, generation, epoch, head, present } = self;
        match present {
            Present::Service(present) => {
                Some(Snapshot { target, created_at, observed_at, generation, epoch, head, present })
            }
            Present::Grant(_) | Present::Rollout(_) | Present::Quota(_) => None,
        }
    }
}

impl<P> Snapshot<P> {
    /// Which of two snapshots of one object is the later: the one that is larger here.
    pub fn age(&self) -> (u64, u64, Micros) {
        (self.head.sequence, self.epoch, self.observed_at)
    }
}

/// A tenant's service: one row of `tenant_containers` with its satellites, or one state file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The namespace that holds it.
    pub namespace: Namespace,
    /// Tenant organisation.
    pub tenant_org: String,
    /// User.
    pub user: String,
    /// Service name.
    pub service_name: String,
    /// Replicas asked for.
    pub replicas: i32,
    /// CPU for each replica, in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory for each replica, in bytes.
    pub memory_bytes: i64,
    /// Disk for each replica, in bytes.
    pub disk_bytes: i64,
    /// GPUs for each replica.
    pub gpu_count: i32,
    /// Vector dimension as declared.
    pub dimension: Option<i32>,
    /// Vector count as declared.
    pub vector_count: Option<i64>,
    /// The state; none before the first record.
    pub state: Option<State>,
    /// The spec as it stands (literal environment values are not in it).
    pub spec: Value,
    /// Its vector indexes.
    pub indexes: Vec<Index>,
    /// Its replicas (pods).
    pub replicas_seen: Vec<Replica>,
}

/// Access in a namespace until a moment: one row of `user_roles`, with its user and its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The namespace that it is for.
    pub namespace: Namespace,
    /// Whom it is for.
    pub subject: Subject,
    /// What it gives.
    pub gives: Gives,
    /// When it ends, whatever else becomes of it.
    pub expires_at: Micros,
    /// Who asked for it as it stands.
    pub granted_by: Actor,
    /// How far it is.
    pub access: Access,
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Namespace of a ServiceAccount.
    pub namespace: Option<String>,
    /// Name, as the API server's authentication knows it.
    pub name: String,
    /// A user's name as people call them, where the grant says it.
    pub display_name: Option<String>,
    /// A user's e-mail address, where the grant says it.
    pub email: Option<String>,
}

/// What a grant gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// A built-in role, by name.
    Role(String),
    /// A permissions object of its own: verbs by resource.
    Permissions(BTreeMap<String, Vec<String>>),
}

/// How far a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It was given.
    Given,
    /// It came to its end, and all of it is gone.
    Expired,
    /// Its object was deleted, and all of it is gone.
    Removed,
}

impl Access {
    /// The word in the database and on the spool.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

/// What an organisation may have, and what it has reserved: one row of `tenant_quota`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quota {
    /// The organisation.
    pub tenant_org: String,
    /// The most of each, where it is limited: containers, replicas, cpu (thousandths of a core), memory, disk (bytes), gpu,
    /// vectors.
    pub limits: BTreeMap<String, i64>,
    /// What is reserved of each.
    pub used: BTreeMap<String, i64>,
    /// Services that wait for room.
    pub waiting: i64,
    /// Who set the limits as they stand.
    pub set_by: Actor,
    /// Its object was deleted.
    pub removed: bool,
}

/// A namespace, as the table `namespaces` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `metadata.uid`.
    pub uid: Uuid,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A vector index (table `index_metadata`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Name, unique within the service.
    pub name: String,
    /// Dimension.
    pub dimension: i32,
    /// Metric: `cosine`, `dot`, `l2-squared`, `manhattan` or `hamming`.
    pub metric: String,
    /// Count as declared.
    pub declared_count: Option<i64>,
}

/// One replica (tables `containers` and `container_images`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// The pod's uid.
    pub uid: Uuid,
    /// The pod's name.
    pub name: String,
    /// Node, once scheduled.
    pub node: Option<String>,
    /// Image as asked for.
    pub image: String,
    /// Digest of the image that runs, once pulled (`sha256:…`, or what the runtime calls it).
    pub image_digest: Option<String>,
    /// `waiting`, `running` or `terminated`.
    pub state: String,
    /// Why it waits or ended (`CrashLoopBackOff`, `OOMKilled`, …).
    pub reason: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Restarts of its container.
    pub restarts: i32,
    /// When its container started.
    pub started_at: Option<Micros>,
    /// When its container ended.
    pub finished_at: Option<Micros>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::samples::Sample;

    #[test]
    fn a_services_present_stands_as_it_did_before_there_were_other_kinds() {
        let snapshot = Sample::new(1).snapshot();
        let text = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(text["tenant_org"], "acme");
        assert_eq!(text["memory_bytes"], i64::MAX);
        assert_eq!(text["head"]["sequence"], 0);
        assert_eq!(serde_json::from_value::<Snapshot>(text).unwrap(), snapshot);
    }

    #[test]
    fn a_grants_present_reads_back_as_it_was() {
        let Snapshot { target, created_at, observed_at, generation, epoch, head, .. } = Sample::new(1).snapshot();
        let grant = Grant {
            namespace: Namespace { uid: Uuid::from_u128(1), name: "team".to_owned(), labels: [].into() },
            subject: Subject {
                kind: "User".to_owned(),
                namespace: None,
                name: "alice".to_owned(),
                display_name: Some("Alice".to_owned()),
                email: None,
            },
            gives: Gives::Permissions([("logs".to_owned(), vec!["read".to_owned()])].into()),
            expires_at: Micros(7),
            granted_by: Actor::User("root".to_owned()),
            access: Access::Given,
        };
        let snapshot =
            Snapshot { target, created_at, observed_at, generation, epoch, head, present: Present::Grant(grant) };
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }

    #[test]
    fn what_is_wrong_with_a_present_is_said() {
        let mut text = serde_json::to_value(Sample::new(1).snapshot()).unwrap();
        text["replicas"] = json!("many");
        let error = serde_json::from_value::<Snapshot>(text).unwrap_err().to_string();
        assert!(error.contains("many"), "{error}");
    }
}
