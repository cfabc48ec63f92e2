//! `berth crds`: the CustomResourceDefinitions that belong to this very binary.

use std::{fs, io::Write, path::PathBuf};

use super::{Failure, Verdict};
use crate::api;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Write `NAME.yaml` files here instead of printing one stream of documents.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Verdict, Failure> {
    for definition in api::definitions() {
        let text = api::render(&definition).map_err(std::io::Error::other)?;
        match &args.out {
            None => writeln!(out, "---\n{text}")?,
            Some(folder) => {
                fs::create_dir_all(folder)?;
                let name = definition.metadata.name.unwrap_or_default();
                fs::write(folder.join(format!("{name}.yaml")), text)?;
            }
        }
    }
    Ok(Verdict::Well)
}
