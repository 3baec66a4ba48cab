//! A small disk of its own under a folder, which a story can fill. It needs the right to mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Left free when a disk is filled to the brim: less than one block.
const BLOCK_SIZE_BYTES: u64 = 4096;

/// A file system in memory, mounted at a folder. Dropped, it is unmounted; whatever is open on it goes on until it is closed.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Makes the folder and mounts so many bytes there; where this user may not, says so and returns none.
    pub fn mount(at: &Path, size_bytes: u64) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size_bytes},mode=0755"), "tmpfs"]).arg(at);
        let why = match mount.output() {
            Ok(mounted) if mounted.status.success() => return Some(Self { at: at.to_owned() }),
            Ok(refused) => String::from_utf8_lossy(&refused.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("skipped: a small disk cannot be mounted here, which takes root: {}", why.trim());
        fs::remove_dir(at).unwrap();
        None
    }

    /// Bytes that can still be written.
    pub fn available_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.at).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Takes all room but so many bytes, with a file beside the others.
    pub fn fill(&self, but_bytes: u64) {
        let taken = self.available_bytes().saturating_sub(but_bytes);
        let ballast = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        let length = ballast.metadata().unwrap().len();
        // Only what is written takes room in such a file system: a longer file alone does not.
        rustix::fs::fallocate(
            &ballast,
            rustix::fs::FallocateFlags::empty(),
            length,
            taken / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES,
        )
        .unwrap();
    }

    /// Gives the room back.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed a moment ago may still have it open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} is still mounted", self.at.display());
        }
    }
}
