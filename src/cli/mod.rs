//! The commands of `berth`. Each file is one command; this one only knows their names.

mod crds;
mod migrate;
mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::ledger::postgres::Source;

/// Runs one containerised service per tenant on Kubernetes, and keeps a permanent ledger of it in PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "berth", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(run::Arguments),
    /// Bring the ledger's schema up to date.
    Migrate(migrate::Arguments),
    /// Print the CustomResourceDefinitions, or write them to a folder, one file each.
    Crds(crds::Arguments),
}

/// Where the database is.
#[derive(Debug, clap::Args)]
struct DatabaseArguments {
    /// File that holds the database's URL, as a Secret is mounted.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// URL of the database. A file is better: other users of the machine can see a process's arguments.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with = "database_url_file"
    )]
    database_url: Option<String>,
}

impl DatabaseArguments {
    fn source(self) -> Option<Source> {
        self.database_url_file.map(Source::File).or(self.database_url.map(Source::Url))
    }
}

/// Runs the command; the exit code is 0 for success, 1 for "no", 2 for wrong use or an unreachable store.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth: no threads can be started: {error}");
            return ExitCode::from(2);
        }
    };
    runtime.block_on(async {
        match command {
            Command::Run(arguments) => run::run(arguments).await,
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Crds(arguments) => crds::run(&arguments),
        }
    })
}
