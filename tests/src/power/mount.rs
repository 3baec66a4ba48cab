//! A [`Platter`] as a file system of the operating system's, by FUSE, on which unchanged programs run.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::mount::{MntFlags, umount2};

use super::disk::{Kind, Node, Platter, ROOT};
use crate::battery::Chance;

/// Attributes are asked for each time: nothing but this side changes them, and asking is cheap.
const REMEMBERED: Duration = Duration::ZERO;
const BLOCK_SIZE_BYTES: u32 = 4096;
/// In a listing the folder itself and the one above it come before every name.
const FIRST_PLACE: u64 = 3;
/// What programs that ask are told: there is room.
const FREE_BLOCKS: u64 = 4 * 1024 * 1024;

/// What it takes and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// To be root.
    Right,
    /// `/dev/fuse`.
    Device,
}

impl Missing {
    /// Whether it is the right to mount that is missing.
    pub fn is_a_right(self) -> bool {
        self == Self::Right
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "only root may mount",
            Self::Device => "there is no /dev/fuse",
        })
    }
}

/// Why this machine cannot do it, if it cannot.
pub fn is_missing() -> Option<Missing> {
    if !rustix::process::geteuid().is_root() {
        return Some(Missing::Right);
    }
    (!Path::new("/dev/fuse").exists()).then_some(Missing::Device)
}

/// A mounted disk.
pub struct Mounted {
    at: PathBuf,
    shared: Arc<Mutex<Shared>>,
    session: Option<BackgroundSession>,
}

struct Shared {
    platter: Platter,
    /// The power is off: whatever comes now fails.
    off: bool,
}

impl Mounted {
    /// Mounts a disk over a folder.
    pub fn mount(platter: Platter, at: &Path) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { platter, off: false }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("concord-power".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::clone(&shared)), at, &config)?;
        Ok(Self { at: at.to_owned(), shared, session: Some(session) })
    }

    /// Cuts the power: from here on nothing is read or written. Returns what is found when it is back.
    pub fn cut(&self, chance: &mut Chance) -> Platter {
        let mut shared = lock(&self.shared);
        shared.off = true;
        shared.platter.cut(chance)
    }

    /// Takes the disk away; whoever has a file open keeps a dead one.
    pub fn unmount(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            // Detached: somebody may be reading a file of it just now.
            let detached = umount2(&self.at, MntFlags::MNT_DETACH);
            assert!(detached.is_ok() || std::thread::panicking(), "{}: {detached:?}", self.at.display());
            drop(session);
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Served(Arc<Mutex<Shared>>);

impl Served {
    /// Works on the platter; nothing is found on a disk without power.
    fn on<T>(&self, work: impl FnOnce(&mut Platter) -> Option<T>) -> Result<T, Errno> {
        let mut shared = lock(&self.0);
        if shared.off {
            return Err(Errno::EIO);
        }
        work(&mut shared.platter).ok_or(Errno::ENOENT)
    }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, size, links) = match &node.kind {
        Kind::File(file) => (FileType::RegularFile, file.now.len() as u64, 1),
        Kind::Folder(_) => (FileType::Directory, 0, 2),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode,
        nlink: links,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE_BYTES,
        flags: 0,
    }
}

impl Platter {
    fn shown(&self, number: u64) -> Option<FileAttr> {
        Some(attributes(number, self.node(number)?))
    }
}

fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

impl Filesystem for Served {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.on(|platter| platter.shown(platter.look_up(parent.0, name)?)) {
            Ok(found) => reply.entry(&REMEMBERED, &found, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.on(|platter| platter.shown(number.0)) {
            Ok(found) => reply.attr(&REMEMBERED, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _user: Option<u32>,
        _group: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<std::time::SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<std::time::SystemTime>,
        _flags_changed: Option<std::time::SystemTime>,
        _backed_up: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.on(|platter| {
            if let Some(mode) = mode {
                platter.node_mut(number.0)?.mode = permissions(mode, 0);
            }
            if let Some(size) = size {
                platter.file(number.0)?.set_length(size);
            }
            platter.shown(number.0)
        });
        match changed {
            Ok(found) => reply.attr(&REMEMBERED, &found),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.on(|platter| {
            let number = platter.create(parent.0, name, permissions(mode, umask), true)?;
            platter.shown(number)
        });
        match made {
            Ok(made) => reply.entry(&REMEMBERED, &made, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.on(|platter| {
            let number = platter.create(parent.0, name, permissions(mode, umask), false)?;
            platter.shown(number)
        });
        match made {
            Ok(made) => reply.created(&REMEMBERED, &made, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.on(|platter| platter.remove(parent.0, name)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.on(|platter| {
            let number = platter.look_up(parent.0, name)?;
            let is_empty = match &platter.node(number)?.kind {
                Kind::Folder(folder) => folder.now.is_empty(),
                Kind::File(_) => false,
            };
            if is_empty {
                platter.remove(parent.0, name)?;
            }
            Some(is_empty)
        });
        match removed {
            Ok(false) => reply.error(Errno::ENOTEMPTY),
            Ok(true) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(reply, self.on(|platter| platter.rename((parent.0, name), (new_parent.0, new_name))));
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.on(|platter| {
            let bytes = &platter.file(number.0)?.now;
            let start = (offset as usize).min(bytes.len());
            let end = (start + size as usize).min(bytes.len());
            Some(bytes[start..end].to_vec())
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.on(|platter| {
            platter.file(number.0)?.write(offset, bytes);
            Some(())
        });
        match written {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _request: &Request, _number: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _request: &Request, number: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer(reply, self.on(|platter| platter.sync(number.0)));
    }

    fn fsyncdir(&self, _request: &Request, number: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer(reply, self.on(|platter| platter.sync(number.0)));
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.on(|platter| {
            let Kind::Folder(folder) = &platter.node(number.0)?.kind else { return None };
            let names = folder.now.iter().filter_map(|(name, inner)| {
                let kind = match platter.node(*inner)?.kind {
                    Kind::File(_) => FileType::RegularFile,
                    Kind::Folder(_) => FileType::Directory,
                };
                Some((*inner, kind, name.clone()))
            });
            let own = [(number.0, FileType::Directory, ".".into()), (ROOT, FileType::Directory, "..".into())];
            let mut names: Vec<_> = names.collect();
            // A place that no other name's coming or going moves: else one that stays would be listed twice, or not at all.
            names.sort_unstable_by_key(|(inner, ..)| *inner);
            let places =
                [1, 2].into_iter().chain(names.iter().map(|(inner, ..)| FIRST_PLACE + inner)).collect::<Vec<_>>();
            Some(places.into_iter().zip(own.into_iter().chain(names)).collect::<Vec<_>>())
        });
        match listed {
            Ok(listed) => {
                for (place, (number, kind, name)) in listed.into_iter().filter(|(place, _)| *place > offset) {
                    if reply.add(INodeNo(number), place, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        reply.statfs(2 * FREE_BLOCKS, FREE_BLOCKS, FREE_BLOCKS, 0, 1 << 20, BLOCK_SIZE_BYTES, 255, BLOCK_SIZE_BYTES);
    }
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
