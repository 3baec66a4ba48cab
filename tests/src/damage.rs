//! What disks do to folders.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
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
    // In place, so that it can be done under whoever has it open.
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset as u64).unwrap();
}

/// Flips a bit of a body that begins so, in a journal's segment that is full: a start finds damage in the last one.
pub fn flip_bit_of_body(dir: &Path, beginning: &[u8]) {
    let segments = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let (segment, at) = segments
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(beginning.len()).position(|window| window == beginning)?;
            Some((path, found))
        })
        .unwrap();
    assert_ne!(segment, last_segment(dir), "a start would find it");
    flip_bit(&segment, at);
}

/// Removes everything derived.
pub fn remove_views(dir: &Path) {
    fs::remove_dir_all(dir.join("views")).unwrap();
}
