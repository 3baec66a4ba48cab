//! Headers and descriptions: what is read is what the origin said, or a refusal with its reason.

use bytes::Bytes;
use concord_model::limits::{BODY_SIZE_MAX_BYTES, HEADER_SIZE_MAX_BYTES};
use concord_model::{Description, Reason};
use concord_wire::header::{
    CAVEAT_SIZE_MAX_BYTES, CAVEATS_MAX, encode, encode_description, exchange_id, parse, parse_description,
    parse_narrowing, withdraws,
};
use concord_wire::proto::exchange::v1 as pb;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use crate::fixtures::{any_header, any_title, exchange};

/// Changes a good header and says what comes of it.
fn check(change: impl FnOnce(&mut pb::Header), expectation: Reason) {
    let mut header = pb::Header::decode(encode(&exchange(1).header)).unwrap();
    change(&mut header);
    let parsed = parse(&header.encode_to_vec());
    assert_eq!(parsed.map_err(|refusal| refusal.reason), Err(expectation), "{header:?}");
}

fn narrowing(codes: &[&str]) -> pb::Narrowing {
    pb::Narrowing { participants: codes.iter().map(ToString::to_string).collect() }
}

#[test]
fn a_field_that_is_not_switched_on_is_refused_when_set() {
    let feature = Reason::FeatureNotEnabled;
    check(|header| header.co_origins = vec!["UZB".into()], feature);
    check(|header| header.co_origins = vec![String::new()], feature);
    check(|header| header.seals = vec![Bytes::new()], feature);
    check(|header| header.large_parts = vec![Bytes::from_static(&[1; 32])], feature);
    check(|header| header.parts.push(header.parts[0].clone()), feature);
}

#[test]
fn a_withdrawal_names_one_exchange_and_why_and_has_no_part() {
    let malformed = Reason::HeaderMalformed;
    let withdrawal = |kind: pb::WithdrawalKind| {
        Some(pb::Withdrawal { exchange_id: Bytes::from_static(&[1; 32]), kind: kind.into() })
    };
    let withdraw = |header: &mut pb::Header| {
        header.withdraws = withdrawal(pb::WithdrawalKind::Superseded);
        header.parts.clear();
        header.expires_at = None;
    };
    let mut good = pb::Header::decode(encode(&exchange(1).header)).unwrap();
    withdraw(&mut good);
    let bytes = good.encode_to_vec();
    let parsed = parse(&bytes).unwrap();
    assert!(parsed.narrowing.is_some(), "it names whom the exchange was narrowed to");
    assert_eq!(encode(&parsed), bytes);
    assert_eq!(withdraws(&bytes), parsed.withdraws);
    assert_eq!(withdraws(&encode(&exchange(1).header)), None);

    check(|header| header.supersedes = Bytes::from_static(&[1; 31]), malformed);
    check(|header| header.withdraws = withdrawal(pb::WithdrawalKind::Withdrawn), malformed);
    let also = |change: fn(&mut pb::Header)| {
        let all = |header: &mut pb::Header| {
            withdraw(header);
            change(header);
        };
        check(all, malformed);
    };
    also(|header| header.supersedes = Bytes::from_static(&[1; 32]));
    also(|header| header.expires_at = header.created);
    also(|header| header.withdraws.as_mut().unwrap().kind = 0);
    also(|header| header.withdraws.as_mut().unwrap().kind = 3);
    also(|header| header.withdraws.as_mut().unwrap().exchange_id = Bytes::from_static(&[1; 33]));
    also(|header| header.handling = pb::HandlingCode::Red.into());
    check(|header| header.parts.clear(), malformed);
}

#[test]
fn a_header_states_how_it_is_to_be_handled_and_red_names_its_agencies() {
    let malformed = Reason::HeaderMalformed;
    check(|header| header.handling = 0, malformed);
    check(|header| header.handling = 9, malformed);
    check(|header| header.handling = pb::HandlingCode::Red.into(), malformed);
    let agency =
        |participant: &str, agency: &str| pb::AgencyName { participant: participant.into(), agency: agency.into() };
    let kgz = || agency("KGZ", "drug-control");
    // The narrowing names exactly the participants whose agencies are named.
    check(|header| header.agencies = vec![kgz()], malformed);
    check(
        |header| {
            header.agencies = vec![kgz()];
            header.narrowing = None;
        },
        malformed,
    );
    let named = |header: &mut pb::Header, agencies: Vec<pb::AgencyName>| {
        header.narrowing = Some(narrowing(&["KGZ"]));
        header.agencies = agencies;
    };
    check(|header| named(header, vec![agency("KGZ", "police"), kgz()]), Reason::HeaderNotCanonical);
    check(|header| named(header, vec![kgz(), kgz()]), Reason::HeaderNotCanonical);
    check(|header| named(header, vec![agency("KGZ", "Drug Control")]), malformed);
    let many = |_| kgz();
    check(|header| named(header, (0..65).map(many).collect()), malformed);
    let finer = prost_types::Timestamp { seconds: 1_900_000_000, nanos: 1 };
    check(|header| header.expires_at = Some(finer), Reason::HeaderNotCanonical);
    let impossible = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    check(|header| header.expires_at = Some(impossible), malformed);
}

#[test]
fn a_narrowing_that_is_not_a_list_of_participants_is_refused_never_read_as_all() {
    for codes in [&[][..], &["KGZ", "KGZ"], &["KGZ", "UZB", "KGZ"], &["kgz"], &[""], &["KGZ", ""]] {
        check(|header| header.narrowing = Some(narrowing(codes)), Reason::NarrowingInvalid);
    }
}

#[test]
fn a_header_whose_narrowing_is_not_sorted_is_refused_before_one_wish_becomes_two_exchanges() {
    let sorted = encode(&exchange(1).header);
    let mut header = pb::Header::decode(&sorted[..]).unwrap();
    header.narrowing.as_mut().unwrap().participants.reverse();
    let reversed = header.encode_to_vec();
    assert_ne!(exchange_id(&reversed), exchange_id(&sorted), "other bytes would be another exchange");
    let refusal = parse(&reversed).unwrap_err();
    assert_eq!(refusal.reason, Reason::HeaderNotCanonical);
    assert!(refusal.message.contains("not sorted"), "{}", refusal.message);

    let narrowed = |codes: &[&str]| Some(narrowing(codes));
    check(|header| header.narrowing = narrowed(&["BGD", "UZB", "KGZ"]), Reason::HeaderNotCanonical);
    check(|header| header.narrowing = narrowed(&["KGZ", "BGD", "UZB"]), Reason::HeaderNotCanonical);
    // A prefix sorts before what it begins.
    check(|header| header.narrowing = narrowed(&["UNX", "UN"]), Reason::HeaderNotCanonical);
    header.narrowing = narrowed(&["BGD", "KGZ", "UN", "UNX"]);
    assert!(parse(&header.encode_to_vec()).is_ok());
}

#[test]
fn an_agencys_wish_may_name_its_participants_in_any_order() {
    let sorted = parse_narrowing(&narrowing(&["BGD", "KGZ", "UZB"])).unwrap();
    for codes in [["UZB", "KGZ", "BGD"], ["KGZ", "BGD", "UZB"]] {
        assert_eq!(parse_narrowing(&narrowing(&codes)).as_ref(), Ok(&sorted));
    }
}

#[test]
fn a_header_whose_time_is_finer_than_a_microsecond_is_refused_not_rounded() {
    for nanos in [1, 10, 100, 999, 123_456_001, 123_456_500, 999_999_999] {
        check(|header| header.created.as_mut().unwrap().nanos = nanos, Reason::HeaderNotCanonical);
    }
    for nanos in [0, 1000, 999_999_000] {
        let mut header = pb::Header::decode(encode(&exchange(1).header)).unwrap();
        header.created.as_mut().unwrap().nanos = nanos;
        let parsed = parse(&header.encode_to_vec()).unwrap();
        assert_eq!(parsed.created.as_micros().rem_euclid(1_000_000) * 1000, i64::from(nanos));
    }
}

#[test]
fn what_is_wrong_with_a_header_is_told_before_how_it_is_spelt() {
    let spelt = |header: &mut pb::Header| {
        header.narrowing = Some(narrowing(&["UZB", "KGZ"]));
        header.created.as_mut().unwrap().nanos = 1;
    };
    let check = |change: &dyn Fn(&mut pb::Header), expectation| {
        check(
            |header| {
                spelt(header);
                change(header)
            },
            expectation,
        );
    };
    check(&|_| (), Reason::HeaderNotCanonical);
    check(&|header| header.co_origins = vec!["IRN".into()], Reason::FeatureNotEnabled);
    check(&|header| header.narrowing = Some(narrowing(&["UZB", "KGZ", "UZB"])), Reason::NarrowingInvalid);
    check(&|header| header.created.as_mut().unwrap().nanos = -1, Reason::HeaderMalformed);
    check(&|header| header.parts[0].size_bytes = 0, Reason::BodyEmpty);
    check(&|header| header.parts[0].size_bytes = u64::MAX, Reason::BodyTooLarge);
    check(&|header| header.description = Bytes::new(), Reason::HeaderMalformed);
}

#[test]
fn a_header_that_says_something_impossible_is_refused() {
    let malformed = Reason::HeaderMalformed;
    check(|header| header.origin = "kaz".into(), malformed);
    check(|header| header.origin.clear(), malformed);
    check(|header| header.node.clear(), malformed);
    check(|header| header.uuid = Bytes::from_static(&[0; 16]), malformed);
    check(|header| header.uuid = Bytes::from_static(&[0x77; 15]), malformed);
    check(|header| header.agreement = None, malformed);
    check(|header| header.agreement.as_mut().unwrap().id = "flood-warnings".into(), malformed);
    check(|header| header.agreement.as_mut().unwrap().digest = Bytes::from_static(&[0; 31]), malformed);
    check(|header| header.measure = "challenges".into(), malformed);
    check(|header| header.lane = 0, malformed);
    check(|header| header.lane = 4, malformed);
    check(|header| header.lane = -1, malformed);
    check(|header| header.language = "по-русски".into(), malformed);
    check(|header| header.created = None, malformed);
    check(|header| header.created.as_mut().unwrap().nanos = -1, malformed);
    check(|header| header.created.as_mut().unwrap().nanos = 1_000_000_000, malformed);
    check(|header| header.created.as_mut().unwrap().seconds = 253_402_300_800, malformed);
    check(|header| header.created.as_mut().unwrap().seconds = i64::MIN, malformed);
    check(|header| header.parts.clear(), malformed);
    check(|header| header.parts[0].media_type = "text/csv; charset=utf-8".into(), malformed);
    check(|header| header.parts[0].commitment = Bytes::new(), malformed);
    check(|header| header.parts[0].size_bytes = 0, Reason::BodyEmpty);
    check(|header| header.parts[0].size_bytes = BODY_SIZE_MAX_BYTES as u64 + 1, Reason::BodyTooLarge);
    check(|header| header.parts[0].size_bytes = u64::MAX, Reason::BodyTooLarge);
    check(|header| header.description = Bytes::new(), malformed);
    check(|header| header.description = Bytes::from_static(&[0; 33]), malformed);
}

#[test]
fn a_header_over_its_size_is_refused_before_it_is_read() {
    let garbage = vec![0xff; HEADER_SIZE_MAX_BYTES + 1];
    let refusal = parse(&garbage).unwrap_err();
    assert_eq!(refusal.reason, Reason::HeaderMalformed);
    assert!(refusal.message.contains(&HEADER_SIZE_MAX_BYTES.to_string()), "{}", refusal.message);
}

#[test]
fn a_description_that_says_something_impossible_is_refused() {
    let check = |title: &str, caveats: Vec<String>, expectation: Result<(), Reason>| {
        let bytes = pb::Description { title: title.into(), caveats }.encode_to_vec();
        assert_eq!(parse_description(&bytes).map(drop).map_err(|refusal| refusal.reason), expectation);
    };
    check("Паводок", vec!["x".repeat(CAVEAT_SIZE_MAX_BYTES); CAVEATS_MAX], Ok(()));
    check("Паводок", vec![String::new(); CAVEATS_MAX + 1], Err(Reason::HeaderMalformed));
    check("Паводок", vec!["x".repeat(CAVEAT_SIZE_MAX_BYTES + 1)], Err(Reason::HeaderMalformed));
    check("", vec![], Err(Reason::TitleInvalid));
    check("two\nlines", vec![], Err(Reason::TitleInvalid));
    check(&"п".repeat(513), vec![], Err(Reason::TitleInvalid));
}

proptest! {
    #[test]
    fn a_header_survives_the_wire(header in any_header()) {
        let serialised = encode(&header);
        let parsed = parse(&serialised).unwrap();
        prop_assert_eq!(encode(&parsed), serialised);
        prop_assert_eq!(parsed, header);
    }

    #[test]
    fn a_description_survives_the_wire(title in any_title(), caveats in vec("\\PC{0,60}", 0..CAVEATS_MAX)) {
        let description = Description { title, caveats };
        prop_assert_eq!(parse_description(&encode_description(&description)), Ok(description));
    }
}
