//! Which home a reading command reads, from its flags and the environment.

use std::{fs, path::PathBuf};

use super::Failure;
use crate::ledger::Reader;

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
        match self.url()? {
            Some(url) => database(&url).await,
            None => Err(Failure::Usage(
                "where is the ledger? Give --spool DIR, --database-url URL or --database-url-file FILE, \
                 or set DATABASE_URL"
                    .to_owned(),
            )),
        }
    }

    fn url(&self) -> Result<Option<String>, Failure> {
        if let Some(path) = &self.database_url_file {
            let text = fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
            return Ok(Some(text.trim().to_owned()));
        }
        let from_environment = || std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        Ok(self.database_url.clone().or_else(from_environment))
    }
}

/// The seam for the database's reader.
async fn database(_url: &str) -> Result<Reader, Failure> {
    Err(Failure::Usage("this build reads spools only; give --spool DIR".to_owned()))
}
