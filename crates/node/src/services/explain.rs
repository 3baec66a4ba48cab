//! Explaining to a sender why its exchange did, or did not, go to a participant.

use concord_ledger::{AudienceRule, why_not_in_audience};
use concord_model::{ParticipantCode, Reason, Refusal};
use concord_wire::convert::{optional_timestamp, refuse};
use concord_wire::header::{agreement_ref, parse};
use concord_wire::proto::agency::v1::{ExplainResponse, TrackState};
use tonic::Status;

use super::{internal, refused, track};
use crate::context::Context;
use crate::index::{IndexError, Place};

/// What the receipt says, in words of the rules; of whom it says nothing, what this node's directory does.
pub(super) async fn explain(context: &Context, place: Place, participant: &str) -> Result<ExplainResponse, Status> {
    let participant = ParticipantCode::parse(participant).map_err(refuse(Reason::ParticipantUnknown));
    let participant = participant.map_err(refused)?;
    let state = context.now_state();
    let directory = state.directory();
    if directory.registry.participant(&participant).is_none() {
        let what = format!("there is no participant {participant} in the registry");
        return Err(refused(Refusal::new(Reason::ParticipantUnknown, what)));
    }
    let index = context.index.clone();
    let look = move || Ok::<_, IndexError>((track::look(&index, &place.id)?, index.own_header(&place)?));
    let (tracked, header) = concord_server::blocking(look).await.map_err(internal)?.map_err(internal)?;
    let header = parse(&header).map_err(|refusal| internal(refusal.message))?;
    let recipient = tracked.recipients.iter().find(|one| one.participant == participant.as_str());
    let rule = match (recipient, optional_timestamp(tracked.recorded_at.as_ref())) {
        (Some(_), _) => AudienceRule::Receives.as_str(),
        (None, Some(at)) if tracked.state() != TrackState::Refused => {
            why_not_in_audience(&directory.agreements, &header, &participant, at).as_str()
        }
        // Not recorded, or for nobody: its state says why.
        _ => "",
    };
    Ok(ExplainResponse {
        exchange_id: tracked.exchange_id.clone(),
        agreement: Some(agreement_ref(&header.agreement)),
        participant: participant.to_string(),
        in_audience: recipient.is_some(),
        rule: rule.to_owned(),
        state: recipient.map_or(tracked.state, |one| one.state),
        reason: recipient.map_or(&tracked.reason, |one| &one.reason).clone(),
        recorded_at: tracked.recorded_at,
    })
}
