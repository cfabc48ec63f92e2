//! What Berth wrote to the API server, by the API server's own word: its audit log, which in this cluster has a line for
//! each write of Berth's account, and of nobody else.
//!
//! Owns: reading that log. Must never: take Berth's own counters for it.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::kubectl::{Error, environment};

/// A place in the log: what comes after it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// The log's end as of now.
pub fn mark() -> Result<Mark, Error> {
    Ok(Mark(lines()?.len()))
}

/// The writes since `mark`, one line each, but those to the Lease.
pub fn writes_since(mark: Mark) -> Result<Vec<String>, Error> {
    let lines = lines()?;
    let events = lines.iter().skip(mark.0).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.filter(|event| event["objectRef"]["resource"] != "leases").map(|event| describe(&event)).collect())
}

fn describe(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let subresource = object["subresource"].as_str().map_or(String::new(), |name| format!("/{name}"));
    format!(
        "{} {} {}{subresource} {}/{}: {}",
        text(&event["requestReceivedTimestamp"]),
        text(&event["verb"]),
        text(&object["resource"]),
        text(&object["namespace"]),
        text(&object["name"]),
        event["responseStatus"]["code"],
    )
}

fn lines() -> Result<Vec<String>, Error> {
    let path = PathBuf::from(environment("BERTH_STATE")?).join("log/audit.log");
    let text = fs::read_to_string(&path)
        .map_err(|source| Error::Start { command: format!("reading {}", path.display()), source })?;
    Ok(text.lines().map(str::to_owned).collect())
}
