//! The command `berth`: parses and calls, nothing else.

use std::process::ExitCode;

use berth::cli::{Cli, STACK, run};
use clap::Parser;

fn main() -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime.block_on(run(Cli::parse())),
        Err(error) => {
            eprintln!("berth: no thread can be started: {error}");
            ExitCode::FAILURE
        }
    }
}
