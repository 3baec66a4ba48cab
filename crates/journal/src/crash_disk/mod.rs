//! The second implementation of the seam: a disk in memory whose power can be cut, for tests of what survives.
//!
//! It shows what was written, and keeps only what was synced. [`CrashDisk::image`] gives one of the disks that a power
//! cut may leave: what was not synced is there, torn at sectors, in any order, or not; so are file lengths and names,
//! each for itself. At a chosen operation the power goes, or an error is answered.

mod choices;
mod inode;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::file::{Disk, DiskFile};
pub use choices::{Choices, Exhaustive, Seeded};
use inode::Inode;

/// Names and contents of all files.
pub type Image = Vec<(String, Vec<u8>)>;

/// What goes wrong at an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The device answers with an error and does nothing. After a sync that failed so, what it should have made
    /// durable counts as clean: a later sync passes over it, and only writing it again helps.
    Device,
    /// There is no room: writes are refused, syncs and removals are not.
    Full,
    /// There is room for a part of a write only.
    FullAfterPart,
    /// The device fails in the middle of a write.
    DeviceAfterPart,
}

/// A disk whose power can be cut. Clones are the same disk.
#[derive(Clone)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    /// By number; a file that has no name any more stays for who has it open.
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// What was done to names since the folder was synced, in order.
    name_changes: Vec<(String, Option<usize>)>,
    /// How many changing operations there were.
    operations: u64,
    power_goes_at: u64,
    has_power: bool,
    trouble: Option<(u64, u64, Trouble)>,
}

impl CrashDisk {
    /// A disk on which all of the image is durable.
    pub fn new(image: &Image) -> CrashDisk {
        let inodes = image.iter().map(|(_, bytes)| Inode::durable(bytes.clone())).collect();
        let names: BTreeMap<String, usize> = image.iter().map(|(name, _)| name.clone()).zip(0..).collect();
        let state = State {
            inodes,
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            operations: 0,
            power_goes_at: u64::MAX,
            has_power: true,
            trouble: None,
        };
        CrashDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The same disk as the journal's seam.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// How many operations have changed something so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power goes at the operation with this number, from 0: it and all after it change nothing. Reading goes on, so
    /// that a test can still ask what was promised.
    pub fn cut_power_at(&self, operation: u64) {
        self.state().power_goes_at = operation;
    }

    /// Whether the power is still there.
    pub fn has_power(&self) -> bool {
        self.state().has_power
    }

    /// The operations from this number on, `count` of them, go wrong.
    pub fn trouble_at(&self, operation: u64, count: u64, trouble: Trouble) {
        self.state().trouble = Some((operation, operation.saturating_add(count), trouble));
    }

    /// Everything goes right again.
    pub fn end_trouble(&self) {
        self.state().trouble = None;
    }

    /// Whether an operation of a trouble has been reached.
    pub fn was_troubled(&self) -> bool {
        let state = self.state();
        state.trouble.is_some_and(|(from, ..)| state.operations > from)
    }

    /// What a power cut at this moment may leave; `choices` says which of it.
    pub fn image(&self, choices: &mut dyn Choices) -> Image {
        let state = self.state();
        let sector_size = [512, 4096][choices.choose(2)];
        let mut names = state.durable_names.clone();
        let changed: std::collections::BTreeSet<&String> = state.name_changes.iter().map(|(name, _)| name).collect();
        for name in changed {
            let changes: Vec<Option<usize>> =
                state.name_changes.iter().filter(|(other, _)| other == name).map(|(_, inode)| *inode).collect();
            // The changes of one name reach the disk in their order; names do so independently.
            match changes[..choices.choose(changes.len() + 1)].last() {
                None => {}
                Some(Some(inode)) => drop(names.insert(name.clone(), *inode)),
                Some(None) => drop(names.remove(name)),
            }
        }
        names.into_iter().map(|(name, inode)| (name, state.inodes[inode].image(sector_size, choices))).collect()
    }

    /// What a running system sees: what a process finds that comes after one that was killed.
    pub fn visible(&self) -> Image {
        let state = self.state();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].visible().to_vec())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation that changes something; the trouble that it meets, if any.
    fn change(&mut self) -> io::Result<Option<Trouble>> {
        let number = self.operations;
        self.operations += 1;
        if !self.has_power || number >= self.power_goes_at {
            self.has_power = false;
            return Err(no_power());
        }
        Ok(self.trouble.and_then(|(from, to, trouble)| (from..to).contains(&number).then_some(trouble)))
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is gone")
}

fn device() -> io::Error {
    io::Error::other("input/output error")
}

impl Disk for CrashDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        match state.change()? {
            Some(Trouble::Device) => return Err(device()),
            Some(Trouble::Full) => return Err(io::ErrorKind::StorageFull.into()),
            _ => {}
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::durable(Vec::new()));
        state.names.insert(name.to_owned(), inode);
        state.name_changes.push((name.to_owned(), Some(inode)));
        Ok(Arc::new(CrashFile { disk: self.clone(), inode }))
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(CrashFile { disk: self.clone(), inode }))
    }

    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.change()? == Some(Trouble::Device) {
            return Err(device());
        }
        state.names.remove(name);
        state.name_changes.push((name.to_owned(), None));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.change()? == Some(Trouble::Device) {
            return Err(device());
        }
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

struct CrashFile {
    disk: CrashDisk,
    inode: usize,
}

impl CrashFile {
    /// Writes the bytes, or as much of them as the trouble lets through.
    fn write(&self, offset: Option<u64>, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let trouble = state.change()?;
        let inode = &mut state.inodes[self.inode];
        let offset = offset.unwrap_or(inode.visible().len() as u64);
        let part = &bytes[..bytes.len() / 2];
        match trouble {
            None => inode.write(offset, bytes),
            Some(Trouble::Device) => return Err(device()),
            Some(Trouble::Full) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Trouble::FullAfterPart) => {
                inode.write(offset, part);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(Trouble::DeviceAfterPart) => {
                inode.write(offset, part);
                return Err(device());
            }
        }
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(state.inodes[self.inode].visible().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let bytes = state.inodes[self.inode].visible();
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(None, bytes)
    }

    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(Some(offset), bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let trouble = state.change()?;
        let inode = &mut state.inodes[self.inode];
        if matches!(trouble, Some(Trouble::Device | Trouble::DeviceAfterPart)) {
            inode.fail_sync();
            return Err(device());
        }
        inode.sync();
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if matches!(state.change()?, Some(Trouble::Device | Trouble::DeviceAfterPart)) {
            return Err(device());
        }
        state.inodes[self.inode].truncate(length);
        Ok(())
    }
}
