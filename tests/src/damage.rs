//! What disks do to folders while nobody runs.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The newest segment of the journal of a hub's or node's folder.
pub fn last_segment(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    // Besides segments there may be files of other kinds; segments begin with their magic.
    files.retain(|path| fs::read(path).unwrap().starts_with(b"CNCRDSEG"));
    files.pop().expect("a journal has a segment")
}

/// Adds bytes after the last frame, as a torn write leaves them.
pub fn append_to_last_segment(dir: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(last_segment(dir)).unwrap().write_all(bytes).unwrap();
}

/// Turns one bit of a file around.
pub fn flip_bit(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Removes everything derived.
pub fn remove_views(dir: &Path) {
    fs::remove_dir_all(dir.join("views")).unwrap();
}
