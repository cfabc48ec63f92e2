//! `berth roles`: what an AccessGrant can give, as the chart reads it.

use std::{fs, io::Write, path::PathBuf};

use super::{Failure, Verdict};
use crate::access::permissions;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Write it to this file instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Verdict, Failure> {
    let text = permissions::render().map_err(std::io::Error::other)?;
    match &args.out {
        None => write!(out, "{text}")?,
        Some(file) => fs::write(file, text)?,
    }
    Ok(Verdict::Well)
}
