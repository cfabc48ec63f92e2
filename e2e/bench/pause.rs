//! How long a service takes to leave its Service when it is paused, and to come back when it is resumed: as whoever balances
//! over its EndpointSlice sees it.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use berth_e2e::{
    objects::Tenant,
    scenario::{PATIENCE, Scenario},
};
use serde_json::{Value, json};

use super::{RUNS, print};

/// Twenty pauses and resumes of one service, whose CPU is given up each time.
pub(super) fn run(scenario: &Scenario) -> Result<(), Box<dyn Error>> {
    scenario.run(&Tenant::named("pausing").with("resources/cpu", "200m").with("drainSeconds", 0))?;
    let (mut pauses, mut resumes) = (vec![], vec![]);
    // The first is for the caches of everybody else.
    for run in 0..=RUNS {
        let pause = until(scenario, "Paused", 0)?;
        has_cpu(scenario, "50m")?;
        let resume = until(scenario, "Running", 1)?;
        scenario.until_ready("pausing", "Running")?;
        has_cpu(scenario, "200m")?;
        if run > 0 {
            pauses.push(pause);
            resumes.push(resume);
        }
    }
    scenario.delete("pausing")?;
    print("patch to out of its Service", pauses);
    print("patch to back in its Service", resumes);
    Ok(())
}

fn has_cpu(scenario: &Scenario, cpu: &str) -> Result<(), Box<dyn Error>> {
    scenario.eventually(&format!("the container to have {cpu}"), |_| {
        let pod = scenario.get("pod", "pausing-0")?;
        Ok((pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == cpu).then_some(()))
    })?;
    Ok(())
}

/// From the start of `kubectl patch` until a watch of the EndpointSlices, which was there before, tells of so many endpoints.
fn until(scenario: &Scenario, state: &str, count: usize) -> Result<Duration, Box<dyn Error>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut listening = Some(sender);
            let slices = ["get", "endpointslices", "--selector", "kubernetes.io/service-name=pausing"];
            scenario.admin.watch(&slices, PATIENCE, |slice| {
                if let Some(listening) = listening.take() {
                    // Nobody waits any more: then the error is told there.
                    let _ = listening.send(());
                }
                (ready(slice) == count).then(Instant::now)
            })
        });
        receiver.recv()?;
        let begun = Instant::now();
        scenario.change("pausing", &json!({"desiredState": state}))?;
        let ended = watch.join().map_err(|_| "the watch ended early")??;
        Ok(ended.saturating_duration_since(begun))
    })
}

fn ready(slice: &Value) -> usize {
    let all = slice["endpoints"].as_array().into_iter().flatten();
    all.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}
