//! `berth migrate`: brings the ledger's schema up to date.

use std::io::Write;

use super::{Database, Failure, Verdict};
use crate::ledger::postgres;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only say what would be applied; exit 1 if anything would.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: &Args, out: &mut impl Write) -> Result<Verdict, Failure> {
    let source = args.database.source().ok_or_else(|| {
        Failure::Usage(
            "which database? Give --database-url-file FILE or --database-url URL, or set DATABASE_URL".to_owned(),
        )
    })?;
    let names = if args.check { postgres::pending(&source).await? } else { postgres::migrate(&source).await? };
    if names.is_empty() {
        writeln!(out, "the ledger's schema is up to date")?;
        return Ok(Verdict::Well);
    }
    for name in names {
        writeln!(out, "{} {name}", if args.check { "missing" } else { "applied" })?;
    }
    Ok(if args.check { Verdict::NotSo } else { Verdict::Well })
}
