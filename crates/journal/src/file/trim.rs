//! Trimming: first the base, then the anchor that names it, then the segments go.

use std::io;
use std::sync::{Arc, PoisonError};

use super::base::{BaseFile, BaseWriter, KEPT_ENTRIES_MAX, base_name, list_bases};
use super::chain::Chain;
use super::disk::{Disk, read_onto};
use super::frame::{FrameMark, SEGMENT_HEADER_SIZE_BYTES, SegmentHeader};
use super::reader::Shared;
use super::scan::{list_segments, segment_name};
use super::seal::{remove_if_there, seal_name};
use super::writer::{Failure, Writer};
use crate::digest::{Digest, Tail};
use crate::history::KIND_HISTORY_BEGUN;
use crate::journal::{AppendError, Committed};
use crate::old::Held;
use crate::trim::{PreparedTrim, Trim, TrimError, anchor};

/// What of a base is written again at once.
const STEP_SIZE_BYTES: usize = 1024 * 1024;

/// Entries that are read at once.
const ENTRIES_READ_AT_ONCE: usize = 1_024;

fn refused(reason: impl Into<String>) -> TrimError {
    TrimError::Refused { reason: reason.into() }
}

impl Shared {
    /// The last entry not after `before` with which a segment begins that is not the first.
    pub(crate) fn trim_point(&self, before: u64) -> Option<u64> {
        let first = self.first_sequence();
        self.with_index(|index| {
            let firsts = index.segments.iter().map(|segment| segment.first);
            firsts.rev().find(|point| *point <= before && *point > first)
        })
    }

    /// The segments that a trim takes away.
    pub(crate) fn held_before(&self, first_kept: u64) -> Held {
        self.with_index(|index| {
            let going: Vec<u64> =
                index.segments.iter().filter(|segment| segment.first < first_kept).map(|segment| segment.end).collect();
            let kept_bytes = index.base.as_ref().map_or(0, |base| base.kept_bytes());
            Held { segments: going.len() as u64, bytes: going.iter().sum(), kept_bytes }
        })
    }

    /// Writes the base durably. Blocks for as long as it takes to read what is to be trimmed.
    pub(crate) fn prepare_trim(&self, mut trim: Trim) -> Result<PreparedTrim, TrimError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let first_kept = trim.first_kept;
        if self.trim_point(first_kept) != Some(first_kept) {
            return Err(refused(format!("no segment but the first begins with entry {first_kept}")));
        }
        let chain = self.pass(&mut trim)?;
        let name = base_name(first_kept);
        let on_disk = |source| TrimError::Disk { file: name.clone(), source };
        *prepared = None;
        // What was prepared before and did not happen: the next open would go by it.
        let current = self.base_file().map(|base| base.first);
        for stale in
            list_bases(self.disk().as_ref()).map_err(on_disk)?.into_iter().filter(|base| Some(*base) != current)
        {
            remove_if_there(self.disk().as_ref(), &base_name(stale)).map_err(on_disk)?;
        }
        let digest = self.write_base(&chain, &trim).inspect_err(|_| {
            remove_if_there(self.disk().as_ref(), &name).unwrap_or_default();
        })?;
        concord_faults::point("journal.trim.written");
        self.disk().sync_directory().map_err(on_disk)?;
        concord_faults::point("journal.trim.prepared");
        drop(trim);
        // Read back here and not by the writer, for which all commits wait.
        let base = BaseFile::load(self.disk().as_ref(), first_kept).map_err(on_disk)?;
        let wrong = || on_disk(io::Error::other("it does not read as it was written"));
        *prepared = Some(Arc::new(base.filter(|base| base.digest == digest).ok_or_else(wrong)?));
        Ok(PreparedTrim { first_kept, digest, in_memory: None })
    }

    fn write_base(&self, chain: &Chain, trim: &Trim) -> Result<Digest, TrimError> {
        let (disk, mark) = (self.disk(), self.mark_of(trim.first_kept)?);
        let on_disk = |source| TrimError::Disk { file: base_name(trim.first_kept), source };
        let begun = BaseWriter::begin(disk.as_ref(), chain, mark, &trim.state, trim.kept.len() as u64);
        let mut writer = begun.map_err(on_disk)?;
        for sequence in &trim.kept {
            writer.write(&self.verified_prefix(*sequence)?).map_err(on_disk)?;
        }
        writer.end().map_err(on_disk)
    }

    /// The journal's mark, as the header of this segment has it.
    fn mark_of(&self, segment: u64) -> Result<FrameMark, TrimError> {
        let file = segment_name(segment);
        let (mut bytes, on_disk) = (Vec::new(), |source| TrimError::Disk { file: file.clone(), source });
        let opened = self.disk().open_read(&file).map_err(on_disk)?;
        read_onto(opened.as_ref(), 0, SEGMENT_HEADER_SIZE_BYTES, &mut bytes).map_err(on_disk)?;
        let header = SegmentHeader::parse(&bytes);
        header.map(|header| header.mark).map_err(|fault| on_disk(io::Error::other(fault.to_string())))
    }

    /// Reads what is to be trimmed: its end; and adds the entries that stay anyway to those that are kept.
    fn pass(&self, trim: &mut Trim) -> Result<Chain, TrimError> {
        let kept = &mut trim.kept;
        kept.sort_unstable();
        kept.dedup();
        let (base, first, asked) = (self.base_file(), self.first_sequence(), kept.len());
        for sequence in base.iter().flat_map(|base| base.kept()) {
            let is_asked = kept.get(..asked).is_some_and(|asked| asked.binary_search(&sequence).is_ok());
            if !is_asked && self.head(sequence)?.kind == KIND_HISTORY_BEGUN {
                kept.push(sequence);
            }
        }
        let (mut chain, mut next) = (Chain::ORIGIN, first);
        while next < trim.first_kept {
            let wanted = usize::try_from(trim.first_kept - next).unwrap_or(usize::MAX).min(ENTRIES_READ_AT_ONCE);
            let entries = self.read(next, wanted)?;
            for entry in &entries {
                if entry.kind == KIND_HISTORY_BEGUN {
                    kept.push(entry.sequence);
                }
                let (commit_first, recorded_at) = (entry.commit_first, entry.recorded_at);
                chain = Chain { tail: entry.tail(), commit_first, recorded_at, mark: None };
            }
            next += entries.len() as u64;
        }
        kept.sort_unstable();
        kept.dedup();
        let is_there = |sequence: &u64| {
            (*sequence >= first && *sequence < trim.first_kept)
                || base.as_ref().is_some_and(|base| base.kept_from(*sequence) == Some(*sequence))
        };
        match kept.iter().find(|sequence| !is_there(sequence)) {
            Some(absent) => Err(refused(format!("entry {absent} is to be kept and is not there"))),
            None if kept.len() > KEPT_ENTRIES_MAX => {
                Err(refused(format!("{} entries are to be kept, more than {KEPT_ENTRIES_MAX}", kept.len())))
            }
            None => Ok(chain),
        }
    }
}

impl Writer {
    /// Lets the segments go for which the prepared base stands.
    pub(crate) fn trim(
        &mut self,
        expected: &Tail,
        recorded_at: i64,
        prepared: &PreparedTrim,
    ) -> Result<Committed, AppendError> {
        self.check(expected)?;
        let shared = Arc::clone(&self.shared);
        // Nobody writes another base in place of this one meanwhile.
        let mut current = shared.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |reason: &str| AppendError::NotTrimmable { reason: reason.to_owned() };
        let base = current.clone().filter(|base| base.digest == prepared.digest);
        let base = base.filter(|base| shared.trim_point(base.first) == Some(base.first));
        let base = base.ok_or_else(|| refused("another trim was prepared since, or this one has happened"))?;
        let anchor = anchor(base.first, base.digest, recorded_at);
        let committed = match self.write(self.chain.tail.history, std::slice::from_ref(&anchor)) {
            Err(failure @ Failure::NoRoom { .. }) => {
                *current = None;
                // Whoever is answered that nothing happened may rely on it: the next open would go by a base that is left.
                let taken_back = self.disk.remove(&base.name()).and_then(|()| self.disk.sync_directory());
                return Err(self.failed(taken_back.map_or_else(Failure::Unknown, |()| failure)));
            }
            written => written.map_err(|failure| self.failed(failure))?,
        };
        self.seal();
        concord_faults::point("journal.trim.anchored");
        *current = None;
        let first = base.first;
        shared.begin_with(base);
        remove_trimmed(self.disk.as_ref(), first).map_err(|error| self.failed(Failure::Unknown(error)))?;
        concord_faults::point("journal.trim.done");
        Ok(committed)
    }

    /// What a trim left undone is done now: the anchor is appended if it is not there, and the segments go. Without room
    /// for the anchor all stays as it is, and the next open tries again.
    pub(crate) fn finish_trim(&mut self, recorded_at: i64, torn: &[u64], anchored: bool) -> Result<(), AppendError> {
        let disk = Arc::clone(&self.disk);
        for first in torn {
            let removed = remove_if_there(disk.as_ref(), &base_name(*first));
            removed.map_err(|error| self.failed(Failure::Unknown(error)))?;
        }
        let Some(base) = self.shared.base_file() else { return Ok(()) };
        let is_done =
            anchored && list_segments(disk.as_ref()).is_ok_and(|segments| segments.first() >= Some(&base.first));
        if is_done && list_bases(disk.as_ref()).is_ok_and(|bases| bases.len() == 1) {
            return Ok(());
        }
        write_again(disk.as_ref(), &base).map_err(|error| self.failed(Failure::Unknown(error)))?;
        if !anchored {
            let anchor = anchor(base.first, base.digest, recorded_at.max(self.chain.recorded_at));
            match self.write(self.chain.tail.history, std::slice::from_ref(&anchor)) {
                Err(Failure::NoRoom { reason, .. }) => {
                    tracing::warn!(reason, "a trim is not finished: there is no room to say so");
                    return Ok(());
                }
                written => written.map_err(|failure| self.failed(failure))?,
            };
            self.seal();
        }
        concord_faults::point("journal.trim.finishing");
        remove_trimmed(disk.as_ref(), base.first).map_err(|error| self.failed(Failure::Unknown(error)))
    }
}

/// Invariant: nothing is removed before the base is durable. Who wrote it may have been killed before its sync, or that
/// may have failed and the system have taken its pages for clean; only writing it again makes sure.
fn write_again(disk: &dyn Disk, base: &BaseFile) -> io::Result<()> {
    let file = disk.open_append(&base.name())?;
    let (mut offset, mut bytes) = (0, Vec::new());
    while offset < base.length {
        bytes.clear();
        let count = usize::try_from(base.length - offset).unwrap_or(STEP_SIZE_BYTES).min(STEP_SIZE_BYTES);
        read_onto(file.as_ref(), offset, count, &mut bytes)?;
        file.overwrite(offset, &bytes)?;
        offset += count as u64;
    }
    file.sync_data()?;
    disk.sync_directory()
}

/// Removes what the base before `first` stands for, the older base last.
///
/// Invariant: the base and its anchor are durable. Segments go from the oldest on, so that what is left is one piece.
fn remove_trimmed(disk: &dyn Disk, first: u64) -> io::Result<()> {
    let segments: Vec<u64> = list_segments(disk)?.into_iter().filter(|segment| *segment < first).collect();
    for segment in &segments {
        remove_if_there(disk, &seal_name(*segment))?;
        disk.remove(&segment_name(*segment))?;
        concord_faults::point("journal.trim.removing");
    }
    if !segments.is_empty() {
        disk.sync_directory()?;
    }
    concord_faults::point("journal.trim.removed");
    let older: Vec<u64> = list_bases(disk)?.into_iter().filter(|base| *base < first).collect();
    for base in &older {
        disk.remove(&base_name(*base))?;
    }
    if older.is_empty() { Ok(()) } else { disk.sync_directory() }
}
