//! A backup as a file: opened by its manifest, checked to its last byte, and read like a journal's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_journal::{Disk, DiskFile};
use sha2::{Digest as _, Sha256};

use crate::manifest::{BACKUP_FORMAT, FileEntry, MANIFEST_SIZE_MAX_BYTES, Manifest};
use crate::place::JOURNAL_FOLDER;
use crate::send::CHUNK_SIZE_BYTES;
use crate::{BackupError, HEAD_SIZE_BYTES, MAGIC, SIGNATURE_DOMAIN, SIGNATURE_SIZE_BYTES, SUM_SIZE_BYTES, disk};

/// A backup whose manifest was read; its content is not yet checked.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    file: Arc<File>,
    manifest: Manifest,
    /// Where each file of the manifest begins.
    offsets: Vec<u64>,
    length: u64,
}

/// Shows that every byte is as it was written, and the journal in it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What the journal in it holds.
    pub journal: concord_journal::Verified,
}

impl Backup {
    /// Whether a file says that it is a backup; a folder does not.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; MAGIC.len()];
        path.is_file()
            && File::open(path).is_ok_and(|file| file.read_exact_at(&mut magic, 0).is_ok() && magic == *MAGIC)
    }

    /// Opens a backup and reads its manifest. Refuses what is too short or too long for it.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let not_one = |what: &str| BackupError::NotABackup { path: path.to_owned(), what: what.to_owned() };
        let damaged = |what: String| BackupError::Damaged { path: path.to_owned(), what };
        let file = File::open(path).map_err(disk("read", path))?;
        let meta = file.metadata().map_err(disk("read", path))?;
        if !meta.is_file() {
            return Err(not_one("it is not a file"));
        }
        let mut head = [0; HEAD_SIZE_BYTES as usize];
        file.read_exact_at(&mut head, 0).map_err(|_| not_one("it is too short"))?;
        let Some(rest) = head.strip_prefix(MAGIC) else {
            return Err(not_one("it begins otherwise"));
        };
        let number =
            |at: usize| rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let (format, manifest_length) = (number(0), u64::from(number(4)));
        if format != BACKUP_FORMAT {
            return Err(BackupError::OtherFormat { path: path.to_owned(), found: format });
        }
        if manifest_length > MANIFEST_SIZE_MAX_BYTES {
            return Err(damaged(format!("its manifest would be {manifest_length} bytes long")));
        }
        let mut json = vec![0; usize::try_from(manifest_length).unwrap_or_default()];
        file.read_exact_at(&mut json, HEAD_SIZE_BYTES).map_err(|_| damaged("it ends in its manifest".to_owned()))?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| damaged(format!("its manifest does not parse: {error}")))?;
        if let Some(fault) = manifest.fault() {
            return Err(damaged(format!("its manifest is impossible: {fault}")));
        }
        let (mut offsets, mut end) = (Vec::new(), HEAD_SIZE_BYTES + manifest_length);
        for entry in &manifest.files {
            offsets.push(end);
            end = end.checked_add(entry.size).ok_or_else(|| damaged("its sizes are impossible".to_owned()))?;
        }
        let sums = SUM_SIZE_BYTES * (manifest.files.len() as u64 + 1) + SIGNATURE_SIZE_BYTES;
        let wanted = end.checked_add(sums).ok_or_else(|| damaged("its sizes are impossible".to_owned()))?;
        if meta.len() != wanted {
            let how = if meta.len() < wanted { "ends too early" } else { "goes on after its end" };
            return Err(damaged(format!("it {how}: {} bytes instead of {wanted}", meta.len())));
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), manifest, offsets, length: wanted })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.length
    }

    /// Reads all of it: the sum of each file, the sum of everything, the signature, and the journal from its first entry to the
    /// tail that the manifest names. Blocks for as long as that takes.
    pub fn check(&self) -> Result<Checked, BackupError> {
        let mut total = Sha256::new();
        let content = self.offsets.first().copied().unwrap_or(self.length - self.trailer_size());
        self.read(0, content, |bytes| {
            total.update(bytes);
            Ok(())
        })?;
        let mut sums_at = self.length - self.trailer_size();
        for (entry, offset) in self.manifest.files.iter().zip(&self.offsets) {
            let mut sum = Sha256::new();
            self.read(*offset, entry.size, |bytes| {
                total.update(bytes);
                sum.update(bytes);
                Ok(())
            })?;
            if self.array::<32>(sums_at)? != <[u8; 32]>::from(sum.finalize()) {
                return Err(self.damaged(format!("{} is not as it was written", entry.path)));
            }
            sums_at += SUM_SIZE_BYTES;
        }
        let sums = self.length - self.trailer_size();
        self.read(sums, sums_at - sums, |bytes| {
            total.update(bytes);
            Ok(())
        })?;
        let total: [u8; 32] = total.finalize().into();
        if self.array::<32>(sums_at)? != total {
            return Err(self.damaged("the sum over all of it does not hold".to_owned()));
        }
        let signature = self.array::<64>(sums_at + SUM_SIZE_BYTES)?;
        let signed = [SIGNATURE_DOMAIN, &total].concat();
        let key = self.manifest.key().ok_or_else(|| self.damaged("its signing key is not one".to_owned()))?;
        if concord_identity::verify(&key, &signed, &signature).is_err() {
            return Err(self.damaged("its signature does not hold".to_owned()));
        }
        self.check_journal()
    }

    fn check_journal(&self) -> Result<Checked, BackupError> {
        let journal = concord_journal::verify(self.journal()).map_err(|error| self.damaged(error.to_string()))?;
        let tail = journal.tail.map(crate::ManifestTail::from);
        if tail.as_ref() != Some(&self.manifest.tail) || journal.unfinished.is_some() {
            let last = tail.map_or(0, |tail| tail.sequence);
            let what = format!("its journal ends with entry {last}, not with {}", self.manifest.tail.sequence);
            return Err(self.damaged(what));
        }
        Ok(Checked { journal })
    }

    /// The journal in it as a disk that can only be read.
    pub fn journal(&self) -> Arc<dyn Disk> {
        let files = self.manifest.files.iter().zip(&self.offsets);
        let in_journal = files.filter_map(|(entry, offset)| {
            let (folder, name) = entry.path.split_once('/')?;
            let file = Slice { file: Arc::clone(&self.file), offset: *offset, length: entry.size };
            (folder == JOURNAL_FOLDER).then(|| (name.to_owned(), Arc::new(file)))
        });
        Arc::new(ReadOnly { files: in_journal.collect() })
    }

    /// Hands the bytes of one of its files on, in chunks.
    pub(crate) fn copy(
        &self,
        entry: &FileEntry,
        take: impl FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let position = self.manifest.files.iter().position(|file| file == entry);
        let offset = position.and_then(|position| self.offsets.get(position)).copied();
        let offset = offset.ok_or_else(|| self.damaged(format!("it has no file {}", entry.path)))?;
        self.read(offset, entry.size, take)
    }

    fn trailer_size(&self) -> u64 {
        SUM_SIZE_BYTES * (self.manifest.files.len() as u64 + 1) + SIGNATURE_SIZE_BYTES
    }

    fn read(
        &self,
        from: u64,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let mut buffer = vec![0; CHUNK_SIZE_BYTES];
        let (mut offset, end) = (from, from + size);
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            self.file.read_exact_at(part, offset).map_err(disk("read", &self.path))?;
            take(part)?;
            offset += wanted as u64;
        }
        Ok(())
    }

    fn array<const LENGTH: usize>(&self, at: u64) -> Result<[u8; LENGTH], BackupError> {
        let mut bytes = [0; LENGTH];
        self.file.read_exact_at(&mut bytes, at).map_err(disk("read", &self.path))?;
        Ok(bytes)
    }

    fn damaged(&self, what: String) -> BackupError {
        BackupError::Damaged { path: self.path.clone(), what }
    }
}

/// The files of a journal inside a backup.
struct ReadOnly {
    files: BTreeMap<String, Arc<Slice>>,
}

impl Disk for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(read_only())
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(file) as Arc<dyn DiskFile>)
    }

    fn open_append(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(read_only())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

/// One file inside a backup.
struct Slice {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl DiskFile for Slice {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        match buffer.get_mut(..wanted) {
            Some(part) => self.file.read_at(part, self.offset + offset),
            None => Ok(0),
        }
    }

    fn append(&self, _bytes: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn overwrite(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn truncate(&self, _length: u64) -> io::Result<()> {
        Err(read_only())
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a backup is only read")
}
