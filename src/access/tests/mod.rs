//! Tests of the room: the table, the plan, and passes against an API server that fits in a test.

mod chains;
mod passes;
mod permissions;
mod plan;
mod world;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;

use crate::api::{
    ACTOR_ANNOTATION, ACTOR_GENERATION_ANNOTATION, AccessGrant, FINALIZER,
    access_grant::{AccessGrantSpec, Role, Subject, SubjectKind},
};

const UID: &str = "11111111-2222-3333-4444-555555555555";
/// Noon.
const NOON: &str = "2030-01-01T12:00:00Z";

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

/// For alice, operator until noon, in namespace `acme`.
fn grant() -> AccessGrant {
    AccessGrant {
        metadata: ObjectMeta {
            name: Some("alice".to_owned()),
            namespace: Some("acme".to_owned()),
            uid: Some(UID.to_owned()),
            generation: Some(1),
            resource_version: Some("1".to_owned()),
            creation_timestamp: Some(Time(at("2030-01-01T09:00:00Z"))),
            // As the policy has it.
            finalizers: Some(vec![FINALIZER.to_owned()]),
            annotations: Some(
                [(ACTOR_ANNOTATION, "root@acme.example"), (ACTOR_GENERATION_ANNOTATION, "1")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: AccessGrantSpec {
            subject: Subject {
                kind: SubjectKind::User,
                name: "alice@acme.example".to_owned(),
                namespace: None,
                display_name: Some("Alice".to_owned()),
                email: Some("alice@acme.example".to_owned()),
            },
            role: Some(Role::Operator),
            permissions: None,
            expires_at: Time(at(NOON)),
        },
        status: None,
    }
}
