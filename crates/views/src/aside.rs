//! Moving a folder of broken views out of the way, with its last few predecessors kept for whoever looks into it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::ViewsError;

/// How many broken folders are kept beside the views (`<folder>.broken-<n>`); the oldest beyond that is removed,
/// so that a machine that breaks its views at each start does not fill its disk.
pub const BROKEN_FOLDERS_MAX: usize = 3;

/// Renames `folder` to the next free `<folder>.broken-<n>` and answers that path.
pub(crate) fn move_aside(folder: &Path) -> Result<PathBuf, ViewsError> {
    let mut numbers = broken_numbers(folder)?;
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let moved_to = broken(folder, next);
    fs::rename(folder, &moved_to).map_err(at("move the broken views aside, from", folder))?;
    numbers.push(next);
    let too_many = numbers.len().saturating_sub(BROKEN_FOLDERS_MAX);
    for number in numbers.into_iter().take(too_many) {
        let oldest = broken(folder, number);
        fs::remove_dir_all(&oldest).map_err(at("remove the oldest broken views", &oldest))?;
    }
    Ok(moved_to)
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

fn broken(folder: &Path, number: u64) -> PathBuf {
    beside(folder, &format!(".broken-{number}"))
}

/// The numbers of the broken folders that exist, ascending.
fn broken_numbers(folder: &Path) -> Result<Vec<u64>, ViewsError> {
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let start = folder.file_name().map(|name| format!("{}.broken-", name.to_string_lossy())).unwrap_or_default();
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
            assert_eq!(move_aside(&folder).unwrap(), broken(&folder, round));
        }
        assert_eq!(broken_numbers(&folder).unwrap(), [9, 10, 11]);
        assert_eq!(fs::read_to_string(broken(&folder, 10).join("round")).unwrap(), "10");
    }
}
