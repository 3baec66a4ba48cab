//! Explaining why an exchange did, or did not, go to a participant: to the agency that submitted it about anybody; to one that may have it
//! by its rights now about its own state.
//!
//! Invariant: of what an agency did not submit it hears only where [`entitled`] lets it have that; all else is an exchange that is none.

use concord_ledger::{AudienceRule, why_not_in_audience};
use concord_model::{Header, Name, ParticipantCode, Reason, Refusal};
use concord_wire::convert::{digest_bytes, optional_timestamp, refuse, timestamp};
use concord_wire::header::{agreement_ref, parse};
use concord_wire::proto::agency::v1::{ExplainRequest, ExplainResponse, TrackState};
use tonic::Status;

use super::track::{find_now, id_digits, look, not_current, only};
use super::{internal, refused};
use crate::context::Context;
use crate::index::{Became, Index, IndexError, Place};
use crate::state::NodeState;
use crate::state::rights::{About, entitled};

/// Answers an agency, by the rights that it has now.
pub(crate) async fn explain(
    context: &Context,
    agency: Name,
    request: ExplainRequest,
) -> Result<ExplainResponse, Status> {
    let (state, own, index) = (context.now_state(), context.participant.clone(), context.index.clone());
    let now = context.clock.now();
    let work = move || {
        let participant = if request.participant.is_empty() { own.as_str() } else { &request.participant };
        let explained = match find_now(&state, &index, &agency, &request.exchange_id) {
            Ok(place) => to_origin(&state, &index, &place, participant),
            Err(refusal) if refusal.reason == Reason::ExchangeUnknown && participant == own.as_str() => {
                to_recipient(&state, &index, &agency, &request.exchange_id)
            }
            Err(refusal) => Err(refusal),
        };
        let (explained, header) = explained?;
        Ok(ExplainResponse {
            agreement: Some(agreement_ref(&header.agreement)),
            participant: participant.to_owned(),
            origin: header.origin.to_string(),
            exercise: header.exercise,
            expired_at: header.expires_at.filter(|until| *until <= now).map(timestamp),
            ..explained
        })
    };
    concord_server::blocking(work).await.map_err(internal)?.map_err(refused)
}

/// What the receipt says, in words of the rules; of whom it says nothing, what this node's directory does.
fn to_origin(
    state: &NodeState,
    index: &Index,
    place: &Place,
    participant: &str,
) -> Result<(ExplainResponse, Header), Refusal> {
    let participant = ParticipantCode::parse(participant).map_err(refuse(Reason::ParticipantUnknown))?;
    let directory = state.directory();
    if directory.registry.participant(&participant).is_none() {
        let what = format!("there is no participant {participant} in the registry");
        return Err(Refusal::new(Reason::ParticipantUnknown, what));
    }
    let tracked = look(index, &place.id).map_err(failed)?;
    let header = read_header(&index.own_header(place).map_err(failed)?)?;
    let recipient = tracked.recipients.iter().find(|one| one.participant == participant.as_str());
    let rule = match (recipient, optional_timestamp(tracked.recorded_at.as_ref())) {
        (Some(_), _) => AudienceRule::Receives.as_str(),
        (None, Some(at)) if tracked.state() != TrackState::Refused => {
            why_not_in_audience(&directory.agreements, &header, &participant, at).as_str()
        }
        // Not recorded, or for nobody: its state says why.
        _ => "",
    };
    // What became of the exchange for others is nothing about one who was not to have it.
    let state = match recipient {
        Some(one) => one.state,
        None if rule.is_empty() => tracked.state,
        None => TrackState::Unspecified.into(),
    };
    let explained = ExplainResponse {
        exchange_id: tracked.exchange_id.clone(),
        in_audience: recipient.is_some(),
        rule: rule.to_owned(),
        state,
        reason: recipient.map_or(&tracked.reason, |one| &one.reason).clone(),
        recorded_at: tracked.recorded_at,
        not_current: tracked.not_current,
        ..ExplainResponse::default()
    };
    Ok((explained, header))
}

/// What this node has of what came, and no number of a mailbox or of the journal.
fn to_recipient(
    state: &NodeState,
    index: &Index,
    agency: &Name,
    digits: &str,
) -> Result<(ExplainResponse, Header), Refusal> {
    let unknown = || {
        let what = "no exchange that this agency submitted, or may have by its rights, begins so";
        Refusal::new(Reason::ExchangeUnknown, what)
    };
    let digits = id_digits(digits).ok_or_else(unknown)?;
    let known = state.agencies().get(agency).ok_or_else(unknown)?;
    let may = |about: &About| entitled(known, about) || concord_faults::planted("explain-without-right");
    let one = only(index.received(&digits, may).map_err(failed)?, &digits, unknown)?;
    let header = read_header(&one.header)?;
    let (rule, track_state, reason) = match &one.became {
        Became::Accepted { taken: true } => (AudienceRule::Receives.as_str(), TrackState::Taken, ""),
        Became::Accepted { taken: false } => (AudienceRule::Receives.as_str(), TrackState::Delivered, ""),
        Became::SetAside(reason) => ("", TrackState::SetAside, reason.as_str()),
    };
    let explained = ExplainResponse {
        exchange_id: digest_bytes(&one.id.0),
        in_audience: true,
        rule: rule.to_owned(),
        state: track_state.into(),
        reason: reason.to_owned(),
        recorded_at: one.recorded_at.map(timestamp),
        delivered_at: Some(timestamp(one.delivered_at)),
        not_current: index.withdrawn(&one.id, &header.origin).map_err(failed)?.map(|row| not_current(&row)),
        ..ExplainResponse::default()
    };
    Ok((explained, header))
}

fn read_header(serialised: &[u8]) -> Result<Header, Refusal> {
    parse(serialised).map_err(|_| failed(IndexError::Row("an exchange")))
}

fn failed(error: IndexError) -> Refusal {
    crate::submit::internal(&error)
}
