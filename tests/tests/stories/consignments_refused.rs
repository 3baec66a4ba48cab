//! Bad input to the hub by somebody who holds a node's keys: whole consignments and single exchanges that no honest node sends.

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_model::{ConsignmentDigest, Digest, Lane, Name, ParticipantCode};
use concord_tests::{Draft, Forum, RawNode, exchange_ids, text_of};
use concord_wire::proto::exchange::v1 as pb;
use serde_json::Value;
use tonic::Code;

const AGREEMENT: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";
const BODY_MAX: usize = 4 * 1024 * 1024;
const START: ConsignmentDigest = ConsignmentDigest(Digest::ZERO);

/// KAZ's node stands still; somebody else has its keys.
fn stage() -> (Forum, RawNode, Value) {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    forum.agree("IRN/others", MEASURE, &["IRN", "TUR"]);
    forum.propose("KAZ/waiting", MEASURE, &["KAZ", "TUR"]);
    let agreement = forum.agreement(AGREEMENT, "KAZ");
    forum.stop_node("KAZ");
    let raw = RawNode::of(&forum, "KAZ");
    (forum, raw, agreement)
}

fn refused(code: Code, reason: &str) -> Option<(Code, String)> {
    Some((code, reason.to_owned()))
}

#[test]
fn every_forged_consignment_is_refused_whole_and_records_nothing() {
    let (mut forum, mut raw, agreement) = stage();
    let routine = Lane::Routine;
    let draft = raw.draft(&agreement, MEASURE, routine, b"body");
    let (honest, _) = raw.consignment(routine, 1, START, std::slice::from_ref(&draft));
    let altered = |change: &dyn Fn(&mut pb::Consignment)| {
        let mut consignment = honest.clone();
        change(&mut consignment);
        consignment
    };
    let flipped = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let name = |text: &str| Name::parse(text).unwrap();
    let stranger = std::mem::replace(&mut raw.signing_key, SigningKey::generate().unwrap());
    let foreign = raw.consignment(routine, 1, START, std::slice::from_ref(&draft)).0;
    raw.signing_key = stranger;
    let raw = &raw;
    let table: Vec<(&str, pb::Consignment, Code, &str)> = vec![
        (
            "number 2 first",
            raw.consignment(routine, 2, START, std::slice::from_ref(&draft)).0,
            Code::FailedPrecondition,
            "NUMBER_OUT_OF_ORDER",
        ),
        (
            "number 0",
            raw.consignment(routine, 0, START, std::slice::from_ref(&draft)).0,
            Code::FailedPrecondition,
            "NUMBER_OUT_OF_ORDER",
        ),
        (
            "previous digest",
            raw.consignment(routine, 1, ConsignmentDigest(Digest([1; 32])), std::slice::from_ref(&draft)).0,
            Code::FailedPrecondition,
            "PREVIOUS_MISMATCH",
        ),
        (
            "another hub's chain",
            raw_chain(raw, &draft, |chain| chain.hub = name("other")),
            Code::PermissionDenied,
            "CHAIN_MISMATCH",
        ),
        (
            "another node's chain",
            raw_chain(raw, &draft, |chain| chain.node = name("other")),
            Code::PermissionDenied,
            "CHAIN_MISMATCH",
        ),
        ("another epoch", raw_chain(raw, &draft, |chain| chain.epoch = 2), Code::PermissionDenied, "CHAIN_MISMATCH"),
        (
            "another lane's chain",
            raw_chain(raw, &draft, |chain| chain.lane = Lane::Flash),
            Code::PermissionDenied,
            "CHAIN_MISMATCH",
        ),
        (
            "another origin",
            raw_chain(raw, &draft, |chain| chain.origin = ParticipantCode::parse("IRN").unwrap()),
            Code::PermissionDenied,
            "CHAIN_MISMATCH",
        ),
        (
            "signature",
            altered(&|one| one.signature = flipped(&one.signature, 5)),
            Code::PermissionDenied,
            "SIGNATURE_INVALID",
        ),
        ("no signature", altered(&|one| one.signature = Bytes::new()), Code::PermissionDenied, "SIGNATURE_INVALID"),
        ("a key that is not enrolled", foreign, Code::PermissionDenied, "SIGNING_KEY_UNKNOWN"),
        (
            "root: another header",
            altered(&|one| one.headers = vec![draft.with(|header| header.language = "ru".to_owned()).serialised()]),
            Code::InvalidArgument,
            "ROOT_MISMATCH",
        ),
        ("seed", altered(&|one| one.seed = flipped(&one.seed, 0)), Code::InvalidArgument, "CONSIGNMENT_MALFORMED"),
        ("short seed", altered(&|one| one.seed = one.seed.slice(1..)), Code::InvalidArgument, "CONSIGNMENT_MALFORMED"),
        ("head", altered(&|one| one.head = flipped(&one.head, 4)), Code::InvalidArgument, "CONSIGNMENT_MALFORMED"),
        (
            "more headers than sealed",
            altered(&|one| one.headers.push(one.headers[0].clone())),
            Code::InvalidArgument,
            "CONSIGNMENT_MALFORMED",
        ),
        ("no blobs", altered(&|one| one.blobs.clear()), Code::InvalidArgument, "CONSIGNMENT_MALFORMED"),
        (
            "garbage for a seal",
            altered(&|one| one.seal = Bytes::from_static(b"\xff\xff\xff")),
            Code::InvalidArgument,
            "CONSIGNMENT_MALFORMED",
        ),
        ("nothing at all", pb::Consignment::default(), Code::InvalidArgument, "CONSIGNMENT_MALFORMED"),
    ];
    for (what, consignment, code, reason) in table {
        println!("{what}");
        let answer = raw.consign(routine, vec![consignment]);
        assert!(answer.receipts.is_empty(), "{what}: {answer:?}");
        assert_eq!(answer.refusal(), refused(code, reason), "{what}");
    }
    // Over a consignment's size, and over what is read at all.
    for size in [BODY_MAX / 2 + 600 * 1024, BODY_MAX] {
        let large = [0, 1].map(|_| raw.draft(&agreement, MEASURE, routine, &vec![7; size]));
        let answer = raw.consign(routine, vec![raw.consignment(routine, 1, START, &large).0]);
        assert_eq!(answer.refusal(), refused(Code::InvalidArgument, "CONSIGNMENT_TOO_LARGE"), "{size}");
    }

    let mut other = raw.chain(routine);
    other.node = name("other");
    assert_eq!(
        raw.consign_as(&other, vec![honest.clone()]).refusal(),
        refused(Code::PermissionDenied, "CHAIN_MISMATCH")
    );
    let no_hello = raw.say(vec![pb::consign_request::Message::Consignment(honest.clone())]);
    assert_eq!(no_hello.refusal(), refused(Code::InvalidArgument, "ARGUMENT_INVALID"));

    // Nothing was recorded: the number is still free, for the same keys in honest hands.
    assert!(forum.agency("IRN").receive_rest().is_empty());
    forum.start_node("KAZ");
    let sent = forum.agency("KAZ").submit("honest", "--agreement KAZ/warnings --wait delivered");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.id]);
    assert_eq!(forum.status(&forum.hub_dir())["alarms"], serde_json::json!([]));
}

fn raw_chain(raw: &RawNode, draft: &Draft, change: impl Fn(&mut concord_model::ChainKey)) -> pb::Consignment {
    let mut chain = raw.chain(Lane::Routine);
    change(&mut chain);
    let sealed = raw.seal(chain, 1, START, std::slice::from_ref(draft));
    concord_wire::consignment::to_message(&sealed, [draft.blobs.clone()])
}

#[test]
fn every_bad_exchange_is_refused_by_itself_and_its_neighbours_go_through() {
    let (forum, raw, agreement) = stage();
    let draft = || raw.draft(&agreement, MEASURE, Lane::Routine, b"body");
    let with = |change: &dyn Fn(&mut pb::Header)| draft().with(change);
    let reference = |id: &str| {
        let others = forum.agreement(id, if id.starts_with("IRN") { "IRN" } else { "TUR" });
        raw.draft(&others, MEASURE, Lane::Routine, b"body")
    };
    let blobs = |blobs: Vec<Bytes>| Draft { blobs, ..draft() };
    let narrowed = |codes: &[&str]| {
        let participants: Vec<String> = codes.iter().map(|&code| code.to_owned()).collect();
        with(&|header| header.narrowing = Some(pb::Narrowing { participants: participants.clone() }))
    };
    let first = draft();
    let last = narrowed(&["IRN"]);
    let bodies = draft().blobs;
    let table: Vec<(&str, Draft, &str)> = vec![
        ("an unknown field", Draft { appended: vec![0xa0, 0x06, 1], ..draft() }, "HEADER_NOT_CANONICAL"),
        ("a field twice", Draft { appended: vec![0x12, 4, b'm', b'a', b'i', b'n'], ..draft() }, "HEADER_NOT_CANONICAL"),
        ("participants not sorted", narrowed(&["KAZ", "IRN"]), "HEADER_NOT_CANONICAL"),
        ("no protobuf", Draft { appended: vec![0xff], ..draft() }, "HEADER_MALFORMED"),
        ("no handling code", with(&|header| header.handling = 0), "HEADER_MALFORMED"),
        ("red to no agency", with(&|header| header.handling = pb::HandlingCode::Red.into()), "HEADER_MALFORMED"),
        ("expired", with(&|header| header.expires_at = header.created), "EXCHANGE_EXPIRED"),
        (
            "a withdrawal of nothing",
            with(&|header| header.withdraws = Some(pb::Withdrawal::default())),
            "HEADER_MALFORMED",
        ),
        ("co-origins", with(&|header| header.co_origins = vec!["IRN".to_owned()]), "FEATURE_NOT_ENABLED"),
        ("two parts", with(&|header| header.parts.push(header.parts[0].clone())), "FEATURE_NOT_ENABLED"),
        ("narrowing to nobody", narrowed(&[]), "NARROWING_INVALID"),
        ("narrowing outside the list", narrowed(&["IRN", "TUR"]), "NARROWING_INVALID"),
        ("narrowing to oneself", narrowed(&["KAZ"]), "AUDIENCE_EMPTY"),
        ("another origin", with(&|header| header.origin = "IRN".to_owned()), "HEADER_CHAIN_MISMATCH"),
        ("another node", with(&|header| header.node = "other".to_owned()), "HEADER_CHAIN_MISMATCH"),
        ("another lane", with(&|header| header.lane = pb::Lane::Flash.into()), "HEADER_CHAIN_MISMATCH"),
        ("no lane", with(&|header| header.lane = 0), "HEADER_MALFORMED"),
        ("no agreement", with(&|header| header.agreement = None), "HEADER_MALFORMED"),
        (
            "unknown agreement",
            with(&|header| header.agreement.as_mut().unwrap().id = "KAZ/nothing".to_owned()),
            "AGREEMENT_UNKNOWN",
        ),
        ("not a party", reference("IRN/others"), "AGREEMENT_UNKNOWN"),
        ("not in force", reference("KAZ/waiting"), "AGREEMENT_NOT_IN_FORCE"),
        (
            "no such version",
            with(&|header| header.agreement.as_mut().unwrap().version = 2),
            "AGREEMENT_VERSION_MISMATCH",
        ),
        (
            "another version's digest",
            with(&|header| header.agreement.as_mut().unwrap().digest = Bytes::from_static(&[1; 32])),
            "AGREEMENT_VERSION_MISMATCH",
        ),
        ("measure not in it", with(&|header| header.measure = "challenges.3".to_owned()), "MEASURE_NOT_IN_AGREEMENT"),
        ("empty body", raw.draft(&agreement, MEASURE, Lane::Routine, b""), "BODY_EMPTY"),
        (
            "body over its limit",
            raw.draft(&agreement, MEASURE, Lane::Routine, &vec![7; 4 * 1024 * 1024 + 1]),
            "BODY_TOO_LARGE",
        ),
        ("another body", blobs(vec![bodies[0].clone(), bodies[1].clone()]), "BLOB_MISMATCH"),
        ("no body", blobs(vec![draft().blobs[0].clone()]), "BLOB_MISMATCH"),
    ];
    let mut drafts = vec![first.clone()];
    drafts.extend(table.iter().map(|(_, draft, _)| draft.clone()));
    drafts.push(last.clone());
    let (consignment, digest) = raw.consignment(Lane::Routine, 1, START, &drafts);
    let outcomes = raw.consign(Lane::Routine, vec![consignment]).outcomes();
    assert_eq!(outcomes.first().map(String::as_str), Some("IRN"));
    assert_eq!(outcomes.last().map(String::as_str), Some("IRN"));
    for ((what, _, reason), outcome) in table.iter().zip(&outcomes[1..]) {
        assert_eq!(outcome, reason, "{what}");
    }
    let flash = raw.draft(&agreement, MEASURE, Lane::Flash, &vec![7; 64 * 1024 + 1]);
    let (consignment, _) = raw.consignment(Lane::Flash, 1, START, &[flash]);
    assert_eq!(raw.consign(Lane::Flash, vec![consignment]).outcomes(), ["BODY_TOO_LARGE"]);

    // The same exchange in another consignment has no second effect; the one behind it shows that it was not still to come.
    let behind = draft();
    let (again, _) = raw.consignment(Lane::Routine, 2, digest, &[first.clone(), behind.clone()]);
    assert_eq!(raw.consign(Lane::Routine, vec![again]).outcomes(), ["IRN", "IRN"]);

    let honest = forum.agency("IRN").submit("from the other side", "--agreement IRN/others --wait delivered");
    assert_eq!(exchange_ids(&forum.agency("TUR").receive(1)), [honest.id]);
    let received = forum.agency("IRN").receive(3);
    assert_eq!(exchange_ids(&received), [first.id(), last.id(), behind.id()]);
    assert!(forum.agency("IRN").receive_rest().is_empty());
    assert_eq!(text_of(&received[0], "title"), "From a raw node");
}

#[test]
fn a_node_that_finds_the_hub_ahead_of_it_takes_nothing_in_and_says_so() {
    let (mut forum, raw, agreement) = stage();
    let draft = raw.draft(&agreement, MEASURE, Lane::Routine, b"sent by a copy of this node");
    let (consignment, _) = raw.consignment(Lane::Routine, 1, START, std::slice::from_ref(&draft));
    assert_eq!(raw.consign(Lane::Routine, vec![consignment]).outcomes(), ["IRN"]);
    forum.start_node("KAZ");
    let dir = forum.node_dir("KAZ");
    let since = std::time::Instant::now();
    while !forum.status(&dir)["alarms"].to_string().contains("NODE_ROLLED_BACK") {
        assert!(since.elapsed() < concord_tests::DEADLINE, "the node does not notice that it has a double");
    }
    assert_eq!(concord_tests::get(&forum.address(&dir, "admin"), "/readyz").status, 503);
    // It would number anew what the hub has under that number: so it queues nothing, on no lane.
    for lane in ["routine", "flash"] {
        let options = format!("--agreement KAZ/warnings --lane {lane}");
        forum.agency("KAZ").try_submit("by the node itself", &options).refused(1, "NODE_ROLLED_BACK");
    }
    // The other nodes go on.
    forum.agency("IRN").submit("from the other side", "--agreement IRN/others --wait delivered");
}
