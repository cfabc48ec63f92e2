//! The command `berth`: parses and calls, nothing else.

use std::process::ExitCode;

use berth::cli::{Cli, run};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse()).await
}
