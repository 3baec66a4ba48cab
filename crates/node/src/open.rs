//! Opening a node's journal and folding its state, for serving and for the set-up commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_journal::{
    Draft, Entry, FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions, Opened, is_reserved_kind,
};
use concord_model::Timestamp;
use concord_snapshots::{Form, Restored, Snapshots, restore, state_before};
use concord_wire::stored::node::read;
use futures::executor::block_on;

use crate::error::NodeError;
use crate::state::NodeState;
use concord_server::{Clock, fresh};

/// Opens the journal, or begins one, and says what was cut. Blocks for as long as verifying it takes.
pub(crate) fn open_journal(
    folder: &Path,
    clock: &dyn Clock,
    segment_size_max_bytes: u64,
) -> Result<(Arc<FileJournal>, Opened), NodeError> {
    let options = OpenOptions::new(clock.now().as_micros(), HistoryId(fresh()?), FrameMark(fresh()?));
    let options = OpenOptions { segment_size_max_bytes, ..options };
    let (journal, opened) = FileJournal::open_folder(folder, &options)?;
    if let Some(cut) = &opened.cut {
        tracing::warn!(
            file = %cut.file, offset = cut.offset, bytes = cut.bytes, something_left = cut.parent.is_some(),
            "the journal's last commit was damaged or unfinished and was cut; a new history began"
        );
        metrics::counter!("concord_journal_cuts_total").increment(1);
    }
    Ok((Arc::new(journal), opened))
}

/// Raised when a field of the state changes, or what an entry does to it; a test shows the bytes.
pub(crate) const SNAPSHOT_FORM: Form = Form { name: "node", version: 22 };

/// The snapshots of a node's folder.
pub(crate) fn snapshots(folder: PathBuf) -> Snapshots {
    Snapshots::new(folder, SNAPSHOT_FORM)
}

/// The state of all entries of the journal.
pub(crate) fn fold(
    snapshots: &Snapshots,
    journal: &dyn concord_journal::Journal,
) -> Result<Restored<NodeState>, NodeError> {
    restore(snapshots, journal, apply)
}

/// The state of all entries before one, as the base carries it that is to stand for them. Blocks.
pub(crate) fn before(journal: &dyn concord_journal::Journal, first_kept: u64) -> Result<Vec<u8>, NodeError> {
    state_before(SNAPSHOT_FORM, journal, first_kept, apply)
}

fn apply(state: &mut NodeState, entry: &Entry) -> Result<(), NodeError> {
    Ok(state.apply(&read(entry)?, entry.sequence, Timestamp::from_micros(entry.recorded_at))?)
}

/// The time of the last entry that was decided; none if there is none. That of a begun history is the clock's when the journal
/// was opened, before anybody had vouched for that clock.
pub(crate) fn last_recorded(journal: &dyn concord_journal::Journal) -> Result<Option<Timestamp>, NodeError> {
    let mut sequence = journal.tail().sequence;
    while sequence >= journal.first_sequence() {
        let Some(entry) = journal.read(sequence, 1)?.into_iter().next() else { break };
        if !is_reserved_kind(entry.kind) {
            return Ok(Some(Timestamp::from_micros(entry.recorded_at)));
        }
        sequence -= 1;
    }
    // A journal that was trimmed up to what it did to itself last.
    for kept in journal.base()?.map(|base| base.kept).unwrap_or_default().into_iter().rev() {
        let entry = journal.head(kept)?;
        if !is_reserved_kind(entry.kind) {
            return Ok(Some(Timestamp::from_micros(entry.recorded_at)));
        }
    }
    Ok(None)
}

/// Appends one entry outside the writer: only while no node runs, which the folder's lock shows.
pub(crate) fn append(journal: &FileJournal, draft: Draft) -> Result<(), NodeError> {
    block_on(journal.append(journal.tail(), vec![draft]))?;
    Ok(())
}
