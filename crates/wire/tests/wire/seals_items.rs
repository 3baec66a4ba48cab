//! Opening a consignment: what makes one exchange unfit leaves the others as they are, and its blobs are not kept.

use bytes::Bytes;
use concord_ledger::Candidate;
use concord_model::limits::FLASH_BODY_SIZE_MAX_BYTES;
use concord_model::{Lane, Reason};
use concord_wire::proto::exchange::v1 as pb;
use prost::Message as _;

use crate::fixtures::{Exchange, exchange, exchange_of, exchanges, message, sealed, sealed_headers, travelling};
use crate::seals::{flipped, open_as_hub};

/// Opens it: these exchanges are unfit for these reasons, and all others are as they were sealed.
fn check_message(how: &str, message: pb::Consignment, unfit: &[(usize, Reason)]) {
    let sent = message.blobs.clone();
    let opened = open_as_hub(message).unwrap_or_else(|refusal| panic!("{how}: {refusal}"));
    assert_eq!(opened.candidates.len(), sent.len());
    for (index, (candidate, kept)) in opened.candidates.iter().zip(&opened.blobs).enumerate() {
        let expectation = unfit.iter().find(|(expected, _)| *expected == index).map(|(_, reason)| *reason);
        assert_eq!(candidate.unfit(), expectation, "{how}: exchange {index}");
        let expected_blobs = if expectation.is_some() { 0 } else { sent[index].blobs.len() };
        assert_eq!(kept.len(), expected_blobs, "{how}: blobs of exchange {index}");
        assert_eq!(matches!(candidate, Candidate::Fit(_)), expectation.is_none());
    }
}

/// Tampers with the blobs of a good consignment, which no signature covers directly.
fn check(how: &str, unfit: &[(usize, Reason)], tamper: impl FnOnce(&mut Vec<pb::ExchangeBlobs>)) {
    let exchanges = exchanges(3);
    let mut message = message(&sealed(7, &exchanges), &exchanges);
    tamper(&mut message.blobs);
    check_message(how, message, unfit);
}

/// The second of three exchanges is one that its origin itself should not have sealed.
fn check_sealed(how: &str, reason: Reason, header: Bytes, exchange: &Exchange) {
    let mut all = exchanges(3);
    let sealed = sealed_headers(7, vec![all[0].serialised(), header, all[2].serialised()]);
    all[1] = exchange.clone();
    check_message(how, message(&sealed, &all), &[(1, reason)]);
}

const MISMATCH: Reason = Reason::BlobMismatch;

#[test]
fn nothing_touched_leaves_all_fit() {
    check("nothing", &[], |_| ());
}

#[test]
fn any_flipped_bit_of_a_blob_makes_its_exchange_unfit() {
    for blob in 0..2 {
        for index in 0..travelling(&exchange(1))[blob].len() {
            check(&format!("blob {blob} byte {index}"), &[(1, MISMATCH)], |blobs| {
                blobs[1].blobs[blob] = flipped(&blobs[1].blobs[blob], index);
            });
        }
    }
}

#[test]
fn blobs_that_are_not_those_of_the_header_make_it_unfit() {
    check("no body", &[(0, MISMATCH)], |blobs| blobs[0].blobs.truncate(1));
    check("no blobs", &[(2, MISMATCH)], |blobs| blobs[2].blobs.clear());
    check("no description", &[(1, MISMATCH)], |blobs| drop(blobs[1].blobs.remove(0)));
    check("an extra blob", &[(1, MISMATCH)], |blobs| blobs[1].blobs.push(Bytes::from_static(&[0; 40])));
    check("swapped within", &[(1, MISMATCH)], |blobs| blobs[1].blobs.swap(0, 1));
    check("swapped between", &[(0, MISMATCH), (2, MISMATCH)], |blobs| blobs.swap(0, 2));
    check("shorter than a nonce", &[(0, MISMATCH)], |blobs| blobs[0].blobs[1].truncate(31));
    check("a nonce only", &[(0, MISMATCH)], |blobs| blobs[0].blobs[1].truncate(32));
    check("empty", &[(0, MISMATCH)], |blobs| blobs[0].blobs[0].clear());
    check("longer", &[(0, MISMATCH)], |blobs| blobs[0].blobs[1] = [&blobs[0].blobs[1][..], b"x"].concat().into());
    check("all", &[(0, MISMATCH), (1, MISMATCH), (2, MISMATCH)], |blobs| {
        blobs.iter_mut().for_each(|b| b.blobs.clear())
    });
}

#[test]
fn a_header_that_its_origin_should_not_have_sealed_makes_it_unfit() {
    let good = exchange(1);
    let change = |change: &dyn Fn(&mut pb::Header)| -> Bytes {
        let mut header = pb::Header::decode(good.serialised()).unwrap();
        change(&mut header);
        header.encode_to_vec().into()
    };
    let garbage = Bytes::from_static(b"not a header");
    check_sealed("garbage", Reason::HeaderMalformed, garbage, &good);
    check_sealed("empty", Reason::HeaderMalformed, Bytes::new(), &good);
    let unknown: Bytes = [&good.serialised()[..], &[0xa0, 0x06, 1]].concat().into();
    check_sealed("an unknown field", Reason::HeaderNotCanonical, unknown, &good);
    check_sealed(
        "a feature",
        Reason::FeatureNotEnabled,
        change(&|header| header.co_origins = vec!["IRN".into()]),
        &good,
    );
    let nobody = change(&|header| header.narrowing = Some(pb::Narrowing::default()));
    check_sealed("an empty narrowing", Reason::NarrowingInvalid, nobody, &good);
    check_sealed("an empty body", Reason::BodyEmpty, change(&|header| header.parts[0].size_bytes = 0), &good);
    check_sealed("another size", MISMATCH, change(&|header| header.parts[0].size_bytes += 1), &good);
}

#[test]
fn content_that_its_origin_should_not_have_sealed_makes_it_unfit() {
    let description =
        |title: &str| -> Bytes { pb::Description { title: title.into(), caveats: vec![] }.encode_to_vec().into() };
    let good = description("a title");
    let check = |how: &str, reason: Reason, lane: Lane, description: Bytes, body: Bytes| {
        let exchange = exchange_of(1, lane, description, body);
        check_sealed(how, reason, exchange.serialised(), &exchange);
    };
    let body = || Bytes::from_static(b"a body");
    let too_large = Bytes::from(vec![b'x'; FLASH_BODY_SIZE_MAX_BYTES + 1]);
    check("a flash body over its limit", Reason::BodyTooLarge, Lane::Flash, good, too_large);
    check("a title of two lines", Reason::TitleInvalid, Lane::Routine, description("a\nb"), body());
    check("no title", Reason::TitleInvalid, Lane::Routine, description(""), body());
    check("no description", Reason::HeaderMalformed, Lane::Routine, Bytes::from_static(b"garbage"), body());
}

#[test]
fn a_flash_body_at_its_limit_is_fit() {
    let description = pb::Description { title: "a title".into(), caveats: vec![] }.encode_to_vec().into();
    let largest = Bytes::from(vec![b'x'; FLASH_BODY_SIZE_MAX_BYTES]);
    let exchanges = [exchange_of(1, Lane::Flash, description, largest)];
    check_message("largest", message(&sealed(7, &exchanges), &exchanges), &[]);
}
