//! Opening a consignment: what refuses the whole, and that whatever is touched is found.

use bytes::Bytes;
use concord_journal::Digest as JournalDigest;
use concord_ledger::Candidate;
use concord_model::limits::CONSIGNMENT_SIZE_MAX_BYTES;
use concord_model::{Lane, Reason, Refusal};
use concord_wire::consignment::{Opened, Sealed, open, signed_message};
use concord_wire::convert::digest_bytes;
use concord_wire::proto::exchange::v1 as pb;
use prost::Message as _;

use crate::fixtures::{Exchange, chain, code, exchange, exchanges, key, message, sealed, sealed_headers, travelling};

/// Opens it as the hub that knows the key of `KAZ`.
pub(crate) fn open_as_hub(message: pb::Consignment) -> Result<Opened, Refusal> {
    let kaz = key("KAZ");
    open(message, &code("KAZ"), |named, signed, signature| kaz.verify(named, signed, signature))
}

/// The consignment with another head, sealed and signed anew by `KAZ` after `change`.
pub(crate) fn resealed(
    sealed: &Sealed,
    exchanges: &[Exchange],
    head: Bytes,
    change: impl FnOnce(&mut pb::ConsignmentSeal),
) -> pb::Consignment {
    let mut seal = pb::ConsignmentSeal::decode(sealed.seal.clone()).unwrap();
    seal.head = head_commitment(sealed, &head);
    change(&mut seal);
    let mut message = message(sealed, exchanges);
    message.head = head;
    message.seal = seal.encode_to_vec().into();
    message.signature = Bytes::copy_from_slice(&key("KAZ").sign(&signed_message(&message.seal)));
    message
}

fn head_commitment(sealed: &Sealed, head: &[u8]) -> Bytes {
    let digest = JournalDigest::of("concord head v1", &[sealed.seed.head_salt().as_bytes(), head]);
    Bytes::copy_from_slice(digest.as_bytes())
}

/// Tampers with a good consignment of four exchanges; the whole is refused.
fn check(how: &str, expectation: Reason, tamper: impl FnOnce(&mut pb::Consignment)) {
    let exchanges = exchanges(4);
    let mut message = message(&sealed(7, &exchanges), &exchanges);
    tamper(&mut message);
    assert_eq!(open_as_hub(message).map(drop).map_err(|refusal| refusal.reason), Err(expectation), "{how}");
}

/// What the origin itself sealed and signed is impossible.
fn check_signed(
    how: &str,
    expectation: Reason,
    change: impl FnOnce(&mut pb::ConsignmentSeal, &mut pb::ConsignmentHead),
) {
    let exchanges = exchanges(4);
    let sealed = sealed(7, &exchanges);
    let mut head = pb::ConsignmentHead::decode(sealed.head.clone()).unwrap();
    let mut seal = pb::ConsignmentSeal::decode(sealed.seal.clone()).unwrap();
    change(&mut seal, &mut head);
    let message = resealed(&sealed, &exchanges, head.encode_to_vec().into(), |resealed| {
        let head = resealed.head.clone();
        *resealed = seal.clone();
        if seal.head == pb::ConsignmentSeal::decode(sealed.seal.clone()).unwrap().head {
            resealed.head = head;
        }
    });
    assert_eq!(open_as_hub(message).map(drop).map_err(|refusal| refusal.reason), Err(expectation), "{how}");
}

/// Changes the seal in place, without signing it anew.
fn in_seal(message: &mut pb::Consignment, change: impl FnOnce(&mut pb::ConsignmentSeal)) {
    let mut seal = pb::ConsignmentSeal::decode(message.seal.clone()).unwrap();
    change(&mut seal);
    message.seal = seal.encode_to_vec().into();
}

pub(crate) fn flipped(bytes: &Bytes, index: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[index] ^= 1;
    bytes.into()
}

#[test]
fn a_good_consignment_opens_to_what_was_sealed() {
    let exchanges = exchanges(4);
    let sealed = sealed(7, &exchanges);
    let opened = open_as_hub(message(&sealed, &exchanges)).unwrap();
    assert_eq!((&opened.sealed.chain, opened.sealed.number), (&chain(Lane::Routine), 7));
    assert_eq!((opened.sealed.previous, opened.sealed.digest), (sealed.previous, sealed.digest));
    assert_eq!((opened.sealed.key, &opened.sealed.headers), (key("KAZ").fingerprint(), &sealed.headers));
    for ((candidate, blobs), exchange) in opened.candidates.iter().zip(&opened.blobs).zip(&exchanges) {
        let Candidate::Fit(item) = candidate else { panic!("{candidate:?}") };
        assert_eq!((&item.header, blobs), (&exchange.header, &exchange.blobs));
        assert_eq!(item.id, concord_wire::header::exchange_id(&exchange.serialised()));
    }
}

#[test]
fn any_flipped_bit_of_a_header_is_found_by_the_root() {
    for index in 0..exchange(2).serialised().len() {
        check(&format!("byte {index}"), Reason::RootMismatch, |message| {
            message.headers[2] = flipped(&message.headers[2], index);
        });
    }
}

#[test]
fn any_flipped_bit_of_seed_head_or_signature_is_found() {
    for index in 0..32 {
        check(&format!("seed {index}"), Reason::ConsignmentMalformed, |m| m.seed = flipped(&m.seed, index));
    }
    for index in 0..sealed(7, &exchanges(4)).head.len() {
        check(&format!("head {index}"), Reason::ConsignmentMalformed, |m| m.head = flipped(&m.head, index));
    }
    for index in 0..64 {
        check(&format!("signature {index}"), Reason::SignatureInvalid, |m| m.signature = flipped(&m.signature, index));
    }
}

#[test]
fn any_flipped_bit_of_the_seal_refuses_the_whole() {
    let exchanges = exchanges(4);
    let good = message(&sealed(7, &exchanges), &exchanges);
    for index in 0..good.seal.len() {
        let seal = flipped(&good.seal, index);
        assert!(open_as_hub(pb::Consignment { seal, ..good.clone() }).is_err(), "byte {index}");
    }
}

#[test]
fn each_field_of_the_seal_is_found_by_its_own_check() {
    check("suite", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.suite = 2));
    check("suite 0", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.suite = 0));
    check("key", Reason::SigningKeyUnknown, |m| {
        in_seal(m, |seal| seal.key_id = digest_bytes(&key("UZB").fingerprint().0))
    });
    check("short key", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.key_id.truncate(31)));
    check("origin", Reason::ChainMismatch, |m| in_seal(m, |seal| seal.origin = "UZB".into()));
    check("no origin", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.origin.clear()));
    check("hub", Reason::ChainMismatch, |m| in_seal(m, |seal| seal.hub = "other".into()));
    check("root", Reason::RootMismatch, |m| in_seal(m, |seal| seal.root = flipped(&seal.root, 0)));
    check("short root", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.root.truncate(31)));
    check("head", Reason::ConsignmentMalformed, |m| in_seal(m, |seal| seal.head = flipped(&seal.head, 0)));
}

#[test]
fn a_head_exchanged_together_with_its_commitment_is_found_by_the_signature() {
    check("number", Reason::SignatureInvalid, |message| {
        let sealed = sealed(7, &exchanges(4));
        let mut head = pb::ConsignmentHead::decode(message.head.clone()).unwrap();
        head.number = 8;
        message.head = head.encode_to_vec().into();
        let commitment = head_commitment(&sealed, &message.head);
        in_seal(message, |seal| seal.head = commitment);
    });
    check("another's signature", Reason::SignatureInvalid, |message| {
        message.signature = Bytes::copy_from_slice(&key("UZB").sign(&signed_message(&message.seal)));
    });
    check("signed without its domain", Reason::SignatureInvalid, |message| {
        message.signature = Bytes::copy_from_slice(&key("KAZ").sign(&message.seal));
    });
    check("no signature", Reason::SignatureInvalid, |message| message.signature = Bytes::new());
}

#[test]
fn what_does_not_add_up_refuses_the_whole() {
    let malformed = Reason::ConsignmentMalformed;
    check("short seed", malformed, |m| m.seed.truncate(31));
    check("no seed", malformed, |m| m.seed.clear());
    check("long seed", malformed, |m| m.seed = [&m.seed[..], &[0]].concat().into());
    check("a header less", malformed, |m| drop((m.headers.pop(), m.blobs.pop())));
    check("an extra exchange", malformed, |m| {
        m.headers.push(exchange(9).serialised());
        m.blobs.push(pb::ExchangeBlobs { blobs: travelling(&exchange(9)) });
    });
    check("an exchange twice", malformed, |m| {
        m.headers.push(m.headers[0].clone());
        m.blobs.push(m.blobs[0].clone());
    });
    check("blobs of one exchange missing", malformed, |m| drop(m.blobs.pop()));
    check("blobs of no exchange", malformed, |m| m.blobs.push(pb::ExchangeBlobs { blobs: vec![] }));
    check("headers swapped", Reason::RootMismatch, |m| m.headers.swap(0, 1));
    check("one exchange instead of another", Reason::RootMismatch, |m| m.headers[3] = exchange(9).serialised());
    check("too large", Reason::ConsignmentTooLarge, |m| {
        m.blobs[0].blobs.push(Bytes::from(vec![0; CONSIGNMENT_SIZE_MAX_BYTES]));
    });
}

#[test]
fn what_the_origin_signed_must_be_possible_too() {
    let malformed = Reason::ConsignmentMalformed;
    check_signed("an extra exchange by the head", malformed, |_, head| head.count = 5);
    check_signed("fewer by the head", malformed, |_, head| head.count = 3);
    check_signed("no chain", malformed, |_, head| head.chain = None);
    check_signed("no lane", malformed, |_, head| head.chain.as_mut().unwrap().lane = 0);
    check_signed("lane 4", malformed, |_, head| head.chain.as_mut().unwrap().lane = 4);
    check_signed("no node", malformed, |_, head| head.chain.as_mut().unwrap().node.clear());
    check_signed("short previous", malformed, |_, head| head.previous.truncate(31));
    check_signed("two hubs", Reason::ChainMismatch, |_, head| head.chain.as_mut().unwrap().hub = "other".into());
    check_signed("another origin", Reason::ChainMismatch, |seal, _| seal.origin = "UZB".into());
    check_signed("another root", Reason::RootMismatch, |seal, _| seal.root = flipped(&seal.root, 5));
    check_signed("another head", malformed, |seal, _| seal.head = flipped(&seal.head, 5));
}

#[test]
fn a_consignment_is_only_its_certificates_origin() {
    let exchanges = exchanges(1);
    let message = message(&sealed(7, &exchanges), &exchanges);
    let refusal = open(message, &code("UZB"), |_, _, _| panic!("asked for a key of another origin")).err().unwrap();
    assert_eq!(refusal.reason, Reason::ChainMismatch);
}

#[test]
fn a_consignment_holds_one_to_1024_exchanges() {
    let header = exchange(0).serialised();
    for (count, expectation) in [(0, false), (1, true), (1024, true), (1025, false)] {
        let sealed = sealed_headers(7, vec![header.clone(); count]);
        let mut message = message(&sealed, &[]);
        message.blobs = vec![pb::ExchangeBlobs { blobs: vec![] }; count];
        let opened = open_as_hub(message).map(|opened| opened.candidates.len()).map_err(|refusal| refusal.reason);
        assert_eq!(opened, if expectation { Ok(count) } else { Err(Reason::ConsignmentMalformed) });
    }
}
