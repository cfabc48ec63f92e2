//! `berth migrate`: brings the ledger's schema up to date.

use std::process::ExitCode;

use super::DatabaseArguments;
use crate::ledger::postgres;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only say what would be applied; exit 1 if anything would.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let Some(source) = arguments.database.source() else {
        eprintln!("berth migrate: no database: set DATABASE_URL, or give --database-url-file");
        return ExitCode::from(2);
    };
    let result = if arguments.check { postgres::pending(&source).await } else { postgres::migrate(&source).await };
    match result {
        Ok(names) if names.is_empty() => {
            println!("the ledger's schema is up to date");
            ExitCode::SUCCESS
        }
        Ok(names) => {
            for name in names {
                println!("{} {name}", if arguments.check { "missing" } else { "applied" });
            }
            ExitCode::from(u8::from(arguments.check))
        }
        Err(error) => {
            eprintln!("berth migrate: {}", error.explain());
            ExitCode::from(2)
        }
    }
}
