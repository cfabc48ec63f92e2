//! The command `berth`: parses and calls, nothing else.

use std::process::ExitCode;

use berth::cli::{Cli, run};
use clap::Parser;

/// Of a thread that works, in bytes. The ordinary 2 MiB were too few for a debug build that repaired a forked chain from inside
/// the controller's, the client's and the database's futures; memory is taken only as far as a stack has ever grown.
const STACK: usize = 16 << 20;

fn main() -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime.block_on(run(Cli::parse())),
        Err(error) => {
            eprintln!("berth: no thread can be started: {error}");
            ExitCode::FAILURE
        }
    }
}
