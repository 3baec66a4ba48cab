//! A journal's life over power cuts, and what was promised in it: the model that every image is compared with.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use concord_journal::crash_disk::{Choices, CrashDisk, Image, Seeded};
use concord_journal::{
    AppendError, Bodies, Cut, Disk, DiskFile, Draft, Entry, FileJournal, FrameMark, HistoryBegun, HistoryId, Journal,
    KIND_HISTORY_BEGUN, KIND_REDACTED, KIND_REDACTION_STEP, KIND_TRIMMED, OpenOptions, ReadError, Trim, verify, walk,
};

use super::{block_on, everything};

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Kept,
    NoRoom,
    Unknown,
}

/// Who uses the journal, and remembers what it was told.
#[derive(Clone)]
pub struct Life {
    segment_size: u64,
    /// What it was told is durable, or read.
    acknowledged: Vec<Entry>,
    /// What it handed over last without being told what became of it.
    in_flight: Vec<Draft>,
    /// The bodies that it was redacting last without being told what became of them.
    redacting: Vec<Bodies>,
    /// The beginnings of bodies that are gone for good.
    gone: Vec<Vec<u8>>,
    /// The first entry that is held whole, and what stands for those before it.
    first: u64,
    base: Option<(Bytes, Vec<u64>)>,
    /// The trims that may have happened without its being told: whose base may be on the disk.
    trimming: Vec<Trim>,
    /// Whether the last open cut something.
    was_cut: bool,
    /// The last byte of the id of the next history.
    histories: u16,
}

/// How much of a body is looked for on the disk; shorter bodies, and those of zeros, are looked for nowhere.
const SOUGHT_SIZE_BYTES: usize = 24;

impl Life {
    pub fn new(segment_size: u64) -> Life {
        Life {
            segment_size,
            acknowledged: Vec::new(),
            in_flight: Vec::new(),
            redacting: Vec::new(),
            gone: Vec::new(),
            first: 1,
            base: None,
            trimming: Vec::new(),
            was_cut: false,
            histories: 0,
        }
    }

    /// What is read counts as promised.
    pub fn know(&mut self, journal: &FileJournal) {
        self.acknowledged = everything(journal);
        self.in_flight.clear();
    }

    fn new_history(&mut self) -> HistoryId {
        self.histories += 1;
        let mut id = [0xEE; 16];
        id[..2].copy_from_slice(&self.histories.to_le_bytes());
        HistoryId(id)
    }

    /// Opens the journal, compares it with what was promised, and promises what it shows. None where the disk failed.
    pub fn open(&mut self, disk: &CrashDisk) -> Option<FileJournal> {
        let has_cut_pending = disk.visible().iter().any(|(name, _)| name == "cut.pending");
        let mut whole = walk(disk.disk(), true).ok()?;
        let is_whole = whole.by_ref().all(|entry| entry.is_ok());
        let must_cut = has_cut_pending || !is_whole || whole.unfinished().is_some();
        let new_history = self.new_history();
        let mark = FrameMark([5; 8]);
        let options =
            OpenOptions { segment_size_max_bytes: self.segment_size, ..OpenOptions::new(1, new_history, mark) };
        let opened = FileJournal::open(disk.disk(), &options);
        if !disk.has_power() {
            return None;
        }
        let (journal, opened) = match opened {
            Ok(opened) => opened,
            Err(_) if disk.was_troubled() => return None,
            Err(error) => panic!("after a crash the journal opens, but: {error}"),
        };
        let entries = everything(&journal);
        if !disk.has_power() {
            return None;
        }
        if journal.first_sequence() != self.first {
            let (first, state) = (journal.first_sequence(), journal.base().unwrap().unwrap().state);
            let is_it = |trim: &&Trim| trim.first_kept == first && trim.state == state;
            let trim = self.trimming.iter().find(is_it).expect("nothing is trimmed that was not to be").clone();
            self.begin_with(trim);
        }
        self.check_base(&journal);
        let before = &self.acknowledged[..usize::try_from(self.first).unwrap() - 1];
        let entries = [before, &entries].concat();
        self.compare(&entries, opened.cut.as_ref(), opened.created, new_history);
        if !disk.was_troubled() {
            assert!(opened.created || opened.cut.is_some() == must_cut, "{opened:?}, but cut: {must_cut}");
        }
        self.was_cut = opened.cut.is_some();
        let promised = self.acknowledged.len();
        if entries[promised..].iter().any(|entry| entry.kind == KIND_REDACTED) {
            self.forget(&self.redacting.clone());
        }
        if !disk.was_troubled() {
            self.check_gone(&disk.visible(), &self.gone);
            self.trimming.clear();
        }
        self.acknowledged = entries;
        self.in_flight.clear();
        self.redacting.clear();
        Some(journal)
    }

    /// Nothing of what is gone is on the disk.
    #[allow(clippy::unused_self, reason = "said of a life")]
    fn check_gone(&self, image: &Image, gone: &[Vec<u8>]) {
        for body in gone {
            for (name, bytes) in image {
                let found = bytes.windows(body.len()).position(|window| window == body);
                assert_eq!(found, None, "a redacted body is in {name}");
            }
        }
    }

    /// What a trim left reads as it was, and nothing else of before does.
    fn check_base(&self, journal: &FileJournal) {
        let base = journal.base().unwrap();
        assert_eq!(base.as_ref().map(|base| (base.state.clone(), base.kept.clone())), self.base);
        let Some(base) = base else { return };
        let index = |sequence: u64| usize::try_from(sequence).unwrap() - 1;
        assert_eq!(base.before, self.acknowledged[index(self.first - 1)].tail());
        for sequence in 1..self.first {
            match journal.entry(sequence) {
                Ok(entry) if base.kept.contains(&sequence) => assert_eq!(entry, self.acknowledged[index(sequence)]),
                Err(ReadError::EntryAbsent { first, .. }) => {
                    assert!(!base.kept.contains(&sequence) && first == self.first);
                }
                found => panic!("{found:?}"),
            }
        }
    }

    /// The trim has happened.
    fn begin_with(&mut self, trim: Trim) {
        let is_kept = |entry: &&Entry| {
            let was_there =
                entry.sequence >= self.first || self.base.as_ref().is_some_and(|base| base.1.contains(&entry.sequence));
            was_there && (entry.kind == KIND_HISTORY_BEGUN || trim.kept.contains(&entry.sequence))
        };
        let before = &self.acknowledged[..usize::try_from(trim.first_kept).unwrap() - 1];
        let kept = before.iter().filter(is_kept).map(|entry| entry.sequence).collect();
        let bodies = |entry: &Entry| Bodies { sequence: entry.sequence, first: 0, count: entry.blobs.len() as u32 };
        let bodies: Vec<Bodies> = before.iter().map(bodies).collect();
        self.forget(&bodies);
        (self.first, self.base) = (trim.first_kept, Some((trim.state, kept)));
    }

    /// These bodies are gone from now on.
    fn forget(&mut self, bodies: &[Bodies]) {
        for one in bodies {
            let entry = &mut self.acknowledged[usize::try_from(one.sequence).unwrap() - 1];
            let blobs = &mut entry.blobs[one.first as usize..(one.first + one.count) as usize];
            for blob in blobs.iter_mut().filter_map(Option::take) {
                let sought = blob.bytes().get(..SOUGHT_SIZE_BYTES).filter(|bytes| bytes.iter().any(|byte| *byte != 0));
                self.gone.extend(sought.map(<[u8]>::to_vec));
            }
        }
    }

    fn compare(&self, entries: &[Entry], cut: Option<&Cut>, created: bool, new_history: HistoryId) {
        let promised = self.acknowledged.len();
        let kept = entries.get(..promised).unwrap_or_default();
        let mut expected = self.clone();
        if entries.iter().skip(promised).any(|entry| entry.kind == KIND_REDACTED) {
            assert!(!self.redacting.is_empty(), "nothing was to be redacted");
            expected.forget(&self.redacting);
        }
        assert!(kept == expected.acknowledged.as_slice(), "what was acknowledged is there byte for byte");
        let mut rest = entries[promised..].iter().peekable();
        for draft in &self.in_flight {
            if rest.next_if(|entry| is(entry, draft)).is_none() {
                break;
            }
        }
        // Each open that cut something began a history, and may have been interrupted after that.
        for begun in rest {
            if [KIND_REDACTED, KIND_REDACTION_STEP, KIND_TRIMMED].contains(&begun.kind) {
                continue;
            }
            assert_eq!(begun.kind, KIND_HISTORY_BEGUN, "nothing is there that was not handed over");
            let parent = begun.sequence.checked_sub(2).map(|index| entries[usize::try_from(index).unwrap()].tail());
            let history = begun.history;
            assert_eq!(HistoryBegun::decode(&begun.payload), Ok(HistoryBegun { history, parent }));
        }
        let begins = entries.last().is_some_and(|last| last.history == new_history);
        assert_eq!(begins, created || cut.is_some(), "a history begins where something was cut, and only there");
        if let Some(cut) = cut {
            let begun = entries.iter().rposition(|entry| entry.kind == KIND_HISTORY_BEGUN);
            let before = begun.and_then(|index| index.checked_sub(1)).map(|index| entries[index].tail());
            assert_eq!(cut.parent, before);
        }
    }

    pub fn append(&mut self, journal: &FileJournal, disk: &CrashDisk, batch: Vec<Draft>) -> Promise {
        let tail = journal.tail();
        let outcome = block_on(journal.append(tail, batch.clone())).map(|committed| committed.tail);
        self.settle(journal, disk, outcome, batch)
    }

    pub fn begin_history(&mut self, journal: &FileJournal, disk: &CrashDisk) -> Promise {
        let new = self.new_history();
        let outcome = block_on(journal.begin_history(journal.tail(), new, 3)).map(|committed| committed.tail);
        // An interrupted one is found as any begun history is.
        self.settle(journal, disk, outcome, Vec::new())
    }

    /// Redacts some bodies that are there.
    pub fn redact(&mut self, journal: &FileJournal, disk: &CrashDisk, random: &mut Seeded) -> Promise {
        let with_bodies = self.acknowledged.iter().filter(|entry| entry.blobs.iter().any(Option::is_some));
        let sequences: Vec<(u64, usize)> = with_bodies.map(|entry| (entry.sequence, entry.blobs.len())).collect();
        let mut bodies = Vec::new();
        for _ in 0..=random.choose(3) {
            let Some((sequence, count)) = sequences.get(random.choose(sequences.len())) else { return Promise::Kept };
            let first = random.choose(*count);
            let (first, count) = (first as u32, 1 + random.choose(count - first) as u32);
            bodies.push(Bodies { sequence: *sequence, first, count });
        }
        let outcome = block_on(journal.redact(journal.tail(), 4, bodies.clone()));
        let known = self.gone.len();
        if let Ok(redacted) = &outcome {
            if redacted.recorded {
                self.forget(&bodies);
            }
            if redacted.gone {
                self.check_gone(&disk.visible(), &self.gone[known..]);
            }
        } else {
            self.redacting = bodies;
        }
        let gone = outcome.as_ref().is_ok_and(|redacted| redacted.gone);
        let promise = self.settle(journal, disk, outcome.map(|redacted| redacted.tail), Vec::new());
        if promise == Promise::Kept && !gone {
            return Promise::NoRoom;
        }
        if promise == Promise::NoRoom {
            self.redacting.clear();
        }
        promise
    }

    /// Trims at some place, and keeps some entries.
    pub fn trim(&mut self, journal: &FileJournal, disk: &CrashDisk, random: &mut Seeded) -> Promise {
        let before = random.choose(self.acknowledged.len() + 2) as u64;
        let Some(first_kept) = journal.trim_point(before) else { return Promise::Kept };
        let held = (self.first..first_kept).chain(self.base.iter().flat_map(|base| base.1.clone()));
        let kept = held.filter(|_| random.choose(4) == 0).collect();
        // Two trims at one place differ in their states.
        let state = vec![random.next().to_le_bytes()[0]; 1 + random.choose(3000)].into();
        let trim = Trim { first_kept, state, kept };
        // From here on a whole base may be there, by which the next open goes.
        self.trimming.push(trim.clone());
        let prepared = match journal.prepare_trim(trim.clone()) {
            Ok(prepared) => prepared,
            Err(error) => {
                assert!(!disk.has_power() || disk.was_troubled(), "{error}");
                return Promise::NoRoom;
            }
        };
        let outcome = block_on(journal.trim(journal.tail(), 4, prepared)).map(|committed| committed.tail);
        let happened = outcome.is_ok();
        let promise = self.settle(journal, disk, outcome, Vec::new());
        if happened {
            self.trimming.clear();
            self.begin_with(trim);
            self.check_base(journal);
        }
        promise
    }

    fn settle(
        &mut self,
        journal: &FileJournal,
        disk: &CrashDisk,
        outcome: Result<concord_journal::Tail, AppendError>,
        batch: Vec<Draft>,
    ) -> Promise {
        match outcome {
            Ok(tail) => {
                let first = self.acknowledged.len() as u64 + 1;
                for sequence in first..=tail.sequence {
                    // The power may go before it is read again, and it was promised all the same.
                    let Ok(entry) = journal.entry(sequence) else {
                        panic!("a durable entry cannot be read, with power: {}", disk.has_power());
                    };
                    self.acknowledged.push(entry);
                }
                let appended = &self.acknowledged[usize::try_from(first).unwrap() - 1..];
                assert!(batch.is_empty() || appended.iter().zip(&batch).all(|(entry, draft)| is(entry, draft)));
                Promise::Kept
            }
            Err(AppendError::NoRoom { .. }) => Promise::NoRoom,
            Err(AppendError::OutcomeUnknown { .. }) => {
                self.in_flight = batch;
                Promise::Unknown
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Recovers from the image on a disk without faults, goes on, and opens once more. Whether something was cut.
    pub fn check(mut self, image: &Image) -> bool {
        let disk = CrashDisk::new(image);
        let journal = self.open(&disk).unwrap();
        let was_cut = self.was_cut;
        let draft = Draft { kind: 2, version: 1, recorded_at: 9, payload: vec![1, 2, 3].into(), blobs: Vec::new() };
        assert_eq!(self.append(&journal, &disk, vec![draft]), Promise::Kept, "the next append works");
        drop(journal);
        assert_eq!(verify(disk.disk()).unwrap().unfinished, None);
        let after = disk.visible();
        assert!(
            after.iter().all(|(name, _)| [".segment", ".seal", ".base"].iter().any(|suffix| name.ends_with(suffix))),
            "nothing is left over"
        );
        let bases = after.iter().filter(|(name, _)| name.ends_with(".base")).count();
        assert_eq!(bases, usize::from(self.first > 1), "only the base that counts is there");
        let journal = self.open(&disk).unwrap();
        assert_eq!(everything(&journal), self.acknowledged[usize::try_from(self.first).unwrap() - 1..]);
        was_cut
    }
}

fn is(entry: &Entry, draft: &Draft) -> bool {
    let blobs = entry.blobs.iter().flatten().eq(draft.blobs.iter()) && entry.blobs.len() == draft.blobs.len();
    let meta = (entry.kind, entry.version, entry.recorded_at) == (draft.kind, draft.version, draft.recorded_at);
    meta && entry.payload == draft.payload && blobs
}

/// The same disk, but it says that it synced and did not.
pub fn without_syncs(disk: &CrashDisk) -> Arc<dyn Disk> {
    Arc::new(Lying(disk.disk()))
}

struct Lying(Arc<dyn Disk>);
struct LyingFile(Arc<dyn DiskFile>);

impl Disk for Lying {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LyingFile(self.0.create(name)?)))
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open_read(name)
    }
    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LyingFile(self.0.open_append(name)?)))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }
    fn available_bytes(&self) -> io::Result<u64> {
        self.0.available_bytes()
    }
}

impl DiskFile for LyingFile {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.overwrite(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}
