//! A snapshot of the state after any entry, and the entries after it, fold to the state.

use std::path::Path;

use concord_journal::{Journal as _, MemoryJournal};
use concord_model::{Lane, Reason, Refusal, Right, Scope, Timestamp};
use concord_server::{Clock as _, SystemClock};
use concord_wire::agreement::{DraftContent, parse_statement};
use concord_wire::stored::node::{self as stored, Restored, RightsChange, StatementAnswered, read};
use proptest::prelude::*;

use super::acknowledging::a_little_of_everything;
use super::recovering::recovered;
use super::support::{Forum, MEASURE, Running, founded, measure, name, prepared, reference};
use super::uplink::receipt_of;
use crate::open::{SNAPSHOT_FORM, fold, snapshots};
use crate::state::NodeState;

/// A journal with an entry of every kind.
async fn everything(place: &Path) -> MemoryJournal {
    let forum = Forum::new();
    let node = Running::start(&forum, founded(&forum).await, &place.join("views"));
    a_little_of_everything(&forum, &node).await;
    let signed = forum.kaz.says(2, DraftContent::Consent(reference(&forum.text("IRN/other"))));
    let statement = parse_statement(&signed).unwrap();
    node.writer.statement(signed, statement).await.unwrap();
    let answer = StatementAnswered {
        officer: "officer".to_owned(),
        number: 2,
        refused: "AGREEMENT_NOT_PENDING".to_owned(),
        message: "why".to_owned(),
        whole: false,
    };
    node.writer.answer(answer).await.unwrap();
    let sequence = node.index.consignment(Lane::Flash, 1, 1).unwrap().unwrap();
    let queued = node.index.queued(sequence).unwrap();
    let receipt = receipt_of(&forum, &queued.kept.sealed, false);
    let recorded = concord_wire::receipt::parse(&receipt.statement).unwrap();
    node.writer.receipts(vec![(receipt, recorded)]).await.unwrap();
    node.writer.submit(prepared(&forum, "r-2", b"y", Lane::Flash)).await.unwrap();
    let all = |measures| Right { send: true, receive: true, measures, agreements: Scope::All };
    let some = all(Scope::These([measure(MEASURE)].into()));
    node.writer.add_agency(name("cyber"), Vec::new()).await.unwrap();
    for change in [RightsChange::Revoked(some.clone()), RightsChange::Granted(some)] {
        node.writer.change_rights(name("cyber"), change).await.unwrap();
    }
    node.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    node.writer.change_rights(name("police"), RightsChange::Ended).await.unwrap();
    for why in ["once", "again"] {
        node.writer.fence(Refusal::new(Reason::NodeRolledBack, why)).await.unwrap();
        if why == "once" {
            node.writer.lift_fence().await.unwrap();
        }
    }
    let journal = node.stop().await;
    // Behind a restore: what was there, and what is added, waits for an officer.
    let now = SystemClock.now();
    let drafts = vec![
        stored::restored(Restored::Rebuilt, now),
        stored::agency_added(&name("border"), &[], now),
        stored::agency_added(&name("coast"), &[], now),
        stored::rights_changed(&name("border"), &RightsChange::Confirmed { with_past: false }, now),
        stored::lane_recovered(&recovered(Lane::Routine, 7), now),
        stored::rights_changed(&name("cyber"), &RightsChange::Confirmed { with_past: true }, now),
    ];
    journal.append(journal.tail(), drafts).await.unwrap();
    journal
}

fn apply(state: &mut NodeState, journal: &MemoryJournal, sequence: u64) {
    let entry = journal.entry(sequence).unwrap();
    state.apply(&read(&entry).unwrap(), sequence, Timestamp::from_micros(entry.recorded_at)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_after_any_entry_and_the_entries_after_it_fold_to_the_state() {
    let place = tempfile::tempdir().unwrap();
    let journal = everything(place.path()).await;
    let whole = fold(&snapshots(place.path().join("none")), &journal).unwrap();
    assert_eq!((whole.snapshot, whole.tail), (None, journal.tail()));
    let mut state = NodeState::default();
    for sequence in 1..=journal.tail().sequence {
        apply(&mut state, &journal, sequence);
        let snapshots = snapshots(place.path().join(sequence.to_string()));
        let tail = journal.entry(sequence).unwrap().tail();
        snapshots.write(&state, tail).unwrap();
        let restored = fold(&snapshots, &journal).unwrap();
        assert_eq!(restored.snapshot, Some(tail));
        assert_eq!(restored.state, whole.state, "from the snapshot after entry {sequence}");
    }
    assert_eq!(state, whole.state);
    let kinds: std::collections::BTreeSet<u16> =
        journal.read(1, usize::MAX).unwrap().iter().map(|entry| entry.kind).collect();
    assert!(kinds.len() >= 10, "the journal has entries of {} kinds only", kinds.len());
}

/// The words that the state's fields and types are written with, in their order, each once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_holds_changes_only_with_its_version() {
    let place = tempfile::tempdir().unwrap();
    let journal = everything(place.path()).await;
    let state = fold(&snapshots(place.path().join("none")), &journal).unwrap().state;
    let shown = format!("{state:#?}");
    let mut words = Vec::new();
    for line in shown.lines().map(str::trim) {
        let word: String = line.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
        let is_field_or_type = line[word.len()..].starts_with([':', ' ', '(']) && !word.is_empty();
        if is_field_or_type && word.starts_with(char::is_alphabetic) && !words.contains(&word) {
            words.push(word);
        }
    }
    let text = format!(
        "# The fields of a node's state, as a snapshot holds them.\nversion: {}\n{}\n",
        SNAPSHOT_FORM.version,
        words.join("\n")
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/snapshot.txt");
    if std::env::var_os("CONCORD_BLESS").is_some_and(|value| value == "1") {
        return std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == text,
        "what a snapshot of the node holds has changed: raise SNAPSHOT_FORM's version above the committed one (snapshots that \
         were written before are ignored then), and `CONCORD_BLESS=1 cargo test -p concord-node` writes the file anew:\n{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Entries in any order and number, after those that found the node: applying is total over what verifies.
    #[test]
    fn over_any_history_a_snapshot_after_every_entry_is_the_state(picks in prop::collection::vec(0_usize..64, 0..60)) {
        static JOURNAL: std::sync::LazyLock<MemoryJournal> = std::sync::LazyLock::new(|| {
            let place = tempfile::tempdir().unwrap();
            tokio::runtime::Runtime::new().unwrap().block_on(everything(place.path()))
        });
        let last = usize::try_from(JOURNAL.tail().sequence).unwrap();
        let (mut folded, mut through_snapshots) = (NodeState::default(), NodeState::default());
        let picked = picks.iter().map(|pick| 5 + pick % (last - 4));
        for sequence in (1..=4).chain(picked) {
            apply(&mut folded, &JOURNAL, sequence as u64);
            apply(&mut through_snapshots, &JOURNAL, sequence as u64);
            let bytes = postcard::to_stdvec(&through_snapshots).unwrap();
            through_snapshots = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&through_snapshots, &folded);
        }
    }
}
