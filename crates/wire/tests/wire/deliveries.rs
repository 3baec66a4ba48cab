//! Verifying a delivery: what its recipient finds, and what it can not learn from it.

use bytes::Bytes;
use concord_model::{Lane, SetAsideReason};
use concord_wire::consignment::{Sealed, signed_message};
use concord_wire::convert::digest_bytes;
use concord_wire::delivery::{Verified, delivery, verify};
use concord_wire::header::exchange_id;
use concord_wire::proto::exchange::v1 as pb;
use prost::Message as _;

use crate::fixtures::{Exchange, NOW, exchange_of, exchanges, key, name, sealed, travelling};
use crate::seals::flipped;

const UNSIGNED: SetAsideReason = SetAsideReason::SignatureInvalid;
const HEADER: SetAsideReason = SetAsideReason::HeaderInvalid;
const BODY: SetAsideReason = SetAsideReason::BodyMismatch;

fn deliver(sealed: &Sealed, exchanges: &[Exchange], index: usize) -> pb::Delivery {
    delivery(sealed, &sealed.tree(), index, 41, travelling(&exchanges[index]), NOW, 9).unwrap()
}

/// Verifies it as a node of hub `main` that knows the key of `KAZ`.
fn verify_as_node(delivery: &pb::Delivery) -> Result<Verified, SetAsideReason> {
    let kaz = key("KAZ");
    verify(delivery, &name("main"), |origin, named, signed, signature| {
        assert_eq!(origin.as_str(), "KAZ", "the header's origin is asked for");
        kaz.verify(named, signed, signature).map_err(|_| UNSIGNED)
    })
}

/// Tampers with the delivery of the second of three exchanges.
fn check(how: &str, expectation: SetAsideReason, tamper: impl FnOnce(&mut pb::Delivery)) {
    let exchanges = exchanges(3);
    let mut delivery = deliver(&sealed(7, &exchanges), &exchanges, 1);
    tamper(&mut delivery);
    assert_eq!(verify_as_node(&delivery).map(drop), Err(expectation), "{how}");
}

/// Changes the seal in place; with `signs`, that key signs it anew.
fn in_seal(delivery: &mut pb::Delivery, signs: Option<&str>, change: impl FnOnce(&mut pb::ConsignmentSeal)) {
    let mut seal = pb::ConsignmentSeal::decode(delivery.seal.clone()).unwrap();
    change(&mut seal);
    delivery.seal = seal.encode_to_vec().into();
    if let Some(holder) = signs {
        delivery.signature = Bytes::copy_from_slice(&key(holder).sign(&signed_message(&delivery.seal)));
    }
}

#[test]
fn each_exchange_of_a_consignment_verifies_as_delivered() {
    for count in [1, 2, 7] {
        let exchanges = exchanges(count);
        let sealed = sealed(7, &exchanges);
        for (index, exchange) in exchanges.iter().enumerate() {
            let verified = verify_as_node(&deliver(&sealed, &exchanges, index)).unwrap();
            assert_eq!((verified.id, &verified.header), (exchange_id(&exchange.serialised()), &exchange.header));
            assert_eq!((verified.key, &verified.blobs), (key("KAZ").fingerprint(), &exchange.blobs));
            assert_eq!(verified.description.title.as_str(), format!("Изъятие героина № {index}"));
        }
        let beyond = delivery(&sealed, &sealed.tree(), exchanges.len(), 41, vec![], NOW, 9);
        assert!(beyond.is_none(), "there is no exchange {count}");
    }
}

#[test]
fn any_flipped_bit_of_what_the_origin_signed_is_found() {
    let exchanges = exchanges(3);
    let good = deliver(&sealed(7, &exchanges), &exchanges, 1);
    let found = |how: &str, delivery: pb::Delivery, reasons: &[SetAsideReason]| {
        let reason = verify_as_node(&delivery).map(drop).unwrap_err();
        assert!(reasons.contains(&reason), "{how}: {reason}");
    };
    for index in 0..good.header.len() {
        let header = flipped(&good.header, index);
        found(&format!("header {index}"), pb::Delivery { header, ..good.clone() }, &[HEADER, UNSIGNED]);
    }
    for index in 0..good.seal.len() {
        let seal = flipped(&good.seal, index);
        found(&format!("seal {index}"), pb::Delivery { seal, ..good.clone() }, &[UNSIGNED]);
    }
    for index in 0..good.signature.len() {
        let signature = flipped(&good.signature, index);
        found(&format!("signature {index}"), pb::Delivery { signature, ..good.clone() }, &[UNSIGNED]);
    }
    for (height, byte) in (0..10).flat_map(|height| [(height, 0), (height, 31)]) {
        let mut path = good.path.clone();
        path[height] = flipped(&path[height], byte);
        found(&format!("sibling {height}"), pb::Delivery { path, ..good.clone() }, &[UNSIGNED]);
    }
    for (blob, index) in [0, 1].into_iter().flat_map(|blob| (0..good.blobs[blob].len()).map(move |index| (blob, index)))
    {
        let mut blobs = good.blobs.clone();
        blobs[blob] = flipped(&blobs[blob], index);
        found(&format!("blob {blob} byte {index}"), pb::Delivery { blobs, ..good.clone() }, &[BODY]);
    }
}

#[test]
fn a_place_that_is_not_in_the_tree_is_refused() {
    let slot = {
        let exchanges = exchanges(3);
        deliver(&sealed(7, &exchanges), &exchanges, 1).slot
    };
    // The last four would come out at the same node or overflow, were the slot not checked.
    for other in [slot ^ 1, (slot + 512) % 1024, 1024, slot + 1024, slot + 2048, slot | 1 << 31, u32::MAX] {
        check(&format!("slot {other}"), UNSIGNED, |delivery| delivery.slot = other);
    }
    check("a sibling less", UNSIGNED, |delivery| drop(delivery.path.pop()));
    check("a sibling more", UNSIGNED, |delivery| delivery.path.push(delivery.path[9].clone()));
    check("no path", UNSIGNED, |delivery| delivery.path.clear());
    check("siblings swapped", UNSIGNED, |delivery| delivery.path.swap(0, 1));
    check("a short sibling", UNSIGNED, |delivery| delivery.path[4].truncate(31));
    check("a long sibling", UNSIGNED, |delivery| delivery.path[4] = [&delivery.path[4][..], &[0]].concat().into());
    check("a short salt", UNSIGNED, |delivery| delivery.leaf_salt.truncate(31));
    check("no salt", UNSIGNED, |delivery| delivery.leaf_salt.clear());
    check("another salt", UNSIGNED, |delivery| delivery.leaf_salt = flipped(&delivery.leaf_salt, 0));
}

#[test]
fn parts_of_two_deliveries_do_not_make_a_third() {
    let exchanges = exchanges(3);
    let sealed = sealed(7, &exchanges);
    let other = deliver(&sealed, &exchanges, 2);
    check("header", UNSIGNED, |delivery| delivery.header = other.header.clone());
    check("header and blobs", UNSIGNED, |delivery| {
        (delivery.header, delivery.blobs) = (other.header.clone(), other.blobs.clone());
    });
    check("place", UNSIGNED, |delivery| {
        (delivery.slot, delivery.path, delivery.leaf_salt) = (other.slot, other.path.clone(), other.leaf_salt.clone());
    });
    check("blobs", BODY, |delivery| delivery.blobs = other.blobs.clone());
    let elsewhere = deliver(&crate::fixtures::sealed(8, &exchanges[..2]), &exchanges, 1);
    check("seal", UNSIGNED, |delivery| delivery.seal = elsewhere.seal.clone());
    check("seal and signature", UNSIGNED, |delivery| {
        (delivery.seal, delivery.signature) = (elsewhere.seal.clone(), elsewhere.signature.clone());
    });
}

#[test]
fn a_seal_of_another_origin_hub_suite_or_key_is_refused() {
    check("origin", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.origin = "UZB".into()));
    check("hub", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.hub = "other".into()));
    check("suite", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.suite = 2));
    check("root", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.root = flipped(&seal.root, 0)));
    check("short root", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.root.truncate(31)));
    check("short key", UNSIGNED, |delivery| in_seal(delivery, Some("KAZ"), |seal| seal.key_id.truncate(31)));
    check("head", UNSIGNED, |delivery| in_seal(delivery, None, |seal| seal.head = flipped(&seal.head, 0)));
    check("another's signature", UNSIGNED, |delivery| in_seal(delivery, Some("UZB"), |_| ()));
    check("another's key and signature", UNSIGNED, |delivery| {
        in_seal(delivery, Some("UZB"), |seal| seal.key_id = digest_bytes(&key("UZB").fingerprint().0));
    });
    check("no signature", UNSIGNED, |delivery| delivery.signature.clear());
    let exchanges = exchanges(1);
    let delivery = deliver(&sealed(7, &exchanges), &exchanges, 0);
    let elsewhere =
        verify(&delivery, &name("other"), |_, _, _, _| panic!("asked for a key for another hub's delivery"));
    assert_eq!(elsewhere.map(drop), Err(UNSIGNED));
}

#[test]
fn what_the_key_lookup_says_is_the_reason() {
    let exchanges = exchanges(1);
    let delivery = deliver(&sealed(7, &exchanges), &exchanges, 0);
    for reason in [SetAsideReason::KeyNotPinned, SetAsideReason::NotAMember] {
        assert_eq!(verify(&delivery, &name("main"), |_, _, _, _| Err(reason)).map(drop), Err(reason));
    }
}

#[test]
fn headers_and_blobs_of_wrong_form_are_set_aside() {
    check("an unknown field", HEADER, |d| d.header = [&d.header[..], &[0xa0, 0x06, 1]].concat().into());
    check("no header", HEADER, |d| d.header.clear());
    check("no blobs", BODY, |d| d.blobs.clear());
    check("no body", BODY, |d| d.blobs.truncate(1));
    check("an extra blob", BODY, |d| d.blobs.push(d.blobs[1].clone()));
    check("swapped", BODY, |d| d.blobs.swap(0, 1));
    check("shorter than a nonce", BODY, |d| d.blobs[1].truncate(31));
    check("longer", BODY, |d| d.blobs[1] = [&d.blobs[1][..], b"x"].concat().into());

    // A hub that let an origin's bad title or size through does not stop the lane either.
    let title: Bytes = pb::Description { title: "a\nb".into(), caveats: vec![] }.encode_to_vec().into();
    let bad = [exchange_of(0, Lane::Routine, title, Bytes::from_static(b"a body"))];
    assert_eq!(verify_as_node(&deliver(&sealed(7, &bad), &bad, 0)).map(drop), Err(HEADER));
    let mut bad = exchanges(1);
    bad[0].header.parts[0].size_bytes += 1;
    assert_eq!(verify_as_node(&deliver(&sealed(7, &bad), &bad, 0)).map(drop), Err(BODY));
}

#[test]
fn a_delivery_tells_nothing_of_what_else_was_in_its_consignment() {
    const NUMBER: u64 = 0x0123_4567_89ab_cdef;
    let exchanges = exchanges(9);
    let sealed = sealed(NUMBER, &exchanges);
    let mut number = Vec::new();
    prost::encoding::encode_varint(NUMBER, &mut number);
    for index in 0..exchanges.len() {
        let bytes = deliver(&sealed, &exchanges, index).encode_to_vec();
        let says = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(says(&exchanges[index].serialised()), "the search finds what is there");
        let secrets = [
            ("the head", sealed.head.to_vec()),
            ("the salt of the head", sealed.seed.head_salt().as_bytes().to_vec()),
            ("the seed", sealed.seed.as_bytes().to_vec()),
            ("half the seed", sealed.seed.as_bytes()[..16].to_vec()),
            ("the number", number.clone()),
            ("the number, big-endian", NUMBER.to_be_bytes().to_vec()),
            ("the number, little-endian", NUMBER.to_le_bytes().to_vec()),
            ("the digest before", sealed.previous.0.as_bytes().to_vec()),
        ];
        for (what, secret) in secrets {
            assert!(!says(&secret), "delivery {index} has {what}");
        }
        for (other, exchange) in exchanges.iter().enumerate().filter(|(other, _)| *other != index) {
            let (slot, _) = sealed.tree().path(other).unwrap();
            assert!(!says(exchange_id(&exchange.serialised()).0.as_bytes()), "delivery {index} has the id of {other}");
            assert!(!says(&exchange.serialised()), "delivery {index} has the header of {other}");
            assert!(!says(exchange.header.uuid.as_bytes()), "delivery {index} has the UUID of {other}");
            assert!(!says(sealed.seed.leaf_salt(slot).as_bytes()), "delivery {index} has the salt of {other}");
            assert!(!says(exchange.blobs[1].bytes()), "delivery {index} has the body of {other}");
        }
    }
}

#[test]
fn a_delivery_has_the_same_shape_however_many_others_there_were() {
    let shape = |count: u8| {
        let exchanges = exchanges(count);
        let delivery = deliver(&sealed(7, &exchanges), &exchanges, 0);
        let siblings: Vec<usize> = delivery.path.iter().map(Bytes::len).collect();
        (siblings, delivery.seal.len(), delivery.leaf_salt.len(), delivery.signature.len())
    };
    assert_eq!(shape(1), shape(60));
    // No sibling is a value that says "empty" to all: each is its own.
    let exchanges = exchanges(1);
    let mut path = deliver(&sealed(7, &exchanges), &exchanges, 0).path;
    path.sort();
    path.dedup();
    assert_eq!(path.len(), 10);
    assert!(!path.contains(&Bytes::from_static(&[0; 32])));
}
