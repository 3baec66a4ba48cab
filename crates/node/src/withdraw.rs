//! Taking an own exchange back: a withdrawal is an exchange of its own, without a body, that says of what it withdraws what that says
//! itself, so that the same terms, pins and rights apply to both.

use bytes::Bytes;
use concord_journal::Blob;
use concord_model::{
    AgreementId, Description, Digest, ExchangeId, ExchangeUuid, Header, Lane, MeasureCode, Name, ParticipantCode,
    Reason, Refusal, Title, Withdrawal, WithdrawalKind,
};
use concord_wire::header::{encode, encode_description, exchange_id, parse};
use concord_wire::proto::agency::v1::{WithdrawRequest, WithdrawResponse};
use concord_wire::receipt::{self, Outcome};
use prost::Message as _;

use crate::context::Context;
use crate::index::{Index, IndexError, Place};
use crate::projection::WithdrawnRow;
use crate::services::track::find_now;
use crate::state::NodeState;
use crate::submit::{check_may_queue, internal, new_request_id, random};
use crate::writer::{Accepted, Prepared, Second, first_answer};

/// Takes one exchange back; durable here when this returns.
pub async fn withdraw(context: &Context, agency: &Name, request: WithdrawRequest) -> Result<WithdrawResponse, Refusal> {
    let (looking, name) = (context.clone(), agency.clone());
    let prepared = concord_server::blocking(move || prepare(&looking, &name, request));
    let (outcome, mut response) = prepared.await.map_err(|error| internal(&error))??;
    let accepted = match outcome {
        Some(prepared) => {
            concord_faults::point("node.withdraw.prepared");
            let lane = prepared.lane;
            let accepted = context.writer.submit(prepared).await?;
            context.backlog.queued(&context.now_state(), agency, lane, 1);
            accepted
        }
        None => return Ok(response),
    };
    concord_faults::point("node.withdraw.queued");
    response.exchange_id = Bytes::copy_from_slice(accepted.id.0.as_bytes());
    Ok(response)
}

/// What is to be queued; nothing where it was before.
fn prepare(
    context: &Context,
    agency: &Name,
    request: WithdrawRequest,
) -> Result<(Option<Box<Prepared>>, WithdrawResponse), Refusal> {
    let request_id = new_request_id(&request.request_id)?;
    let place = find_now(&context.now_state(), &context.index, agency, &request.exchange_id)?;
    let withdraws = place.id;
    let answer = |by: &Accepted, was_withdrawn| WithdrawResponse {
        request_id: request_id.to_string(),
        exchange_id: Bytes::copy_from_slice(by.id.0.as_bytes()),
        withdraws: Bytes::copy_from_slice(withdraws.0.as_bytes()),
        agreement_id: by.agreement.to_string(),
        was_withdrawn,
    };
    let canonical = Bytes::from(request.encode_to_vec());
    let first = first_answer(&context.index, agency, &request_id, &canonical).map_err(|error| internal(&error))?;
    if let Some(first) = first {
        return Ok((None, answer(&first?, false)));
    }
    // Not before: what was answered stands, whatever became of the exchange since.
    let current = Current::at(&context.index, place)?;
    if let Some(before) = &current.withdrawn {
        return Ok((None, answer(&current.accepted(before.by), true)));
    }
    let lane = current.header.lane.min(Lane::Priority);
    check_may_queue(context, agency, (lane, 1, 0))?;
    let reason = if request.reason.is_empty() { "Withdrawn by its origin" } else { &request.reason };
    let (header, blobs) = current.withdrawal(context, lane, WithdrawalKind::Withdrawn, reason)?;
    let by = current.accepted(exchange_id(&header));
    let response = answer(&by, false);
    let prepared = Prepared {
        agency: agency.clone(),
        request_id,
        request: canonical,
        lane,
        header,
        answer: by,
        blobs,
        withdraws: Some(withdraws),
        by_right: current.by_right(),
        second: None,
    };
    Ok((Some(Box::new(prepared)), response))
}

/// An own exchange that may be taken back.
pub(crate) struct Current {
    place: Place,
    header: Header,
    /// By what it was taken back before.
    withdrawn: Option<WithdrawnRow>,
}

impl Current {
    /// Refuses with `EXCHANGE_UNKNOWN`, `EXCHANGE_AMBIGUOUS`, or `EXCHANGE_NOT_CURRENT` where there is nothing to take back. Blocks.
    pub(crate) fn find(state: &NodeState, index: &Index, agency: &Name, digits: &str) -> Result<Self, Refusal> {
        Self::at(index, find_now(state, index, agency, digits)?)
    }

    fn at(index: &Index, place: Place) -> Result<Self, Refusal> {
        let failed = |error: IndexError| internal(&error);
        let header = parse(&index.own_header(&place).map_err(failed)?)?;
        let over = |what: String| Err(Refusal::new(Reason::ExchangeNotCurrent, what));
        if header.withdraws.is_some() {
            return over(format!("{} is a withdrawal itself, and is not taken back", place.id));
        }
        let withdrawn = withdrawn(index, &place.id, &header.origin).map_err(failed)?;
        if let (None, Some(reason)) = (&withdrawn, outcome(index, &place).map_err(failed)?) {
            return over(format!("the hub refused it ({}): nobody has it", reason.code()));
        }
        Ok(Self { place, header, withdrawn })
    }

    /// Refuses with `EXCHANGE_WITHDRAWN` what was taken back before.
    pub(crate) fn not_withdrawn(self) -> Result<Self, Refusal> {
        match &self.withdrawn {
            Some(row) => {
                let what = format!("{} was {} before, by {}", self.place.id, row.kind.as_str(), row.by);
                Err(Refusal::new(Reason::ExchangeWithdrawn, what))
            }
            None => Ok(self),
        }
    }

    /// As it was sent.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Its id.
    pub(crate) fn id(&self) -> ExchangeId {
        self.place.id
    }

    /// What an agency must be allowed to send that takes it back, where it is not known whether that agency submitted it.
    pub(crate) fn by_right(&self) -> Option<(MeasureCode, AgreementId)> {
        let Header { measure, agreement, .. } = &self.header;
        self.place.agency.is_none().then(|| (measure.clone(), agreement.id.clone()))
    }

    fn accepted(&self, id: ExchangeId) -> Accepted {
        let Header { agreement, measure, exercise, .. } = &self.header;
        Accepted { id, agreement: agreement.id.clone(), measure: measure.clone(), exercise: *exercise }
    }

    /// The withdrawal that goes right behind what takes the place of this.
    pub(crate) fn superseded(&self, context: &Context, lane: Lane) -> Result<Second, Refusal> {
        let (header, blobs) =
            self.withdrawal(context, lane, WithdrawalKind::Superseded, "Superseded by a later exchange")?;
        Ok(Second { header, blobs })
    }

    fn withdrawal(
        &self,
        context: &Context,
        lane: Lane,
        kind: WithdrawalKind,
        reason: &str,
    ) -> Result<(Bytes, Vec<Blob>), Refusal> {
        // The error would show the words, which belong into no status and no log.
        let title = Title::parse(reason)
            .map_err(|error| Refusal::new(Reason::TitleInvalid, format!("the reason is not {}", error.expected)))?;
        let description = Blob::seal(random()?, encode_description(&Description { title, caveats: Vec::new() }));
        let now = context.clock.now();
        let header = Header {
            node: context.node.clone(),
            uuid: ExchangeUuid::from_parts(now, &random()?),
            lane,
            language: None,
            created: now,
            parts: Vec::new(),
            description: Digest(*description.commitment().as_bytes()),
            expires_at: None,
            supersedes: None,
            withdraws: Some(Withdrawal { exchange: self.place.id, kind }),
            ..self.header.clone()
        };
        Ok((encode(&header), vec![description]))
    }
}

/// Why the hub refused an own exchange, if it did. Blocks.
fn outcome(index: &Index, place: &Place) -> Result<Option<Reason>, IndexError> {
    let Some(receipt) = index.receipt_of(place)? else { return Ok(None) };
    let recorded = receipt::parse(&receipt.statement).map_err(|_| IndexError::Row("a receipt"))?;
    let position = usize::try_from(place.index).unwrap_or(usize::MAX);
    Ok(match recorded.outcomes.get(position) {
        Some(Outcome::Refused(reason)) => Some(*reason),
        _ => None,
    })
}

/// By what an own exchange was taken back, if it was. What the hub refused took nothing back, unless another one was there before. Blocks.
pub(crate) fn withdrawn(
    index: &Index,
    id: &ExchangeId,
    origin: &ParticipantCode,
) -> Result<Option<WithdrawnRow>, IndexError> {
    let Some(row) = index.withdrawn(id, origin)? else { return Ok(None) };
    let refusal = match index.exchange(&row.by)? {
        Some(place) => outcome(index, &place)?,
        None => None,
    };
    Ok(refusal.is_none_or(|reason| reason == Reason::ExchangeWithdrawn).then_some(row))
}
