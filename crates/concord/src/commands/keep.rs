//! Received bodies on disk: whole or not at all, durable before anybody acknowledges them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// What was received is for whoever runs the command, and for nobody else of that machine.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A folder that received bodies go to.
pub(super) struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// Takes the folder, and makes it where it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(|error| failure(folder, &error))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes a body as `name`: temporary file, sync, rename, sync of the folder. The same name again replaces it, so a
    /// repeat after a crash leaves one file.
    pub(super) fn put(&self, name: &str, body: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.part"));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
            // The mode above is for a new file; this one may have been left by a crash.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            file.write_all(body)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| failure(&path, &error))?;
        Ok(path)
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::failed("FILE", format!("cannot write {}: {error}", path.display()))
        .help("put it right and receive again: what was not acknowledged comes again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_whole_and_a_repeat_replaces_it() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(&place.path().join("deep/received")).unwrap();
        let path = shelf.put("a.csv", b"one").unwrap();
        assert_eq!(shelf.put("a.csv", b"two").unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&shelf.folder).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn what_a_crash_left_half_written_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(place.path()).unwrap();
        fs::write(place.path().join(".a.csv.part"), b"half of something longer").unwrap();
        fs::set_permissions(place.path().join(".a.csv.part"), Permissions::from_mode(0o644)).unwrap();
        let path = shelf.put("a.csv", b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
