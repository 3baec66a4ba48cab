//! A disk in memory that tells what was synced from what was only written, and what is left of it when the power goes.
//!
//! Invariant: of a file only what was there at its last sync is certain, of a folder only the names that it had at its last sync;
//! anything written or named since may be there, be there in part, or not.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::battery::Chance;

/// The number of the folder at the top.
pub const ROOT: u64 = 1;
/// What a disk writes whole or not at all.
const SECTOR_SIZE_BYTES: u64 = 512;

/// All files and folders of one machine.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

/// A file or a folder, with its permissions.
#[derive(Debug, Clone)]
pub struct Node {
    /// The permissions.
    pub mode: u16,
    /// What it is.
    pub kind: Kind,
}

/// What stands under a number.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A file.
    File(File),
    /// A folder.
    Folder(Folder),
}

/// Bytes as programs see them, as they were at the last sync, and what was done since.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// What programs read.
    pub now: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Write>,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

/// Names as programs see them, as they were at the last sync, and what was done since.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// What programs list.
    pub now: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    since: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Named(OsString, u64),
    Gone(OsString),
    /// Within one folder a rename is one change: both names or neither.
    Moved(OsString, OsString, u64),
}

impl Platter {
    /// Holds an empty folder.
    pub fn empty() -> Self {
        let mut platter = Self::default();
        platter.add(0o700, Kind::Folder(Folder::default()));
        platter
    }

    /// Holds what stands in a folder of the operating system, all of it synced.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut platter = Self::default();
        platter.take_in(folder)?;
        Ok(platter)
    }

    fn take_in(&mut self, path: &Path) -> io::Result<u64> {
        let metadata = fs::metadata(path)?;
        let mode = (metadata.permissions().mode() & 0o7777) as u16;
        if metadata.is_dir() {
            let number = self.add(mode, Kind::Folder(Folder::default()));
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let inner = self.take_in(&entry.path())?;
                if let Some(folder) = self.folder(number) {
                    folder.now.insert(entry.file_name(), inner);
                    folder.synced = folder.now.clone();
                }
            }
            return Ok(number);
        }
        let bytes = fs::read(path)?;
        Ok(self.add(mode, Kind::File(File { synced: bytes.clone(), now: bytes, since: Vec::new() })))
    }

    fn add(&mut self, mode: u16, kind: Kind) -> u64 {
        self.last += 1;
        self.nodes.insert(self.last, Node { mode, kind });
        self.last
    }

    /// What stands under a number.
    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// The same, to change its permissions.
    pub fn node_mut(&mut self, number: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&number)
    }

    fn folder(&mut self, number: u64) -> Option<&mut Folder> {
        match &mut self.nodes.get_mut(&number)?.kind {
            Kind::Folder(folder) => Some(folder),
            Kind::File(_) => None,
        }
    }

    /// A file to be written.
    pub fn file(&mut self, number: u64) -> Option<&mut File> {
        match &mut self.nodes.get_mut(&number)?.kind {
            Kind::File(file) => Some(file),
            Kind::Folder(_) => None,
        }
    }

    /// The number behind a name.
    pub fn look_up(&self, parent: u64, name: &OsStr) -> Option<u64> {
        match &self.nodes.get(&parent)?.kind {
            Kind::Folder(folder) => folder.now.get(name).copied(),
            Kind::File(_) => None,
        }
    }

    /// Makes an empty file or folder.
    pub fn create(&mut self, parent: u64, name: &OsStr, mode: u16, is_folder: bool) -> Option<u64> {
        self.folder(parent)?;
        let kind = if is_folder { Kind::Folder(Folder::default()) } else { Kind::File(File::default()) };
        let number = self.add(mode, kind);
        self.folder(parent)?.change(Change::Named(name.to_owned(), number));
        Some(number)
    }

    /// Takes a name away; whoever has the file open keeps it.
    pub fn remove(&mut self, parent: u64, name: &OsStr) -> Option<()> {
        self.look_up(parent, name)?;
        self.folder(parent)?.change(Change::Gone(name.to_owned()));
        Some(())
    }

    /// Gives something another name, which may have been another's.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Option<()> {
        let number = self.look_up(from.0, from.1)?;
        if from.0 == to.0 {
            self.folder(from.0)?.change(Change::Moved(from.1.to_owned(), to.1.to_owned(), number));
        } else {
            self.folder(to.0)?.change(Change::Named(to.1.to_owned(), number));
            self.folder(from.0)?.change(Change::Gone(from.1.to_owned()));
        }
        Some(())
    }

    /// Makes a file's content, or a folder's names, certain.
    pub fn sync(&mut self, number: u64) -> Option<()> {
        match &mut self.nodes.get_mut(&number)?.kind {
            Kind::File(file) => {
                file.synced.clone_from(&file.now);
                file.since.clear();
            }
            Kind::Folder(folder) => {
                folder.synced.clone_from(&folder.now);
                folder.since.clear();
            }
        }
        Some(())
    }

    /// What is found when the power is back: everything that was synced, and of the rest what chance leaves.
    pub fn cut(&self, chance: &mut Chance) -> Self {
        let nodes = self.nodes.iter().map(|(number, node)| {
            let kind = match &node.kind {
                Kind::File(file) => Kind::File(file.cut(chance)),
                Kind::Folder(folder) => Kind::Folder(folder.cut(chance)),
            };
            (*number, Node { mode: node.mode, kind })
        });
        Self { nodes: nodes.collect(), last: self.last }
    }
}

impl File {
    /// Writes at an offset; beyond the end zeros come in between.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        put(&mut self.now, offset, bytes);
        self.since.push(Write::Bytes(offset, bytes.to_vec()));
    }

    /// Cuts or extends.
    pub fn set_length(&mut self, length: u64) {
        self.now.resize(length as usize, 0);
        self.since.push(Write::Length(length));
    }

    fn cut(&self, chance: &mut Chance) -> Self {
        let mut left = self.synced.clone();
        match chance.below(4) {
            // Nothing of it came to the disk: what most programs forget.
            0 | 1 => {}
            // Some first writes did, whole.
            2 => {
                let kept = chance.below(self.since.len() as u64 + 1) as usize;
                self.since.iter().take(kept).for_each(|write| apply(&mut left, write));
            }
            // Any sectors of any of them did.
            _ => {
                for write in &self.since {
                    tear(&mut left, write, chance);
                }
            }
        }
        Self { now: left.clone(), synced: left, since: Vec::new() }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + written.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(written);
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Bytes(offset, written) => put(bytes, *offset, written),
        Write::Length(length) => bytes.resize(*length as usize, 0),
    }
}

fn tear(bytes: &mut Vec<u8>, write: &Write, chance: &mut Chance) {
    let Write::Bytes(offset, written) = write else {
        if chance.one_in(2) {
            apply(bytes, write);
        }
        return;
    };
    let mut rest = &written[..];
    let mut at = *offset;
    while !rest.is_empty() {
        let in_sector = (SECTOR_SIZE_BYTES - at % SECTOR_SIZE_BYTES).min(rest.len() as u64);
        let (sector, after) = rest.split_at(in_sector as usize);
        if chance.one_in(2) {
            put(bytes, at, sector);
        }
        at += in_sector;
        rest = after;
    }
}

impl Folder {
    fn change(&mut self, change: Change) {
        apply_change(&mut self.now, &change);
        self.since.push(change);
    }

    fn cut(&self, chance: &mut Chance) -> Self {
        let mut left = self.synced.clone();
        match chance.below(3) {
            0 => {}
            1 => {
                let kept = chance.below(self.since.len() as u64 + 1) as usize;
                self.since.iter().take(kept).for_each(|change| apply_change(&mut left, change));
            }
            _ => {
                let kept = self.since.iter().filter(|_| chance.one_in(2));
                kept.for_each(|change| apply_change(&mut left, change));
            }
        }
        Self { now: left.clone(), synced: left, since: Vec::new() }
    }
}

fn apply_change(names: &mut BTreeMap<OsString, u64>, change: &Change) {
    match change {
        Change::Named(name, number) => {
            names.insert(name.clone(), *number);
        }
        Change::Gone(name) => {
            names.remove(name);
        }
        Change::Moved(from, to, number) => {
            names.remove(from);
            names.insert(to.clone(), *number);
        }
    }
}
