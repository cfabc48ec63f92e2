//! `berth crds`: the CustomResourceDefinitions that belong to this very binary.

use std::{fs, io, path::PathBuf, process::ExitCode};

use crate::api;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write `NAME.yaml` files here instead of printing one stream of documents.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match print(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth crds: {error}");
            ExitCode::from(2)
        }
    }
}

fn print(arguments: &Arguments) -> io::Result<()> {
    for definition in api::definitions() {
        let text = api::render(&definition).map_err(io::Error::other)?;
        match &arguments.out {
            None => println!("---\n{text}"),
            Some(folder) => {
                fs::create_dir_all(folder)?;
                let name = definition.metadata.name.unwrap_or_default();
                fs::write(folder.join(format!("{name}.yaml")), text)?;
            }
        }
    }
    Ok(())
}
