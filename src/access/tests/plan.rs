use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::rbac::v1::{RoleBinding, Subject},
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use kube::ResourceExt;
use rstest::rstest;

use super::{NOON, UID, at, grant};
use crate::{
    access::plan::{Effect, Grant, Plan, RESYNC, is_overdue, plan, read, strays, wanted},
    api::access_grant::{Role, SubjectKind},
};

const MORNING: &str = "2030-01-01T11:59:00Z";

fn open() -> Grant {
    read(&grant(), false).unwrap()
}

/// The grant's binding, as the API server keeps it.
fn kept(grant: &Grant) -> RoleBinding {
    let mut binding = wanted(grant).remove(0);
    binding.metadata.uid = Some("of-the-binding".to_owned());
    binding
}

fn planned(grant: &Grant, observed: &[RoleBinding], now: &str) -> Plan {
    let observed: Vec<_> = observed.iter().cloned().map(Arc::new).collect();
    plan(grant, &observed, at(now))
}

fn words(plan: &Plan) -> Vec<String> {
    let said = |effect: &Effect| match effect {
        Effect::Apply { wanted, known } => {
            format!("apply {} {}", wanted.name_any(), known.as_deref().unwrap_or("anew"))
        }
        Effect::Delete { name, uid } => format!("delete {name} {uid}"),
        Effect::Empty { wanted, uid } => {
            assert_eq!(wanted.subjects, Some(vec![]));
            format!("empty {} {uid}", wanted.name_any())
        }
    };
    plan.effects.iter().map(said).collect()
}

#[test]
fn an_open_grant_is_one_binding_to_a_shipped_cluster_role_owned_by_uid() {
    let plan = planned(&open(), &[], MORNING);
    assert!(plan.open);
    let [Effect::Apply { wanted, known: None }] = &plan.effects[..] else { panic!("{plan:?}") };
    assert_eq!(wanted.name_any(), "berth-grant-alice-11111111-operator");
    assert_eq!((&*wanted.role_ref.kind, &*wanted.role_ref.name), ("ClusterRole", "berth-grant-operator"));
    let owner = &wanted.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.uid, owner.controller), ("AccessGrant", UID, Some(true)));
    let subject = &wanted.subjects.as_ref().unwrap()[0];
    assert_eq!((&*subject.kind, &*subject.name), ("User", "alice@acme.example"));
    assert_eq!(words(&planned(&open(), &[kept(&open())], MORNING)), [""; 0], "as it should be: nothing to write");
}

#[rstest]
#[case::a_minute_before("2030-01-01T11:59:00Z", true, Duration::from_millis(60_001))]
#[case::a_moment_before("2030-01-01T11:59:59.9999Z", true, Duration::from_nanos(1_100_000))]
#[case::at_that_moment(NOON, false, RESYNC)]
#[case::long_after("2031-01-01T12:00:00Z", false, RESYNC)]
#[case::long_before("2029-01-01T12:00:00Z", true, RESYNC)]
fn access_ends_when_it_is_said_to(#[case] now: &str, #[case] is_open: bool, #[case] look_again: Duration) {
    let plan = planned(&open(), &[kept(&open())], now);
    assert_eq!((plan.open, plan.look_again), (is_open, look_again));
    let gone = ["delete berth-grant-alice-11111111-operator of-the-binding"];
    assert_eq!(words(&plan), if is_open { &[][..] } else { &gone[..] });
}

#[test]
fn a_grant_that_is_being_deleted_gives_nothing_any_more() {
    let mut object = grant();
    object.metadata.deletion_timestamp = Some(Time(at(MORNING)));
    let grant = read(&object, false).unwrap();
    let plan = planned(&grant, &[kept(&open())], MORNING);
    assert_eq!((plan.open, plan.effects.len()), (false, 1));
}

#[test]
fn in_a_namespace_that_is_going_nothing_is_made() {
    let grant = read(&grant(), true).unwrap();
    assert_eq!(words(&planned(&grant, &[], MORNING)), [""; 0]);
}

#[test]
fn another_role_is_bound_before_the_old_one_goes() {
    let mut object = grant();
    object.spec.role = Some(Role::ReadOnly);
    let plan = planned(&read(&object, false).unwrap(), &[kept(&open())], MORNING);
    assert_eq!(
        words(&plan),
        [
            "apply berth-grant-alice-11111111-read-only anew",
            "delete berth-grant-alice-11111111-operator of-the-binding"
        ]
    );
}

#[test]
fn a_permissions_object_is_one_binding_for_each_pair() {
    let mut object = grant();
    object.spec.role = None;
    let asked = [("logs", vec!["read", "fly"]), ("config_maps", vec!["update"]), ("namespaces", vec!["create"])];
    let asked = asked.map(|(key, verbs)| (key.to_owned(), verbs.into_iter().map(str::to_owned).collect()));
    object.spec.permissions = Some(BTreeMap::from(asked));
    let grant = read(&object, false).unwrap();
    assert_eq!(
        words(&planned(&grant, &[], MORNING)),
        ["apply berth-grant-alice-11111111-config-maps-update anew", "apply berth-grant-alice-11111111-logs-read anew"]
    );
}

#[rstest]
#[case::somebody_else_let_in(|binding: &mut RoleBinding| {
    let eve = Subject { kind: "User".to_owned(), name: "eve".to_owned(), ..Subject::default() };
    binding.subjects.as_mut().unwrap().push(eve);
})]
#[case::nobody_left(|binding: &mut RoleBinding| binding.subjects = None)]
#[case::a_label_taken(|binding: &mut RoleBinding| { binding.metadata.labels.as_mut().unwrap().remove("app.kubernetes.io/managed-by"); })]
#[case::cut_off(|binding: &mut RoleBinding| binding.metadata.owner_references = None)]
fn an_edited_binding_is_made_what_it_was(#[case] edit: fn(&mut RoleBinding)) {
    let mut binding = kept(&open());
    edit(&mut binding);
    let plan = planned(&open(), &[binding.clone()], MORNING);
    assert_eq!(words(&plan), ["apply berth-grant-alice-11111111-operator of-the-binding"]);
    let plan = planned(&open(), &[binding], NOON);
    assert_eq!(words(&plan), ["delete berth-grant-alice-11111111-operator of-the-binding"], "and it ends all the same");
}

#[test]
fn a_binding_to_another_role_under_our_name_goes_first() {
    let mut binding = kept(&open());
    binding.role_ref.name = "cluster-admin".to_owned();
    let plan = planned(&open(), &[binding], MORNING);
    assert_eq!(words(&plan), ["delete berth-grant-alice-11111111-operator of-the-binding"]);
}

#[test]
fn a_namesake_is_never_touched() {
    let foreign = |edit: fn(&mut RoleBinding)| {
        let mut binding = kept(&open());
        edit(&mut binding);
        binding
    };
    let of_another = foreign(|binding| {
        let owner = OwnerReference { uid: "another".to_owned(), controller: Some(true), ..OwnerReference::default() };
        binding.metadata.owner_references = Some(vec![owner]);
    });
    let of_nobody = foreign(|binding| (binding.metadata.owner_references, binding.metadata.labels) = (None, None));
    for other in [of_another, of_nobody] {
        let plan = planned(&open(), std::slice::from_ref(&other), MORNING);
        assert_eq!(words(&plan), [""; 0]);
        assert_eq!(plan.foreign, ["berth-grant-alice-11111111-operator"]);
        assert_eq!(words(&planned(&open(), &[other], NOON)), [""; 0]);
    }
}

#[test]
fn who_holds_a_binding_back_from_going_keeps_nobody_in_it() {
    let mut binding = kept(&open());
    binding.metadata.deletion_timestamp = Some(Time(at(NOON)));
    let plan = planned(&open(), &[binding.clone()], NOON);
    assert_eq!(words(&plan), ["empty berth-grant-alice-11111111-operator of-the-binding"]);
    binding.subjects = None;
    assert_eq!(words(&planned(&open(), &[binding.clone()], NOON)), [""; 0], "nothing more can be done");
    assert_eq!(words(&planned(&open(), &[binding], MORNING)), [""; 0], "and it is not made anew before it is gone");
}

#[test]
fn a_service_account_is_of_the_grants_namespace_unless_it_says_another() {
    let subject = |namespace: Option<&str>| {
        let mut object = grant();
        object.spec.subject.kind = SubjectKind::ServiceAccount;
        object.spec.subject.name = "robot".to_owned();
        object.spec.subject.namespace = namespace.map(str::to_owned);
        let subject = read(&object, false).unwrap().subject;
        (subject.api_group, subject.namespace.unwrap())
    };
    assert_eq!(subject(None), (None, "acme".to_owned()));
    assert_eq!(subject(Some("other")), (None, "other".to_owned()));
}

#[test]
fn access_that_stays_is_overdue_after_five_seconds() {
    let bindings = [Arc::new(kept(&open()))];
    assert!(!is_overdue(&grant(), &bindings, at("2030-01-01T12:00:05Z")));
    assert!(is_overdue(&grant(), &bindings, at("2030-01-01T12:00:06Z")));
    assert!(!is_overdue(&grant(), &[], at("2030-01-01T13:00:00Z")));
    let mut deleted = grant();
    deleted.metadata.deletion_timestamp = Some(Time(at("2030-01-01T11:00:00Z")));
    assert!(is_overdue(&deleted, &bindings, at("2030-01-01T11:00:06Z")));
}

#[test]
fn what_was_cut_off_from_a_grant_that_is_gone_is_found() {
    let mut cut = kept(&open());
    cut.metadata.owner_references = None;
    let all = [Arc::new(cut), Arc::new(kept(&open()))];
    assert_eq!(strays(&all, |uid| uid == UID).len(), 0, "the grant is there: its own pass sees to it");
    assert_eq!(strays(&all, |_| false).len(), 1, "what has an owner is the garbage collector's");
}

proptest::proptest! {
    /// Whatever is there and whenever it is: nobody has access in the name of a grant that has ended, once the plan is carried
    /// out, and nothing of others is touched.
    #[test]
    fn after_the_end_nothing_is_left(
        seconds in 0_i64..100_000,
        roles in proptest::collection::vec(0_usize..6, 0..6),
        foreign in proptest::collection::vec(proptest::bool::ANY, 6),
    ) {
        let kinds = ["operator", "admin", "read-only", "logs-read", "secrets-read", "volumes-read"];
        let observed: Vec<_> = roles.iter().map(|&role| {
            let mut binding = kept(&open());
            binding.metadata.name = Some(format!("berth-grant-alice-11111111-{}", kinds[role]));
            binding.metadata.uid = Some(format!("{role}"));
            if foreign[role] {
                binding.metadata.owner_references = None;
                binding.metadata.labels = None;
            }
            Arc::new(binding)
        }).collect();
        let now = at(NOON) + jiff::SignedDuration::from_secs(seconds);
        let plan = plan(&open(), &observed, now);
        let deleted: Vec<_> = plan.effects.iter().map(|effect| match effect {
            Effect::Delete { uid, .. } => uid.clone(),
            other => panic!("{other:?}"),
        }).collect();
        let ours: Vec<_> = roles.iter().filter(|&&role| !foreign[role]).map(|role| format!("{role}")).collect();
        proptest::prop_assert_eq!(deleted, ours);
    }
}
