//! `berth replay`: brings a spool whose replica is gone into the database.
//!
//! The spool is a folder that this process can read, or a claim, which a pod of the operator's own image reads beside the
//! database (`claim`).

use std::{convert::Infallible, io::Write, path::PathBuf, str::FromStr};

use super::{Database, Failure, Verdict};
use crate::ledger::{self, Pace};

mod claim;
mod pod;

/// What a claim's name begins with, as for kubectl.
const CLAIM: &str = "pvc/";

/// Arguments of `berth replay`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The spool: its folder, or pvc/NAME for a claim of the cluster that kubectl would talk to. The claim is read by a pod of
    /// the operator's image, with the operator's database, whatever is said of a database here. Nobody else may have it open.
    #[arg(value_name = "DIR|pvc/NAME", env = "BERTH_SPOOL_DIR")]
    spool: Place,
    /// Declare the spool gone afterwards: nothing more is expected from it.
    #[arg(long)]
    gone: bool,
    /// Namespace of the operator and the claim.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "berth-system")]
    namespace: String,
    #[command(flatten)]
    database: Database,
}

/// Where a spool is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Claim(String),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix(CLAIM) {
            Some(name) if !name.is_empty() => Self::Claim(name.to_owned()),
            _ => Self::Folder(text.into()),
        })
    }
}

/// Runs it.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let spool = match &args.spool {
        Place::Claim(name) => return claim::replay(&args.namespace, name, args.gone, out).await,
        Place::Folder(spool) => spool,
    };
    let Some(source) = args.database.source() else {
        return Err(Failure::Usage(
            "where is the database? Give --database-url-file FILE or --database-url URL, or set DATABASE_URL"
                .to_owned(),
        ));
    };
    if !spool.join("_journal").is_dir() {
        let dir = spool.display();
        return Err(Failure::Usage(format!(
            "{dir} is no spool: it has no folder _journal (a claim is named as {CLAIM}NAME)"
        )));
    }
    let told = |Pace { left, per_second, seconds_to_go }| {
        eprintln!("{left} entries left, {per_second} a second, {seconds_to_go} s to go");
    };
    let replayed = ledger::replay_once(&source, spool, args.gone, told).await?;
    writeln!(
        out,
        "{}: {} entries read, {} were new to the database, {} were refused and are in berth.ledger_quarantine.",
        replayed.writer, replayed.entries, replayed.added, replayed.quarantined
    )?;
    for damage in &replayed.damages {
        writeln!(out, "damaged: {}", super::table::safe(damage))?;
    }
    Ok(if replayed.damages.is_empty() && replayed.quarantined == 0 { Verdict::Well } else { Verdict::NotSo })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_named_as_for_kubectl_and_anything_else_is_a_folder() {
        assert_eq!("pvc/spool-berth-1".parse(), Ok(Place::Claim("spool-berth-1".to_owned())));
        for folder in ["/var/lib/berth/spool", "./pvc/x", "pvc/", "spool"] {
            assert_eq!(folder.parse(), Ok(Place::Folder(folder.into())));
        }
    }
}
