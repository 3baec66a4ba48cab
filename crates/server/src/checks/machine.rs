//! What a disk has room for, and how long it takes to keep something.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::{Check, check_apart};

/// Writes that are measured.
const WRITES: usize = 20;
const WRITE_SIZE_BYTES: usize = 4096;
/// After so long no further write is begun.
const MEASURING_MAX: Duration = Duration::from_secs(5);
/// A median above it is a warning: each commit waits so long at least.
const SLOW: Duration = Duration::from_millis(50);
const DISK_TIMEOUT_SECONDS: u64 = 15;
const FILE_MODE: u32 = 0o600;
const MEBIBYTE: u64 = 1024 * 1024;

/// Whether a folder's disk has more room than the reserve.
pub async fn disk(folder: PathBuf, reserve_bytes: u64) -> Check {
    check_apart("disk", DISK_TIMEOUT_SECONDS, move || room(&folder, reserve_bytes)).await
}

fn room(folder: &Path, reserve_bytes: u64) -> Check {
    let available = match rustix::fs::statvfs(folder) {
        Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
        Err(error) => {
            let what = format!("the disk of {} does not say how much room it has: {error}", folder.display());
            return Check::failed("disk", what, "see whether the folder is there and its disk is mounted");
        }
    };
    let words = format!("{} MiB free, reserve {} MiB", available / MEBIBYTE, reserve_bytes / MEBIBYTE);
    let check = if available < reserve_bytes {
        let what = format!("{words}: nothing new is taken in (DISK_FULL)");
        Check::failed("disk", what, "make room on that disk, or lower disk_reserve_bytes")
    } else if available < reserve_bytes.saturating_mul(2) {
        Check::warning("disk", words, "make room on that disk before the reserve is reached")
    } else {
        Check::ok("disk", words)
    };
    check.with("available_bytes", available).with("reserve_bytes", reserve_bytes)
}

/// How long this folder's disk takes to keep a small write: measured with a file that has no name there, so that nobody beside meets it.
pub async fn fdatasync(folder: PathBuf) -> Check {
    check_apart("fdatasync", DISK_TIMEOUT_SECONDS, move || match measure(&folder) {
        Ok(times) => told(&times),
        Err(error) => {
            let what = format!("nothing can be written durably in {}: {error}", folder.display());
            Check::failed("fdatasync", what, "see whether the folder is there, writable, and its disk in order")
        }
    })
    .await
}

fn measure(folder: &Path) -> io::Result<Vec<Duration>> {
    let mut file = nameless(folder)?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.is_empty() || (times.len() < WRITES && begun.elapsed() < MEASURING_MAX) {
        let since = Instant::now();
        file.write_all(&[0xC0; WRITE_SIZE_BYTES])?;
        file.sync_data()?;
        times.push(since.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// Not every file system has files without a name: there one is made and loses its name at once.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE);
    let flags = OFlags::TMPFILE.bits().cast_signed();
    match options.clone().custom_flags(flags).open(folder) {
        Ok(file) => Ok(file),
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => {
            // Beside the folder, where nobody reads what it does not know.
            let path = folder.with_file_name(format!(".check-{}", std::process::id()));
            let file = options.create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error),
    }
}

fn told(sorted: &[Duration]) -> Check {
    let milliseconds = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let (median, worst) = (sorted.get(sorted.len() / 2), sorted.last());
    let words = format!(
        "{:.1} ms for a durable write (median of {}), {:.1} ms at worst",
        milliseconds(median),
        sorted.len(),
        milliseconds(worst)
    );
    let check = if median.is_some_and(|median| *median > SLOW) {
        Check::warning("fdatasync", words, "every receipt waits for such a write: use a faster disk for this folder")
    } else {
        Check::ok("fdatasync", words)
    };
    check
        .with("median_milliseconds", milliseconds(median))
        .with("worst_milliseconds", milliseconds(worst))
        .with("writes", sorted.len())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_disk_is_judged_by_its_reserve() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(room(place.path(), 0).result, Verdict::Ok);
        let full = room(place.path(), u64::MAX);
        assert!(full.result == Verdict::Failed && full.next.contains("disk_reserve_bytes"), "{full:?}");
        assert_eq!(room(&place.path().join("absent"), 0).result, Verdict::Failed);
    }

    #[test]
    fn measuring_leaves_nothing_and_a_folder_that_is_none_is_said() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("journal");
        fs::create_dir(&folder).unwrap();
        let times = measure(&folder).unwrap();
        assert!(!times.is_empty() && times.is_sorted());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(measure(&place.path().join("absent")).is_err());
        assert_eq!(told(&[SLOW * 2]).result, Verdict::Warning);
        assert_eq!(told(&[SLOW / 2]).result, Verdict::Ok);
    }
}
