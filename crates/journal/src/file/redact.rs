//! Redacting: the fact, then zeros in place of nonce and body, then that it is done.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::frame::rows;
use super::scan::segment_name;
use super::writer::{Failure, Writer};
use crate::blob::NONCE_SIZE_BYTES;
use crate::digest::Tail;
use crate::entry::Draft;
use crate::journal::{AppendError, ReadError, check_bodies};
use crate::redaction::{Bodies, Redacted, step};

/// How much is overwritten at once.
const OVERWRITE_STEP_SIZE_BYTES: usize = 1024 * 1024;

/// How far finishing a redaction came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Nothing that a fact names is there any more.
    Done,
    /// There is no room for an entry; nothing is lost but time.
    NoRoom,
    /// The place of a body cannot be found: what is found is overwritten all the same, and other facts are finished.
    Damaged(String),
}

/// By segment, offset and size in bytes of what is to be overwritten.
type Places = BTreeMap<u64, Vec<(u64, u64)>>;

impl Writer {
    /// Redacts the bodies that `fact` names.
    pub(crate) fn redact(&mut self, expected: &Tail, fact: Draft, bodies: &[Bodies]) -> Result<Redacted, AppendError> {
        self.check(expected)?;
        for one in bodies {
            let found = self.shared.table(one.sequence);
            let refused =
                |error: ReadError| AppendError::NotRedactable { sequence: one.sequence, reason: error.to_string() };
            let (_, head, _) = found.map_err(refused)?;
            check_bodies(one, head.meta.blob_count as usize)?;
        }
        let recorded_at = fact.recorded_at;
        let before = self.chain.tail;
        let earlier = self.finish_redaction(recorded_at).map_err(|failure| self.failed(failure))?;
        let no_room =
            || AppendError::NoRoom { size: fact.size_bytes(), reason: "an earlier redaction waits".to_owned() };
        match earlier {
            Finish::Done | Finish::Damaged(_) => {}
            Finish::NoRoom if self.chain.tail != before => {
                return Ok(Redacted { tail: self.chain.tail, recorded: false, gone: false });
            }
            Finish::NoRoom => return Err(no_room()),
        }
        match self.write(self.chain.tail.history, std::slice::from_ref(&fact)) {
            Ok(_) => {}
            Err(Failure::NoRoom { .. }) if self.chain.tail != before => {
                return Ok(Redacted { tail: self.chain.tail, recorded: false, gone: false });
            }
            Err(failure) => return Err(self.failed(failure)),
        }
        self.seal();
        concord_faults::point("journal.redact.recorded");
        // Named before the first byte is overwritten: a reader that meets half a body finds why.
        let sequence = self.chain.tail.sequence;
        self.shared.change_holes(|holes| holes.take(sequence, fact.kind, &fact.payload));
        self.finish_redaction(recorded_at).map_err(|failure| self.failed(failure))?;
        let gone = self.shared.with_holes(|holes| holes.is_finished(sequence));
        Ok(Redacted { tail: self.chain.tail, recorded: true, gone })
    }

    /// Finishes the redactions whose fact is there and whose bodies may be.
    ///
    /// Invariant: no byte is overwritten before the commit *after* the fact is durable. The last commit may be cut when
    /// it is damaged, and a hole without its fact would be damage that nothing explains.
    pub(crate) fn finish_redaction(&mut self, recorded_at: i64) -> Result<Finish, Failure> {
        let (mut finish, mut passed) = (Finish::Done, 0);
        while let Some((fact, bodies)) = self.shared.with_holes(|holes| holes.unfinished_after(passed)) {
            passed = fact;
            let (places, damage) = self.places_of(&bodies);
            let is_whole = damage.is_none();
            if let Some(error) = damage {
                finish = Finish::Damaged(error.to_string());
                if self.half_redacted.contains(&fact) {
                    // What there is to find of it was overwritten since the journal was opened.
                    continue;
                }
            }
            if fact >= self.chain.commit_first && !concord_faults::planted("redact-in-the-last-commit") {
                match self.tell(fact, false, recorded_at) {
                    Err(Failure::NoRoom { .. }) => return Ok(Finish::NoRoom),
                    told => told?,
                }
            }
            concord_faults::point("journal.redact.begun");
            for (segment, places) in places {
                let file = self.file_of(segment)?;
                for (offset, size) in places {
                    overwrite(file.as_ref(), offset, size)?;
                }
                concord_faults::point("journal.redact.overwritten");
                file.sync_data()?;
            }
            concord_faults::point("journal.redact.synced");
            if !is_whole {
                self.half_redacted.insert(fact);
                continue;
            }
            self.half_redacted.remove(&fact);
            match self.tell(fact, true, recorded_at) {
                Err(Failure::NoRoom { .. }) => return Ok(Finish::NoRoom),
                told => told?,
            }
            concord_faults::point("journal.redact.done");
        }
        Ok(finish)
    }

    fn tell(&mut self, fact: u64, is_done: bool, recorded_at: i64) -> Result<(), Failure> {
        let step = step(fact, is_done, recorded_at.max(self.chain.recorded_at));
        self.write(self.chain.tail.history, std::slice::from_ref(&step))?;
        self.seal();
        self.shared.change_holes(|holes| holes.take(self.chain.tail.sequence, step.kind, &step.payload));
        Ok(())
    }

    /// Where the bodies stand: by segment, each run's offset and size in bytes; and why some cannot be found. Those of trimmed entries
    /// stand nowhere.
    fn places_of(&self, bodies: &[Bodies]) -> (Places, Option<ReadError>) {
        let (mut places, mut damage) = (Places::new(), None);
        for Bodies { sequence, first, count } in
            bodies.iter().filter(|one| one.sequence >= self.shared.first_sequence())
        {
            let (place, head, table) = match self.shared.table(*sequence) {
                Ok(found) => found,
                Err(error) => {
                    damage = Some(error);
                    continue;
                }
            };
            let sizes: Vec<u64> = rows(&table).map(|(length, _)| (NONCE_SIZE_BYTES + length) as u64).collect();
            let before: u64 = sizes.iter().take(*first as usize).sum();
            let size = sizes.iter().skip(*first as usize).take(*count as usize).sum();
            let offset = place.offset + head.prefix_length() + before;
            places.entry(place.segment).or_default().push((offset, size));
        }
        (places, damage)
    }

    /// The file of a segment, to overwrite parts of it.
    pub(crate) fn file_of(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open_append(&segment_name(segment))
    }
}

fn overwrite(file: &dyn DiskFile, mut offset: u64, mut size: u64) -> io::Result<()> {
    let step = usize::try_from(size).unwrap_or(OVERWRITE_STEP_SIZE_BYTES).min(OVERWRITE_STEP_SIZE_BYTES);
    let zeros = vec![0; step];
    while size > 0 {
        let part = usize::try_from(size).unwrap_or(step).min(step);
        file.overwrite(offset, zeros.get(..part).unwrap_or(&zeros))?;
        (offset, size) = (offset + part as u64, size - part as u64);
    }
    Ok(())
}
