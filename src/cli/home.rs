//! Which home a reading command reads, from its flags and the environment.

use std::path::PathBuf;

use super::Failure;
use crate::ledger::{Reader, postgres};

/// Where the ledger is.
#[derive(clap::Args)]
pub(super) struct Home {
    /// URL of the ledger's database. Without any of these three: the environment variable DATABASE_URL.
    #[arg(long, value_name = "URL", conflicts_with_all = ["database_url_file", "spool"])]
    database_url: Option<String>,
    /// A file that holds the URL, as Secrets are mounted.
    #[arg(long, value_name = "FILE", conflicts_with = "spool")]
    database_url_file: Option<PathBuf>,
    /// A spool's folder: the live one of a replica, or a copy of it.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

impl Home {
    /// Opens the home for reading.
    pub(super) async fn reader(&self) -> Result<Reader, Failure> {
        if let Some(dir) = &self.spool {
            if !dir.join("_journal").is_dir() {
                let dir = dir.display();
                return Err(Failure::Usage(format!("{dir} is no spool: it has no folder _journal; check --spool")));
            }
            return Ok(Reader::Spool(dir.clone()));
        }
        match self.source() {
            Some(source) => Ok(Reader::Database(postgres::Reader::connect(&source).await?)),
            None => Err(Failure::Usage(
                "where is the ledger? Give --spool DIR, --database-url URL or --database-url-file FILE, \
                 or set DATABASE_URL"
                    .to_owned(),
            )),
        }
    }

    fn source(&self) -> Option<postgres::Source> {
        if let Some(path) = &self.database_url_file {
            return Some(postgres::Source::File(path.clone()));
        }
        let from_environment = || std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        self.database_url.clone().or_else(from_environment).map(postgres::Source::Url)
    }
}
