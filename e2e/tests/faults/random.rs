//! Row 18: all of it at random, from a seed, for BERTH_FAULT_SECONDS.
//!
//! Owns: the order of what happens. Must never: conclude anything before it is fair again.

use std::{
    thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    faults::{
        Dice, api,
        clock::Clock,
        database,
        database::Weather,
        disk::Disk,
        operator::Process,
        report::{seconds, seed},
    },
    install,
    kubectl::Error,
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::json;

use crate::life::{HOUR, NAME, OTHER, SIZE, Theatre, theatre, timed};

/// Services at a time.
const SERVICES: u64 = 6;
/// How long the last of them may take, behind a backoff of a minute.
const PATIENCE: Duration = Duration::from_secs(240);

/// Two replicas, the first with a disk of its own for its spool, both with a clock that can be moved.
struct Driver<'a> {
    t: &'a Theatre,
    dice: Dice,
    processes: [(&'static str, Option<Process>); 2],
    disk: Disk,
    is_full: bool,
    is_gone: bool,
    clock: Clock,
    faults: u64,
}

impl Driver<'_> {
    /// As the kubelet does, also where one ended by itself.
    fn keep_running(&mut self) {
        let stand = &self.t.stand;
        for (name, process) in &mut self.processes {
            if process.as_mut().is_some_and(Process::runs) {
                continue;
            }
            if stand.leader().is_ok_and(|leader| leader.starts_with(*name)) {
                stand.free_lease().unwrap();
            }
            let program = install::program().unwrap();
            *process = Some(stand.start_other(name, &program, &self.clock.environment()).unwrap());
        }
    }

    /// Whatever was done is over, and everybody runs.
    fn fair(&mut self) {
        let stand = &self.t.stand;
        stand.api.fair();
        stand.database.fair();
        self.clock.is_off_by(0).unwrap();
        for (_, process) in &mut self.processes {
            if let Some(process) = process
                && process.runs()
            {
                process.signal("CONT").unwrap();
            }
        }
        if std::mem::take(&mut self.is_gone) {
            // Nobody may use it meanwhile.
            self.kill(0);
            self.disk.mend().unwrap();
        }
        if std::mem::take(&mut self.is_full) {
            self.disk.free().unwrap();
        }
        self.keep_running();
    }

    fn kill(&mut self, number: usize) {
        if let Some(process) = self.processes[number].1.take() {
            process.kill().unwrap();
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
        match self.dice.below(17) {
            number @ (0 | 10) => self.kill(usize::from(number == 10)),
            number @ (11 | 12) => {
                if let Some(process) = &mut self.processes[usize::from(number == 12)].1
                    && process.runs()
                {
                    process.signal("STOP").unwrap();
                }
            }
            13 if !self.is_full && !self.is_gone => {
                self.disk.fill().unwrap();
                self.is_full = true;
            }
            14 if !self.is_gone => {
                self.disk.pull_out().unwrap();
                self.is_gone = true;
            }
            15 => self.clock.is_off_by(HOUR).unwrap(),
            16 => self.clock.is_off_by(-HOUR).unwrap(),
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
    let mut driver = Driver {
        t: &t,
        dice: Dice::at(seed, 0),
        processes: [(NAME, None), (OTHER, None)],
        disk: Disk::mount(&t.stand.spool(NAME), SIZE).unwrap(),
        is_full: false,
        is_gone: false,
        clock: Clock::new().unwrap(),
        faults: 0,
    };
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
            _ => driver.fair(),
        }
        // So that the steps come at all paces; nothing is concluded from it.
        thread::sleep(Duration::from_millis(driver.dice.below(700)));
        steps += 1;
    }
    driver.fair();
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
    // One that stood still learns only now that it leads no more, and ends; what its spool has, it brings when it is started again.
    let has_brought = |process: &Process| {
        let metrics = process.get("/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == "berth_ledger_entries_behind 0")
    };
    let all_brought = |_: &berth_e2e::kubectl::Kubectl| {
        driver.keep_running();
        let mut processes = driver.processes.iter();
        Ok(processes.all(|(_, process)| process.as_ref().is_some_and(has_brought)).then_some(()))
    };
    t.s.admin.wait_for("both replicas have brought what they kept", PATIENCE, all_brought).unwrap();
    // Both checkers: a record that lost the race to be shown stays beside the line; they count it, and ask nobody to name it.
    t.settled();
    let report = t.report(18, steps, driver.faults, took);
    berth_e2e::faults::report::Report { seed: Some(seed), ..report }.print().unwrap();
}
