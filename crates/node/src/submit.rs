//! Submitting: what an agency hands in, checked by this node's directory, hashed and serialised, then queued.

use bytes::Bytes;
use concord_journal::Blob;
use concord_ledger::{Agreement, AgreementState, PartyState, audience};
use concord_model::{
    AgreementId, Description, Digest, ExchangeUuid, Header, Lane, Language, MeasureCode, MediaType, Name, Part,
    ParticipantCode, Reason, Refusal, RequestId, Title,
};
use concord_wire::convert::{parse_lane, refuse};
use concord_wire::header::{CAVEAT_SIZE_MAX_BYTES, CAVEATS_MAX};
use concord_wire::header::{encode, encode_description, exchange_id, parse_narrowing};
use concord_wire::proto::agency::v1::{SubmitRequest, SubmitResponse};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::state::decide::{agency_unknown, not_joined};
use crate::state::{Agency, Directory, NodeState};
use crate::writer::{Accepted, Prepared, Refused, first_answer};

/// Takes in one exchange; durable here when this returns.
pub async fn submit(context: &Context, agency: &Name, request: SubmitRequest) -> Result<SubmitResponse, Refusal> {
    let (context, agency) = (context.clone(), agency.clone());
    let writer = context.writer.clone();
    // Hashing a body takes milliseconds: not on a thread that others' messages wait for.
    let prepared = concord_server::blocking(move || prepare(&context, &agency, request));
    let prepared = prepared.await.map_err(|error| internal(&error))??;
    concord_faults::point("node.submit.prepared");
    let (request_id, body_digest) = (prepared.request_id.to_string(), prepared.body_digest);
    let accepted = match prepared.outcome {
        Outcome::New(prepared) => writer.submit(prepared).await?,
        Outcome::Refused(refused) => writer.refused(refused).await?,
        Outcome::Repeat(accepted) => accepted,
    };
    concord_faults::point("node.submit.queued");
    metrics::counter!("concord_exchanges_submitted_total").increment(1);
    Ok(SubmitResponse {
        request_id,
        exchange_id: Bytes::copy_from_slice(accepted.id.0.as_bytes()),
        body_digest,
        agreement_id: accepted.agreement.to_string(),
        measure: accepted.measure.to_string(),
    })
}

struct PreparedRequest {
    request_id: RequestId,
    body_digest: Bytes,
    outcome: Outcome,
}

enum Outcome {
    New(Box<Prepared>),
    Repeat(Accepted),
    /// The rules refuse it now; the same may be under way, by an answer that its agency did not wait for.
    Refused(Box<Refused>),
}

fn prepare(context: &Context, agency: &Name, mut request: SubmitRequest) -> Result<PreparedRequest, Refusal> {
    let state = context.now_state();
    let known = state.agencies().get(agency).ok_or_else(|| agency_unknown(agency))?;
    let request_id = match request.request_id.as_str() {
        "" => RequestId::parse(&format!("node-{}", hex(&random::<16>()?))),
        text => RequestId::parse(text),
    };
    let request_id = request_id.map_err(refuse(Reason::ArgumentInvalid))?;
    let body = std::mem::take(&mut request.body);
    let body_digest = Bytes::copy_from_slice(&Sha256::digest(&body));
    let canonical = Bytes::from(SubmitRequest { body: body_digest.clone(), ..request.clone() }.encode_to_vec());

    // A repeat gives the first answer, whatever has become of the agreement since.
    let before = first_answer(&context.index, agency, &request_id, &canonical).map_err(|error| internal(&error))?;
    if let Some(answer) = before {
        let outcome = Outcome::Repeat(answer?);
        return Ok(PreparedRequest { request_id, body_digest, outcome });
    }
    let made = context.room.check().and_then(|()| context.check_fence()).and_then(|()| {
        check_waiting(context, &state, request.lane)?;
        let lane = parse_lane(request.lane).map_err(refuse(Reason::ArgumentInvalid))?;
        context.shares.take(agency, lane, 1, body.len() as u64)
    });
    let (header, blobs) = match made.and_then(|()| make(context, &state, known, &request, body)) {
        Ok(made) => made,
        // Without an id of the agency's own, or a lane, nothing of before can be meant.
        Err(why) => {
            return match parse_lane(request.lane) {
                Ok(lane) if !request.request_id.is_empty() => {
                    let (agency, id) = (agency.clone(), request_id.clone());
                    let refused = Refused { agency, request_id: id, request: canonical, lane, why };
                    Ok(PreparedRequest { request_id, body_digest, outcome: Outcome::Refused(Box::new(refused)) })
                }
                _ => Err(why),
            };
        }
    };
    let serialised = encode(&header);
    let answer = Accepted {
        id: exchange_id(&serialised),
        agreement: header.agreement.id.clone(),
        measure: header.measure.clone(),
    };
    let prepared = Prepared {
        agency: agency.clone(),
        request_id: request_id.clone(),
        request: canonical,
        lane: header.lane,
        header: serialised,
        answer,
        blobs,
    };
    Ok(PreparedRequest { request_id, body_digest, outcome: Outcome::New(Box::new(prepared)) })
}

/// What waits for a hub that is away is bounded: the disk is everybody's.
fn check_waiting(context: &Context, state: &NodeState, lane: i32) -> Result<(), Refusal> {
    let (waiting, most) = match parse_lane(lane) {
        Ok(lane) => (state.unrecorded_exchanges(lane), context.waiting_exchanges_max),
        Err(_) => return Ok(()),
    };
    if waiting >= most {
        let words = format!("{waiting} exchanges of this lane wait for the hub here, the most is {most}");
        return Err(Refusal::new(Reason::QuotaExceeded, words));
    }
    Ok(())
}

fn make(
    context: &Context,
    state: &NodeState,
    agency: &Agency,
    request: &SubmitRequest,
    body: Bytes,
) -> Result<(Header, Vec<Blob>), Refusal> {
    if state.hub().is_none() {
        return Err(not_joined());
    }
    let invalid = refuse(Reason::ArgumentInvalid);
    let lane = parse_lane(request.lane).map_err(&invalid)?;
    let media_type = MediaType::parse(&request.media_type).map_err(&invalid)?;
    let language = match request.language.as_str() {
        "" => None,
        tag => Some(Language::parse(tag).map_err(&invalid)?),
    };
    check_body(lane, &body)?;
    let description = describe(request)?;
    let narrowing = request.to.as_ref().map(parse_narrowing).transpose()?;
    let directory = state.directory();
    let (agreement, measure) = choose(directory, &context.participant, agency, request)?;

    let description = Blob::seal(random()?, encode_description(&description));
    let size_bytes = body.len() as u64;
    let body = Blob::seal(random()?, body);
    let now = context.clock.now();
    let header = Header {
        origin: context.participant.clone(),
        node: context.node.clone(),
        uuid: ExchangeUuid::from_parts(now, &random()?),
        agreement: agreement.reference(),
        measure,
        lane,
        narrowing,
        language,
        created: now,
        parts: vec![Part { media_type, size_bytes, commitment: Digest(*body.commitment().as_bytes()) }],
        description: Digest(*description.commitment().as_bytes()),
    };
    // The hub decides; what it would refuse by what is known here, is refused at once.
    audience(&directory.agreements, &directory.registry, &context.participant, &header)?;
    Ok((header, vec![description, body]))
}

fn check_body(lane: Lane, body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() {
        return Err(Refusal::new(Reason::BodyEmpty, "the body has no bytes"));
    }
    let limit = lane.body_size_max_bytes();
    if body.len() > limit {
        let size = format!("the body has {} bytes, lane {lane} takes {limit}", body.len());
        return Err(Refusal::new(Reason::BodyTooLarge, size));
    }
    Ok(())
}

fn describe(request: &SubmitRequest) -> Result<Description, Refusal> {
    // The error would show the title, which belongs into no status and no log.
    let title = Title::parse(&request.title)
        .map_err(|error| Refusal::new(Reason::TitleInvalid, format!("the title is not {}", error.expected)))?;
    let caveats = &request.caveats;
    if caveats.len() > CAVEATS_MAX || caveats.iter().any(|caveat| caveat.len() > CAVEAT_SIZE_MAX_BYTES) {
        let limit = format!("at most {CAVEATS_MAX} caveats of {CAVEAT_SIZE_MAX_BYTES} bytes are taken");
        return Err(Refusal::new(Reason::ArgumentInvalid, limit));
    }
    Ok(Description { title, caveats: caveats.clone() })
}

/// The agreement and the measure that the request means: as named, or the only ones that fit.
fn choose<'a>(
    directory: &'a Directory,
    own: &ParticipantCode,
    agency: &Agency,
    request: &SubmitRequest,
) -> Result<(&'a Agreement, MeasureCode), Refusal> {
    let named = match request.measure.as_str() {
        "" => None,
        code => Some(named_measure(directory, agency, code)?),
    };
    let agreement = match request.agreement_id.as_str() {
        "" => only_agreement(directory, own, agency, named.as_ref())?,
        id => named_agreement(directory, own, id)?,
    };
    let measure = match named {
        Some(measure) if agreement.text.measures.contains(&measure) => measure,
        Some(measure) => {
            let what = format!("{} does not cover {measure}", agreement.text.id);
            return Err(Refusal::new(Reason::MeasureNotInAgreement, what));
        }
        None => only_measure(agreement, agency)?,
    };
    Ok((agreement, measure))
}

fn named_measure(directory: &Directory, agency: &Agency, code: &str) -> Result<MeasureCode, Refusal> {
    let measure = MeasureCode::parse(code).map_err(refuse(Reason::MeasureUnknown))?;
    if directory.registry.measure(&measure).is_none() {
        let what = format!("there is no measure {measure} in the catalogue");
        return Err(Refusal::new(Reason::MeasureUnknown, what));
    }
    if !agency.may_have(&measure) {
        let what = format!("this agency was not added for {measure}");
        return Err(Refusal::new(Reason::MeasureNotAllowed, what));
    }
    Ok(measure)
}

fn named_agreement<'a>(directory: &'a Directory, own: &ParticipantCode, id: &str) -> Result<&'a Agreement, Refusal> {
    let id = AgreementId::parse(id).map_err(refuse(Reason::AgreementUnknown))?;
    let agreement = directory.agreements.seen_by(own, &id).ok_or_else(|| Refusal::agreement_unknown(&id))?;
    match (agreement.state, agreement.party_state(own)) {
        (_, Some(PartyState::Left)) => Err(Refusal::agreement_unknown(&id)),
        (AgreementState::InForce, _) => Ok(agreement),
        _ => Err(Refusal::new(Reason::AgreementNotInForce, format!("{id} is not in force"))),
    }
}

fn only_agreement<'a>(
    directory: &'a Directory,
    own: &ParticipantCode,
    agency: &Agency,
    measure: Option<&MeasureCode>,
) -> Result<&'a Agreement, Refusal> {
    let mut fitting = directory.agreements.all().filter(|agreement| {
        let measures = &agreement.text.measures;
        agreement.is_member(own)
            && match measure {
                Some(measure) => measures.contains(measure),
                None => measures.iter().any(|measure| agency.may_have(measure)),
            }
    });
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            Err(Refusal::new(Reason::AgreementUnknown, "no agreement in force covers what this agency may send"))
        }
        (Some(one), Some(other)) => {
            let what = format!("more than one agreement fits, {} and {} among them", one.text.id, other.text.id);
            Err(Refusal::new(Reason::AgreementAmbiguous, what))
        }
    }
}

fn only_measure(agreement: &Agreement, agency: &Agency) -> Result<MeasureCode, Refusal> {
    let mut fitting = agreement.text.measures.iter().filter(|measure| agency.may_have(measure));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => {
            let what = format!("this agency was added for no measure of {}", agreement.text.id);
            Err(Refusal::new(Reason::MeasureNotAllowed, what))
        }
        (Some(one), Some(other)) => {
            let what = format!("more than one measure of {} fits, {one} and {other} among them", agreement.text.id);
            Err(Refusal::new(Reason::MeasureAmbiguous, what))
        }
    }
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Refusal> {
    concord_server::fresh().map_err(|error| internal(&error))
}

fn internal(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "a submission could not be prepared");
    Refusal::new(Reason::Internal, "the submission could not be prepared")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
