//! The readable files.

use super::*;

fn state_file(dir: &Path, user: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(dir.join(format!("team/tenant_{user}_vectors.json"))).unwrap()).unwrap()
}

#[tokio::test]
async fn the_readable_file_shows_the_present_and_says_when_it_is_deleted() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut old = Sample::new(1);
    for to in [State::Pending, State::Running, State::Paused, State::Stopped] {
        spool.submit(old.step_to(to)).await.unwrap();
    }
    let mut present = old.snapshot();
    present.service().replicas = 5;
    present.observed_at = Micros(present.observed_at.0 + 1);
    spool.submit(Entry::Present(Box::new(present.clone()))).await.unwrap();
    present.service().replicas = 4;
    present.observed_at = Micros(present.observed_at.0 - 2);
    spool.submit(Entry::Present(Box::new(present))).await.unwrap();
    spool.close().await.unwrap();
    let file = state_file(dir.path(), "user1");
    assert_eq!((&file["status"], &file["deleted"]), (&"stopped".into(), &false.into()));
    assert_eq!(file["container"]["replicas"], 5, "an older present does not go back");
    assert_eq!(file["ledger"]["head"], old.head.hash.to_string());
    assert_eq!(file["transitions"].as_array().unwrap().len(), 4);

    let spool = open_small(dir.path());
    spool.submit(old.step_to(State::Deleted)).await.unwrap();
    // A late present of the object that is gone does not bring it back.
    let mut late = old.snapshot();
    late.observed_at = Micros(late.observed_at.0 + 10);
    late.service().state = Some(State::Stopped);
    spool.submit(Entry::Present(Box::new(late))).await.unwrap();
    spool.close().await.unwrap();
    let file = state_file(dir.path(), "user1");
    assert_eq!((&file["status"], &file["deleted"]), (&"deleted".into(), &true.into()));
    let found = read::find(dir.path(), "user1", "vectors").unwrap().value;
    assert_eq!((found.len(), found[0].snapshot.present.state), (1, Some(State::Deleted)));
}

#[tokio::test]
async fn a_live_container_is_preferred_over_a_deleted_one_of_its_name() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut old = Sample::new(1);
    let mut young = Sample { uid: Uuid::from_u128(2), created_at: old.created_at + 99, ..old.clone() };
    for to in [State::Pending, State::Stopped] {
        spool.submit(old.step_to(to)).await.unwrap();
    }
    spool.submit(young.step()).await.unwrap();
    // The old one's end comes late, and must not hide the young one.
    spool.submit(old.step_to(State::Deleted)).await.unwrap();
    spool.close().await.unwrap();
    let shown = |dir: &Path| state_file(dir, "user1")["container"]["target"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(shown(dir.path()), young.uid.to_string());
    let found = read::find(dir.path(), "user1", "vectors").unwrap().value;
    assert_eq!(found.iter().map(|f| f.snapshot.target.uid).collect::<Vec<_>>(), [young.uid, old.uid]);
    let lives: Vec<_> =
        read::timeline(dir.path(), "team", "user1").unwrap().value.into_iter().map(|m| m.target.uid).collect();
    assert_eq!(lives, [old.uid, old.uid, old.uid, young.uid]);

    // Lost or altered files are made again from the journal.
    fs::remove_file(dir.path().join("team/tenant_user1_vectors.json")).unwrap();
    open_small(dir.path()).close().await.unwrap();
    assert_eq!(shown(dir.path()), young.uid.to_string());
}
