//! A Concord data folder: marked as hub's or node's, used by one process at a time, with the addresses it listens on.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use concord_identity::FileError;
use serde::{Deserialize, Serialize};

/// The format that this version reads and writes. A folder of another one is not opened: `FolderError::OtherFormat`.
pub const FOLDER_FORMAT: u32 = 1;

const MARKER_FILE: &str = "concord.json";
const LOCK_FILE: &str = "lock";
const ADDRESSES_FILE: &str = "addresses.json";
const FOLDER_MODE: u32 = 0o700;
const LOCK_MODE: u32 = 0o600;
const LOCK_SIZE_MAX_BYTES: u64 = 32;

/// Whose data a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FolderKind {
    /// The hub's.
    Hub,
    /// A node's.
    Node,
}

impl fmt::Display for FolderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::Node => "node",
        })
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing is there.
    #[error("there is no folder {path}; check the path, or make it with `concord {kind} init`")]
    NotThere {
        /// Where it was looked for.
        path: String,
        /// As what.
        kind: FolderKind,
    },
    /// Something else is there.
    #[error("{path} is not a Concord data folder: {why}; check the path")]
    NotConcords {
        /// Where.
        path: String,
        /// What is missing or wrong.
        why: String,
    },
    /// The folder belongs to the other program.
    #[error("{path} is the data folder of a {found}, not of a {expected}; give the {expected}'s folder")]
    OtherKind {
        /// Where.
        path: String,
        /// Whose it is.
        found: FolderKind,
        /// Whose it should be.
        expected: FolderKind,
    },
    /// The folder was made by another version.
    #[error("{path} has format {found}, and this version knows format {FOLDER_FORMAT}; use the version that made it")]
    OtherFormat {
        /// Where.
        path: String,
        /// Its format.
        found: u32,
    },
    /// A new folder was asked for where files are.
    #[error("{path} is not empty; a new data folder needs an absent or empty one")]
    NotEmpty {
        /// Where.
        path: String,
    },
    /// Another process works on it.
    #[error("{path} is in use by {}; stop it first", in_words(*.pid))]
    InUse {
        /// Where.
        path: String,
        /// The process, if it wrote its id.
        pid: Option<u32>,
    },
    /// A small file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder itself could not be made, read or locked.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

fn in_words(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process with id {pid}"))
}

/// The addresses that a process listens on, for its next start and for client profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// gRPC.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
}

impl Addresses {
    /// Tells them on standard output, a line each: whoever started the process reads there that it is ready.
    pub fn announce(&self) -> io::Result<()> {
        let scheme = if self.admin.ip().is_loopback() { "http" } else { "https" };
        let mut out = io::stdout().lock();
        writeln!(out, "listen {}", self.listen)?;
        writeln!(out, "admin {scheme}://{}", self.admin)?;
        out.flush()
    }
}

#[derive(Serialize, Deserialize)]
struct Marker {
    kind: FolderKind,
    format: u32,
}

/// A data folder that exists, is Concord's and of the right kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    kind: FolderKind,
}

impl Folder {
    /// Makes a data folder of a path that is absent or empty. Durable when this returns; after a crash before the marker
    /// was written the folder is empty, and the same call makes it again.
    pub fn create(path: &Path, kind: FolderKind) -> Result<Self, FolderError> {
        let failed = |action, source| FolderError::Io { action, path: path.display().to_string(), source };
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(FolderError::NotEmpty { path: path.display().to_string() });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(FOLDER_MODE)
                    .create(path)
                    .map_err(|source| failed("make the folder", source))?;
                sync_parent(path).map_err(|source| failed("sync the parent of", source))?;
            }
            Err(source) => return Err(failed("read the folder", source)),
        }
        let marker = json(&Marker { kind, format: FOLDER_FORMAT }, path)?;
        write_durably(&path.join(MARKER_FILE), &marker, FileMode::Public)?;
        Ok(Self { path: path.to_owned(), kind })
    }

    /// Opens a data folder that [`Folder::create`] made.
    pub fn open(path: &Path, kind: FolderKind) -> Result<Self, FolderError> {
        let shown = || path.display().to_string();
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(FolderError::NotConcords { path: shown(), why: "it is a file".to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::NotThere { path: shown(), kind });
            }
            Err(source) => return Err(FolderError::Io { action: "look at", path: shown(), source }),
        }
        let text = match concord_identity::read_text(&path.join(MARKER_FILE)) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::NotConcords { path: shown(), why: format!("it has no {MARKER_FILE}") });
            }
            text => text?,
        };
        let marker: Marker = serde_json::from_str(&text).map_err(|error| FolderError::NotConcords {
            path: shown(),
            why: format!("its {MARKER_FILE} does not parse: {error}"),
        })?;
        if marker.kind != kind {
            return Err(FolderError::OtherKind { path: shown(), found: marker.kind, expected: kind });
        }
        if marker.format != FOLDER_FORMAT {
            return Err(FolderError::OtherFormat { path: shown(), found: marker.format });
        }
        Ok(Self { path: path.to_owned(), kind })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn kind(&self) -> FolderKind {
        self.kind
    }

    /// Takes the folder for this process until the lock is dropped, or the process ends, however it ends.
    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        let shown = || self.path.display().to_string();
        let failed = |source| FolderError::Io { action: "lock", path: shown(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(LOCK_MODE)
            .open(self.path.join(LOCK_FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = file.take(LOCK_SIZE_MAX_BYTES).read_to_string(&mut holder);
                let pid = read.ok().and_then(|_| holder.trim().parse().ok());
                return Err(FolderError::InUse { path: shown(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(failed)?;
        Ok(FolderLock { _file: file })
    }

    /// The addresses that the last process listened on, if any did.
    pub fn addresses(&self) -> Result<Option<Addresses>, FolderError> {
        let path = self.path.join(ADDRESSES_FILE);
        let text = match concord_identity::read_text(&path) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let addresses = serde_json::from_str(&text).map_err(|error| FolderError::Io {
            action: "understand",
            path: path.display().to_string(),
            source: error.into(),
        })?;
        Ok(Some(addresses))
    }

    /// Writes the addresses for clients on this machine and for the next start.
    pub fn write_addresses(&self, addresses: &Addresses) -> Result<(), FolderError> {
        let path = self.path.join(ADDRESSES_FILE);
        Ok(write_durably(&path, &json(addresses, &path)?, FileMode::Public)?)
    }
}

/// Shows that this process alone works on the folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Who may read a small file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// The owner only, 0600.
    Private,
    /// Everybody, 0644.
    Public,
}

/// Writes a small file whole or not at all, durable when this returns: temporary file, sync, rename, sync of the folder.
pub fn write_durably(path: &Path, bytes: &[u8], mode: FileMode) -> Result<(), FileError> {
    match mode {
        FileMode::Private => concord_identity::write_private(path, bytes),
        FileMode::Public => concord_identity::write_public(path, bytes),
    }
}

fn json(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, FolderError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| FolderError::Io {
        action: "write",
        path: path.display().to_string(),
        source: error.into(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_opens_only_as_what_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/hub");
        let error = Folder::open(&path, FolderKind::Hub).unwrap_err();
        assert!(matches!(error, FolderError::NotThere { .. }), "{error}");

        let made = Folder::create(&path, FolderKind::Hub).unwrap();
        assert_eq!(Folder::open(&path, FolderKind::Hub).unwrap(), made);
        assert_eq!(fs::read_to_string(path.join(MARKER_FILE)).unwrap(), "{\"kind\":\"hub\",\"format\":1}\n");

        let error = Folder::open(&path, FolderKind::Node).unwrap_err();
        assert!(error.to_string().contains("of a hub, not of a node"), "{error}");
        let error = Folder::create(&path, FolderKind::Hub).unwrap_err();
        assert!(matches!(error, FolderError::NotEmpty { .. }), "{error}");

        fs::write(path.join(MARKER_FILE), "{\"kind\":\"hub\",\"format\":2}").unwrap();
        let error = Folder::open(&path, FolderKind::Hub).unwrap_err();
        assert!(matches!(error, FolderError::OtherFormat { found: 2, .. }), "{error}");
        for text in ["", "{}", "[]", "{\"kind\":\"king\",\"format\":1}"] {
            fs::write(path.join(MARKER_FILE), text).unwrap();
            let error = Folder::open(&path, FolderKind::Hub).unwrap_err();
            assert!(matches!(error, FolderError::NotConcords { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn folders_and_files_of_others_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("letter"), "x").unwrap();
        for path in [place.path().to_owned(), place.path().join("letter")] {
            let error = Folder::open(&path, FolderKind::Node).unwrap_err();
            assert!(matches!(error, FolderError::NotConcords { .. }), "{error}");
            assert!(Folder::create(&path, FolderKind::Node).is_err());
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_second_user_of_a_folder_is_told_the_first_ones_process() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(place.path(), FolderKind::Node).unwrap();
        let lock = folder.lock().unwrap();
        let error = folder.lock().unwrap_err();
        let words = format!("the process with id {}", std::process::id());
        assert!(error.to_string().contains(&words), "{error}");
        drop(lock);
        folder.lock().unwrap();
    }

    #[test]
    fn addresses_are_read_as_written() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(place.path(), FolderKind::Node).unwrap();
        assert_eq!(folder.addresses().unwrap(), None);
        let addresses = Addresses { listen: "127.0.0.1:41234".parse().unwrap(), admin: "[::1]:41235".parse().unwrap() };
        folder.write_addresses(&addresses).unwrap();
        assert_eq!(folder.addresses().unwrap(), Some(addresses));
        assert_eq!(
            fs::read_to_string(place.path().join(ADDRESSES_FILE)).unwrap(),
            "{\"listen\":\"127.0.0.1:41234\",\"admin\":\"[::1]:41235\"}\n"
        );
        fs::write(place.path().join(ADDRESSES_FILE), "{}").unwrap();
        assert!(folder.addresses().is_err());
    }
}
