//! What is as it should be costs nothing.

use std::{thread, time::Duration};

use berth_e2e::{audit, install, objects::Tenant, scale};

use crate::alone;

#[test]
fn a_quiet_minute_and_a_restart_write_nothing_but_the_lease() {
    let Some(s) = alone("quiet") else { return };
    s.run(&Tenant::named("runs").with("resources/disk", "16Mi").with("replicas", 2)).unwrap();
    s.apply(&Tenant::named("stopped").with("desiredState", "Stopped")).unwrap();
    s.until_ready("stopped", "Stopped").unwrap();
    s.apply(&Tenant::named("broken").with("image", "localhost/nowhere/nothing:1")).unwrap();
    s.until_stalled("broken", "ImagePull").unwrap();
    s.apply(&Tenant::named("twice").with("serviceName", "runs")).unwrap();
    s.until_stalled("twice", "Duplicate").unwrap();
    s.until_synced().unwrap();
    // What others left in other namespaces may still be going.
    s.eventually("ten seconds without a write", |_| {
        let mark = audit::mark()?;
        thread::sleep(Duration::from_secs(10));
        Ok(audit::writes_since(mark)?.is_empty().then_some(()))
    })
    .unwrap();

    let mark = audit::mark().unwrap();
    // Not a wait for something: this minute is what is measured.
    thread::sleep(Duration::from_secs(60));
    let writes = audit::writes_since(mark).unwrap();
    assert!(writes.is_empty(), "in a quiet minute: {writes:#?}");

    let mark = audit::mark().unwrap();
    install::restart().unwrap();
    // It leads and has read everything (that is what ready means), and looked at each object once.
    s.eventually("a pass over each of the four", |_| Ok((scale::passes()? >= 4).then_some(()))).unwrap();
    let writes = audit::writes_since(mark).unwrap();
    assert!(writes.is_empty(), "after a restart: {writes:#?}");
}
