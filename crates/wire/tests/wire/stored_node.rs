//! A node's journal: what is read is what was stored.

use bytes::Bytes;
use concord_journal::{Blob, Draft, KIND_HISTORY_BEGUN};
use concord_model::{AgreementId, Digest, ExchangeId, Lane, MeasureCode, Reason, Refusal, Right, Scope};
use concord_wire::agreement::{DraftContent, encode_statement};
use concord_wire::delivery::delivery;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1 as exchange_pb;
use concord_wire::proto::feed::v1 as feed_pb;
use concord_wire::proto::journal::v1 as pb;
use concord_wire::proto::operations::v1::Bundle;
use concord_wire::stored::StoredError;
use concord_wire::stored::node::{
    self, Acknowledged, AsideEnded, AsideOutcome, Collected, FeedResumed, LaneRecovered, MailboxResumed, NodeEntry,
    Received, Repeated, Restored, RightsChange, StatementAnswered, Submission, Verdict,
};
use prost::Message as _;

use crate::fixtures::{HISTORY, NOW, code, entry, exchanges, founding, measure, name, notices, sealed};
use crate::signed_words::receipt_of;
use crate::statements::{draft, signed};

pub(crate) fn bundle() -> Bundle {
    Bundle {
        hub: "main".into(),
        addresses: vec!["192.0.2.1:7400".into()],
        participant: "KAZ".into(),
        ..Default::default()
    }
}

pub(crate) fn measures() -> Vec<MeasureCode> {
    vec![measure("challenges.3"), measure("economic.10")]
}

pub(crate) fn submissions() -> Vec<Submission> {
    let submission = |index: u8| Submission {
        agency: "drug-control".into(),
        request_id: format!("2026-11-24/{index}"),
        content_digest: Bytes::from(vec![index; 32]),
    };
    (0..3).map(submission).collect()
}

pub(crate) fn queued_draft() -> Draft {
    let exchanges = exchanges(3);
    let blobs = exchanges.iter().map(|exchange| exchange.blobs.clone()).collect();
    node::queued(&sealed(7, &exchanges), blobs, submissions(), NOW)
}

pub(crate) fn packed_anew_draft() -> Draft {
    let exchanges = exchanges(3);
    let blobs = exchanges.iter().map(|exchange| exchange.blobs.clone()).collect();
    node::packed_anew(&sealed(8, &exchanges), blobs, vec!["customs".into(); 3], (1, 7), NOW)
}

fn found_draft() -> Draft {
    let exchanges = exchanges(3);
    let blobs = exchanges.iter().map(|exchange| exchange.blobs.clone()).collect();
    node::found(&sealed(7, &exchanges), blobs, receipt_of(7), NOW)
}

pub(crate) fn feed_items() -> Vec<feed_pb::FeedItem> {
    use feed_pb::feed_item::Content;
    let founding = founding();
    let registry = concord_wire::registry::registry(&founding.participants, &founding.areas, &founding.measures);
    let receipts = notices().iter().map(|notice| concord_wire::feed::receipt(&name("main"), notice)).collect();
    let refused =
        feed_pb::StatementRefused { officer: "officer".into(), number: 2, reason: "AGREEMENT_UNKNOWN".into() };
    let contents = [
        Content::Registry(registry),
        Content::Statement(statement()),
        Content::StatementRefused(refused),
        Content::Receipts(feed_pb::Receipts { recipient: "KGZ".into(), receipts }),
    ];
    let recorded_at = Some(concord_wire::convert::timestamp(NOW));
    let item = |(number, content)| feed_pb::FeedItem {
        number,
        recorded_at,
        content: Some(content),
        closes: None,
        approvals: Vec::new(),
    };
    (1..).zip(contents).map(item).collect()
}

pub(crate) fn statement() -> SignedStatement {
    signed(encode_statement(&draft(1, DraftContent::Leave(crate::fixtures::agreement_ref()))))
}

fn without_blobs(index: usize, number: u64) -> exchange_pb::Delivery {
    let sealed = sealed(7, &exchanges(3));
    delivery(&sealed, &sealed.tree(), index, number, vec![], NOW, 9).unwrap()
}

/// One accepted with two blobs, a notice, one set aside with one blob, one that was accepted before.
pub(crate) fn mail_draft() -> Draft {
    let blobs = |index: usize| exchanges(3)[index].blobs.clone();
    let items = vec![
        (Verdict::Accepted(without_blobs(0, 41)), blobs(0)),
        (Verdict::Withheld(42), vec![]),
        (Verdict::SetAside(without_blobs(2, 43), "BODY_MISMATCH".into()), blobs(2)[..1].to_vec()),
        (Verdict::Repeated(repeated()), vec![]),
    ];
    node::mail(Lane::Routine, &HISTORY, items, NOW)
}

pub(crate) fn acknowledged() -> Acknowledged {
    let taken_as = Some(vec![312]);
    let (agency, lane, taken) = (name("drug-control"), Lane::Flash, vec![299, 300]);
    Acknowledged { agency, lane, through: 300, taken, taken_as, rights_at: 17 }
}

pub(crate) fn collected() -> Collected {
    Collected { agency: name("cert"), lane: Lane::Routine, number: 12, taken_as: Some(vec![]) }
}

/// Of all measures under one agreement.
pub(crate) fn granted() -> RightsChange {
    let agreements = Scope::These([AgreementId::parse("KAZ/drugs").unwrap()].into());
    RightsChange::Granted(Right { send: false, receive: true, measures: Scope::All, agreements })
}

pub(crate) const CONFIRMED: RightsChange = RightsChange::Confirmed { with_past: true };

pub(crate) fn revoked() -> RightsChange {
    let measures = Scope::These(measures().into_iter().collect());
    RightsChange::Revoked(Right { send: true, receive: true, measures, agreements: Scope::All })
}

pub(crate) fn feed_resumed() -> FeedResumed {
    FeedResumed { history: HISTORY, at: 18, digest: Some(Digest([0x31; 32])) }
}

pub(crate) fn mailbox_resumed() -> MailboxResumed {
    MailboxResumed { lane: Lane::Flash, history: HISTORY, at: 310, common: 290, taken_count: 4, taken: vec![280, 7] }
}

fn repeated() -> Repeated {
    Repeated { number: 44, id: ExchangeId(Digest([0x32; 32])), first_number: 40, taken: true }
}

pub(crate) fn answered() -> StatementAnswered {
    StatementAnswered {
        officer: "officer".into(),
        number: 2,
        refused: "STATEMENT_OUT_OF_ORDER".into(),
        whole: true,
        message: "number 2 is not the next".into(),
    }
}

pub(crate) fn recovered() -> LaneRecovered {
    let bodies_lost = vec![ExchangeId(Digest([0x33; 32]))];
    LaneRecovered { lane: Lane::Flash, fetched: 3, delivered_through: 40, bodies_lost, bodies_lost_count: 7 }
}

pub(crate) fn not_served() -> Refusal {
    Refusal::new(Reason::NodeSuperseded, "another copy took its place")
}

fn pinned() -> concord_model::Fingerprint {
    concord_model::Fingerprint(concord_model::Digest([0x5a; 32]))
}

/// Every kind of entry that a node writes, named.
pub(crate) fn drafts() -> Vec<(&'static str, Draft)> {
    vec![
        ("NodeFounded", node::founded(&code("KAZ"), &name("main"), NOW)),
        ("HubJoined", node::joined(bundle(), NOW)),
        ("AgencyAdded", node::agency_added(&name("drug-control"), &measures(), NOW)),
        ("ExchangesQueued", queued_draft()),
        ("ReceiptKept", node::receipt(receipt_of(7), NOW)),
        ("FeedApplied", node::feed(&HISTORY, feed_items(), NOW)),
        ("MailReceived", mail_draft()),
        ("AgencyAcknowledged", node::agency_acknowledged(&acknowledged(), NOW)),
        ("StatementQueued", node::statement(statement(), NOW)),
        ("StatementAnswered", node::answer(&answered(), NOW)),
        ("NodeFeedResumed", node::feed_resumed(&feed_resumed(), NOW)),
        ("NodeMailboxResumed", node::mailbox_resumed(&mailbox_resumed(), NOW)),
        ("ReceiptRenewed", node::receipt_renewed(receipt_of(8), NOW)),
        ("JournalRestored", node::restored(Restored::FromBackup(NOW), NOW)),
        ("TakenRecovered", node::taken_recovered(Lane::Routine, vec![12, 9], NOW)),
        ("LaneRecovered", node::lane_recovered(&recovered(), NOW)),
        ("RunBegun", node::run_begun([0x34; 16], NOW)),
        ("ConsignmentFound", found_draft()),
        ("EpochEntered", node::epoch_entered(Lane::Routine, 2, NOW)),
        ("NodeFenced", node::fenced(&not_served(), NOW)),
        ("NodeFenceLifted", node::fence_lifted(NOW)),
        ("AgencyGranted", node::rights_changed(&name("cert"), &granted(), NOW)),
        ("AgencyRevoked", node::rights_changed(&name("cert"), &revoked(), NOW)),
        ("AgencyEnded", node::rights_changed(&name("cert"), &RightsChange::Ended, NOW)),
        ("AgencyCollected", node::collected(&collected(), NOW)),
        ("AgencyConfirmed", node::rights_changed(&name("cert"), &CONFIRMED, NOW)),
        ("AsideEnded", aside_draft()),
        ("PinConfirmed", node::pin_confirmed(&code("IRN"), &pinned(), NOW)),
    ]
}

/// Judged again, it holds: with two blobs.
fn aside_draft() -> Draft {
    node::aside_accepted(Lane::Routine, without_blobs(2, 43), exchanges(3)[2].blobs.clone(), Some(57), NOW)
}

fn read(draft: &Draft) -> NodeEntry {
    node::read(&entry(draft)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn kinds_are_numbered_from_101_and_never_change() {
    let kinds: Vec<u16> = drafts().iter().map(|(_, draft)| draft.kind).collect();
    assert_eq!(kinds, (101..=113).chain(115..=129).collect::<Vec<_>>());
    assert!(drafts().iter().all(|(_, draft)| draft.version == 1 && draft.recorded_at == NOW.as_micros()));
}

#[test]
fn every_entry_is_read_as_it_was_stored() {
    let mut all = drafts().into_iter().map(|(_, draft)| read(&draft));
    let mut next = || all.next().unwrap();
    assert!(
        matches!(next(), NodeEntry::Founded { participant, node } if participant == code("KAZ") && node == name("main"))
    );
    assert!(matches!(next(), NodeEntry::Joined(read) if read == bundle()));
    assert!(matches!(next(), NodeEntry::AgencyAdded { name: read, measures: all }
        if read == name("drug-control") && all == measures()));
    assert!(matches!(next(), NodeEntry::Queued(read) if read.packed_anew.is_none()
        && read.kept.sealed.digest == sealed(7, &exchanges(3)).digest && read.submissions == submissions()));
    assert!(matches!(next(), NodeEntry::Receipt(read) if read == receipt_of(7)));
    assert!(matches!(next(), NodeEntry::Feed { history: HISTORY, items } if items == feed_items()));
    assert!(matches!(next(), NodeEntry::Mail { lane: Lane::Routine, history: HISTORY, items } if items.len() == 4));
    assert!(matches!(next(), NodeEntry::AgencyAcknowledged(read) if read == acknowledged()));
    assert!(matches!(next(), NodeEntry::Statement(read) if read == statement()));
    assert!(matches!(next(), NodeEntry::Answer(read) if read == answered()));
    assert!(matches!(next(), NodeEntry::FeedResumed(read) if read == feed_resumed()));
    assert!(matches!(next(), NodeEntry::MailboxResumed(read) if read == mailbox_resumed()));
    assert!(matches!(next(), NodeEntry::ReceiptRenewed(read) if read == receipt_of(8)));
    assert!(matches!(next(), NodeEntry::Restored(Restored::FromBackup(NOW))));
    assert!(matches!(next(), NodeEntry::TakenRecovered(Lane::Routine, taken) if taken == [12, 9]));
    assert!(matches!(next(), NodeEntry::LaneRecovered(read) if read == recovered()));
    assert!(matches!(next(), NodeEntry::RunBegun(run) if run == [0x34; 16]));
    assert!(matches!(next(), NodeEntry::Found(kept, read)
        if kept.sealed.digest == sealed(7, &exchanges(3)).digest && read == receipt_of(7)));
    assert!(matches!(next(), NodeEntry::EpochEntered(Lane::Routine, 2)));
    assert!(matches!(next(), NodeEntry::Fenced(read) if read == not_served()));
    assert!(matches!(next(), NodeEntry::FenceLifted));
    for change in [granted(), revoked(), RightsChange::Ended] {
        assert!(matches!(next(), NodeEntry::RightsChanged(read, how) if read == name("cert") && how == change));
    }
    assert!(matches!(next(), NodeEntry::AgencyCollected(read) if read == collected()));
    assert!(matches!(next(), NodeEntry::RightsChanged(_, how) if how == CONFIRMED));
    let accepted = |item: &Received| matches!(&item.verdict, Verdict::Accepted(read) if *read == without_blobs(2, 43));
    assert!(matches!(next(), NodeEntry::AsideEnded(AsideEnded { lane: Lane::Routine, number: 43, told_as: Some(57),
        outcome: AsideOutcome::Accepted(item) }) if accepted(&item) && item.blob_count == 2));
    let discarded =
        read(&node::aside_discarded((Lane::Flash, 9), "spiffe://kaz.concord/officer/one", "a test", None, NOW));
    assert!(matches!(discarded, NodeEntry::AsideEnded(AsideEnded { lane: Lane::Flash, number: 9, told_as: None,
        outcome: AsideOutcome::Discarded { by, reason } }) if by == "spiffe://kaz.concord/officer/one" && reason == "a test"));
    assert!(matches!(next(), NodeEntry::PinConfirmed(whose, key) if whose == code("IRN") && key == pinned()));
    let anew = read(&packed_anew_draft());
    assert!(matches!(anew, NodeEntry::Queued(read) if read.packed_anew == Some((1, 7))
        && read.submissions.iter().all(|one| one.agency == "customs" && one.request_id.is_empty())));
    let rebuilt = read(&node::restored(Restored::Rebuilt, NOW));
    assert!(matches!(rebuilt, NodeEntry::Restored(Restored::Rebuilt)));
}

#[test]
fn queued_blobs_are_found_by_their_exchange() {
    let draft = queued_draft();
    let NodeEntry::Queued(queued) = read(&draft) else { panic!() };
    let kept = queued.kept;
    for (index, exchange) in exchanges(3).into_iter().enumerate() {
        assert_eq!(draft.blobs[kept.blob_range(index)], exchange.blobs);
    }
    assert!(kept.blob_range(3).is_empty());
}

#[test]
fn mail_keeps_each_number_with_its_verdict_and_its_blobs() {
    let draft = mail_draft();
    let NodeEntry::Mail { items, .. } = read(&draft) else { panic!() };
    let numbers: Vec<_> = items.iter().map(|item| (item.number(), item.blob_count)).collect();
    assert_eq!(numbers, [(41, 2), (42, 0), (43, 1), (44, 0)]);
    assert!(matches!(&items[0].verdict, Verdict::Accepted(read) if *read == without_blobs(0, 41)));
    assert!(matches!(&items[1].verdict, Verdict::Withheld(42)));
    assert!(matches!(&items[2].verdict, Verdict::SetAside(read, reason)
        if *read == without_blobs(2, 43) && reason == "BODY_MISMATCH"));
    assert!(matches!(&items[3].verdict, Verdict::Repeated(read) if *read == repeated()));
    let expected: Vec<Blob> = [&exchanges(3)[0].blobs[..], &exchanges(3)[2].blobs[..1]].concat();
    assert_eq!(draft.blobs, expected);
}

#[test]
fn an_entry_of_a_newer_program_or_another_role_stops_the_reader() {
    for (kind, version) in [(101, 2), (1, 1), (3, 1), (100, 1), (198, 1)] {
        let mut newer = entry(&drafts()[0].1);
        (newer.kind, newer.version) = (kind, version);
        assert!(matches!(node::read(&newer), Err(StoredError::UnknownKind { .. })), "kind {kind} version {version}");
    }
}

#[test]
fn a_payload_that_says_something_impossible_stops_the_reader() {
    let refused = |kind: u16, payload: Vec<u8>| {
        let mut stored = entry(&drafts()[0].1);
        (stored.kind, stored.payload) = (kind, payload.into());
        assert!(matches!(node::read(&stored), Err(StoredError::Malformed { .. })), "kind {kind}");
    };
    for kind in [KIND_HISTORY_BEGUN].into_iter().chain(101..=113).chain(115..=126).chain(128..=129) {
        refused(kind, vec![0xff; 4]);
    }
    // Of an answer every field may be empty; of all others something must be there.
    for kind in [KIND_HISTORY_BEGUN]
        .into_iter()
        .chain(101..=109)
        .chain(111..=113)
        .chain([115, 121])
        .chain(123..=126)
        .chain([128])
    {
        refused(kind, vec![]);
    }
    let no_verdict = pb::ReceivedItem { item: None, blob_count: 0 };
    let mail = pb::MailReceived { lane: 1, history: Bytes::copy_from_slice(&HISTORY), items: vec![no_verdict] };
    refused(107, mail.encode_to_vec());
    // A copy is fenced for one of two reasons.
    refused(121, node::fenced(&Refusal::new(Reason::Internal, "why"), NOW).payload.to_vec());
}

#[test]
fn blob_counts_that_are_not_those_of_the_entry_stop_the_reader() {
    for draft in [queued_draft(), mail_draft()] {
        for change in [|stored: &mut Vec<_>| stored.truncate(1), |stored: &mut Vec<_>| stored.push(stored[0])] {
            let mut stored = entry(&draft);
            change(&mut stored.commitments);
            assert!(matches!(node::read(&stored), Err(StoredError::Malformed { .. })), "kind {}", draft.kind);
        }
    }
    let mut stored = entry(&queued_draft());
    let mut message = pb::ExchangesQueued::decode(stored.payload.clone()).unwrap();
    message.submissions.pop();
    stored.payload = message.encode_to_vec().into();
    assert!(matches!(node::read(&stored), Err(StoredError::Malformed { .. })), "nobody submitted the last exchange");
}
