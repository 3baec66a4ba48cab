//! The ledger's snapshots, and its fold where none helps.

use std::path::Path;
use std::sync::Arc;

use concord_journal::{Entry, Journal, Tail};
use concord_ledger::{At, LEDGER_STATE_VERSION, Ledger};
use concord_model::Timestamp;
use concord_snapshots::{Form, Restored, Snapshots, restore as restored_from, state_before};

use crate::error::HubError;
use crate::init::files;
use crate::sequencer::Published;

/// What the snapshots hold.
const FORM: Form = Form { name: "hub", version: LEDGER_STATE_VERSION };

/// The snapshots of a hub's folder.
pub(crate) fn in_folder(dir: &Path) -> Snapshots {
    Snapshots::new(dir.join(files::SNAPSHOTS), FORM)
}

/// The ledger of all facts of the journal.
pub fn restore(snapshots: &Snapshots, journal: &dyn Journal) -> Result<Restored<Ledger>, HubError> {
    restored_from(snapshots, journal, apply)
}

/// The ledger of all facts before an entry, as the base carries it that is to stand for them. Blocks.
pub(crate) fn before(journal: &dyn Journal, first_kept: u64) -> Result<Vec<u8>, HubError> {
    state_before(FORM, journal, first_kept, apply)
}

fn apply(ledger: &mut Ledger, entry: &Entry) -> Result<(), HubError> {
    let fact = concord_wire::stored::hub::read(entry)?.into_fact();
    ledger.apply(&fact, At { sequence: entry.sequence, now: Timestamp::from_micros(entry.recorded_at) });
    Ok(())
}

/// What a snapshot is made of: only what is durable.
pub(crate) fn of(published: &Arc<Published>) -> (Ledger, Tail) {
    (published.ledger.clone(), published.tail)
}
