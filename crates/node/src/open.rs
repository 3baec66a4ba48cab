//! Opening a node's journal and folding its state, for serving and for the set-up commands.

use std::path::Path;
use std::sync::Arc;

use concord_journal::{Draft, FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions, Opened};
use concord_model::Timestamp;
use concord_wire::stored::node::read;
use futures::executor::block_on;

use crate::error::NodeError;
use crate::state::NodeState;
use concord_server::{Clock, fresh};

/// Entries that are folded between two reads.
const READ_ENTRIES_MAX: usize = 1024;

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

/// Folds the journal from its first entry.
pub(crate) fn fold(journal: &dyn concord_journal::Journal) -> Result<NodeState, NodeError> {
    let mut state = NodeState::default();
    let mut next = journal.first_sequence();
    while next <= journal.tail().sequence {
        let entries = journal.read(next, READ_ENTRIES_MAX)?;
        for entry in &entries {
            state.apply(&read(entry)?, entry.sequence, Timestamp::from_micros(entry.recorded_at))?;
        }
        next += entries.len() as u64;
    }
    Ok(state)
}

/// Appends one entry outside the writer: only while no node runs, which the folder's lock shows.
pub(crate) fn append(journal: &FileJournal, draft: Draft) -> Result<(), NodeError> {
    block_on(journal.append(journal.tail(), vec![draft]))?;
    Ok(())
}
