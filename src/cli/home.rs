//! Which home a reading command reads, from its flags and the environment.

use std::path::PathBuf;

use super::{Database, Failure};
use crate::ledger::{Reader, postgres};

/// Where the ledger is: a spool that is named, else the database, else the spool of the replica that this runs in.
#[derive(clap::Args)]
pub(super) struct Home {
    #[command(flatten)]
    database: Database,
    /// A spool's folder: the live one of a replica, or a copy of it. Without it and without a database: the
    /// environment variable BERTH_SPOOL_DIR.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

impl Home {
    /// Opens the home for reading.
    pub(super) async fn reader(&self) -> Result<Reader, Failure> {
        if let Some(dir) = &self.spool {
            return spool(dir.clone());
        }
        if let Some(source) = self.database.source() {
            return Ok(Reader::Database(postgres::Reader::connect(&source).await?));
        }
        match std::env::var_os("BERTH_SPOOL_DIR") {
            Some(dir) => spool(dir.into()),
            None => Err(Failure::Usage(
                "where is the ledger? Give --spool DIR, --database-url-file FILE or --database-url URL, \
                 or set DATABASE_URL"
                    .to_owned(),
            )),
        }
    }
}

fn spool(dir: PathBuf) -> Result<Reader, Failure> {
    if !dir.join("_journal").is_dir() {
        let dir = dir.display();
        return Err(Failure::Usage(format!("{dir} is no spool: it has no folder _journal; check --spool")));
    }
    Ok(Reader::Spool(dir))
}
