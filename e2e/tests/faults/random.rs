//! Row 18: all of it at random, from a seed, for BERTH_FAULT_SECONDS.
//!
//! Owns: the order of what happens. Must never: conclude anything before it is fair again.

use std::{
    thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    faults::{
        Dice, api, database,
        database::Weather,
        operator::Process,
        report::{seconds, seed},
    },
    kubectl::Error,
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::json;

use crate::life::{NAME, Theatre, theatre, timed};

/// Services at a time.
const SERVICES: u64 = 6;
/// How long the last of them may take, behind a backoff of a minute.
const PATIENCE: Duration = Duration::from_secs(240);

struct Driver<'a> {
    t: &'a Theatre,
    dice: Dice,
    process: Option<Process>,
    faults: u64,
}

impl Driver<'_> {
    /// As the kubelet does, also when it ended by itself.
    fn keep_running(&mut self) {
        if self.process.as_mut().is_none_or(|process| !process.runs()) {
            self.t.stand.free_lease().unwrap();
            self.process = Some(self.t.stand.start_unready(NAME).unwrap());
        }
    }

    /// What a user does. It may be refused: of a service that is not there, or on its way out.
    fn edit(&mut self) -> Result<(), Error> {
        let user = &self.t.s.user;
        let name = format!("service-{}", self.dice.below(SERVICES));
        let patch = |spec| {
            let patch = json!({ "spec": spec }).to_string();
            user.run(&["patch", "tc", &name, "--type=merge", "--patch", &patch]).map(drop)
        };
        match self.dice.below(7) {
            0..=2 => {
                let manifest = Tenant::named(&name).simulated().with("drainSeconds", 0);
                self.t.s.apply(&manifest).map(drop)
            }
            3 => patch(json!({"desiredState": "Stopped"})),
            4 => patch(json!({"desiredState": "Running"})),
            5 => patch(json!({"replicas": 1 + self.dice.below(3)})),
            _ => user.run(&["delete", "tc", &name, "--wait=false"]).map(drop),
        }
    }

    fn disturb(&mut self) {
        let stand = &self.t.stand;
        self.faults += 1;
        match self.dice.below(10) {
            0 => {
                if let Some(process) = self.process.take() {
                    process.kill().unwrap();
                }
            }
            1 | 2 => stand.api.randomly(api::Random { seed: self.dice.draw(), per_mille: 60, ..Default::default() }),
            3 => stand.database.randomly(database::Random { seed: self.dice.draw(), per_mille: 60, silence: true }),
            4 => stand.database.set(Weather::Refuse),
            5 => stand.database.set(Weather::BlackHole),
            6 => stand.database.set(Weather::Slow(Duration::from_millis(300))),
            7 => stand.api.watches("/tenantcontainers?", api::WatchAct::Gone),
            8 => stand.api.watches("/statefulsets?", api::WatchAct::Hold),
            _ => stand.database.cut(),
        }
    }
}

#[test]
fn all_of_it_at_random() {
    let Some(t) = theatre("random") else { return };
    let seed = seed();
    eprintln!("seed {seed}");
    let mut driver = Driver { t: &t, dice: Dice::at(seed, 0), process: None, faults: 0 };
    let end = Instant::now() + seconds(60);
    let mut steps = 0;
    while Instant::now() < end {
        driver.keep_running();
        match driver.dice.below(10) {
            0..=5 => {
                if let Err(error @ Error::Start { .. }) = driver.edit() {
                    panic!("{error}");
                }
            }
            6 | 7 => driver.disturb(),
            _ => {
                t.stand.api.fair();
                t.stand.database.fair();
            }
        }
        // So that the steps come at all paces; nothing is concluded from it.
        thread::sleep(Duration::from_millis(driver.dice.below(700)));
        steps += 1;
    }
    t.stand.api.fair();
    t.stand.database.fair();
    driver.keep_running();
    let all_as_desired = |admin: &berth_e2e::kubectl::Kubectl| {
        driver.keep_running();
        let all = admin.json(&["get", "tc"])?;
        let all = all["items"].as_array().cloned().unwrap_or_default();
        let as_desired = all.iter().all(|object| {
            let phase = if object["spec"]["desiredState"] == "Stopped" { "Stopped" } else { "Running" };
            object["metadata"]["deletionTimestamp"].is_null() && is_ready(object, phase)
        });
        Ok(as_desired.then_some(()))
    };
    let ((), took) =
        timed(|| t.s.admin.wait_for("all is as desired once it is fair", PATIENCE, all_as_desired).unwrap());
    // Both checkers: a record that lost the race to be shown stays beside the line; they count it, and ask nobody to name it.
    t.settled();
    let report = t.report(18, steps, driver.faults, took);
    berth_e2e::faults::report::Report { seed: Some(seed), ..report }.print().unwrap();
}
