//! A real disk whose syncs fail while a test says so.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use concord_journal::{Disk, DiskFile, RealDisk};

/// A folder of the operating system behind the journal's seam.
pub(crate) struct FailingDisk {
    real: RealDisk,
    fails: Arc<AtomicBool>,
}

impl FailingDisk {
    pub(crate) fn on(folder: &Path) -> Self {
        Self { real: RealDisk::open_or_create(folder).unwrap(), fails: Arc::default() }
    }

    pub(crate) fn fail_syncs(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn file(&self, real: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FailingFile { real, fails: Arc::clone(&self.fails) })
    }
}

struct FailingFile {
    real: Arc<dyn DiskFile>,
    fails: Arc<AtomicBool>,
}

impl Disk for FailingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.real.create(name)?))
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open_read(name)
    }

    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.real.open_append(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.real.sync_directory()
    }

    fn available_bytes(&self) -> io::Result<u64> {
        self.real.available_bytes()
    }
}

impl DiskFile for FailingFile {
    fn length(&self) -> io::Result<u64> {
        self.real.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.real.read_at(offset, buffer)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.real.append(bytes)
    }

    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.real.overwrite(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the test's disk failed"));
        }
        self.real.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.real.truncate(length)
    }
}
