//! Submitting: what an agency hands in, checked by this node's directory, hashed and serialised, then queued.

use std::collections::BTreeSet;

use bytes::Bytes;
use concord_journal::Blob;
use concord_ledger::{Agreement, AudienceRule, audience};
use concord_model::{
    AgencyName, AgreementId, Description, Digest, ExchangeUuid, Handling, Header, Lane, Language, MeasureCode,
    MediaType, Name, Narrowing, OnwardRelease, Part, ParticipantCode, PartyRole, Reason, Refusal, RequestId, Title,
};
use concord_wire::convert::{parse_handling, parse_lane, parse_timestamp, refuse};
use concord_wire::header::{CAVEAT_SIZE_MAX_BYTES, CAVEATS_MAX};
use concord_wire::header::{agreement_ref, encode, encode_description, exchange_id, parse_agencies, parse_narrowing};
use concord_wire::proto::agency::v1::{SubmitRequest, SubmitResponse};
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::exchange::v1::HandlingCode;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::state::decide::not_joined;
use crate::state::{Agency, Directory, NodeState};
use crate::withdraw::Current;
use crate::writer::{Accepted, Prepared, Refused, first_answer};

/// Takes in one exchange; durable here when this returns.
pub async fn submit(context: &Context, agency: &Name, request: SubmitRequest) -> Result<SubmitResponse, Refusal> {
    let (preparing, name) = (context.clone(), agency.clone());
    if concord_faults::planted("log-the-title") {
        tracing::info!(%agency, title = request.title, "an exchange is submitted");
    }
    // Hashing a body takes milliseconds: not on a thread that others' messages wait for.
    let prepared = concord_server::blocking(move || prepare(&preparing, &name, request));
    let prepared = prepared.await.map_err(|error| internal(&error))??;
    concord_faults::point("node.submit.prepared");
    let (request_id, body_digest) = (prepared.request_id.to_string(), prepared.body_digest);
    let accepted = match prepared.outcome {
        Outcome::New(prepared) => {
            let (lane, exchanges) = (prepared.lane, 1 + u64::from(prepared.second.is_some()));
            let accepted = context.writer.submit(prepared).await?;
            context.backlog.queued(&context.now_state(), agency, lane, exchanges);
            accepted
        }
        Outcome::Refused(refused) => context.writer.refused(refused).await?,
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
        exercise: accepted.exercise,
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
    let known = state.agency(agency)?;
    let request_id = new_request_id(&request.request_id)?;
    let body = std::mem::take(&mut request.body);
    let body_digest = Bytes::copy_from_slice(&Sha256::digest(&body));
    let canonical = Bytes::from(SubmitRequest { body: body_digest.clone(), ..request.clone() }.encode_to_vec());

    // A repeat gives the first answer, whatever has become of the agreement since.
    let before = first_answer(&context.index, agency, &request_id, &canonical).map_err(|error| internal(&error))?;
    if let Some(answer) = before {
        let outcome = Outcome::Repeat(answer?);
        return Ok(PreparedRequest { request_id, body_digest, outcome });
    }
    let made = parse_lane(request.lane).map_err(refuse(Reason::ArgumentInvalid)).and_then(|lane| {
        let superseded = match request.supersedes.as_str() {
            "" => None,
            digits => Some(Current::find(&state, &context.index, agency, digits)?.not_withdrawn()?),
        };
        // The withdrawal goes right behind, in the same lane: the more urgent of both.
        let lane = superseded.as_ref().map_or(lane, |one| lane.min(one.header().lane));
        let exchanges = 1 + u64::from(superseded.is_some());
        check_may_queue(context, agency, (lane, exchanges, body.len() as u64))?;
        // What takes the place of something goes under the same agreement, unless another one is named.
        let mut request = request.clone();
        if let Some(one) = superseded.as_ref().filter(|_| request.agreement_id.is_empty()) {
            request.agreement_id = one.header().agreement.id.to_string();
        }
        let made = make(context, &state, known, &request, lane, superseded.as_ref(), body)?;
        let by_right = superseded.as_ref().and_then(Current::by_right);
        let second = superseded.map(|one| one.superseded(context, lane)).transpose()?;
        Ok((made, second, by_right))
    });
    let ((header, blobs), second, by_right) = match made {
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
        exercise: header.exercise,
    };
    let prepared = Prepared {
        agency: agency.clone(),
        request_id: request_id.clone(),
        request: canonical,
        lane: header.lane,
        header: serialised,
        answer,
        blobs,
        withdraws: header.supersedes,
        by_right,
        second,
    };
    Ok(PreparedRequest { request_id, body_digest, outcome: Outcome::New(Box::new(prepared)) })
}

/// The request id that an agency chose, or a new one.
pub(crate) fn new_request_id(text: &str) -> Result<RequestId, Refusal> {
    let request_id = match text {
        "" => RequestId::parse(&format!("node-{}", hex(&random::<16>()?))),
        text => RequestId::parse(text),
    };
    request_id.map_err(refuse(Reason::ArgumentInvalid))
}

/// Whether there is room for so many exchanges of an agency in a lane, of so many bytes; its share is taken by them.
pub(crate) fn check_may_queue(
    context: &Context,
    agency: &Name,
    (lane, exchanges, size_bytes): (Lane, u64, u64),
) -> Result<(), Refusal> {
    context.room.check()?;
    context.check_fence()?;
    let state = context.now_state();
    context.keys.check_counts(&state)?;
    context.backlog.check(&state, agency, lane)?;
    context.shares.take(agency, lane, exchanges, size_bytes)
}

fn make(
    context: &Context,
    state: &NodeState,
    agency: &Agency,
    request: &SubmitRequest,
    lane: Lane,
    superseded: Option<&Current>,
    body: Bytes,
) -> Result<(Header, Vec<Blob>), Refusal> {
    if state.hub().is_none() {
        return Err(not_joined());
    }
    let invalid = refuse(Reason::ArgumentInvalid);
    let media_type = MediaType::parse(&request.media_type).map_err(&invalid)?;
    let language = match request.language.as_str() {
        "" => None,
        tag => Some(Language::parse(tag).map_err(&invalid)?),
    };
    check_body(lane, &body)?;
    let directory = state.directory();
    let (agreement, measure) = choose(directory, &context.participant, agency, request)?;
    if let Some(earlier) = superseded.filter(|one| one.header().agreement.id != agreement.text.id) {
        let (its, this) = (&earlier.header().agreement.id, &agreement.text.id);
        let what = format!("it goes under {this}, and what it is to supersede went under {its}");
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    if superseded.is_some_and(|one| one.header().exercise != request.exercise) {
        let what = match request.exercise {
            true => "what it is to supersede was no exercise, so that this must be none",
            false => "what it is to supersede was an exercise, so that this must be one, too",
        };
        return Err(Refusal::new(Reason::ExerciseMismatch, what));
    }
    let description = describe(request, agreement.text.terms.onward_release)?;
    let (narrowing, agencies) = addressed(request)?;
    let handling = handling(request, agreement, &agencies)?;
    let expires_at = request.expires_at.as_ref().map(parse_timestamp).transpose().map_err(&invalid)?;

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
        handling,
        expires_at,
        supersedes: superseded.map(Current::id),
        exercise: request.exercise,
        withdraws: None,
        agencies,
    };
    // The hub decides; what it would refuse by what is known here, is refused at once.
    audience(&directory.agreements, &directory.registry, &context.participant, &header, now)?;
    Ok((header, vec![description, body]))
}

/// What would become of an exchange under an agreement, as far as it is known before it is made: of an agency's, or of the state's.
pub(crate) fn preview(
    context: &Context,
    state: &NodeState,
    agency: Option<&Agency>,
    asked: pb::PreviewAudienceRequest,
) -> Result<pb::PreviewAudienceResponse, Refusal> {
    let (directory, own) = (state.directory(), &context.participant);
    let request = SubmitRequest {
        agreement_id: asked.agreement_id,
        measure: asked.measure,
        to: asked.to,
        agencies: asked.agencies,
        handling: asked.handling,
        ..SubmitRequest::default()
    };
    let (agreement, measure) = match agency {
        Some(agency) => choose(directory, own, agency, &request)?,
        None => {
            let agreement = member_agreement(directory, own, &request.agreement_id, |_| true)?;
            let first = || agreement.text.measures.first().cloned();
            let named = Some(request.measure.as_str()).filter(|code| !code.is_empty());
            let measure = named.map_or_else(|| Ok(first()), |code| MeasureCode::parse(code).map(Some));
            let measure = measure.map_err(refuse(Reason::MeasureUnknown))?;
            (agreement, measure.ok_or_else(|| Refusal::new(Reason::MeasureUnknown, "the agreement has no measure"))?)
        }
    };
    let (narrowing, agencies) = addressed(&request)?;
    let handling = handling(&request, agreement, &agencies)?;
    let media_type = match asked.media_type.as_str() {
        "" => None,
        text => Some(MediaType::parse(text).map_err(refuse(Reason::ArgumentInvalid))?),
    };
    // Terms about bodies are asked only of what was said.
    let any =
        agreement.text.terms.media.first().map_or("text/plain".to_owned(), |range| range.as_str().replace('*', "any"));
    let media_type = media_type.map_or_else(|| MediaType::parse(&any), Ok).map_err(refuse(Reason::ArgumentInvalid))?;
    let now = context.clock.now();
    let header = Header {
        origin: own.clone(),
        node: context.node.clone(),
        uuid: ExchangeUuid::from_parts(now, &[0; 10]),
        agreement: agreement.reference(),
        measure: measure.clone(),
        lane: Lane::Routine,
        narrowing,
        language: None,
        created: now,
        parts: vec![Part { media_type, size_bytes: asked.body_size_bytes, commitment: Digest::ZERO }],
        description: Digest::ZERO,
        handling,
        expires_at: None,
        supersedes: None,
        exercise: false,
        withdraws: None,
        agencies,
    };
    let decided = concord_ledger::preview(&directory.agreements, &directory.registry, own, &header, now)?;
    let parties = decided.into_iter().map(|(participant, rule)| pb::PreviewedParty {
        participant: participant.to_string(),
        receives: rule.receives()
            || rule == AudienceRule::HasNotConsented && concord_faults::planted("count-who-has-not-consented"),
        rule: rule.as_str().to_owned(),
    });
    Ok(pb::PreviewAudienceResponse {
        agreement: Some(agreement_ref(&agreement.reference())),
        measure: measure.to_string(),
        handling: concord_wire::convert::handling(handling).into(),
        parties: parties.collect(),
    })
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

/// Whom the request names: agencies narrow to their participants.
fn addressed(request: &SubmitRequest) -> Result<(Option<Narrowing>, Vec<AgencyName>), Refusal> {
    let narrowing = request.to.as_ref().map(parse_narrowing).transpose()?;
    let mut agencies =
        parse_agencies(&request.agencies).map_err(|refusal| Refusal::new(Reason::ArgumentInvalid, refusal.message))?;
    agencies.sort();
    agencies.dedup();
    if agencies.is_empty() {
        return Ok((narrowing, agencies));
    }
    let of_agencies: BTreeSet<_> = agencies.iter().map(|agency| agency.participant.clone()).collect();
    if narrowing.as_ref().is_some_and(|narrowing| *narrowing.participants() != of_agencies) {
        let what = "the participants named are others than those whose agencies are named";
        return Err(Refusal::new(Reason::NarrowingInvalid, what));
    }
    Ok((Some(Narrowing::new(of_agencies).map_err(refuse(Reason::NarrowingInvalid))?), agencies))
}

/// As the request says; else AMBER, or the highest that the agreement allows where that is less strict.
fn handling(request: &SubmitRequest, agreement: &Agreement, agencies: &[AgencyName]) -> Result<Handling, Refusal> {
    let handling = match request.handling() {
        HandlingCode::Unspecified => Handling::Amber.min(agreement.text.terms.handling_max),
        _ => parse_handling(request.handling).map_err(refuse(Reason::ArgumentInvalid))?,
    };
    if handling == Handling::Red && agencies.is_empty() {
        let what = "handling code RED goes only to agencies that are named: name them, each as CODE/agency";
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    Ok(handling)
}

fn describe(request: &SubmitRequest, onward_release: OnwardRelease) -> Result<Description, Refusal> {
    // The error would show the title, which belongs into no status and no log.
    let title = Title::parse(&request.title)
        .map_err(|error| Refusal::new(Reason::TitleInvalid, format!("the title is not {}", error.expected)))?;
    let caveats = &request.caveats;
    if caveats.len() >= CAVEATS_MAX || caveats.iter().any(|caveat| caveat.len() > CAVEAT_SIZE_MAX_BYTES) {
        let limit = format!("at most {} caveats of {CAVEAT_SIZE_MAX_BYTES} bytes are taken", CAVEATS_MAX - 1);
        return Err(Refusal::new(Reason::ArgumentInvalid, limit));
    }
    // The term travels with the exchange, signed by its origin.
    let caveats = std::iter::once(onward_release.caveat().to_owned()).chain(caveats.iter().cloned());
    Ok(Description { title, caveats: caveats.collect() })
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
        id => named_agreement(directory, own, agency, id)?,
    };
    let measure = match named {
        Some(measure) if agreement.text.measures.contains(&measure) => {
            if !agency.may_send(&measure, &agreement.text.id) {
                let what = format!("this agency may not send {measure} under {}", agreement.text.id);
                return Err(Refusal::new(Reason::MeasureNotAllowed, what));
            }
            measure
        }
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
    if !agency.send.allows_somewhere(&measure) {
        let what = format!("this agency may not send {measure}");
        return Err(Refusal::new(Reason::MeasureNotAllowed, what));
    }
    Ok(measure)
}

fn named_agreement<'a>(
    directory: &'a Directory,
    own: &ParticipantCode,
    agency: &Agency,
    id: &str,
) -> Result<&'a Agreement, Refusal> {
    // One under which the agency has no right is to it as one that is not there.
    member_agreement(directory, own, id, |agreement| agency.sees(agreement))
}

fn member_agreement<'a>(
    directory: &'a Directory,
    own: &ParticipantCode,
    id: &str,
    is_seen: impl Fn(&Agreement) -> bool,
) -> Result<&'a Agreement, Refusal> {
    let id = AgreementId::parse(id).map_err(refuse(Reason::AgreementUnknown))?;
    let agreement = directory.agreements.counting_for(own, &id).filter(|agreement| is_seen(agreement));
    let agreement = agreement.ok_or_else(|| Refusal::agreement_unknown(&id))?;
    if agreement.is_member(own) {
        return Ok(agreement);
    }
    let what = match agreement.waits_for(own) && directory.agreements.in_force(&id).is_some() {
        true => format!("{id} is in force among those who consented, and {own} has not consented to it"),
        false => format!("{id} is not in force"),
    };
    Err(Refusal::new(Reason::AgreementNotInForce, what))
}

fn only_agreement<'a>(
    directory: &'a Directory,
    own: &ParticipantCode,
    agency: &Agency,
    measure: Option<&MeasureCode>,
) -> Result<&'a Agreement, Refusal> {
    let mut fitting = directory.agreements.all().filter(|agreement| {
        let (id, measures) = (&agreement.text.id, &agreement.text.measures);
        agreement.is_member(own)
            && agreement.role(own).is_some_and(PartyRole::contributes)
            && match measure {
                Some(measure) => measures.contains(measure) && agency.may_send(measure, id),
                None => measures.iter().any(|measure| agency.may_send(measure, id)),
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
    let id = &agreement.text.id;
    let mut fitting = agreement.text.measures.iter().filter(|measure| agency.may_send(measure, id));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => {
            let what = format!("this agency may send no measure of {id}");
            Err(Refusal::new(Reason::MeasureNotAllowed, what))
        }
        (Some(one), Some(other)) => {
            let what = format!("more than one measure of {} fits, {one} and {other} among them", agreement.text.id);
            Err(Refusal::new(Reason::MeasureAmbiguous, what))
        }
    }
}

pub(crate) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Refusal> {
    concord_server::fresh().map_err(|error| internal(&error))
}

pub(crate) fn internal(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "a submission could not be prepared");
    Refusal::new(Reason::Internal, "the submission could not be prepared")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
