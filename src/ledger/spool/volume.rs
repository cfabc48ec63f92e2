//! Which volume this is: an id in a file of its own, made once and never changed.
//!
//! Owns: the file `_volume`. Must never: guess; a volume whose id cannot be read is another one.

use std::{fs, io, path::Path};

use uuid::Uuid;

use super::{
    disk::{self, Disk},
    scan::VOLUME,
};
use crate::ledger::error::LedgerError;

/// The volume's id, which is made where there is none.
pub(super) fn id(disk: &dyn Disk, dir: &Path) -> Result<Uuid, LedgerError> {
    let path = dir.join(VOLUME);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(id) => return Ok(id),
            Err(error) => tracing::warn!(file = %path.display(), %error, "no id of a volume; it gets another one"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(file = %path.display(), "no id of a volume; it gets another one");
        }
        Err(error) => return Err(LedgerError::spool(path, error)),
    }
    let id = Uuid::new_v4();
    disk::write_whole(disk, &path, format!("{id}\n").as_bytes()).map_err(|error| LedgerError::spool(&path, error))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::spool::disk::Os;

    #[test]
    fn an_id_stays_and_what_is_none_is_replaced() {
        let (disk, dir) = (Os::default(), tempfile::tempdir().unwrap());
        let first = id(&disk, dir.path()).unwrap();
        assert_eq!(id(&disk, dir.path()).unwrap(), first);
        for broken in [&b"no id"[..], b"\xff\xfe", b""] {
            fs::write(dir.path().join(VOLUME), broken).unwrap();
            let next = id(&disk, dir.path()).unwrap();
            assert_ne!(next, first);
            assert_eq!(id(&disk, dir.path()).unwrap(), next);
        }
    }
}
