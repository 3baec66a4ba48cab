//! Messages that no honest peer sends: at and over every limit, of a million small fields, nested, cut, compressed, and held back
//! before their last byte. Each ends its own call, and nothing grows.

use std::time::Duration;

use bytes::Bytes;
use concord_server::{CALLS_IN_FLIGHT_PER_CALLER_MAX, MESSAGE_SIZE_MAX_BYTES, STREAMS_PER_CONNECTION_MAX};
use concord_tests::battery::report;
use concord_tests::framing::{Begun, Calls, framed, message, told};
use concord_tests::http2::Attacker;
use concord_wire::proto::agency::v1::SubmitRequest;
use prost::Message as _;
use tonic::Code;

use crate::attacks::{AGREEMENT, MEASURE, Stage};

const SUBMIT: &str = "/concord.agency.v1.AgencyService/Submit";
const RECEIVE: &str = "/concord.agency.v1.AgencyService/Receive";
const CONSIGN: &str = "/concord.exchange.v1.ExchangeService/Consign";
const STATE: &str = "/concord.agreement.v1.StatementService/Submit";
const BODY_MAX: usize = 4 * 1024 * 1024;
const ROOMY: u32 = 1024 * 1024;

fn request(id: &str) -> SubmitRequest {
    SubmitRequest {
        request_id: id.to_owned(),
        agreement_id: AGREEMENT.to_owned(),
        measure: MEASURE.to_owned(),
        lane: 3,
        title: "T".to_owned(),
        media_type: "text/plain".to_owned(),
        body: Bytes::from_static(b"body"),
        ..SubmitRequest::default()
    }
}

/// A request whose message has exactly this many bytes.
fn sized(id: &str, size: usize) -> Bytes {
    let mut request = request(id);
    // The length of the body is written in four bytes, whatever it is here.
    request.body = vec![b'x'; BODY_MAX].into();
    let without = request.encoded_len() - BODY_MAX;
    request.body = vec![b'x'; size - without].into();
    assert_eq!(request.encoded_len(), size);
    request.encode_to_vec().into()
}

/// Field 16, that no message has, with so many groups in each other.
fn nested(depth: usize) -> Vec<u8> {
    const BEGIN: [u8; 2] = [0x83, 1];
    const END: [u8; 2] = [0x84, 1];
    [BEGIN.repeat(depth), END.repeat(depth)].concat()
}

/// So many bytes of one empty field after another.
fn crumbs(field: u8, bytes: usize) -> Vec<u8> {
    [field << 3 | 2, 0].repeat(bytes / 2)
}

/// A message field of this content.
fn within(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn a_message_that_no_honest_peer_sends_ends_its_own_call_and_costs_no_more_than_it_weighs() {
    let mut stage = Stage::set();
    let good = |id: &str| request(id).encode_to_vec();
    let and = |id: &str, more: &[u8]| Bytes::from([&good(id)[..], more].concat());
    let cut = |id: &str| {
        let bytes = good(id);
        Bytes::copy_from_slice(&bytes[..bytes.len() - 1])
    };
    let whole = |bytes: Bytes| message(&bytes);
    let accepted = (Code::Ok, "");
    let large = (Code::InvalidArgument, "BODY_TOO_LARGE");
    let over = (Code::OutOfRange, "");
    let garbled = (Code::Internal, "");
    let crumbly = (Code::InvalidArgument, "ARGUMENT_INVALID");
    type Case = (&'static str, Vec<(&'static str, &'static str)>, Bytes, (Code, &'static str));
    let at_node: Vec<Case> = vec![
        ("a good one", vec![], whole(good("a").into()), accepted),
        ("one byte under the limit of a message", vec![], whole(sized("b", MESSAGE_SIZE_MAX_BYTES - 1)), large),
        ("at the limit", vec![], whole(sized("c", MESSAGE_SIZE_MAX_BYTES)), large),
        ("one byte over it", vec![], whole(sized("d", MESSAGE_SIZE_MAX_BYTES + 1)), over),
        ("a length of all there is", vec![], framed(0, u32::MAX, b"x"), over),
        ("a length of more than comes", vec![], framed(0, 1000, &good("e")), garbled),
        ("a length of less than comes", vec![], framed(0, 3, &good("f")), garbled),
        ("no message", vec![], Bytes::new(), garbled),
        ("half a head", vec![], Bytes::from_static(&[0, 0, 0]), garbled),
        ("cut in its last field", vec![], whole(cut("g")), garbled),
        ("99 groups in each other", vec![], whole(and("h", &nested(99))), accepted),
        ("100 groups", vec![], whole(and("i", &nested(100))), accepted),
        ("101 groups", vec![], whole(and("j", &nested(101))), garbled),
        ("half a million groups", vec![], whole(and("k", &nested(500_000))), crumbly),
        ("a title that is no UTF-8", vec![], whole(and("l", &within(5, b"\xff\xfe"))), garbled),
        ("said to be compressed, by nothing", vec![], framed(1, 4, b"1234"), garbled),
        (
            "compressed by what is not spoken",
            vec![("grpc-encoding", "gzip")],
            framed(1, 4, b"1234"),
            (Code::Unimplemented, ""),
        ),
        ("a flag that nobody knows", vec![], framed(7, 4, b"1234"), garbled),
        ("4 MiB of empty caveats", vec![], whole(and("m", &crumbs(10, BODY_MAX))), crumbly),
        ("4 MiB of empty participants", vec![], whole(and("n", &within(8, &crumbs(1, BODY_MAX)))), crumbly),
        ("4 MiB of fields that nobody knows", vec![], whole(and("o", &[0x82, 1, 0].repeat(BODY_MAX / 3))), crumbly),
    ];
    let hello = within(1, &[]);
    let at_hub: Vec<Case> = vec![
        ("4 MiB of empty headers", vec![], whole(within(2, &crumbs(5, BODY_MAX)).into()), crumbly),
        ("4 MiB of empty lists of bodies", vec![], whole(within(2, &crumbs(6, BODY_MAX)).into()), crumbly),
        ("4 MiB of empty bodies", vec![], whole(within(2, &within(6, &crumbs(1, BODY_MAX))).into()), crumbly),
        ("4 MiB of versions", vec![], whole(within(1, &within(1, &within(1, &vec![1; BODY_MAX]))).into()), crumbly),
        ("a hello that says nothing", vec![], whole(hello.into()), (Code::FailedPrecondition, "PROTOCOL_UNSUPPORTED")),
    ];
    let [(_, node), (_, agency)] = stage.certified();
    for (attacker, path, cases) in [(&agency, SUBMIT, at_node), (&node, CONSIGN, at_hub)] {
        for (what, fields, bytes, (code, reason)) in cases {
            stage.begin_measuring();
            let status = stage.runtime.block_on(async {
                let mut calls = Calls::connect(attacker, ROOMY).await;
                let status = calls.call(path, &fields, bytes).await;
                // The connection of the call goes on.
                let health = calls.call("/grpc.health.v1.Health/Check", &[], message(&[])).await;
                assert_eq!(health.code(), Code::Ok, "{what}: {health:?}");
                status
            });
            let (found, words) = told(&status);
            assert_eq!(found, code, "{what}: {words}");
            assert!(reason.is_empty() || words == reason, "{what}: {words}");
            stage.check_memory(what);
        }
    }
    let slowest = stage.honest.await_rounds(2);
    report(&format!("attacks: messages: the honest agency waited at most {slowest:?} behind them"));
}

/// Begins as many calls as one caller may have, each with all of a large message but its last byte.
async fn hold_back(attacker: &Attacker, path: &str, size: usize) -> Vec<(Calls, Vec<Begun>)> {
    let per_connection = STREAMS_PER_CONNECTION_MAX as usize;
    let mut held = Vec::new();
    for _ in 0..CALLS_IN_FLIGHT_PER_CALLER_MAX / per_connection {
        let mut calls = Calls::connect(attacker, ROOMY).await;
        let mut begun = Vec::new();
        for _ in 0..per_connection {
            let Ok(mut call) = calls.begin(path, &[]).await else { break };
            let bytes = framed(0, size as u32, &vec![0x7a; size - 1]);
            // One that is refused takes no more of it.
            let _refused = tokio::time::timeout(Duration::from_secs(5), call.send(bytes, false)).await;
            begun.push(call);
        }
        held.push((calls, begun));
    }
    held
}

#[test]
fn messages_that_are_held_back_before_their_last_byte_do_not_fill_the_memory() {
    let mut stage = Stage::set();
    let [(_, node), (_, agency)] = stage.certified();
    for (who, attacker, path) in [("an agency", &agency, SUBMIT), ("a node", &node, CONSIGN), ("a node", &node, STATE)]
    {
        stage.begin_measuring();
        let held = stage.runtime.block_on(hold_back(attacker, path, BODY_MAX));
        let slowest = stage.honest.await_rounds(2);
        let what = format!("messages that {who} holds back");
        stage.check_memory(&what);
        let refused = stage.runtime.block_on(async {
            let mut refused = 0;
            for (_calls, begun) in held {
                for call in begun {
                    match call.ended_within(Duration::from_millis(20)).await.as_ref().map(told) {
                        Some((Code::ResourceExhausted, reason)) if reason == "QUEUE_FULL" => refused += 1,
                        None => {}
                        Some(other) => panic!("{what}: {other:?}"),
                    }
                }
            }
            refused
        });
        assert!(refused > 0, "{what}: none was refused");
        report(&format!("attacks: {what}: {refused} refused; the honest agency waited at most {slowest:?}"));
    }
}

#[test]
fn answers_that_nobody_gives_a_window_for_do_not_fill_the_memory() {
    let mut stage = Stage::set();
    // Something to give: large exchanges for the agency, which never acknowledges one.
    stage.forum.agree("IRN/large", "environmental.4", &["IRN", "KAZ"]);
    let iran = stage.forum.agency("IRN");
    for _ in 0..4 {
        iran.submit(vec![b'x'; BODY_MAX - 1024], "--agreement IRN/large --wait delivered");
    }
    stage.honest.await_rounds(2);
    let [_, (_, agency)] = stage.certified();
    stage.begin_measuring();
    let held = stage.runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut calls = Calls::connect(&agency, 0).await;
            let mut begun = Vec::new();
            for follow in 0..STREAMS_PER_CONNECTION_MAX as u8 {
                let Ok(mut call) = calls.begin(RECEIVE, &[]).await else { break };
                let _ = call.send(message(&[8, follow % 2]), true).await;
                begun.push(call);
            }
            held.push((calls, begun));
        }
        held
    });
    let slowest = stage.honest.await_rounds(3);
    stage.check_memory("answers without a window");
    drop(held);
    report(&format!("attacks: answers without a window: the honest agency waited at most {slowest:?}"));
}
