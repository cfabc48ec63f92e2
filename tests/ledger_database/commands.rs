//! `berth timeline`, `get` and `verify` over the database, as a user runs them.

use std::process::{Command, Output};

use berth::lifecycle::State;

use crate::{
    ledger,
    objects::{Object, service},
};

pub fn berth(args: &[&str], url: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_berth")).args(args).env("DATABASE_URL", url).output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_read_the_database_and_find_an_altered_row() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("search");
    for to in [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted] {
        ledger.submit(object.step(to)).await.unwrap();
    }
    let target = object.target();
    let (code, said) = berth(&["timeline", &format!("{}/{}", target.namespace, target.name)], &database.url());
    assert!(code == Some(0) && said.contains("stopped → deleted"), "{said}");
    let mut snapshot = object.snapshot();
    let service = service(&mut snapshot);
    let (code, said) = berth(&["get", "--user", &service.user, "--service", &service.service_name], &database.url());
    assert!(code == Some(1) && said.contains("has been deleted"), "{said}");
    let (code, said) = berth(&["verify"], &database.url());
    assert!(code == Some(0) && said.contains("Every rule held: 1 chains, 5 records"), "{said}");
    database.execute("UPDATE berth.container_status_history SET actor = 'user:mallory' WHERE sequence = 3").await;
    let (code, said) = berth(&["verify"], &database.url());
    assert!(code == Some(1) && said.contains("sequence 3: the record hashes to"), "{said}");
    database.execute("DELETE FROM berth.container_status_history WHERE sequence = 3").await;
    let (code, said) = berth(&["verify", "-o", "json"], &database.url());
    assert!(code == Some(1) && said.contains("predecessor-missing"), "{said}");
}
