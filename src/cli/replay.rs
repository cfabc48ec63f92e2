//! `berth replay`: brings a spool whose replica is gone into the database.
//!
//! For the volume of a replica that does not come back (docs/operations.md, "A spool is out of reach"): mounted by a pod of
//! the same image, or copied to where the database can be reached.

use std::{io::Write, path::PathBuf};

use super::{Database, Failure, Verdict};
use crate::ledger;

/// Arguments of `berth replay`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The spool's folder. No other process may have it open.
    #[arg(value_name = "DIR", env = "BERTH_SPOOL_DIR")]
    spool: PathBuf,
    /// Declare the spool gone afterwards: nothing more is expected from it.
    #[arg(long)]
    gone: bool,
    #[command(flatten)]
    database: Database,
}

/// Runs it.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let Some(source) = args.database.source() else {
        return Err(Failure::Usage(
            "where is the database? Give --database-url-file FILE or --database-url URL, or set DATABASE_URL"
                .to_owned(),
        ));
    };
    if !args.spool.join("_journal").is_dir() {
        let dir = args.spool.display();
        return Err(Failure::Usage(format!("{dir} is no spool: it has no folder _journal")));
    }
    let replayed = ledger::replay_once(&source, &args.spool, args.gone).await?;
    writeln!(
        out,
        "{}: {} entries read, {} were new to the database, {} were refused and are in berth.ledger_quarantine.",
        replayed.writer, replayed.entries, replayed.added, replayed.quarantined
    )?;
    for damage in &replayed.damages {
        writeln!(out, "damaged: {}", super::table::safe(damage))?;
    }
    Ok(if replayed.damages.is_empty() && replayed.quarantined == 0 { Verdict::Well } else { Verdict::NotSo })
}
