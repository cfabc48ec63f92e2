//! `berth verify`: proves that the ledger's rules held.

use std::io::Write;

use super::{Failure, Format, Verdict, cluster, home::Home, table};
use crate::ledger::Verified;

/// Arguments of `berth verify`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    home: Home,
    /// Also check what the objects of Berth's kinds show and carry, in the cluster that kubectl would talk to, and its
    /// tombstones.
    #[arg(long)]
    cluster: bool,
    /// Namespace of the operator, where tombstones are.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "berth-system")]
    namespace: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs it.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let reader = args.home.reader().await?;
    let verified = if args.cluster {
        let namespace = &args.namespace;
        reader.verify_with(async || cluster::shown(namespace).await).await?
    } else {
        reader.verify().await?
    };
    match args.output {
        Format::Json => json(&verified, out)?,
        Format::Table => people(&verified, out)?,
    }
    Ok(if verified.is_clean() { Verdict::Well } else { Verdict::NotSo })
}

fn json(verified: &Verified, out: &mut dyn Write) -> Result<(), Failure> {
    let Verified { report, standalone, damages, notes } = verified;
    let mut value = report.to_json();
    value["clean"] = verified.is_clean().into();
    value["standalone"] = (*standalone).into();
    value["damages"] = damages.as_slice().into();
    value["notes"] = notes.as_slice().into();
    table::json(out, &value)
}

fn people(verified: &Verified, out: &mut dyn Write) -> Result<(), Failure> {
    let Verified { report, standalone, damages, notes } = verified;
    for damage in damages {
        writeln!(out, "damaged: {}", table::safe(damage))?;
    }
    for violation in &report.violations {
        writeln!(out, "{}", table::safe(&violation.to_string()))?;
    }
    let unnamed = report.violation_count - report.violations.len() as u64;
    if unnamed > 0 {
        writeln!(out, "… and {unnamed} violations more")?;
    }
    for note in notes {
        writeln!(out, "note: {}", table::safe(note))?;
    }
    let told = [
        (report.superseded_count, "records lost the race to be shown; they are kept beside their chain"),
        (report.details_missing, "records survived without their details"),
        (report.carried, "records are carried by statuses or tombstones, on their way into the database"),
        (
            report.open_ends,
            "chains go on beyond their head; what replay brought there is up to their object or its tombstone",
        ),
        (report.named_gaps, "gaps are named by a record"),
        (report.clocks_back, "times the clock went back between two records"),
        (report.epochs_back, "times the epoch went back between two records"),
    ];
    for (count, what) in told.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "note: {count} {what}")?;
    }
    let wrong = report.violation_count + damages.len() as u64;
    let seen = format!("{} chains, {} records, {standalone} operations", report.chains, report.records);
    if wrong == 0 {
        writeln!(out, "Every rule held: {seen}.")?;
    } else {
        writeln!(out, "{} violations and {} damages in {seen}.", report.violation_count, damages.len())?;
    }
    Ok(())
}
