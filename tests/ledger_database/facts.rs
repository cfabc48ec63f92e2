//! What the protocol is told of one chain, and the heads that it moves.

use std::{sync::atomic::Ordering, time::Duration};

use berth::{
    ledger::{
        Actor, Draft, Entry, Head, Health, Kind, Ledger, Record, Seal,
        postgres::{Facts, Home, StoredSpool},
        protocol::{self, Descent, Line, Link, Relation, relate},
    },
    lifecycle::State,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    config, home,
    objects::{CLUSTER, Object, now, record_of},
    source,
};

/// Of a spool.
const VOLUME: Uuid = Uuid::from_u128(1);

fn link(head: Head) -> Link<berth::ledger::Hash> {
    Link { sequence: head.sequence, hash: head.hash }
}

fn linked(head: Head) -> protocol::Head<berth::ledger::Hash> {
    (head != Head::GENESIS).then(|| link(head))
}

/// As the door does.
fn relation(facts: &Facts, shown: Head) -> Relation<berth::ledger::Hash> {
    let database = facts.head.as_ref().map(|head| protocol::DatabaseHead {
        link: link(head.head),
        made_on: head.made_on.map(link),
        terminal: head.terminal,
        line: head.line,
    });
    relate(&linked(shown), database.as_ref(), facts.shown_stored)
}

async fn told(home: &Home, object: &Object, shown: Head) -> (Facts, Relation<berth::ledger::Hash>) {
    let facts = home.facts(CLUSTER, object.uid, shown, &[]).await.unwrap();
    let relation = relation(&facts, shown);
    (facts, relation)
}

/// A life of these states, written, and its records.
async fn life(home: &Home, object: &mut Object, states: &[State]) -> Vec<Record> {
    let mut records = vec![];
    for &state in states {
        let entry = object.step(state);
        records.push(record_of(&entry));
        home.submit(entry).await.unwrap();
    }
    records
}

#[tokio::test]
async fn each_relation_is_told_from_what_is_stored() {
    let (_database, home) = home().await;
    let mut object = Object::new("db");
    assert_eq!(told(&home, &object, Head::GENESIS).await.1, Relation::Same);
    let before = object.clone();
    let records = life(&home, &mut object, &[State::Pending, State::Running, State::Paused]).await;
    let at = |n: usize| records[n].head();

    let (facts, same) = told(&home, &object, at(2)).await;
    assert_eq!(same, Relation::Same);
    assert_eq!(facts.head.unwrap().record.as_ref(), Some(&records[2]));
    assert_eq!((facts.stored, facts.shown_stored), (vec![at(2)], true));

    let (facts, one_ahead) = told(&home, &object, at(1)).await;
    assert_eq!(one_ahead, Relation::OneAhead { head: link(at(2)), terminal: false });
    assert_eq!(facts.head.unwrap().made_on, Some(at(1)));

    assert_eq!(told(&home, &object, at(0)).await.1, Relation::FurtherAhead { head: link(at(2)) });
    assert_eq!(told(&home, &object, Head::GENESIS).await.1, Relation::FurtherAhead { head: link(at(2)) });

    // A shown record that is on a spool only, ahead of the database.
    let ahead = object.record(State::Stopped, now()).head();
    let (facts, elsewhere) = told(&home, &object, ahead).await;
    let expected = Relation::Elsewhere { head: Some(link(at(2))), shown: link(ahead), shown_stored: false };
    assert_eq!(elsewhere, expected);
    assert_eq!((facts.head.unwrap().line, facts.shown_stored), (Line::MissesShown, false));

    // A branch, stored beside the line.
    let branch = before.record(State::Pending, now());
    home.import(vec![before.entry(&branch)]).await.unwrap();
    let (facts, elsewhere) = told(&home, &object, branch.head()).await;
    let expected = Relation::Elsewhere { head: Some(link(at(2))), shown: link(branch.head()), shown_stored: true };
    assert_eq!((elsewhere, facts.head.unwrap().line), (expected, Line::MissesShown));
    assert_eq!(relation(&home.facts(CLUSTER, object.uid, at(2), &[]).await.unwrap(), at(2)), Relation::Same);

    // No row, while something is shown.
    let other = Object::new("other");
    let expected = Relation::Elsewhere { head: None, shown: link(at(0)), shown_stored: false };
    assert_eq!(told(&home, &other, at(0)).await.1, expected);
}

#[tokio::test]
async fn a_terminal_record_a_gap_and_a_head_without_its_record_are_told() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let states = [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted];
    let records = life(&home, &mut object, &states).await;
    let (_, relation) = told(&home, &object, records[3].head()).await;
    assert_eq!(relation, Relation::OneAhead { head: link(object.head), terminal: true });
    database.execute("DELETE FROM berth.container_status_history WHERE sequence = 3").await;
    let (facts, relation) = told(&home, &object, records[0].head()).await;
    assert_eq!(facts.head.unwrap().line, Line::Gap);
    assert_eq!(relation, Relation::FurtherAhead { head: link(object.head) });
    let asked: Vec<Head> = records.iter().map(Record::head).collect();
    let facts = home.facts(CLUSTER, object.uid, asked[0], &asked).await.unwrap();
    assert_eq!(facts.stored, [asked[0], asked[1], asked[3], asked[4]]);
    database.execute("DELETE FROM berth.container_status_history WHERE sequence = 5").await;
    let head = told(&home, &object, asked[0]).await.0.head.unwrap();
    assert_eq!((head.record, head.head, head.terminal), (None, object.head, true));
}

#[tokio::test]
async fn an_api_rewound_record_is_made_on_the_shown_head_that_it_names() {
    let (_database, home) = home().await;
    let mut object = Object::new("db");
    let records = life(&home, &mut object, &[State::Pending, State::Running, State::Paused]).await;
    let shown = records[0].head();
    let draft = Draft {
        kind: Kind::Resolution,
        uid: object.uid,
        from: Some(State::Paused),
        to: Some(State::Pending),
        reason: "ApiRewound".to_owned(),
        actor: Actor::Berth("rewound".to_owned()),
        generation: 1,
        operation: None,
        details: json!({"madeOn": {"sequence": shown.sequence, "hash": shown.hash.to_string()}}),
    };
    let record = draft.seal(Seal { cluster: CLUSTER, epoch: 2, at: now() }, object.head);
    home.submit(object.entry(&record)).await.unwrap();
    let (facts, relation) = told(&home, &object, shown).await;
    assert_eq!(facts.head.unwrap().made_on, Some(shown));
    assert_eq!(relation, Relation::OneAhead { head: link(record.head()), terminal: false });
}

#[tokio::test]
async fn heads_move_only_from_where_they_are_said_to_be_and_to_what_is_stored() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let before = object.clone();
    let records = life(&home, &mut object, &[State::Pending, State::Running]).await;
    let (shown, unknown) = (before.record(State::Pending, now()), before.record(State::Pending, now()));
    home.import(vec![before.entry(&shown)]).await.unwrap();
    let (old, new) = (records[1].head(), shown.head());
    let uid = object.uid;
    assert!(!home.head_follows(CLUSTER, uid, Some(records[0].head()), new).await.unwrap(), "it is not there");
    assert!(!home.head_follows(CLUSTER, uid, None, new).await.unwrap(), "there is a row");
    assert!(!home.head_follows(CLUSTER, uid, Some(old), unknown.head()).await.unwrap(), "not stored");
    assert!(home.head_follows(CLUSTER, uid, Some(old), new).await.unwrap());
    let known = home.head(CLUSTER, uid).await.unwrap().unwrap();
    assert_eq!((known.head, known.state), (new, Some(State::Pending)));
    // The present belongs to it, and the next record is written like any other.
    assert_eq!(database.number("SELECT sequence FROM berth.tenant_containers").await, 1);
    let mut shown_object = before.clone();
    shown_object.follow(&shown);
    home.submit(shown_object.step(State::Running)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM berth.tenant_containers WHERE status = 'running'").await, 1);

    database.execute("DELETE FROM berth.ledger_heads").await;
    assert!(!home.head_follows(CLUSTER, uid, Some(old), new).await.unwrap(), "there is no row");
    assert!(home.put_head(CLUSTER, uid, None, new, 7).await.unwrap());
    assert_eq!(home.ending(CLUSTER, uid, new).await.unwrap().closed_epoch, Some(7));
}

#[tokio::test]
async fn a_closed_head_is_opened_by_whatever_moves_it() {
    let (_database, home) = home().await;
    let mut object = Object::new("db");
    let records = life(&home, &mut object, &[State::Pending, State::Stopped, State::Deleted]).await;
    let uid = object.uid;
    let closed = async || home.ending(CLUSTER, uid, object.head).await.unwrap().closed_epoch;
    assert_eq!(closed().await, None);
    assert!(!home.close_head(CLUSTER, uid, records[1].head(), 5).await.unwrap(), "it stands elsewhere");
    assert!(home.close_head(CLUSTER, uid, object.head, 5).await.unwrap());
    assert_eq!(closed().await, Some(5));
    let mut again = object.clone();
    home.submit(again.step(State::Pending)).await.unwrap();
    assert_eq!(closed().await, None, "by a new record");
    assert!(home.put_head(CLUSTER, uid, Some(again.head), object.head, 6).await.unwrap());
    home.import(vec![Entry::Carried { record: record_of(&again.step(State::Running)), target: object.target() }])
        .await
        .unwrap();
    assert_eq!(closed().await, Some(6), "not by a record that does not follow it");
    assert!(home.head_follows(CLUSTER, uid, Some(object.head), records[1].head()).await.unwrap());
    assert_eq!(closed().await, None, "by following the status");
}

#[tokio::test]
async fn an_ending_tells_who_descends_from_whom() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let before = object.clone();
    let records = life(&home, &mut object, &[State::Pending, State::Stopped, State::Deleted]).await;
    let uid = object.uid;
    let ending = async |terminal: Head| home.ending(CLUSTER, uid, terminal).await.unwrap();
    let same = ending(object.head).await;
    assert_eq!((same.head, same.stored, same.descent), (Some(object.head), true, Descent::HeadFollows));
    assert_eq!(ending(records[1].head()).await.descent, Descent::HeadFollows);
    let stray = before.record(State::Pending, now());
    let unknown = ending(stray.head()).await;
    assert_eq!((unknown.stored, unknown.descent, unknown.gap), (false, Descent::Apart, false));
    assert!(home.put_head(CLUSTER, uid, Some(object.head), records[0].head(), 1).await.unwrap());
    assert_eq!(ending(object.head).await.descent, Descent::HeadPrecedes);
    database.execute("DELETE FROM berth.container_status_history WHERE sequence = 2").await;
    let hidden = ending(object.head).await;
    assert_eq!((hidden.descent, hidden.gap), (Descent::Apart, true), "a gap hides it");
    database.execute("DELETE FROM berth.ledger_heads").await;
    let none = ending(object.head).await;
    assert_eq!((none.head, none.stored, none.descent), (None, true, Descent::Apart));
}

#[tokio::test]
async fn spools_are_known_by_their_last_entry() {
    let (database, home) = home().await;
    home.note_spool(VOLUME, 10, 4).await.unwrap();
    database.execute("UPDATE berth.ledger_spools SET gone_at = now()").await;
    let gone = |spools: &[StoredSpool]| spools.iter().map(|spool| spool.gone).collect::<Vec<_>>();
    assert_eq!(gone(&home.spools().await.unwrap()), [true]);
    home.note_spool(VOLUME, 12, 12).await.unwrap();
    let spools = home.spools().await.unwrap();
    assert_eq!(gone(&spools), [false]);
    assert_eq!((spools[0].writer.as_str(), spools[0].last, spools[0].acknowledged), ("writer-0", 12, 12));
}

/// Its replica may have died in an outage, with records on its volume that no row tells of.
#[tokio::test]
async fn a_spool_that_nobody_tells_of_is_out_of_reach_and_keeps_everything_from_being_called_lost() {
    let (database, home) = home().await;
    home.note_spool(VOLUME, 12, 12).await.unwrap();
    let ledger = Ledger::open(&config(source(&database), "writer-1")).await.unwrap();
    let silent = || match ledger.health() {
        Health::Database { beside, .. } => beside.out_of_reach.load(Ordering::Relaxed),
        Health::Spool(_) => unreachable!("it has a database"),
    };
    let until = |exhausted: bool, expected: u64| {
        let ledger = &ledger;
        async move {
            let told = async {
                while (ledger.spools_exhausted().await, silent()) != (exhausted, expected) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let seen = tokio::time::timeout(Duration::from_secs(60), told).await;
            assert!(seen.is_ok(), "{expected} expected: {} are out of reach", silent());
        }
    };
    until(true, 0).await;
    database
        .execute("UPDATE berth.ledger_spools SET seen_at = now() - interval '2 minutes' WHERE writer = 'writer-0'")
        .await;
    until(false, 1).await;
    // Its replica is back with another volume, and ends again.
    assert!(home.note_spool(Uuid::from_u128(2), 1, 1).await.unwrap(), "the first one is left behind");
    until(false, 1).await;
    // Until that one is its volume again, and the second one is what it left behind.
    assert!(home.note_spool(VOLUME, 12, 12).await.unwrap());
    let of = async || home.spools().await.unwrap().into_iter().map(|spool| spool.volume).collect::<Vec<_>>();
    // Behind them is the other replica's.
    assert_eq!(of().await[..2], [Some(VOLUME), Some(Uuid::from_u128(2))]);
    home.settle_spool("writer-0", Uuid::from_u128(2), 1, false).await.unwrap();
    // As it was at another time, and then longer than ever: what it had in between is on none.
    assert!(home.note_spool(VOLUME, 6, 6).await.unwrap());
    assert!(!home.note_spool(VOLUME, 13, 13).await.unwrap());
    assert_eq!(of().await.len(), 4);
    database
        .execute("UPDATE berth.ledger_spools SET gone_at = now() WHERE writer <> 'writer-1' AND last_entry = 12")
        .await;
    until(true, 0).await;
    ledger.close().await;
}
