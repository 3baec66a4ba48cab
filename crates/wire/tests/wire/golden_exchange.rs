//! Golden vectors of what travels between nodes and the hub.

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, HistoryId};
use concord_model::{
    AsideEnd, Description, Digest, ExchangeId, Header, Lane, SetAsideReason, Title, Withdrawal, WithdrawalKind,
};
use concord_wire::acknowledgement::Said;
use concord_wire::consignment::blob_to_bytes;
use concord_wire::header::{encode, encode_description, exchange_id, parse, parse_description};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::feed::v1 as feed_pb;
use concord_wire::{acknowledgement, consignment, convert, delivery, feed, receipt};
use prost::Message as _;

use crate::fixtures::{
    HISTORY, NOW, chain, code, digest, exchange, exchanges, key, message, name, notices, recorded, sealed, travelling,
};
use crate::golden::Golden;

#[test]
fn headers() {
    let full = exchange(1).header;
    let minimal = Header { narrowing: None, language: None, ..full.clone() };
    let mut golden = Golden::new("header.txt", "Headers. Exchange id = SHA-256(`concord header v1` ‖ 0 ‖ bytes).");
    let superseding = Header { supersedes: Some(ExchangeId(Digest([9; 32]))), ..minimal.clone() };
    let withdraws = Some(Withdrawal { exchange: ExchangeId(Digest([9; 32])), kind: WithdrawalKind::Superseded });
    let withdrawing = Header { withdraws, parts: Vec::new(), ..full.clone() };
    let exercise = Header { exercise: true, ..minimal.clone() };
    let headers = [
        ("every field that is switched on", full),
        ("no narrowing, no language", minimal),
        ("in the place of another", superseding),
        ("a withdrawal", withdrawing),
        ("an exercise", exercise),
    ];
    for (title, header) in headers {
        let bytes = encode(&header);
        assert_eq!(parse(&bytes).unwrap(), header);
        golden.section(title).message("header", "concord.exchange.v1.Header", &bytes);
        golden.text("exchange id", exchange_id(&bytes));
    }
    golden.check();
}

#[test]
fn descriptions_and_blobs() {
    let about = "Descriptions, and blobs as they travel: nonce ‖ bytes, commitment = SHA-256(`concord blob v1` ‖ 0 ‖ nonce ‖ bytes).";
    let mut golden = Golden::new("description.txt", about);
    let title = Title::parse("Паводок на реке Сырдарья").unwrap();
    for caveats in [vec![], vec!["Для служебного пользования".to_owned(), "Not verified".to_owned()]]
    {
        let description = Description { title: title.clone(), caveats };
        let bytes = encode_description(&description);
        assert_eq!(parse_description(&bytes).unwrap(), description);
        let caveats = description.caveats.len();
        golden.section(&format!("{caveats} caveats")).message("description", "concord.exchange.v1.Description", &bytes);
        let blob = concord_journal::Blob::seal([7; 32], bytes);
        golden.bytes("blob", &blob_to_bytes(&blob)).text("commitment", blob.commitment());
    }
    golden.check();
}

#[test]
fn a_consignment() {
    let about = "A consignment. Digest = SHA-256(`concord consignment v1` ‖ 0 ‖ seal); the signature is over the same bytes. \
                 The key's private half is `KAZ`, padded with zeros.";
    let (exchanges, kaz) = (exchanges(3), key("KAZ"));
    let sealed = sealed(7, &exchanges);
    assert!(kaz.holds(&consignment::signed_message(&sealed.seal), &sealed.signature));
    let mut golden = Golden::new("consignment.txt", about);
    golden.section("seal and head");
    golden.bytes("seed", sealed.seed.as_bytes()).text("salt of the head", sealed.seed.head_salt());
    golden.message("head", "concord.exchange.v1.ConsignmentHead", &sealed.head);
    golden.message("seal", "concord.exchange.v1.ConsignmentSeal", &sealed.seal);
    golden.bytes("signed message", &consignment::signed_message(&sealed.seal));
    golden.bytes("public key", &kaz.public.bytes).bytes("signature", &sealed.signature);
    golden.text("consignment digest", sealed.digest);

    let tree = sealed.tree();
    golden.section("tree").text("root", tree.root());
    for (index, header) in sealed.headers.iter().enumerate() {
        let (slot, path) = tree.path(index).unwrap();
        golden.section(&format!("exchange {index}")).text("id", exchange_id(header));
        golden.text("slot", slot).text("leaf salt", sealed.seed.leaf_salt(slot));
        path.iter().enumerate().for_each(|(height, sibling)| {
            golden.text(&format!("sibling at height {height}"), sibling);
        });
    }
    let whole = message(&sealed, &exchanges).encode_to_vec();
    golden.section("on the wire").message("consignment", "concord.exchange.v1.Consignment", &whole);
    golden.check();
}

#[test]
fn a_receipt_of_mixed_outcomes() {
    let about = "A recorded receipt, signed over `concord receipt v1` ‖ 0 ‖ statement. The key's private half is `SEC`, padded with zeros.";
    let sec = key("SEC");
    let fact = recorded(&sealed(7, &exchanges(4)));
    let signed =
        receipt::receipt(HistoryId(HISTORY), JournalDigest([0xed; 32]), NOW, &fact, sec.fingerprint(), |m| sec.sign(m));
    let mut golden = Golden::new("receipt.txt", about);
    golden.bytes("public key", &sec.public.bytes);
    golden.message("receipt", "concord.exchange.v1.RecordedReceipt", &signed.encode_to_vec());
    golden.bytes("statement", &signed.statement).check();
}

#[test]
fn an_acknowledgement() {
    let about = "Acknowledgements, signed over `concord acknowledgement v1` ‖ 0 ‖ statement. The key's private half is `KGZ`, padded with zeros.";
    let kgz = key("KGZ");
    let full = Said {
        hub: name("main"),
        history: HistoryId(HISTORY),
        recipient: code("KGZ"),
        node: name("main"),
        lane: Lane::Priority,
        delivered_through: 300,
        set_aside: vec![(290, SetAsideReason::SignatureInvalid), (299, SetAsideReason::Duplicate)],
        withheld: vec![291, 300],
        taken_before: 12,
        taken: vec![280, 7, 290, 299],
        ended: vec![(2, AsideEnd::Holds), (3, AsideEnd::Discarded)],
    };
    let (set_aside, withheld, taken, ended) = Default::default();
    let plain = Said { set_aside, withheld, taken, ended, taken_before: 0, ..full.clone() };
    let mut golden = Golden::new("acknowledgement.txt", about);
    golden.bytes("public key", &kgz.public.bytes);
    for (title, said) in [("every list", full), ("delivered only", plain)] {
        let signed = acknowledgement::sign(&said, kgz.fingerprint(), |message| kgz.sign(message));
        let bytes = signed.encode_to_vec();
        golden.section(title).message("acknowledgement", "concord.exchange.v1.Acknowledgement", &bytes);
        golden.bytes("statement", &signed.statement);
    }
    golden.check();
}

#[test]
fn a_delivery() {
    let exchanges = exchanges(3);
    let sealed = sealed(7, &exchanges);
    let delivery = delivery::delivery(&sealed, &sealed.tree(), 1, 41, travelling(&exchanges[1]), NOW, 9).unwrap();
    let withheld = pb::Withheld { number: 42, history: Bytes::copy_from_slice(&HISTORY) };
    let mut golden =
        Golden::new("delivery.txt", "The second exchange of consignment.txt as one recipient gets it, and a notice.");
    golden.section("delivery").message("delivery", "concord.exchange.v1.Delivery", &delivery.encode_to_vec());
    golden.section("withheld").message("withheld", "concord.exchange.v1.Withheld", &withheld.encode_to_vec());
    golden.check();
}

#[test]
fn feed_receipts() {
    let mut golden = Golden::new("feed-receipt.txt", "Receipts in a sender's feed, one of each outcome.");
    for notice in notices() {
        let bytes = feed::receipt(&name("main"), &notice).encode_to_vec();
        golden.section(&format!("{:?}", notice.outcome)).message("receipt", "concord.feed.v1.Receipt", &bytes);
    }
    golden.check();
}

#[test]
fn hellos_and_welcomes() {
    let limits = || Some(concord_wire::limits());
    let history = || Bytes::copy_from_slice(&HISTORY);
    let past = || vec![pb::PastHistory { history: Bytes::from_static(b"one history past"), last_number: 5 }];
    let recorded = || pb::AcknowledgementRecorded { delivered_through: 300, taken_count: 12 };
    let run = || Bytes::from_static(b"a run of 16 byte");
    let consign =
        pb::ConsignHello { limits: limits(), chain: Some(consignment::chain_key(&chain(Lane::Flash))), run: run() };
    let consign_welcome = pb::ConsignWelcome {
        limits: limits(),
        history: history(),
        last_number: 6,
        last_digest: convert::digest_bytes(&digest(0x99)),
        past: past(),
        closed: vec![12],
        damaged: vec![pb::ConsignmentPlace { epoch: 2, number: 4 }],
        lasts: vec![pb::LastConsignment { lane: convert::lane(Lane::Routine).into(), epoch: 1, number: 300 }],
    };
    let lane = convert::lane(Lane::Flash).into();
    let last_digest = convert::digest_bytes(&digest(0x77));
    let receive = pb::ReceiveHello {
        limits: limits(),
        lane,
        history: history(),
        last_number: 300,
        last_digest,
        acknowledged_through: 320,
        run: run(),
        damaged: vec![17, 300],
    };
    let receive_welcome = pb::ReceiveWelcome {
        limits: limits(),
        history: history(),
        recorded: Some(recorded()),
        past: past(),
        resume: Some(pb::MailboxResume { at: 310, common: 290 }),
    };
    let officer =
        feed_pb::OfficerPosition { officer: "officer".into(), number: 3, digest: convert::digest_bytes(&digest(0x55)) };
    let position = feed_pb::FeedPosition {
        history: history(),
        last_number: 16,
        last_digest: convert::digest_bytes(&digest(0x66)),
        officers: vec![officer],
    };
    let follow = feed_pb::FollowRequest {
        limits: limits(),
        position: Some(position.clone()),
        sent_at: Some(convert::timestamp(NOW)),
        journal: Some(feed_pb::NodeJournal {
            history: history(),
            ancestors: past(),
            runs: vec![run()],
            restored_in: history(),
            rebuilt_in: Bytes::from_static(&[0x36; 16]),
            recovering: true,
            tail_sequence: 77,
            tail_digest: convert::digest_bytes(&digest(0x78)),
            lanes: vec![feed_pb::LanePosition {
                lane,
                chain_last: 6,
                received_through: 300,
                taken_count: 12,
                epoch: 2,
            }],
        }),
    };
    let resume_digest = concord_wire::feed::resume_digest(&HISTORY, 16, digest(0x66).as_bytes(), 18);
    let follow_welcome = feed_pb::FollowWelcome {
        limits: limits(),
        history: history(),
        past: past(),
        last_number: 17,
        healing: Some(feed_pb::Healing { known_number: 12 }),
        resume: Some(feed_pb::FeedResume { at: 18, digest: convert::digest_bytes(&resume_digest) }),
        sent_at: Some(convert::timestamp(NOW)),
    };
    let hand_back = feed_pb::HandBackHello { limits: limits(), position: Some(position), run: run() };
    let handed_back = feed_pb::HandBackResponse {
        taken: 2,
        not_taken: vec![feed_pb::NotTaken {
            participant: "KAZ".into(),
            officer: "officer".into(),
            number: 3,
            reason: "STATEMENT_FORK".into(),
        }],
    };

    let mut golden =
        Golden::new("hello.txt", "What both sides say before anything else. Limits are those of this version.");
    for (kind, bytes) in [
        ("concord.exchange.v1.Limits", concord_wire::limits().encode_to_vec()),
        ("concord.exchange.v1.ConsignHello", consign.encode_to_vec()),
        ("concord.exchange.v1.ConsignWelcome", consign_welcome.encode_to_vec()),
        ("concord.exchange.v1.ReceiveHello", receive.encode_to_vec()),
        ("concord.exchange.v1.ReceiveWelcome", receive_welcome.encode_to_vec()),
        ("concord.exchange.v1.AcknowledgementRecorded", recorded().encode_to_vec()),
        ("concord.feed.v1.FollowRequest", follow.encode_to_vec()),
        ("concord.feed.v1.FollowWelcome", follow_welcome.encode_to_vec()),
        ("concord.feed.v1.HandBackHello", hand_back.encode_to_vec()),
        ("concord.feed.v1.HandBackResponse", handed_back.encode_to_vec()),
    ] {
        golden.section(kind).message("message", kind, &bytes);
    }
    golden.check();
}
