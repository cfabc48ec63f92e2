//! The commands of `berth`. Each file is one command; this one only knows their names.

mod crds;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs one containerised service per tenant on Kubernetes, and keeps a permanent ledger of it in PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "berth", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the CustomResourceDefinitions, or write them to a folder, one file each.
    Crds(crds::Arguments),
}

/// Runs the command; the exit code is 0 for success, 1 for "no", 2 for wrong use or an unreachable store.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Crds(arguments) => crds::run(&arguments),
    }
}
