//! The seam to the storage: every access of this crate to a file goes through it.
//!
//! It is as small and as honest as a crash test needs: nothing is buffered behind it, a write is durable only
//! after `sync_data`, a created or removed name only after `sync_directory`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One flat folder of files.
pub trait Disk: Send + Sync {
    /// The names of all files, in any order; one may come twice while others come and go beside.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file for writing; fails if the name exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created and removed names durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// How many bytes this process may still write; others write too, so it is a hint and no promise.
    fn available_bytes(&self) -> io::Result<u64>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads at `offset` into the start of `buffer`; returns how many bytes, 0 only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes at the end. After an error any part of them may be there.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Writes all bytes at `offset`, in place of what stands there. After an error any part of them may be there.
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file to `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    folder: PathBuf,
}

impl RealDisk {
    /// Uses an existing folder.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let folder = folder.into();
        if !fs::metadata(&folder)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "a journal is a folder of segment files"));
        }
        Ok(RealDisk { folder })
    }

    /// Uses a folder, and makes it durably if it is not there.
    pub fn open_or_create(folder: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let folder = folder.into();
        create_durably(&folder)?;
        RealDisk::open(folder)
    }
}

fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    fs::create_dir(folder)?;
    File::open(parent)?.sync_all()
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.folder)?.map(|item| item.map(|item| item.file_name().into_string()));
        // A name that is not UTF-8 is none of ours.
        names.filter_map(|name| name.map(Result::ok).transpose()).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.folder.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(self.folder.join(name))?)))
    }

    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn available_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

/// Whether the error says that there is no room, for anybody or for this user.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // Not by the system's append mode, in which nothing can be overwritten: there is one writer.
        self.0.write_all_at(bytes, self.length()?)
    }

    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        concord_faults::failure("journal.sync")?;
        self.0.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

/// Reads exactly `count` bytes, or what is there before the end of the file, onto the end of `bytes`.
pub(crate) fn read_onto(file: &dyn DiskFile, offset: u64, count: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    let (start, end) = (bytes.len(), bytes.len() + count);
    let mut filled = start;
    bytes.resize(end, 0);
    while let Some(rest) = bytes.get_mut(filled..end).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + (filled - start) as u64, rest)? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(())
}
