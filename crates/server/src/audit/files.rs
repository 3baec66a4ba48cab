//! The files of the audit log: lines of JSON in segments, acts apart from refusals, of each the newest segments.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::line::AuditLine;

/// The name of the folder within the data folder.
pub const AUDIT_FOLDER: &str = "audit";
/// A segment of so many bytes is followed by the next.
pub const SEGMENT_SIZE_MAX_BYTES: u64 = 1024 * 1024;
/// Segments of acts, and of refusals; the oldest goes where there is one more.
pub const SEGMENTS_MAX: usize = 8;
/// All files together.
pub const AUDIT_SIZE_MAX_BYTES: u64 = 2 * SEGMENTS_MAX as u64 * SEGMENT_SIZE_MAX_BYTES;
const _: () = assert!(AUDIT_SIZE_MAX_BYTES == 16 * 1024 * 1024);

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const SUFFIX: &str = ".jsonl";

/// What is written apart, so that neither pushes out the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Acts,
    Refusals,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::Acts, Self::Refusals];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Acts => "acts-",
            Self::Refusals => "refusals-",
        }
    }

    fn path(self, folder: &Path, first: u64) -> PathBuf {
        folder.join(format!("{}{first:020}{SUFFIX}", self.prefix()))
    }

    /// The first numbers of its segments, ascending.
    fn segments(self, folder: &Path) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for file in fs::read_dir(folder)? {
            let name = file?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(self.prefix())?.strip_suffix(SUFFIX));
            found.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Writes the lines of one class.
struct Segment {
    class: Class,
    file: Option<File>,
    size: u64,
    /// A line was not written whole: the next begins on a line of its own.
    is_torn: bool,
}

/// Writes both.
pub(super) struct Files {
    folder: PathBuf,
    segments: [Segment; 2],
    next_number: u64,
}

impl Files {
    /// Goes on behind what is there. A torn last line is left as it is, and passed over by whoever reads.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        let mut last_number = 0;
        for line in read_all(folder)? {
            last_number = line.number.max(last_number);
        }
        let segments = Class::ALL.map(|class| Segment { class, file: None, size: 0, is_torn: false });
        Ok(Self { folder: folder.to_owned(), segments, next_number: last_number + 1 })
    }

    /// The number of the next line.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Writes a line.
    pub(super) fn write(&mut self, line: &AuditLine, class: Class) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let segment = &mut self.segments[class as usize];
        let written = segment.write(&self.folder, line.number, bytes);
        segment.is_torn |= written.is_err();
        written
    }

    /// Makes what was written of acts durable.
    pub(super) fn sync_acts(&self) -> io::Result<()> {
        self.segments[Class::Acts as usize].file.as_ref().map_or(Ok(()), File::sync_data)
    }
}

impl Segment {
    fn write(&mut self, folder: &Path, number: u64, mut bytes: Vec<u8>) -> io::Result<()> {
        if self.file.is_none() || self.size + bytes.len() as u64 > SEGMENT_SIZE_MAX_BYTES {
            self.begin(folder, number)?;
        }
        if self.is_torn {
            bytes.insert(0, b'\n');
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&bytes)?;
        self.is_torn = false;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Goes on in the newest segment after a start, where it has room; else begins the next.
    fn begin(&mut self, folder: &Path, number: u64) -> io::Result<()> {
        let known = self.class.segments(folder)?;
        if let (None, Some(newest)) = (&self.file, known.last()) {
            let mut file = OpenOptions::new().read(true).append(true).open(self.class.path(folder, *newest))?;
            self.size = file.metadata()?.len();
            if self.size < SEGMENT_SIZE_MAX_BYTES {
                let mut last = [b'\n'];
                if self.size > 0 {
                    file.seek(SeekFrom::End(-1))?;
                    file.read_exact(&mut last)?;
                }
                self.is_torn = last != [b'\n'];
                self.file = Some(file);
                return Ok(());
            }
        }
        // The oldest go first, so that there is never more than may be.
        for oldest in known.iter().take((known.len() + 1).saturating_sub(SEGMENTS_MAX)) {
            fs::remove_file(self.class.path(folder, *oldest))?;
        }
        let path = self.class.path(folder, number);
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
        (self.size, self.is_torn) = (file.metadata()?.len(), false);
        self.file = Some(file);
        Ok(())
    }
}

/// How far both classes were read: segment, and bytes of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position([(u64, u64); 2]);

/// Lines behind a position, in their order; moves it behind them.
pub(super) fn read_on(folder: &Path, position: &mut Position) -> io::Result<Vec<AuditLine>> {
    let mut lines = Vec::new();
    for class in Class::ALL {
        let at = &mut position.0[class as usize];
        for first in class.segments(folder)? {
            if first < at.0 {
                continue;
            }
            let from = if first == at.0 { at.1 } else { 0 };
            match read_segment(&class.path(folder, first), from, &mut lines) {
                Ok(read) => *at = (first, from + read),
                // It went meanwhile: those behind it are there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    lines.sort_by_key(|line: &AuditLine| line.number);
    Ok(lines)
}

/// All lines that are there, in their order.
pub(super) fn read_all(folder: &Path) -> io::Result<Vec<AuditLine>> {
    read_on(folder, &mut Position::default())
}

/// Reads whole lines; answers how many bytes they take. What is no line of the log is passed over.
fn read_segment(path: &Path, from: u64, lines: &mut Vec<AuditLine>) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file.take(2 * SEGMENT_SIZE_MAX_BYTES));
    let (mut read, mut bytes) = (0, Vec::new());
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes)?;
        if count == 0 || bytes.last() != Some(&b'\n') {
            return Ok(read);
        }
        read += count as u64;
        lines.extend(serde_json::from_slice::<AuditLine>(&bytes));
    }
}
