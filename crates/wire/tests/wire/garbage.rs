//! Whatever bytes come in, every reader answers and none panics.

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, Entry, HistoryId};
use concord_model::Lane;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::feed::v1 as feed_pb;
use concord_wire::stored::hub::HubEntry;
use concord_wire::stored::node::NodeEntry;
use concord_wire::{
    acknowledgement, agreement, consignment, convert, delivery, feed, header, receipt, registry, stored,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use crate::fixtures::{NOW, chain, code, exchanges, founding, message, name, sealed, travelling};
use crate::signed_words::{acknowledgement_of, receipt_of, said};
use crate::statements::join_request;
use crate::{stored_hub, stored_node};

/// Hands the bytes to every reader, as the whole of a message and as each serialised part of one.
fn read_everywhere(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    drop((header::parse(&bytes), header::parse_description(&bytes)));
    drop((agreement::parse_text(&bytes), agreement::parse_join_request(&bytes)));
    drop((receipt::parse(&bytes), consignment::blob_from_bytes(bytes.clone())));
    let statement = SignedStatement { statement: bytes.clone(), suite: 1, ..Default::default() };
    drop((agreement::parse_statement(&statement), decoded(&bytes, agreement::parse_statement)));
    let key_id = Bytes::from_static(&[0; 32]);
    let word = pb::Acknowledgement { statement: bytes.clone(), key_id: key_id.clone(), signature: bytes.clone() };
    drop(acknowledgement::verify(&word, |_, _, _| Ok(())));
    let word = pb::RecordedReceipt { statement: bytes.clone(), key_id, signature: bytes.clone() };
    drop(receipt::verify(&word, |_, _, _| Ok(())));
    drop(decoded(&bytes, feed::parse_receipt));
    drop(decoded(&bytes, registry::parse));
    drop(decoded(&bytes, |ranges: &feed_pb::Receipt| convert::parse_ranges(&ranges.items)));
    let _ = decoded(&bytes, convert::parse_timestamp);
    drop(decoded(&bytes, |key: &pb::ChainKey| consignment::parse_chain_key(code("KAZ"), key)));
    drop(decoded(&bytes, |message: &pb::Consignment| open(message.clone())));
    drop(decoded(&bytes, verify_delivery));
    read_in_messages(&bytes);
    for kind in (0..=5).chain(100..=111) {
        drop(read_stored(kind, &bytes));
    }
}

/// The bytes in place of each part of a good consignment and a good delivery.
fn read_in_messages(bytes: &Bytes) {
    let exchanges = exchanges(2);
    let sealed = sealed(7, &exchanges);
    let good = message(&sealed, &exchanges);
    drop(open(pb::Consignment { seal: bytes.clone(), ..good.clone() }));
    drop(open(pb::Consignment { seed: bytes.clone(), ..good.clone() }));
    drop(open(crate::seals::resealed(&sealed, &exchanges, bytes.clone(), |_| ())));
    drop(open(pb::Consignment { blobs: vec![pb::ExchangeBlobs { blobs: vec![bytes.clone(); 2] }; 2], ..good }));
    let good = delivery::delivery(&sealed, &sealed.tree(), 0, 1, travelling(&exchanges[0]), NOW, 1).unwrap();
    drop(verify_delivery(&pb::Delivery { header: bytes.clone(), ..good.clone() }));
    drop(verify_delivery(&pb::Delivery { seal: bytes.clone(), ..good.clone() }));
    drop(verify_delivery(&pb::Delivery { path: vec![bytes.clone(); 10], ..good.clone() }));
    drop(verify_delivery(&pb::Delivery { blobs: vec![bytes.clone(); 2], ..good }));
}

fn decoded<M: Message + Default, T>(bytes: &Bytes, read: impl FnOnce(&M) -> T) -> Option<T> {
    M::decode(bytes.clone()).ok().map(|message| read(&message))
}

fn open(message: pb::Consignment) -> Option<consignment::Opened> {
    consignment::open(message, &chain(Lane::Routine).origin, |_, _, _| Ok(())).ok()
}

fn verify_delivery(delivery: &pb::Delivery) -> Option<delivery::Verified> {
    delivery::verify(delivery, &name("main"), |_, _, _, _| Ok(())).ok()
}

fn read_stored(kind: u16, payload: &Bytes) -> (Option<HubEntry>, Option<NodeEntry>) {
    let entry = Entry {
        history: HistoryId([0; 16]),
        sequence: 1,
        recorded_at: 0,
        previous: JournalDigest::ZERO,
        kind,
        version: 1,
        commit_first: 1,
        payload: payload.clone(),
        commitments: vec![],
        blobs: vec![],
        digest: JournalDigest::ZERO,
    };
    let (hub, node) = (stored::hub::read(&entry).ok(), stored::node::read(&entry).ok());
    if let Some(HubEntry::Consignment(_, kept)) = &hub {
        assert!(kept.blob_range(usize::MAX).is_empty());
        drop(kept.sealed.tree());
    }
    (hub, node)
}

/// Good messages of every kind, to be damaged: damage gets further than noise.
pub(crate) fn good() -> Vec<Vec<u8>> {
    let exchanges = exchanges(2);
    let sealed = sealed(7, &exchanges);
    let delivery = delivery::delivery(&sealed, &sealed.tree(), 0, 1, travelling(&exchanges[0]), NOW, 1).unwrap();
    let founding = founding();
    let mut good = vec![
        message(&sealed, &exchanges).encode_to_vec(),
        exchanges[0].serialised().to_vec(),
        delivery.encode_to_vec(),
        receipt_of(7).statement.to_vec(),
        acknowledgement_of(&said()).statement.to_vec(),
        join_request().to_vec(),
        stored_node::statement().encode_to_vec(),
        registry::registry(&founding.participants, &founding.areas, &founding.measures).encode_to_vec(),
        stored_hub::consignment_draft().payload.to_vec(),
        stored_hub::acknowledged_draft().payload.to_vec(),
        stored_hub::statement_decided(None).1.payload.to_vec(),
    ];
    // One that says all by its kind has nothing to be damaged.
    let payloads = stored_node::drafts().into_iter().map(|(_, draft)| draft.payload.to_vec());
    good.extend(payloads.filter(|payload| !payload.is_empty()));
    good
}

proptest! {
    #[test]
    fn no_reader_panics_on_noise(bytes in vec(any::<u8>(), 0..400)) {
        read_everywhere(&bytes);
    }

    #[test]
    fn no_reader_panics_on_damage(
        which in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let good = good();
        let mut bytes = good[which.index(good.len())].clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_everywhere(&bytes);
    }
}

#[test]
fn undamaged_messages_reach_the_end_of_their_readers() {
    let good = good();
    assert!(decoded(&good[0].clone().into(), |message: &pb::Consignment| open(message.clone())).flatten().is_some());
    assert!(decoded(&good[2].clone().into(), verify_delivery).flatten().is_some());
    good.iter().for_each(|bytes| read_everywhere(bytes));
}
