//! Moving a folder of views out of the way, with its last few predecessors kept for whoever looks into it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::ViewsError;

/// How many folders of each kind are kept beside the views (`<folder>.broken-<n>`, `<folder>.ahead-<n>`); the oldest beyond that is
/// removed, so that a machine that breaks its views at each start does not fill its disk.
pub const FOLDERS_ASIDE_MAX: usize = 3;

/// Why a folder is out of the way. Its name says it, so that the rename itself keeps the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It cannot be used.
    Broken,
    /// It knew entries that the journal does not have: the proof that acknowledged data was lost.
    Ahead,
}

impl Aside {
    fn suffix(self) -> &'static str {
        match self {
            Aside::Broken => ".broken-",
            Aside::Ahead => ".ahead-",
        }
    }

    fn path(self, folder: &Path, number: u64) -> PathBuf {
        beside(folder, &format!("{}{number}", self.suffix()))
    }
}

/// Renames `folder` to the next free `<folder>.broken-<n>` or `<folder>.ahead-<n>`, durably, and answers that path.
pub(crate) fn move_aside(folder: &Path, why: Aside) -> Result<PathBuf, ViewsError> {
    let mut numbers = numbers_aside(folder, why)?;
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let moved_to = why.path(folder, next);
    fs::rename(folder, &moved_to).map_err(at("move the views aside, from", folder))?;
    let parent = parent(folder);
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(at("sync", parent))?;
    numbers.push(next);
    let too_many = numbers.len().saturating_sub(FOLDERS_ASIDE_MAX);
    for number in numbers.into_iter().take(too_many) {
        let oldest = why.path(folder, number);
        fs::remove_dir_all(&oldest).map_err(at("remove the oldest views aside", &oldest))?;
    }
    Ok(moved_to)
}

/// The newest `<folder>.ahead-<n>` that nobody has removed.
pub(crate) fn newest_ahead(folder: &Path) -> Result<Option<PathBuf>, ViewsError> {
    Ok(numbers_aside(folder, Aside::Ahead)?.last().map(|number| Aside::Ahead.path(folder, *number)))
}

/// A path beside `folder`, its name with `suffix` added.
pub(crate) fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(folder);
    path.push(suffix);
    PathBuf::from(path)
}

/// For `map_err`: says what was attempted, and where.
pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ViewsError {
    let path = path.to_path_buf();
    move |source| ViewsError::Folder { doing, path, source }
}

fn parent(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The numbers of the folders aside that exist, ascending.
fn numbers_aside(folder: &Path, why: Aside) -> Result<Vec<u64>, ViewsError> {
    let parent = parent(folder);
    let start =
        folder.file_name().map(|name| format!("{}{}", name.to_string_lossy(), why.suffix())).unwrap_or_default();
    let mut numbers = Vec::new();
    for entry in fs::read_dir(parent).map_err(at("list", parent))? {
        let name = entry.map_err(at("list", parent))?.file_name();
        if let Some(number) = name.to_string_lossy().strip_prefix(&start).and_then(|number| number.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_three_broken_folders_are_kept_and_numbers_are_not_used_twice() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("views");
        for round in 1..=11_u64 {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("round"), round.to_string()).unwrap();
            assert_eq!(move_aside(&folder, Aside::Broken).unwrap(), Aside::Broken.path(&folder, round));
        }
        assert_eq!(numbers_aside(&folder, Aside::Broken).unwrap(), [9, 10, 11]);
        assert_eq!(fs::read_to_string(Aside::Broken.path(&folder, 10).join("round")).unwrap(), "10");
        assert_eq!(newest_ahead(&folder).unwrap(), None);
    }
}
