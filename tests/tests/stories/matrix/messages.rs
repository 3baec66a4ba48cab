//! What each method is called with.

use bytes::Bytes;
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agency::v1 as agency;
use concord_wire::proto::agreement::v1 as agreement;
use concord_wire::proto::exchange::v1 as exchange;
use concord_wire::proto::feed::v1 as feed;
use prost::Message;

use super::rows::AGREEMENT;
use super::{Stage, raw_bytes};

pub(super) fn empty() -> Vec<u8> {
    Vec::new()
}

pub(super) fn list_services() -> Vec<u8> {
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
    let message_request = Some(MessageRequest::ListServices(String::new()));
    ServerReflectionRequest { host: String::new(), message_request }.encode_to_vec()
}

pub(super) fn consign() -> Vec<u8> {
    consign_of(Bytes::new())
}

pub(super) fn consign_of(run: Bytes) -> Vec<u8> {
    let chain = exchange::ChainKey { hub: "main".to_owned(), node: "main".to_owned(), epoch: 1, lane: 3 };
    let hello = exchange::ConsignHello { limits: Some(concord_wire::limits()), chain: Some(chain), run };
    exchange::ConsignRequest { message: Some(exchange::consign_request::Message::Hello(hello)), ..Default::default() }
        .encode_to_vec()
}

pub(super) fn receive() -> Vec<u8> {
    receive_of(Bytes::new())
}

pub(super) fn receive_of(run: Bytes) -> Vec<u8> {
    let hello = exchange::ReceiveHello { limits: Some(concord_wire::limits()), lane: 3, run, ..Default::default() };
    exchange::ReceiveRequest { message: Some(exchange::receive_request::Message::Hello(hello)) }.encode_to_vec()
}

pub(super) fn fetch() -> Vec<u8> {
    fetch_of(Bytes::new())
}

pub(super) fn fetch_of(run: Bytes) -> Vec<u8> {
    let chain = exchange::ChainKey { hub: "main".to_owned(), node: "main".to_owned(), epoch: 1, lane: 3 };
    let limits = Some(concord_wire::limits());
    exchange::FetchConsignmentsRequest { limits, chain: Some(chain), run, ..Default::default() }.encode_to_vec()
}

pub(super) fn submit_of(run: Bytes) -> Vec<u8> {
    agreement::SubmitRequest { statement: None, wait: None, run }.encode_to_vec()
}

pub(super) fn follow() -> Vec<u8> {
    let position = Some(feed::FeedPosition::default());
    feed::FollowRequest { limits: Some(concord_wire::limits()), position, ..Default::default() }.encode_to_vec()
}

pub(super) fn hand_back() -> Vec<u8> {
    let position = Some(feed::FeedPosition::default());
    let hello = feed::HandBackHello { limits: Some(concord_wire::limits()), position, run: Bytes::new() };
    feed::HandBackRequest { message: Some(feed::hand_back_request::Message::Hello(hello)) }.encode_to_vec()
}

pub(super) fn the_agreement() -> Vec<u8> {
    agreement::GetAgreementRequest { id: AGREEMENT.to_owned(), ..Default::default() }.encode_to_vec()
}

pub(super) fn a_preview() -> Vec<u8> {
    agreement::PreviewAudienceRequest { agreement_id: AGREEMENT.to_owned(), ..Default::default() }.encode_to_vec()
}

pub(super) fn preview(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agreement::PreviewAudienceRequest { agreement_id: id.to_owned(), ..Default::default() }.encode_to_vec()
}

pub(super) fn history(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    let request = agreement::GetAgreementRequest { id: id.to_owned(), with_history: true, ..Default::default() };
    request.encode_to_vec()
}

pub(super) fn nothing(_: &Stage, _: &str, _: &str) -> Vec<u8> {
    Vec::new()
}

pub(super) fn get(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agreement::GetAgreementRequest { id: id.to_owned(), ..Default::default() }.encode_to_vec()
}

pub(super) fn get_soon(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    let wait_in_force = Some(Default::default());
    let request = agreement::GetAgreementRequest { id: id.to_owned(), wait_in_force, ..Default::default() };
    request.encode_to_vec()
}

pub(super) fn explain(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agency::ExplainRequest { exchange_id: id.to_owned(), participant: "TUR".to_owned() }.encode_to_vec()
}

pub(super) fn explain_own(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agency::ExplainRequest { exchange_id: id.to_owned(), participant: String::new() }.encode_to_vec()
}

pub(super) fn why(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agency::WhyRequest { exchange_id: id.to_owned() }.encode_to_vec()
}

pub(super) fn withdraw(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agency::WithdrawRequest { exchange_id: id.to_owned(), ..Default::default() }.encode_to_vec()
}

pub(super) fn track(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    agency::TrackRequest { exchange_id: id.to_owned(), until: 0 }.encode_to_vec()
}

pub(super) fn acknowledge(_: &Stage, _: &str, cursor: &str) -> Vec<u8> {
    let cursor = raw_bytes(cursor).unwrap().into();
    agency::AcknowledgeRequest { cursor }.encode_to_vec()
}

pub(super) fn track_short(stage: &Stage, code: &str, id: &str) -> Vec<u8> {
    track(stage, code, &id[..16])
}

pub(super) fn submit(_: &Stage, _: &str, id: &str) -> Vec<u8> {
    let request = agency::SubmitRequest {
        agreement_id: id.to_owned(),
        lane: exchange::Lane::Routine.into(),
        title: "From the matrix".to_owned(),
        media_type: "text/plain".to_owned(),
        body: Bytes::from_static(b"body"),
        ..Default::default()
    };
    request.encode_to_vec()
}

pub(super) fn consent(stage: &Stage, code: &str, id: &str) -> Vec<u8> {
    stage.statement(code, DraftContent::Consent(stage.reference(id)))
}

pub(super) fn decline(stage: &Stage, code: &str, id: &str) -> Vec<u8> {
    stage.statement(code, DraftContent::Decline(stage.reference(id), None))
}

pub(super) fn leave(stage: &Stage, code: &str, id: &str) -> Vec<u8> {
    stage.statement(code, DraftContent::Leave(stage.reference(id)))
}
