//! `berth timeline NAMESPACE/NAME`: what happened to an object, hop by hop.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Failure, Format, Verdict, home::Home, table};
use crate::{
    ledger::{Actor, Hash, Kind, Moment, Reading},
    lifecycle::State,
};

/// Arguments of `berth timeline`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The object.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = object)]
    object: (String, String),
    #[command(flatten)]
    home: Home,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn object(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME, as in team-a/search".to_owned()),
    }
}

/// The shape of `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeline<'a> {
    namespace: &'a str,
    name: &'a str,
    lives: Vec<Life<'a>>,
    damages: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Life<'a> {
    cluster: Uuid,
    uid: Uuid,
    kind: &'a str,
    state: Option<State>,
    records: Vec<Hop<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hop<'a> {
    sequence: u64,
    at: String,
    /// Since the record before it of the same life.
    micros_since_previous: Option<i64>,
    kind: Kind,
    from: Option<State>,
    to: Option<State>,
    reason: &'a str,
    actor: &'a Actor,
    generation: i64,
    epoch: u64,
    operation: Option<Uuid>,
    hash: Hash,
    superseded: bool,
    /// None where only the envelope survived.
    details: Option<Value>,
}

/// Runs it.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let (namespace, name) = &args.object;
    let reading = args.home.reader().await?.timeline(namespace, name).await?;
    print(args.output, namespace, name, &reading, out)
}

fn print(
    format: Format,
    namespace: &str,
    name: &str,
    reading: &Reading<Vec<Moment>>,
    out: &mut dyn Write,
) -> Result<Verdict, Failure> {
    let timeline = Timeline { namespace, name, lives: lives(&reading.value), damages: &reading.damages };
    match format {
        Format::Json => table::json(out, &timeline)?,
        Format::Table => people(&timeline, out)?,
    }
    Ok(if timeline.lives.is_empty() { Verdict::NotSo } else { Verdict::Well })
}

fn lives(moments: &[Moment]) -> Vec<Life<'_>> {
    moments
        .chunk_by(|a, b| (a.target.cluster, a.target.uid) == (b.target.cluster, b.target.uid))
        .map(|moments| {
            let target = &moments[0].target;
            let mut life =
                Life { cluster: target.cluster, uid: target.uid, kind: &target.kind, state: None, records: vec![] };
            let mut previous = None;
            for moment in moments {
                let envelope = moment.record.envelope();
                life.records.push(Hop {
                    sequence: envelope.seq,
                    at: table::moment(envelope.at),
                    micros_since_previous: previous.map(|at| envelope.at.0.saturating_sub(at)),
                    kind: envelope.kind,
                    from: envelope.from,
                    to: envelope.to,
                    reason: &envelope.reason,
                    actor: &envelope.actor,
                    generation: envelope.generation,
                    epoch: envelope.epoch,
                    operation: envelope.operation,
                    hash: moment.record.hash(),
                    superseded: moment.superseded,
                    details: moment.record.details().and_then(|details| serde_json::from_str(details).ok()),
                });
                if !moment.superseded {
                    previous = Some(envelope.at.0);
                    life.state = envelope.to.or(life.state);
                }
            }
            life
        })
        .collect()
}

fn people(timeline: &Timeline<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Timeline { namespace, name, lives, damages } = timeline;
    let (namespace, name) = (table::safe(namespace), table::safe(name));
    if lives.is_empty() {
        writeln!(out, "The ledger has no records of {namespace}/{name}.")?;
    }
    for (at, life) in lives.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        let count = if lives.len() > 1 { format!(", life {} of {}", at + 1, lives.len()) } else { String::new() };
        let state = life.state.map_or("no state", State::as_str);
        writeln!(out, "{namespace}/{name} ({} {}){count}: {state}", table::safe(life.kind), life.uid)?;
        let rows: Vec<_> = life.records.iter().map(row).collect();
        table::print(out, ["TIME", "AFTER", "FROM → TO", "REASON", "ACTOR", "MESSAGE"], &rows)?;
    }
    for damage in *damages {
        writeln!(out, "\nNot all could be read: {}", table::safe(damage))?;
    }
    Ok(())
}

fn row(hop: &Hop<'_>) -> [String; 6] {
    let state = |state: Option<State>| state.map_or("·", State::as_str);
    let hops = match (hop.kind, hop.superseded) {
        (_, true) => format!("({} → {}: superseded)", state(hop.from), state(hop.to)),
        (Kind::Transition, _) => format!("{} → {}", state(hop.from), state(hop.to)),
        (kind, _) if hop.to.is_some() => format!("{} → {} ({})", state(hop.from), state(hop.to), kind.as_str()),
        (kind, _) => format!("({})", kind.as_str()),
    };
    [
        hop.at.clone(),
        hop.micros_since_previous.map(table::duration).unwrap_or_default(),
        hops,
        hop.reason.to_owned(),
        String::from(hop.actor.clone()),
        message(hop.details.as_ref()),
    ]
}

/// What of the details is for people: their message, or all of them.
fn message(details: Option<&Value>) -> String {
    let Some(details) = details else { return "(only the envelope survived)".to_owned() };
    match details {
        Value::Object(fields) if fields.is_empty() => String::new(),
        Value::Object(fields) => match (fields.get("message"), fields.get("omitted")) {
            (Some(Value::String(message)), _) => message.clone(),
            (None, Some(omitted)) => format!("({} bytes of details were left out)", omitted["bytes"]),
            _ => details.to_string(),
        },
        _ => details.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{
        Entry,
        samples::{Sample, record},
    };

    fn moments() -> Vec<Moment> {
        let mut old = Sample::new(1);
        let mut young = Sample { uid: Uuid::from_u128(2), created_at: old.created_at + 90_000_000_000, ..old.clone() };
        let walk = [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted];
        let mut entries: Vec<Entry> = walk.into_iter().map(|to| old.step_to(to)).collect();
        entries.push(young.step_to(State::Pending));
        let mut draft = young.draft(Kind::Transition, Some(State::Failed));
        draft.details = serde_json::json!({"message": "evil \u{1b}[2J"});
        draft.actor = Actor::Guess("mallory\u{7}".to_owned());
        entries.push(young.take(draft.seal(young.seal(), young.head)));
        entries
            .iter()
            .map(|entry| Moment { target: old.target(), record: record(entry).clone(), superseded: false })
            .map(|mut moment| {
                moment.target.uid = moment.record.envelope().uid;
                moment
            })
            .collect()
    }

    fn printed(format: Format, moments: Vec<Moment>) -> (Verdict, String) {
        let mut out = vec![];
        let reading = Reading { value: moments, damages: vec![] };
        let verdict = print(format, "team", "user1", &reading, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    #[test]
    fn people_see_every_hop_of_every_life() {
        let (verdict, text) = printed(Format::Table, moments());
        assert_eq!(verdict, Verdict::Well);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn programs_get_a_stable_shape() {
        let (_, text) = printed(Format::Json, moments().split_off(5));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nothing_found_is_said_and_is_exit_code_1() {
        let (verdict, text) = printed(Format::Table, vec![]);
        assert_eq!((verdict, &*text), (Verdict::NotSo, "The ledger has no records of team/user1.\n"));
    }

    #[test]
    fn objects_are_named_with_their_namespace() {
        assert_eq!(object("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        for wrong in ["a", "/b", "a/", "a/b/c"] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }
}
