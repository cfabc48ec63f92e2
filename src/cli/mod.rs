//! The commands of `berth`.
//!
//! Owns: the command line, what is printed, and the exit codes. Must never: let a control character from the
//! ledger reach a terminal; print a database's password.
//!
//! Exit codes, the same for every command that reads: 0 all is well and what was asked for is there; 1 it is not
//! (violations, not found, has been deleted); 2 the question could not be answered (usage, no home, unreachable).

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::ledger::{LedgerError, postgres::Source};

mod cluster;
mod crds;
mod get;
mod home;
mod migrate;
mod replay;
mod roles;
mod rollout;
mod run;
mod table;
mod timeline;
mod verify;

/// A Kubernetes operator that runs one containerised service per tenant and keeps a permanent ledger of it.
#[derive(Parser)]
#[command(name = "berth", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(run::Args),
    /// Bring the ledger's schema up to date.
    Migrate(migrate::Args),
    /// Print every state that an object was in, deleted objects too.
    Timeline(timeline::Args),
    /// Print a user's service as it is now, or say that it has been deleted.
    Get(get::Args),
    /// Prove that the ledger's rules held; name every violation.
    Verify(verify::Args),
    /// Bring everything that a spool holds into the database: for the volume of a replica that is gone.
    Replay(replay::Args),
    /// Show how far a rollout (kind Deployment of berth.dev) is, or approve a wave of it.
    Rollout(rollout::Args),
    /// Print the CustomResourceDefinitions, or write them to a folder, one file each.
    Crds(crds::Args),
    /// Print what an AccessGrant can give: the ClusterRoles, the built-in roles, and what the author of a grant has to hold.
    Roles(roles::Args),
}

/// Where the database is. Flags come before the environment; a file comes before a URL.
#[derive(clap::Args)]
struct Database {
    /// A file that holds the database's URL, as Secrets are mounted.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// URL of the ledger's database. A file is better: other users of the machine see a process's arguments.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

impl Database {
    fn source(&self) -> Option<Source> {
        let file = self.database_url_file.clone().filter(|path| !path.as_os_str().is_empty()).map(Source::File);
        file.or_else(|| self.database_url.clone().filter(|url| !url.is_empty()).map(Source::Url))
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs; the shape is documented in docs/ledger.md and only ever grows.
    Json,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit code 0.
    Well,
    /// Exit code 1.
    NotSo,
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", .0.explain())]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Usage(String),
    #[error("the cluster did not do what was asked ({doing}): {why}")]
    Cluster { doing: &'static str, why: String },
    #[error("the pod {pod} {why}")]
    Pod { pod: String, why: String },
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What an error of the API server's becomes.
fn asking(doing: &'static str) -> impl Fn(kube::Error) -> Failure + Copy {
    move |error| Failure::Cluster { doing, why: error.to_string() }
}

/// Runs the command; prints to standard output, and to standard error why it failed.
pub async fn run(cli: Cli) -> ExitCode {
    let mut out = io::stdout().lock();
    let done = match cli.command {
        Command::Run(args) => {
            drop(out);
            return Box::pin(run::run(args)).await;
        }
        Command::Migrate(args) => migrate::run(&args, &mut out).await,
        Command::Crds(args) => crds::run(&args, &mut out),
        Command::Rollout(args) => rollout::run(&args, &mut out).await,
        Command::Roles(args) => roles::run(&args, &mut out),
        Command::Timeline(args) => timeline::run(&args, &mut out).await,
        Command::Get(args) => get::run(&args, &mut out).await,
        Command::Replay(args) => replay::run(&args, &mut out).await,
        Command::Verify(args) => verify::run(&args, &mut out).await,
    };
    match done.and_then(|verdict| Ok(out.flush().map(|()| verdict)?)) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::NotSo) => ExitCode::from(1),
        // Whoever read our output has seen enough (`berth timeline … | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("berth: {}", table::safe(&failure.to_string()));
            ExitCode::from(2)
        }
    }
}
