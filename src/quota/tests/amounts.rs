//! What a service needs, and how amounts are said.

use rstest::rstest;
use serde_json::json;
use uuid::Uuid;

use super::objects::{demand, need, quota};
use crate::{
    api::{TenantContainer, tenant_quota::QuotaAmounts},
    ledger::Micros,
    quota::{
        Amounts, Dimension,
        admit::{Round, admit},
        amounts::Limits,
        status,
    },
};

#[rstest]
#[case(Dimension::Cpu, 2_000, "2 cpu")]
#[case(Dimension::Cpu, 1_500, "1500m cpu")]
#[case(Dimension::Memory, 4 << 30, "4Gi memory")]
#[case(Dimension::Memory, 1_610_612_736, "1536Mi memory")]
#[case(Dimension::Disk, 5_000_000_000, "5G disk")]
#[case(Dimension::Disk, 1_234_567, "1234567 disk")]
#[case(Dimension::Disk, 0, "0 disk")]
#[case(Dimension::Containers, 1, "1 container")]
#[case(Dimension::Containers, 3, "3 containers")]
#[case(Dimension::Gpu, 2, "2 gpu")]
fn amounts_are_said_as_people_write_them(#[case] dimension: Dimension, #[case] amount: i64, #[case] words: &str) {
    assert_eq!(dimension.words(amount), words);
}

fn service(spec: serde_json::Value) -> TenantContainer {
    let mut all = json!({"tenantOrg": "acme", "user": "alice", "serviceName": "search", "image": "engine:1",
        "ports": [{"name": "http", "port": 80}], "resources": {"cpu": "500m", "memory": "1Gi"}});
    json_patch::merge(&mut all, &spec);
    serde_json::from_value(json!({"apiVersion": "berth.dev/v1alpha1", "kind": "TenantContainer",
        "metadata": {"name": "search"}, "spec": all}))
    .unwrap()
}

#[test]
fn every_replica_counts_and_vectors_are_counted_once() {
    let spec = service(json!({"resources": {"disk": "10Gi", "gpu": 1}, "vectors": {"dimension": 3, "count": 1000},
        "indexes": [{"name": "a", "dimension": 3, "count": 700}]}))
    .spec;
    let three = QuotaAmounts::from(&Amounts::of(&spec, 3));
    assert_eq!(
        serde_json::to_value(three).unwrap(),
        json!({"containers": 1, "replicas": 3, "cpu": "1500m", "memory": "3Gi", "disk": "30Gi", "gpu": 3, "vectors": 1000})
    );
    let none = QuotaAmounts::from(&Amounts::of(&spec, 0));
    assert_eq!(serde_json::to_value(none).unwrap(), json!({"containers": 1, "vectors": 1000}));
    let indexed = service(json!({"indexes": [{"name": "a", "dimension": 3, "count": 700},
        {"name": "b", "dimension": 3, "count": 5}, {"name": "c", "dimension": 3}]}));
    assert_eq!(Amounts::of(&indexed.spec, 1).get(Dimension::Vectors), 705);
}

#[test]
fn more_than_anything_has_is_more_than_any_limit() {
    let spec = service(json!({"replicas": 100, "resources": {"memory": "9000000000000000000"}})).spec;
    let much = Amounts::of(&spec, 100);
    assert_eq!(much.plus(&much).get(Dimension::Memory), i64::MAX);
    let limits = Limits::from(&quota(json!({"memory": "64Gi"})).spec.limits);
    assert_eq!(admit("acme", &limits, Default::default(), vec![demand(1, 1, much)]).waiting.len(), 1);
}

/// What a round has decided is in the status word for word: the next leader goes on from there.
#[test]
fn reservations_are_read_back_from_the_status_and_a_part_of_them_is_not_believed() {
    let mut quota = quota(json!({"cpu": "10"}));
    assert_eq!(status::reservations(&quota), None, "nobody has counted yet");
    let demands = (1..4).map(|uid| demand(uid, 1, need(1, 1).with(Dimension::Disk, 1_234_567))).collect();
    let round = admit("acme", &Limits::from(&quota.spec.limits), Default::default(), demands);
    let after = status::of(&quota, &round, 5, Micros(1));
    assert_eq!((after.epoch, after.summary.cpu.as_str(), after.summary.gpu.as_str()), (5, "3/10", "0/-"));
    quota.status = Some(after.clone());
    assert_eq!(status::reservations(&quota), Some(round.held.clone()));
    assert_eq!(status::reservation(&quota, Uuid::from_u128(2)).unwrap().get(Dimension::Cpu), 1_000);
    assert_eq!(status::of(&quota, &round, 5, Micros(9)), after, "nothing has changed");
    assert!(status::is_taken_over(&quota, 5) && !status::is_taken_over(&quota, 6));
    quota.status.as_mut().unwrap().reservations.pop();
    assert_eq!(status::reservations(&quota), None, "a part of a status is not a status");
    quota.status = Some(status::of(&quota, &Round::default(), 5, Micros(1)));
    assert_eq!(status::reservations(&quota), Some(Default::default()), "nothing, counted");
}
