//! Row 3: what the operator sees of each kind that it watches is late, incomplete, in another order, or from before its
//! start.
//!
//! Owns: which events are withheld. Must never: withhold one for good that no list brings back; nobody could know of it.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use berth_e2e::{
    audit,
    faults::{api::WatchAct, operator::Process},
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, made_and_removed, theatre, timed};

/// Parts of the paths of all watches of the operator.
const KINDS: [&str; 8] = [
    "/tenantcontainers?",
    "/statefulsets?",
    "/pods?",
    "/persistentvolumeclaims?",
    "/services?",
    "/serviceaccounts?",
    "/poddisruptionbudgets?",
    "/api/v1/namespaces?",
];
/// How long a watch stands still before it goes on. Nothing is concluded from it: whatever is seen in between, and
/// whenever, the story is the same.
const STILL: Duration = Duration::from_millis(1_500);

/// What becomes of a kind's events.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    /// They stand still, and come.
    Held,
    /// They stand still, and are gone with their watch, which ends with 410: a list follows.
    Lost,
    /// Some never come, and later the watch ends with 410.
    Dropped,
    /// Two come the other way round.
    Reordered,
    /// The watch is ended again and again.
    Ended,
}

const SIGHTS: [Sight; 5] = [Sight::Held, Sight::Lost, Sight::Dropped, Sight::Reordered, Sight::Ended];

/// Disturbs what is seen of a kind until the life is over.
fn disturb(t: &Theatre, kind: &str, sight: Sight, over: &Receiver<()>) {
    let act = |act| t.stand.api.watches(kind, act);
    loop {
        match sight {
            Sight::Held | Sight::Lost => act(WatchAct::Hold),
            Sight::Dropped => act(WatchAct::Drop(2)),
            Sight::Reordered => act(WatchAct::Reorder),
            Sight::Ended => {}
        }
        let last = !matches!(over.recv_timeout(STILL), Err(RecvTimeoutError::Timeout));
        match sight {
            Sight::Held => act(WatchAct::Release),
            Sight::Lost | Sight::Dropped => {
                act(WatchAct::Gone);
                act(WatchAct::Release);
            }
            // What waits for a second one is not waited for longer than this.
            Sight::Reordered => act(WatchAct::Gone),
            Sight::Ended => act(WatchAct::End),
        }
        if last {
            t.stand.api.fair();
            return;
        }
    }
}

/// A life over whose middle the operator is killed while it sees nothing of a kind, and goes on from lists.
fn live_over_a_restart(t: &Theatre, name: &str, kind: &str, process: Process) -> (Value, Process) {
    let object = t.s.apply(&Tenant::named(name).simulated().with("drainSeconds", 0)).unwrap();
    t.until(name, |object| is_ready(object, "Running"));
    t.stand.api.watches(kind, WatchAct::Hold);
    t.s.change(name, &json!({"desiredState": "Stopped"})).unwrap();
    process.kill().unwrap();
    t.stand.free_lease().unwrap();
    // Its lists are new, its watches tell nothing.
    let process = t.stand.start(NAME).unwrap();
    t.stand.api.watches(kind, WatchAct::Release);
    t.until(name, |object| is_ready(object, "Stopped"));
    t.s.user.run(&["delete", "tc", name, "--wait=false"]).unwrap();
    t.until_gone(name);
    (object, process)
}

#[test]
fn what_is_seen_late_or_never_makes_no_other_story() {
    let Some(t) = theatre("unseen") else { return };
    let mut process = t.stand.start(NAME).unwrap();
    let reference = t.reference();
    let (mut lives, mut longest) = (0, Duration::ZERO);
    let judge = |object: &Value, mark, name: &str, what: &str| {
        t.until_told(object);
        t.is_the_story(object);
        assert_eq!(made_and_removed(mark, name), reference, "{what}");
    };
    for (place, kind) in KINDS.iter().enumerate() {
        for sight in SIGHTS {
            let name = format!("{}-{place}", format!("{sight:?}").to_lowercase());
            let mark = audit::mark().unwrap();
            let (object, took) = timed(|| {
                thread::scope(|scope| {
                    let (sender, over) = mpsc::channel();
                    let (t, kind) = (&t, *kind);
                    scope.spawn(move || disturb(t, kind, sight, &over));
                    let object = t.live(&name);
                    drop(sender);
                    object
                })
            });
            judge(&object, mark, &name, &format!("{kind} {sight:?}"));
            longest = longest.max(took);
            lives += 1;
        }
        let name = format!("restarted-{place}");
        let mark = audit::mark().unwrap();
        let (object, next) = live_over_a_restart(&t, &name, kind, process);
        process = next;
        judge(&object, mark, &name, &format!("{kind}, a restart"));
        lives += 1;
    }
    let struck = t.stand.api.counts().faults;
    t.settled();
    t.report(3, lives, struck, longest).print().unwrap();
}
