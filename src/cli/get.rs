//! `berth get --user U --service S`: a user's service as the ledger has it.
//!
//! A live service is preferred over a deleted one of the same name. Exit code 1 where none lives: it "has been
//! deleted", or never was; `-o json` tells the two apart in `found`.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Failure, Format, Verdict, home::Home, table};
use crate::{
    ledger::{Found, Hash, Reading},
    lifecycle::State,
};

/// Arguments of `berth get`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The user.
    #[arg(long)]
    user: String,
    /// The service's name.
    #[arg(long)]
    service: String,
    #[command(flatten)]
    home: Home,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The shape of `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Get<'a> {
    user: &'a str,
    service: &'a str,
    found: What,
    containers: Vec<Container<'a>>,
    damages: &'a [String],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Live,
    Deleted,
    None,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    cluster: Uuid,
    uid: Uuid,
    namespace: &'a str,
    name: &'a str,
    tenant_org: &'a str,
    status: Option<State>,
    deleted: bool,
    since: String,
    created_at: String,
    replicas: i32,
    cpu_millis: i64,
    memory_bytes: i64,
    disk_bytes: i64,
    gpu_count: i32,
    dimension: Option<i32>,
    vector_count: Option<i64>,
    generation: i64,
    sequence: u64,
    head: Hash,
    spec: &'a Value,
}

/// Runs it.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let reading = args.home.reader().await?.find(&args.user, &args.service).await?;
    print(args.output, &args.user, &args.service, &reading, out)
}

fn print(
    format: Format,
    user: &str,
    service: &str,
    reading: &Reading<Vec<Found>>,
    out: &mut dyn Write,
) -> Result<Verdict, Failure> {
    let lives = |found: &&Found| found.snapshot.present.state != Some(State::Deleted);
    let live: Vec<_> = reading.value.iter().filter(lives).map(Container::from).collect();
    let (found, containers) = match (live.is_empty(), reading.value.first()) {
        (false, _) => (What::Live, live),
        (true, Some(deleted)) => (What::Deleted, vec![Container::from(deleted)]),
        (true, None) => (What::None, vec![]),
    };
    let get = Get { user, service, found, containers, damages: &reading.damages };
    match format {
        Format::Json => table::json(out, &get)?,
        Format::Table => people(&get, out)?,
    }
    Ok(if found == What::Live { Verdict::Well } else { Verdict::NotSo })
}

impl<'a> From<&'a Found> for Container<'a> {
    fn from(Found { snapshot, since }: &'a Found) -> Self {
        let service = &snapshot.present;
        Self {
            cluster: snapshot.target.cluster,
            uid: snapshot.target.uid,
            namespace: &snapshot.target.namespace,
            name: &snapshot.target.name,
            tenant_org: &service.tenant_org,
            status: service.state,
            deleted: service.state == Some(State::Deleted),
            since: table::moment(*since),
            created_at: table::moment(snapshot.created_at),
            replicas: service.replicas,
            cpu_millis: service.cpu_millis,
            memory_bytes: service.memory_bytes,
            disk_bytes: service.disk_bytes,
            gpu_count: service.gpu_count,
            dimension: service.dimension,
            vector_count: service.vector_count,
            generation: snapshot.generation,
            sequence: snapshot.head.sequence,
            head: snapshot.head.hash,
            spec: &service.spec,
        }
    }
}

fn people(get: &Get<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Get { user, service, found, containers, damages } = get;
    let (user, service) = (table::safe(user), table::safe(service));
    match found {
        What::None => writeln!(out, "The ledger knows no service {service} of user {user}.")?,
        What::Deleted => {
            for container in containers {
                let (namespace, name) = (table::safe(container.namespace), table::safe(container.name));
                writeln!(
                    out,
                    "Service {service} of user {user} ({namespace}/{name}) has been deleted, at {}.",
                    container.since
                )?;
            }
        }
        What::Live => {
            for (at, container) in containers.iter().enumerate() {
                if at > 0 {
                    writeln!(out)?;
                }
                live(&user, &service, container, out)?;
            }
        }
    }
    for damage in *damages {
        writeln!(out, "\nNot all could be read: {}", table::safe(damage))?;
    }
    Ok(())
}

fn live(user: &str, service: &str, container: &Container<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let optional = |number: Option<i64>| number.map_or("not declared".to_owned(), |number| number.to_string());
    let lines = [
        ("Service", format!("{service} of user {user}, tenant {}", container.tenant_org)),
        ("Object", format!("{}/{} ({})", container.namespace, container.name, container.uid)),
        ("State", format!("{} since {}", container.status.map_or("none yet", State::as_str), container.since)),
        ("Created", container.created_at.clone()),
        ("Replicas", container.replicas.to_string()),
        ("CPU", format!("{} m", container.cpu_millis)),
        ("Memory", format!("{} bytes", container.memory_bytes)),
        ("Disk", format!("{} bytes", container.disk_bytes)),
        ("GPUs", container.gpu_count.to_string()),
        ("Dimension", optional(container.dimension.map(i64::from))),
        ("Vectors", optional(container.vector_count)),
        ("Ledger", format!("sequence {}, head {}", container.sequence, container.head)),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<10} {}", table::safe(&value))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Micros, samples::Sample};

    fn found(state: State) -> Found {
        let mut sample = Sample::new(1);
        sample.step();
        sample.state = Some(state);
        Found { snapshot: sample.snapshot().into_service().unwrap(), since: Micros(1_700_000_000_000_000) }
    }

    fn printed(format: Format, found: Vec<Found>) -> (Verdict, String) {
        let mut out = vec![];
        let reading = Reading { value: found, damages: vec![] };
        let verdict = print(format, "user1", "vectors", &reading, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_live_service_is_shown_and_a_deleted_one_of_its_name_is_not() {
        let (verdict, text) = printed(Format::Table, vec![found(State::Running), found(State::Deleted)]);
        assert_eq!(verdict, Verdict::Well);
        insta::assert_snapshot!(text);
        let (_, json) = printed(Format::Json, vec![found(State::Running)]);
        insta::assert_snapshot!(json);
    }

    #[test]
    fn a_deleted_service_has_been_deleted() {
        let (verdict, text) = printed(Format::Table, vec![found(State::Deleted)]);
        assert_eq!(verdict, Verdict::NotSo);
        insta::assert_snapshot!(text, @"Service vectors of user user1 (team/user1) has been deleted, at 2023-11-14T22:13:20.000000Z.");
    }

    #[test]
    fn an_unknown_service_is_said_to_be_unknown() {
        let (verdict, text) = printed(Format::Table, vec![]);
        assert_eq!((verdict, &*text), (Verdict::NotSo, "The ledger knows no service vectors of user user1.\n"));
    }
}
