//! A trimmed journal means the same.
//!
//! Invariant: whatever happened before, and wherever a journal is trimmed, what its base and its tail fold to is what the whole folds to,
//! and the views made from them are the same row by row; also where the base's state is of another version of the program.

use std::collections::BTreeMap;
use std::fmt::Debug;

use concord_hub::projection::HubProjection;
use concord_journal::{Entry, Journal as _, KIND_TRIMMED, MemoryJournal, OldSegments, ReadError};
use concord_ledger::{At, Ledger};
use concord_model::Timestamp;
use concord_node::NodeProjection;
use concord_node::state::NodeState;
use concord_snapshots::{Form, Snapshots, restore, state_before};
use concord_views::{Projection, SCAN_ROWS_MAX, Table, Views};
use concord_wire::stored::{hub, node};
use futures::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chance::Chance;
use crate::judge::Parties;

const FORM: Form = Form { name: "simulated", version: 1 };
const OTHER_FORM: Form = Form { name: "simulated", version: 2 };
/// Above the number of every table of a projection.
const TABLES_END: u8 = 32;
/// What a chance is for.
const PURPOSE: u64 = 77;

/// Every row, by table and key.
type AllRows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Judges every party's journal; how often one of which there are rows was trimmed for it.
pub(crate) fn judge(seed: u64, parties: &Parties) -> u64 {
    let mut chance = Chance::of(seed, PURPOSE);
    let ledger = |ledger: &mut Ledger, entry: &Entry| {
        let at = At { sequence: entry.sequence, now: Timestamp::from_micros(entry.recorded_at) };
        ledger.apply(&hub::read(entry).unwrap().into_fact(), at);
        Ok(())
    };
    let mut trims = judge_one("the hub", &parties.hub.journal, &mut HubProjection, ledger, &mut chance);
    let state = |state: &mut NodeState, entry: &Entry| {
        let at = Timestamp::from_micros(entry.recorded_at);
        state.apply(&node::read(entry).unwrap(), entry.sequence, at).unwrap();
        Ok(())
    };
    for one in &parties.nodes {
        trims += judge_one(one.code.as_str(), &one.journal, &mut NodeProjection, state, &mut chance);
    }
    trims
}

fn judge_one<S, P>(
    whose: &str,
    journal: &MemoryJournal,
    projection: &mut P,
    apply: impl Fn(&mut S, &Entry) -> Result<(), ReadError> + Copy,
    chance: &mut Chance,
) -> u64
where
    S: Default + Serialize + DeserializeOwned + PartialEq + Debug,
    P: Projection,
{
    let (whole_state, whole_rows): (S, _) = (folded(FORM, journal, apply), rows(journal, projection));
    let trimmed = journal.fork();
    let (mut through, mut trims) = (1, 0);
    // The second trim begins with the base of the first.
    for round in ["trimmed", "trimmed twice"] {
        through = chance.within(through..journal.tail().sequence + 1);
        let found = OldSegments::find(&trimmed, i64::MAX, through, |error| error, |_, _| Ok(true)).unwrap();
        let Some(old) = found else { continue };
        let state = state_before(FORM, &trimmed, old.first_kept, apply).unwrap();
        let prepared = trimmed.prepare_trim(old.into_trim(state.into())).unwrap();
        trimmed.trim(trimmed.tail(), 0, prepared).now_or_never().unwrap().unwrap();
        // One who was cut off from the beginning may have none.
        trims += u64::from(!whole_rows.is_empty());
        for form in [FORM, OTHER_FORM] {
            // The journal's own word on the trim stands in one of the two only.
            let state: S = folded(form, &trimmed, |state, entry| match entry.kind {
                KIND_TRIMMED => Ok(()),
                _ => apply(state, entry),
            });
            assert!(state == whole_state, "{whose}, {round}, from its base: {state:#?}\n\nand whole: {whole_state:#?}");
        }
        assert_eq!(rows(&trimmed, projection), whole_rows, "the views of {whose}, {round}");
    }
    trims
}

/// What a start without snapshots folds a journal to.
fn folded<S>(form: Form, journal: &MemoryJournal, apply: impl FnMut(&mut S, &Entry) -> Result<(), ReadError>) -> S
where
    S: Default + DeserializeOwned,
{
    restore(&Snapshots::new("no-such-folder".into(), form), journal, apply).unwrap().state
}

/// What a start without views makes of a journal.
fn rows<P: Projection>(journal: &MemoryJournal, projection: &mut P) -> AllRows {
    let views = Views::in_memory(projection.version());
    views.catch_up(journal, projection, journal.tail(), |_| {}).unwrap();
    let mut all = AllRows::new();
    for table in 1..TABLES_END {
        let mut from = Vec::new();
        loop {
            let rows = views.scan(Table::new(table), &from, &[], SCAN_ROWS_MAX).unwrap();
            let Some((last, _)) = rows.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            all.extend(rows.into_iter().map(|(key, value)| ((table, key), value)));
        }
    }
    all
}
