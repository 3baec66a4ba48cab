//! Opening: verify everything, cut what a crash left of the last commit, begin a history where one must begin.

use std::io;
use std::sync::Arc;

use super::chain::Chain;
use super::disk::{Disk, DiskFile, read_onto};
use super::fault::{Damage, Fault};
use super::frame::SEGMENT_HEADER_SIZE_BYTES;
use super::index::{Index, SegmentIndex};
use super::reader::Shared;
use super::redact::Finish;
use super::scan::{ScanError, Scanner, Step, Unstarted, segment_name};
use super::seal::{self, Seal};
use super::writer::{ActiveSegment, Writer};
use super::{Cut, OpenError, OpenOptions, Opened, SEGMENT_SIZE_MAX_BYTES};
use crate::history::HistoryBegun;
use crate::journal::ReadError;

/// The name of an empty file that is there while a cut has begun and its new history has not: without it, a crash
/// between the two would leave a shorter journal that looks whole, and nobody would be told.
const CUT_MARKER: &str = "cut.pending";

/// What the segments hold.
struct Survey {
    scanner: Scanner,
    index: Index,
    damage: Option<Damage>,
    /// The seals of full segments that were read because they had none.
    missing_seals: Vec<Seal>,
}

/// Opens the journal on `disk`; the writer is returned unstarted.
pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &OpenOptions) -> Result<(Arc<Shared>, Writer, Opened), OpenError> {
    let in_folder = |doing| move |source| OpenError::Disk { doing, file: "the folder".to_owned(), source };
    concord_faults::point("journal.open.begin");
    let marked = disk.list().map_err(in_folder("listing"))?.iter().any(|name| name == CUT_MARKER);
    let mut survey = survey(disk)?;
    concord_faults::point("journal.open.surveyed");
    let mut cut = None;
    if let Some(damage) = survey.damage.take() {
        refuse_unless_last_commit(&survey.scanner, &damage)?;
        if !marked && !concord_faults::planted("cut-without-a-mark") {
            disk.create(CUT_MARKER).map_err(in_folder("marking the cut of"))?;
            concord_faults::point("journal.cut.marking");
            disk.sync_directory().map_err(in_folder("syncing"))?;
        }
        concord_faults::point("journal.cut.marked");
        cut = Some(cut_off(disk.as_ref(), &mut survey, damage)?);
        concord_faults::point("journal.cut.done");
    }
    let chain = survey.scanner.chain;
    if chain.tail.sequence == 0 {
        remove_empty_beginning(disk.as_ref(), &mut survey.index)?;
    }
    if marked && cut.is_none() {
        cut = Some(earlier_cut(&survey.index, &chain));
    }
    let created = chain.tail.sequence == 0;
    let begins_history = created || (cut.is_some() && !concord_faults::planted("cut-in-silence"));
    if begins_history && options.new_history == chain.tail.history {
        return Err(OpenError::HistoryRepeated { history: options.new_history });
    }
    let firsts: Vec<u64> = survey.index.segments.iter().map(|segment| segment.first).collect();
    seal::remove_stale(disk.as_ref(), &firsts).map_err(in_folder("unsealing"))?;
    let (shared, mut writer) = make_writer(disk, options, survey.index, &chain)?;
    concord_faults::point("journal.open.synced");
    if begins_history {
        let parent = (!created).then_some(chain.tail);
        let begun = HistoryBegun { history: options.new_history, parent };
        let draft = begun.into_draft(chain.recorded_at.max(options.now));
        let written = writer.commit(&chain.tail, options.new_history, &[draft]);
        written.map_err(|error| OpenError::NotBegun { reason: error.to_string() })?;
        writer.seal();
        concord_faults::point("journal.history.begun");
    }
    finish_effects(&mut writer, chain.recorded_at.max(options.now), &survey.scanner.torn_bases)?;
    if marked || cut.is_some() {
        disk.remove(CUT_MARKER).map_err(in_folder("unmarking the cut of"))?;
        concord_faults::point("journal.cut.unmarked");
        disk.sync_directory().map_err(in_folder("syncing"))?;
    }
    let is_full = |seal: &&Seal| firsts.split_last().is_some_and(|(last, _)| seal.first() < *last);
    survey.missing_seals.iter().filter(is_full).for_each(|seal| seal.write(disk.as_ref()));
    Ok((shared, writer, Opened { created, cut }))
}

/// What a redaction or a trim left undone is done now. Damage where bodies stand that should go, or a full disk, stop no
/// open: it is tried again by the next redaction, and the next open.
fn finish_effects(writer: &mut Writer, recorded_at: i64, torn_bases: &[u64]) -> Result<(), OpenError> {
    let unreadable = |error: ReadError| match error {
        ReadError::Damaged { sequence, file, offset, what } => {
            OpenError::Damaged(Box::new(Damage { file, offset, sequence, what }))
        }
        error => OpenError::NotFinished { reason: error.to_string() },
    };
    let anchored = writer.shared.read_facts().map_err(unreadable)?;
    match writer.finish_redaction(recorded_at).map_err(|failure| writer.failed(failure)) {
        Ok(Finish::Done) => {}
        Ok(unfinished) => tracing::error!(?unfinished, "a redaction is not finished: bodies that it names are there"),
        Err(error) => return Err(OpenError::NotFinished { reason: error.to_string() }),
    }
    let finished = writer.finish_trim(recorded_at, torn_bases, anchored);
    finished.map_err(|error| OpenError::NotFinished { reason: error.to_string() })
}

fn survey(disk: &Arc<dyn Disk>) -> Result<Survey, OpenError> {
    let mut scanner = Scanner::new(Arc::clone(disk))?;
    let (mut index, mut missing_seals) = (Index::default(), Vec::new());
    index.base = scanner.base.clone();
    let damage = loop {
        if let Some((first, next)) = scanner.before_full_segment()
            && let Some(seal) = seal::trusted(disk.as_ref(), first, next, &scanner.chain)
        {
            scanner.pass_segment(seal.chain());
            index.segments.push(seal.into_segment());
            continue;
        }
        match scanner.step()? {
            Step::Segment { first, previous } => {
                index.begin_segment(first, previous, SEGMENT_HEADER_SIZE_BYTES as u64);
            }
            Step::Entry { offset, length, kind } => index.push(offset, length, kind),
            Step::SegmentEnd => {
                missing_seals.extend(index.segments.last().and_then(|segment| Seal::of(segment, &scanner.chain)));
            }
            Step::End => break None,
            Step::Stopped { damage, .. } => break Some(damage),
        }
    };
    Ok(Survey { scanner, index, damage, missing_seals })
}

/// Damage with no whole frame of a later commit after it is the last commit's; nothing else may be cut.
fn refuse_unless_last_commit(scanner: &Scanner, damage: &Damage) -> Result<(), OpenError> {
    // A crash leaves files too short, never under the name of an entry that is in an earlier file.
    let is_stray = matches!(damage.what, Fault::SegmentMissing { found } if found < damage.sequence);
    if is_stray || damage.what.is_foreign() || scanner.later_commit_after(damage)? {
        return Err(OpenError::Damaged(Box::new(damage.clone())));
    }
    Ok(())
}

fn cut_off(disk: &dyn Disk, survey: &mut Survey, damage: Damage) -> Result<Cut, OpenError> {
    let doing = |doing, file: &str| {
        let file = file.to_owned();
        move |source| OpenError::Disk { doing, file, source }
    };
    let keeps_entries = damage.offset > SEGMENT_HEADER_SIZE_BYTES as u64;
    let removed_from = survey.scanner.position + usize::from(keeps_entries);
    let mut bytes = 0;
    // Backwards, and before the cut itself: after a crash in between, the damage is still there to be found.
    for first in survey.scanner.segments.iter().skip(removed_from).rev() {
        let name = segment_name(*first);
        bytes += disk.open_read(&name).and_then(|file| file.length()).map_err(doing("measuring", &name))?;
        disk.remove(&name).map_err(doing("removing", &name))?;
    }
    // What was full is the last segment now, and goes on differently.
    let kept = survey.scanner.segments.get(..removed_from).unwrap_or_default();
    seal::remove_stale(disk, kept).map_err(doing("unsealing", "the folder"))?;
    concord_faults::point("journal.cut.removed");
    disk.sync_directory().map_err(doing("syncing", "the folder"))?;
    if keeps_entries {
        let file = disk.open_append(&damage.file).map_err(doing("opening", &damage.file))?;
        let length = file.length().map_err(doing("measuring", &damage.file))?;
        bytes += length.saturating_sub(damage.offset);
        file.truncate(damage.offset).map_err(doing("cutting", &damage.file))?;
        concord_faults::point("journal.cut.truncated");
        file.sync_data().map_err(doing("syncing", &damage.file))?;
    } else {
        survey.index.segments.retain(|segment| segment_name(segment.first) != damage.file);
    }
    let tail = survey.scanner.chain.tail;
    tracing::warn!(%damage, bytes, "the damaged end of the last commit was cut");
    let parent = (tail.sequence > 0).then_some(tail);
    Ok(Cut { file: damage.file, offset: damage.offset, bytes, parent })
}

/// A journal without an entry has no mark that is proven: its file is made again.
fn remove_empty_beginning(disk: &dyn Disk, index: &mut Index) -> Result<(), OpenError> {
    for segment in index.segments.drain(..) {
        let file = segment_name(segment.first);
        disk.remove(&file).map_err(|source| OpenError::Disk { doing: "removing", file, source })?;
    }
    Ok(())
}

/// The process ended after it had cut and before it could say so. Should it have begun its history already, the
/// second one that begins now is as true.
fn earlier_cut(index: &Index, chain: &Chain) -> Cut {
    let (file, offset) =
        index.segments.last().map_or_else(Default::default, |last| (segment_name(last.first), last.end));
    let parent = (chain.tail.sequence > 0).then_some(chain.tail);
    Cut { file, offset, bytes: 0, parent }
}

fn make_writer(
    disk: &Arc<dyn Disk>,
    options: &OpenOptions,
    index: Index,
    chain: &Chain,
) -> Result<(Arc<Shared>, Writer), OpenError> {
    let mut segment = None;
    if let Some(last) = index.segments.last() {
        let file = segment_name(last.first);
        let failed = |source: io::Error| OpenError::Disk { doing: "syncing", file: file.clone(), source };
        let opened = disk.open_append(&file).map_err(failed)?;
        if !concord_faults::planted("show-what-was-not-synced") {
            write_last_commit_again(opened.as_ref(), last, chain).map_err(failed)?;
        }
        opened.sync_data().map_err(failed)?;
        disk.sync_directory().map_err(failed)?;
        segment = Some(ActiveSegment { file: opened, end: last.end });
    }
    let shared = Arc::new(Shared::new(Arc::clone(disk), index, chain.tail));
    let writer = Writer {
        disk: Arc::clone(disk),
        shared: Arc::clone(&shared),
        mark: chain.proven_mark().unwrap_or(options.new_mark),
        chain: chain.clone(),
        segment,
        // At least one commit goes into a segment, or the next would have the same name.
        segment_size_max_bytes: options
            .segment_size_max_bytes
            .clamp(SEGMENT_HEADER_SIZE_BYTES as u64 + 1, SEGMENT_SIZE_MAX_BYTES),
        buffer: Vec::new(),
        unsealed: None,
        half_redacted: std::collections::BTreeSet::new(),
        failure: None,
    };
    Ok((shared, writer))
}

/// Invariant: what an open shows is durable. A killed process may have left its last commit readable and not synced;
/// and where its sync failed, the system may take those pages for clean, so that syncing again would pass over them.
/// Only writing the same bytes again and syncing them makes sure. All before the last commit was synced before it.
fn write_last_commit_again(file: &dyn DiskFile, last: &SegmentIndex, chain: &Chain) -> io::Result<()> {
    let position = chain.commit_first.checked_sub(last.first).filter(|position| *position > 0);
    let offset = position.and_then(|position| last.offsets.get(usize::try_from(position).ok()?));
    // The first commit of a segment goes with its header.
    let start = offset.map_or(0, |offset| u64::from(*offset));
    let length = usize::try_from(last.end - start).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    read_onto(file, start, length, &mut bytes)?;
    file.overwrite(start, &bytes)
}

impl From<Unstarted> for OpenError {
    fn from(error: Unstarted) -> OpenError {
        match error {
            Unstarted::Scan(error) => error.into(),
            Unstarted::Damaged(damage) => OpenError::Damaged(Box::new(damage)),
        }
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> OpenError {
        OpenError::Disk { doing: "reading", file: error.file, source: error.source }
    }
}
