//! What the tests of the file provider share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "crash.rs"]
pub mod crash;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use concord_journal::conformance::draft;
use concord_journal::{
    Committed, Disk, DiskFile, Draft, Entry, FileJournal, FrameMark, HistoryId, Journal, OpenError, OpenOptions, Opened,
};

pub const FIRST_HISTORY: HistoryId = HistoryId([0xA1; 16]);
pub const NEXT_HISTORY: HistoryId = HistoryId([0xB2; 16]);

/// Says what was reached, also where the test's own output is captured: a count that nobody sees proves nothing.
pub fn report(what: &str) {
    use std::io::Write as _;
    // Nobody may be left to read it.
    let _ = writeln!(std::io::stdout(), "{what}");
}

pub fn options(new_history: HistoryId) -> OpenOptions {
    OpenOptions {
        segment_size_max_bytes: 1500,
        ..OpenOptions::new(1_600_000_000_000_000, new_history, FrameMark(*b"testmark"))
    }
}

pub fn open(disk: &Arc<dyn Disk>, new_history: HistoryId) -> Result<(FileJournal, Opened), OpenError> {
    FileJournal::open(Arc::clone(disk), &options(new_history))
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub fn append(journal: &dyn Journal, batch: Vec<Draft>) -> Committed {
    block_on(journal.append(journal.tail(), batch)).unwrap()
}

/// Every entry that is held whole, with its bodies.
pub fn everything(journal: &dyn Journal) -> Vec<Entry> {
    (journal.first_sequence()..=journal.tail().sequence).map(|sequence| journal.entry(sequence).unwrap()).collect()
}

/// Three segments; the last commit has two entries and begins at entry 7, inside the third segment.
pub fn fill(disk: &Arc<dyn Disk>) -> Vec<Entry> {
    let (journal, _) = open(disk, FIRST_HISTORY).unwrap();
    append(&journal, vec![draft(1, 40, 2), draft(2, 900, 1)]);
    append(&journal, vec![draft(3, 30, 2)]);
    append(&journal, vec![draft(4, 1200, 0)]);
    append(&journal, vec![draft(5, 10, 1)]);
    append(&journal, vec![draft(6, 20, 2), draft(7, 5, 1)]);
    everything(&journal)
}

pub fn segments(disk: &dyn Disk) -> Vec<String> {
    let mut names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect();
    names.sort();
    names.dedup();
    names
}

type Contents = Arc<Mutex<Vec<u8>>>;

/// A disk in memory, for tests that open thousands of journals.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    pub files: Arc<Mutex<BTreeMap<String, Contents>>>,
}

impl MemoryDisk {
    pub fn new(contents: &[(String, Vec<u8>)]) -> MemoryDisk {
        let disk = MemoryDisk::default();
        for (name, bytes) in contents {
            disk.files.lock().unwrap().insert(name.clone(), Arc::new(Mutex::new(bytes.clone())));
        }
        disk
    }

    /// The segments: what is truth. Without the seals every open reads all of them.
    pub fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let mut contents = self.everything();
        contents.retain(|(name, _)| !name.ends_with(".seal"));
        contents
    }

    pub fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let files = self.files.lock().unwrap();
        files.iter().map(|(name, bytes)| (name.clone(), bytes.lock().unwrap().clone())).collect()
    }

    pub fn into_disk(self) -> Arc<dyn Disk> {
        Arc::new(self)
    }
}

struct MemoryFile(Contents);

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        // A system may name a file twice where others come and go meanwhile, so this one does.
        let files = self.files.lock().unwrap();
        Ok(files.keys().flat_map(|name| [name.clone(), name.clone()]).collect())
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock().unwrap();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Arc::new(Mutex::new(Vec::new()));
        files.insert(name.to_owned(), Arc::clone(&bytes));
        Ok(Arc::new(MemoryFile(bytes)))
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let files = self.files.lock().unwrap();
        let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile(Arc::clone(bytes))))
    }
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
    fn available_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        // Short reads are allowed, so there are some.
        let count = rest.len().min(buffer.len()).min(4096);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }
}

/// A disk of so many bytes: what does not fit is written as far as it fits, and refused as full.
pub struct FullDisk {
    pub inner: Arc<dyn Disk>,
    pub room: Arc<AtomicUsize>,
    /// Whether a name takes room too, so that creating fails without any.
    pub names_take_room: bool,
    /// Whether what was written in part can be taken back.
    pub takes_back: bool,
}

struct FullFile {
    inner: Arc<dyn DiskFile>,
    room: Arc<AtomicUsize>,
    takes_back: bool,
}

impl FullDisk {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FullFile { inner, room: Arc::clone(&self.room), takes_back: self.takes_back })
    }
}

impl Disk for FullDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.names_take_room && self.room.load(Ordering::SeqCst) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.file(self.inner.create(name)?))
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_read(name)?))
    }
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_append(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.takes_back {
            return Err(io::Error::other("read-only"));
        }
        self.inner.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }
    fn available_bytes(&self) -> io::Result<u64> {
        Ok(self.room.load(Ordering::SeqCst) as u64)
    }
}

impl DiskFile for FullFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(self.room.load(Ordering::SeqCst));
        self.inner.append(&bytes[..fits])?;
        self.room.fetch_sub(fits, Ordering::SeqCst);
        if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.overwrite(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        if !self.takes_back {
            return Err(io::Error::other("read-only"));
        }
        self.inner.truncate(length)
    }
}

/// Fails every changing operation from the n-th on, before or after doing it; and counts them.
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    switch: Arc<Switch>,
}

pub struct Switch {
    pub operations: AtomicUsize,
    pub log: Mutex<Vec<&'static str>>,
    pub fail_from: AtomicUsize,
    /// Whether the first failing operation is done nevertheless: "persisted but errored".
    pub does_it: bool,
}

impl Switch {
    pub fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn change(&self, name: &'static str, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.log.lock().unwrap().push(name);
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let fail_from = self.fail_from.load(Ordering::SeqCst);
        if number < fail_from {
            return operation();
        }
        if number == fail_from && self.does_it {
            operation()?;
        }
        Err(io::Error::other("injected"))
    }
}

impl FaultyDisk {
    pub fn wrap(inner: &Arc<dyn Disk>, fail_from: usize, does_it: bool) -> (Arc<dyn Disk>, Arc<Switch>) {
        let (operations, fail_from) = (AtomicUsize::new(0), AtomicUsize::new(fail_from));
        let switch = Arc::new(Switch { operations, log: Mutex::default(), fail_from, does_it });
        (Arc::new(FaultyDisk { inner: Arc::clone(inner), switch: Arc::clone(&switch) }), switch)
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { inner, switch: Arc::clone(&self.switch) })
    }
}

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    switch: Arc<Switch>,
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.switch.change("create", || self.inner.create(name).map(|_| ()))?;
        Ok(self.file(self.inner.open_append(name)?))
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_read(name)?))
    }
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_append(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.switch.change("remove", || self.inner.remove(name))
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.switch.change("sync_directory", || self.inner.sync_directory())
    }
    fn available_bytes(&self) -> io::Result<u64> {
        self.inner.available_bytes()
    }
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.switch.change("append", || self.inner.append(bytes))
    }
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.switch.change("overwrite", || self.inner.overwrite(offset, bytes))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.switch.change("sync_data", || self.inner.sync_data())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.switch.change("truncate", || self.inner.truncate(length))
    }
}

/// Counts the bytes that are read.
pub struct CountingDisk {
    pub inner: Arc<dyn Disk>,
    pub read: Arc<AtomicU64>,
}

struct CountingFile {
    inner: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl CountingDisk {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile { inner, read: Arc::clone(&self.read) })
    }
}

impl Disk for CountingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.create(name)?))
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_read(name)?))
    }
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open_append(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }
    fn available_bytes(&self) -> io::Result<u64> {
        self.inner.available_bytes()
    }
}

impl DiskFile for CountingFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read_at(offset, buffer)?;
        self.read.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(bytes)
    }
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.overwrite(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.inner.truncate(length)
    }
}
