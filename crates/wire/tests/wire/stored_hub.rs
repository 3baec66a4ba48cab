//! The hub's journal: the fact that is read is the fact that was decided.

use concord_journal::{
    Digest as JournalDigest, Draft, HistoryBegun as JournalHistoryBegun, HistoryId, KIND_HISTORY_BEGUN, Tail,
};
use concord_ledger::{
    ChainTip, ClosedEpoch, Fact, FeedResumed, HistoryBegun, Lost, MailboxResumed, MailboxRun, NodeSeen, NotHealed,
    Resume, Shown, StatementDecided,
};
use concord_model::{ConsignmentDigest, Digest, ExchangeId, Lane, Name, Reason};
use concord_wire::agreement::{DraftContent, encode_statement, parse_statement};
use concord_wire::consignment::{epoch_link, parse_closed_epoch};
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::journal::v1 as pb;
use concord_wire::stored::StoredError;
use concord_wire::stored::hub::{self, HubEntry};
use concord_wire::stored::node::{self, NodeEntry};
use proptest::prelude::*;
use prost::Message as _;

use crate::fixtures::{
    HISTORY, NOW, agreement_text, any_statement, code, entry, exchanges, founding, mail_acknowledged, name, recorded,
    sealed, sealed_headers, told,
};
use crate::signed_words::{acknowledgement_of, any_recorded, said};
use crate::statements::{draft, epoch_opening, signed};

pub(crate) fn consignment_draft() -> Draft {
    let exchanges = exchanges(4);
    let sealed = sealed(7, &exchanges);
    let blobs = exchanges.into_iter().map(|exchange| exchange.blobs).collect();
    hub::consignment(&recorded(&sealed), &sealed, blobs, NOW)
}

pub(crate) fn statement_decided(refused: Option<Reason>) -> (StatementDecided, Draft) {
    let signed = signed(encode_statement(&draft(1, DraftContent::Propose(agreement_text()))));
    let told = vec![told(code("KAZ"), 4), told(code("UZB"), 300)];
    let fact = StatementDecided {
        statement: parse_statement(&signed).unwrap(),
        refused,
        told,
        closes: None,
        missed: Vec::new(),
    };
    let draft = hub::statement(&fact, signed, NOW);
    (fact, draft)
}

fn closed_epoch() -> ClosedEpoch {
    let tip = |number, byte| ChainTip { number, digest: ConsignmentDigest(Digest([byte; 32])) };
    ClosedEpoch { tips: [ChainTip::default(), tip(3, 0x46), tip(300, 0x47)] }
}

fn epoch_closed() -> (StatementDecided, SignedStatement) {
    let signed = signed(encode_statement(&draft(2, DraftContent::OpenEpoch(epoch_opening()))));
    let statement = parse_statement(&signed).unwrap();
    let closes = Some(Box::new(closed_epoch()));
    (
        StatementDecided { statement, refused: None, told: vec![told(code("KAZ"), 5)], closes, missed: Vec::new() },
        signed,
    )
}

pub(crate) fn epoch_closed_draft() -> Draft {
    let (fact, signed) = epoch_closed();
    hub::statement(&fact, signed, NOW)
}

#[test]
fn where_an_epoch_ended_stands_with_the_statement_that_closed_it_and_only_there() {
    let read = |fact: &StatementDecided, signed: SignedStatement| hub::read(&entry(&hub::statement(fact, signed, NOW)));
    let (fact, signed) = epoch_closed();
    assert!(matches!(read(&fact, signed.clone()), Ok(HubEntry::Statement(read, _)) if read == fact));
    let without = StatementDecided { closes: None, ..fact };
    assert!(matches!(read(&without, signed), Err(StoredError::Malformed { .. })));
    let (other, _) = statement_decided(None);
    let with = StatementDecided { closes: Some(Box::new(closed_epoch())), ..other };
    let proposal = crate::statements::signed(encode_statement(&draft(1, DraftContent::Propose(agreement_text()))));
    assert!(matches!(read(&with, proposal), Err(StoredError::Malformed { .. })));
}

#[test]
fn an_epoch_ends_at_a_number_that_a_chain_has_with_its_digest() {
    let message = concord_wire::consignment::closed_epoch(&closed_epoch());
    assert_eq!(parse_closed_epoch(&message).unwrap(), closed_epoch());
    let with = |number, digest: &[u8]| {
        let mut wrong = message.clone();
        wrong.tips[1].number = number;
        wrong.tips[1].digest = digest.to_vec().into();
        parse_closed_epoch(&wrong)
    };
    assert!(with(0, &[0; 32]).is_ok() && with(1, &[1; 32]).is_ok());
    for (number, digest) in [(0, &[1; 32][..]), (1, &[0; 32]), (u64::MAX, &[1; 32]), (1, &[1; 31])] {
        assert!(with(number, digest).is_err(), "{number}");
    }
}

#[test]
fn the_first_consignment_of_an_epoch_names_number_and_digest_of_the_tip_before() {
    let tip = closed_epoch().tip(Lane::Routine);
    let link = epoch_link(1, &tip);
    assert_ne!(link, epoch_link(2, &tip));
    assert_ne!(link, epoch_link(1, &ChainTip { number: 301, ..tip }));
    assert_ne!(link, epoch_link(1, &ChainTip { digest: ConsignmentDigest(Digest([0x48; 32])), ..tip }));
}

pub(crate) fn acknowledged_draft() -> Draft {
    hub::acknowledged(&mail_acknowledged(), acknowledgement_of(&said()), &name("main"), NOW)
}

pub(crate) fn feed_resumed_draft() -> Draft {
    hub::feed_resumed(&FeedResumed { participant: code("KAZ"), resume: resume() }, NOW)
}

pub(crate) fn mailbox_resumed_draft() -> Draft {
    hub::mailbox_resumed(&MailboxResumed { recipient: code("UZB"), lane: Lane::Flash, resume: resume() }, NOW)
}

pub(crate) fn node_seen_draft() -> Draft {
    hub::node_seen(&node_seen(), NOW)
}

fn node_seen() -> NodeSeen {
    NodeSeen { participant: code("UZB"), history: HISTORY, run: [0x45; 16] }
}

pub(crate) fn not_healed_draft() -> Draft {
    hub::not_healed(&not_healed(), NOW)
}

fn not_healed() -> NotHealed {
    let id = ExchangeId(Digest([0x46; 32]));
    let exchange = Lost::Exchange { id, recipients: vec![code("TJK"), code("UZB")] };
    let statement = Lost::Statement { officer: Name::parse("officer-1").unwrap(), number: 12 };
    let consignment = Lost::Consignment { lane: Lane::Flash, epoch: 2, number: 300 };
    let lost =
        vec![(exchange, Reason::BlobMismatch), (statement, Reason::AgreementUnknown), (consignment, Reason::Fork)];
    NotHealed { participant: code("KAZ"), lost }
}

fn resume() -> Resume {
    let digest = Some(Digest([0x44; 32]));
    Resume {
        shown: Shown { history: HISTORY, number: 300, digest },
        common: 280,
        last: 290,
        at: 300,
        again: 0,
        sequence: 0,
    }
}

/// The fact that an entry of this draft is read as.
fn fact(draft: &Draft) -> Fact {
    match hub::read(&entry(draft)) {
        Ok(entry) => entry.into_fact(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_fact_is_read_as_it_was_stored() {
    assert_eq!(fact(&hub::founded(&founding(), NOW)), Fact::Founded(founding()));
    for refused in [None, Some(Reason::FingerprintMismatch)] {
        let (decided, draft) = statement_decided(refused);
        assert_eq!(fact(&draft), Fact::Statement(decided));
    }
    let sealed = sealed(7, &exchanges(4));
    assert_eq!(fact(&consignment_draft()), Fact::Consignment(recorded(&sealed)));
    assert_eq!(fact(&acknowledged_draft()), Fact::Acknowledged(mail_acknowledged()));
    let (feed, mailbox) = (fact(&feed_resumed_draft()), fact(&mailbox_resumed_draft()));
    assert_eq!(feed, Fact::FeedResumed(FeedResumed { participant: code("KAZ"), resume: resume() }));
    let expected = MailboxResumed { recipient: code("UZB"), lane: Lane::Flash, resume: resume() };
    assert_eq!(mailbox, Fact::MailboxResumed(expected));
    assert_eq!(fact(&node_seen_draft()), Fact::NodeSeen(node_seen()));
    assert_eq!(fact(&not_healed_draft()), Fact::NotHealed(not_healed()));
}

#[test]
fn a_resumption_that_goes_back_stops_the_reader() {
    let mut stored = entry(&feed_resumed_draft());
    for change in [
        |message: &mut pb::HubFeedResumed| message.at = message.number - 1,
        |message: &mut pb::HubFeedResumed| message.common = message.last + 1,
        |message: &mut pb::HubFeedResumed| message.last = message.at + 1,
        |message: &mut pb::HubFeedResumed| message.history.truncate(15),
        |message: &mut pb::HubFeedResumed| message.digest.truncate(31),
    ] {
        let mut message = pb::HubFeedResumed::decode(entry(&feed_resumed_draft()).payload).unwrap();
        change(&mut message);
        stored.payload = message.encode_to_vec().into();
        assert!(matches!(hub::read(&stored), Err(StoredError::Malformed { .. })), "{message:?}");
    }
}

#[test]
fn the_journals_own_entry_is_read_by_both_roles() {
    let tail = Tail { history: HistoryId(*b"one history past"), sequence: 4, digest: JournalDigest([4; 32]) };
    for parent in [None, Some(tail)] {
        let begun = JournalHistoryBegun { history: HistoryId(HISTORY), parent };
        let mut stored = entry(&hub::founded(&founding(), NOW));
        (stored.kind, stored.payload) = (KIND_HISTORY_BEGUN, begun.encode());
        let fact = hub::read(&stored).map(HubEntry::into_fact).unwrap_or_else(|error| panic!("{error}"));
        let parent = parent.map(|tail| tail.history.0);
        assert_eq!(fact, Fact::HistoryBegun(HistoryBegun { history: HISTORY, parent }));
        assert!(matches!(node::read(&stored), Ok(NodeEntry::HistoryBegun(read)) if read == begun));
    }
}

#[test]
fn evidence_stands_beside_its_fact_unchanged() {
    let Ok(HubEntry::Statement(_, evidence)) = hub::read(&entry(&statement_decided(None).1)) else { panic!() };
    assert_eq!(evidence, signed(encode_statement(&draft(1, DraftContent::Propose(agreement_text())))));
    let Ok(HubEntry::Acknowledged(_, evidence)) = hub::read(&entry(&acknowledged_draft())) else { panic!() };
    assert_eq!(evidence, acknowledgement_of(&said()));
    let Ok(HubEntry::Consignment(_, kept)) = hub::read(&entry(&consignment_draft())) else { panic!() };
    let original = sealed(7, &exchanges(4));
    assert_eq!((&kept.sealed.seal, &kept.sealed.signature), (&original.seal, &original.signature));
    assert_eq!((&kept.sealed.head, &kept.sealed.headers), (&original.head, &original.headers));
    assert_eq!(kept.sealed.seed.as_bytes(), original.seed.as_bytes());
    assert_eq!(kept.sealed.tree().root(), original.tree().root());
}

#[test]
fn blobs_of_refused_exchanges_are_not_kept_and_the_others_are_found() {
    let draft = consignment_draft();
    let Ok(HubEntry::Consignment(_, kept)) = hub::read(&entry(&draft)) else { panic!() };
    assert_eq!(kept.blob_counts, [2, 0, 2, 2], "the second exchange was refused");
    let ranges: Vec<_> = (0..6).map(|index| kept.blob_range(index)).collect();
    assert_eq!(ranges, [0..2, 2..2, 2..4, 4..6, 6..6, 6..6], "there is no fifth exchange");
    for (index, exchange) in exchanges(4).into_iter().enumerate().filter(|(index, _)| *index != 1) {
        assert_eq!(draft.blobs[kept.blob_range(index)], exchange.blobs);
    }
    let refused = &exchanges(4)[1].blobs;
    assert!(refused.iter().all(|blob| !draft.blobs.contains(blob)));
}

#[test]
fn an_entry_of_a_newer_program_or_another_role_stops_the_reader() {
    let good = entry(&hub::founded(&founding(), NOW));
    for (kind, version) in [(hub::KIND_FOUNDED, 2), (hub::KIND_FOUNDED, 0), (98, 1), (99, 1), (101, 1), (u16::MAX, 1)] {
        let mut newer = good.clone();
        (newer.kind, newer.version) = (kind, version);
        let Err(error) = hub::read(&newer) else { panic!("kind {kind} version {version} was read") };
        assert!(matches!(error, StoredError::UnknownKind { sequence: 12, .. }), "{error}");
        assert!(error.to_string().contains("use the version that wrote it"));
    }
}

/// Changes a stored consignment; the reader names the entry and stops.
fn check_consignment(change: impl FnOnce(&mut pb::ConsignmentRecorded)) {
    let mut stored = entry(&consignment_draft());
    let mut message = pb::ConsignmentRecorded::decode(stored.payload.clone()).unwrap();
    change(&mut message);
    stored.payload = message.encode_to_vec().into();
    let Err(error) = hub::read(&stored) else { panic!("{message:?} was read") };
    assert!(matches!(error, StoredError::Malformed { sequence: 12, kind: hub::KIND_CONSIGNMENT, .. }), "{error}");
}

#[test]
fn a_stored_consignment_that_says_something_impossible_stops_the_reader() {
    check_consignment(|message| message.consignment = None);
    check_consignment(|message| message.consignment.as_mut().unwrap().seed.truncate(31));
    check_consignment(|message| message.consignment.as_mut().unwrap().seal.truncate(20));
    check_consignment(|message| drop(message.consignment.as_mut().unwrap().headers.pop()));
    check_consignment(|message| message.groups[0].agreement = None);
    check_consignment(|message| message.groups[0].recipients.push("nobody".into()));
    check_consignment(|message| message.groups[0].items[0].count = 0);
    check_consignment(|message| message.groups[0].items[0].count = u32::MAX);
    check_consignment(|message| message.refused[0].reason = "A_REASON_OF_TOMORROW".into());
    check_consignment(|message| message.mailboxes[0].recipient.clear());
}

#[test]
fn blob_counts_that_are_not_those_of_the_entry_stop_the_reader() {
    let counts = |message: &mut pb::ConsignmentRecorded, counts: &[u32]| {
        message.consignment.as_mut().unwrap().blob_counts = counts.to_vec();
    };
    check_consignment(|message| counts(message, &[2, 0, 2]));
    check_consignment(|message| counts(message, &[2, 0, 2, 2, 0]));
    check_consignment(|message| counts(message, &[2, 0, 2, 3]));
    check_consignment(|message| counts(message, &[2, 0, 2, 1]));
    check_consignment(|message| counts(message, &[u32::MAX; 4]));
}

#[test]
fn a_payload_that_is_not_its_kinds_stops_the_reader() {
    for kind in
        [KIND_HISTORY_BEGUN, hub::KIND_FOUNDED, hub::KIND_STATEMENT, hub::KIND_CONSIGNMENT, hub::KIND_ACKNOWLEDGED]
    {
        for payload in [&b""[..], b"\xff\xff\xff\xff"] {
            let mut stored = entry(&hub::founded(&founding(), NOW));
            (stored.kind, stored.payload) = (kind, payload.to_vec().into());
            let Err(error) = hub::read(&stored) else { panic!("kind {kind} was read from {payload:?}") };
            assert!(matches!(error, StoredError::Malformed { .. }), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn any_recorded_consignment_survives_the_journal(
        mut fact_of in any_recorded(),
        runs in prop::collection::vec((crate::fixtures::any_code(), any::<u64>(), any::<u32>(), any::<u64>()), 0..5),
    ) {
        // The chain, number and digest are those of the seal; everything else is any.
        let exchanges: Vec<_> = (0..fact_of.count as u8).map(crate::fixtures::exchange).collect();
        let sealed = sealed_headers(fact_of.number, exchanges.iter().map(|exchange| exchange.serialised()).collect());
        (fact_of.chain, fact_of.digest) = (sealed.chain.clone(), sealed.digest);
        let run = |(recipient, first, count, feed_number)| MailboxRun { recipient, first, count, feed_number };
        fact_of.mailboxes = runs.into_iter().map(run).collect();
        let blobs = exchanges.iter().map(|exchange| exchange.blobs.clone()).collect();
        let draft = hub::consignment(&fact_of, &sealed, blobs, NOW);
        let Ok(HubEntry::Consignment(read, kept)) = hub::read(&entry(&draft)) else { panic!() };
        for (index, exchange) in exchanges.iter().enumerate() {
            let refused = fact_of.refused.iter().any(|refusal| refusal.index as usize == index);
            let expected: &[_] = if refused { &[] } else { &exchange.blobs };
            prop_assert_eq!(&draft.blobs[kept.blob_range(index)], expected);
        }
        prop_assert_eq!(read, fact_of);
    }

    #[test]
    fn any_statement_survives_the_journal(said in any_statement(), reason in prop::option::of(prop::sample::select(Reason::ALL))) {
        let signed = signed(encode_statement(&said));
        let statement = parse_statement(&signed).unwrap();
        let closes = statement.closes().is_some() && reason.is_none();
        let closes = closes.then(|| Box::new(closed_epoch()));
        let decided = StatementDecided { statement, refused: reason, told: vec![told(code("KAZ"), u64::MAX)], closes, missed: Vec::new() };
        prop_assert_eq!(fact(&hub::statement(&decided, signed, NOW)), Fact::Statement(decided));
    }
}
