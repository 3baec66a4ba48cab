//! Telling a sender how far its exchange has come.

use bytes::Bytes;
use concord_model::{ExchangeId, Lane, Name, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::{Overdue, Shutdown};
use concord_wire::convert::{digest_bytes, optional_timestamp, timestamp};
use concord_wire::header::{parse, withdrawal_kind};
use concord_wire::proto::agency::v1::{NotCurrent, TrackRecipient, TrackResponse, TrackState, TrackUntil};
use concord_wire::receipt::{self, Outcome};
use tokio::sync::mpsc;
use tonic::Status;

use super::{internal, refused};
use crate::context::Context;
use crate::index::{Index, IndexError, Place};
use crate::projection::{Reached, WithdrawnRow};
use crate::state::NodeState;
use crate::withdraw::withdrawn;

/// Digits of an exchange id that must be given at least.
const PREFIX_DIGITS_MIN: usize = 8;
const ID_DIGITS: usize = 64;

/// The one exchange of this agency whose id begins so.
pub(crate) async fn find(context: &Context, agency: Name, digits: String) -> Result<Place, Status> {
    let (state, index) = (context.now_state(), context.index.clone());
    let found = concord_server::blocking(move || find_now(&state, &index, &agency, &digits)).await;
    found.map_err(internal)?.map_err(refused)
}

/// The same. Blocks.
///
/// Who submitted what came back from the hub is unknown: it is an agency's that has all of its id, which was told to whoever queued it,
/// and may send the like of it by a right that, behind a restore, an officer confirmed.
pub(crate) fn find_now(state: &NodeState, index: &Index, agency: &Name, digits: &str) -> Result<Place, Refusal> {
    let failed = |error: IndexError| crate::submit::internal(&error);
    let digits = id_digits(digits).ok_or_else(not_submitted)?;
    let found = index.exchanges(&digits, agency).map_err(failed)?;
    let place = only(found, &digits, not_submitted)?;
    if place.agency.is_none() && !concord_faults::planted("take-anybodys-for-its-own") {
        let header = parse(&index.own_header(&place).map_err(failed)?)?;
        state.decide_send(agency, &header.measure, &header.agreement.id).map_err(|_| not_submitted())?;
    }
    Ok(place)
}

/// The digits that ids are looked for by, where they are some, and enough.
pub(super) fn id_digits(text: &str) -> Option<String> {
    let is_prefix =
        (PREFIX_DIGITS_MIN..=ID_DIGITS).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_prefix.then(|| text.to_ascii_lowercase())
}

/// The one that was found.
pub(super) fn only<T>(mut found: Vec<T>, digits: &str, unknown: impl FnOnce() -> Refusal) -> Result<T, Refusal> {
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(unknown()),
        (Some(_), false) => {
            let what = format!("more than one exchange of this agency begins with {digits}");
            Err(Refusal::new(Reason::ExchangeAmbiguous, what))
        }
    }
}

pub(crate) fn not_submitted() -> Refusal {
    Refusal::new(Reason::ExchangeUnknown, "no exchange that this agency submitted begins so")
}

/// Tells each change until `until` is reached; once where nothing is waited for.
pub(crate) async fn tell(
    context: Context,
    place: Place,
    until: TrackUntil,
    items: mpsc::Sender<Result<TrackResponse, Status>>,
) {
    let mut published = context.state.clone();
    let mut told: Option<TrackResponse> = None;
    loop {
        published.borrow_and_update();
        let (index, id, now) = (context.index.clone(), place.id, context.clock.now());
        let limits = Limits { of: context.overdue, lane: place.lane, now };
        let looked =
            concord_server::blocking(move || look(&index, &id).map(|told| limits.mark(told))).await.map_err(internal);
        let response = match looked.and_then(|looked| looked.map_err(internal)) {
            Ok(response) => response,
            Err(status) => {
                drop(items.send(Err(status)).await);
                return;
            }
        };
        let done = is_reached(&response, until);
        if told.as_ref() != Some(&response) {
            if items.send(Ok(response.clone())).await.is_err() {
                return;
            }
            told = Some(response);
        }
        if done {
            return;
        }
        tokio::select! {
            // Ends before news: nobody is told anything more when both are there.
            biased;
            () = items.closed() => return,
            () = context.shutdown.streams_end() => {
                drop(items.send(Err(Shutdown::status())).await);
                return;
            }
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// After which time what waits is overdue.
pub(super) struct Limits {
    pub(super) of: Overdue,
    pub(super) lane: Lane,
    pub(super) now: Timestamp,
}

impl Limits {
    pub(super) fn mark(&self, mut told: TrackResponse) -> TrackResponse {
        let is_late = |since: Option<&prost_types::Timestamp>| {
            optional_timestamp(since).is_some_and(|since| self.of.is(self.lane, since, self.now))
        };
        // What was taken back no agency is given any more: nobody waits for it to be taken.
        let is_current = told.not_current.is_none();
        for recipient in &mut told.recipients {
            let waits = match recipient.state() {
                TrackState::Recorded => true,
                TrackState::Delivered => is_current,
                _ => false,
            };
            recipient.overdue = waits && is_late(recipient.at.as_ref());
        }
        let waits_here = told.state() == TrackState::Queued && is_late(told.queued_at.as_ref());
        told.overdue = waits_here || told.recipients.iter().any(|recipient| recipient.overdue);
        told
    }
}

/// How far an exchange has come where it stands now: it may have been packed anew since the last look. Blocks.
pub(super) fn look(index: &Index, id: &ExchangeId) -> Result<TrackResponse, IndexError> {
    let place = &index.exchange(id)?.ok_or(IndexError::Row("an exchange"))?;
    let queued_at = index.queued_at(place)?;
    let mut response = TrackResponse {
        exchange_id: Bytes::copy_from_slice(place.id.0.as_bytes()),
        state: TrackState::Queued.into(),
        queued_at: Some(timestamp(queued_at)),
        recorded_at: None,
        reason: String::new(),
        recipients: Vec::new(),
        overdue: false,
        ..words(index, place)?
    };
    let Some(receipt) = index.receipt_of(place)? else {
        return Ok(response);
    };
    let recorded = receipt::parse(&receipt.statement).map_err(|_| IndexError::Row("a receipt"))?;
    response.recorded_at = Some(timestamp(recorded.recorded_at));
    let position = usize::try_from(place.index).unwrap_or(usize::MAX);
    match recorded.outcomes.get(position) {
        Some(Outcome::Refused(reason)) => {
            response.state = TrackState::Refused.into();
            response.reason = reason.code().to_owned();
        }
        Some(Outcome::Recorded { audience, .. }) => {
            let recipients = audience.iter().map(|code| recipient(index, place, code, recorded.recorded_at));
            response.recipients = recipients.collect::<Result<_, _>>()?;
            response.state = overall(&response.recipients).into();
        }
        None => return Err(IndexError::Row("a receipt")),
    }
    Ok(response)
}

/// What it says of others, and what others say of it.
fn words(index: &Index, place: &Place) -> Result<TrackResponse, IndexError> {
    let header = parse(&index.own_header(place)?).map_err(|_| IndexError::Row("an exchange"))?;
    let not_current = withdrawn(index, &place.id, &header.origin)?.map(|row| not_current(&row));
    Ok(TrackResponse {
        not_current,
        exercise: header.exercise,
        withdraws: header.withdraws.map(|withdrawal| digest_bytes(&withdrawal.exchange.0)).unwrap_or_default(),
        supersedes: header.supersedes.map(|superseded| digest_bytes(&superseded.0)).unwrap_or_default(),
        ..TrackResponse::default()
    })
}

/// By what its origin took an exchange back.
pub(super) fn not_current(row: &WithdrawnRow) -> NotCurrent {
    NotCurrent {
        kind: withdrawal_kind(row.kind).into(),
        withdrawal: digest_bytes(&row.by.0),
        successor: row.successor.map(|successor| digest_bytes(&successor.0)).unwrap_or_default(),
        at: Some(timestamp(Timestamp::from_micros(row.at))),
    }
}

fn recipient(
    index: &Index,
    place: &Place,
    participant: &ParticipantCode,
    recorded_at: Timestamp,
) -> Result<TrackRecipient, IndexError> {
    let reached = index.reached(place, participant)?;
    let (state, at, reason) = match reached {
        Some((reached, at, reason)) => (state_of(reached), at, reason),
        None => (TrackState::Recorded, recorded_at, String::new()),
    };
    let participant = participant.to_string();
    Ok(TrackRecipient { participant, state: state.into(), at: Some(timestamp(at)), reason, overdue: false })
}

const fn state_of(reached: Reached) -> TrackState {
    match reached {
        Reached::Delivered => TrackState::Delivered,
        Reached::Taken => TrackState::Taken,
        Reached::Withheld => TrackState::Withheld,
        Reached::SetAside => TrackState::SetAside,
    }
}

/// The whole is as far as its slowest recipient; what nobody got is named by why.
fn overall(recipients: &[TrackRecipient]) -> TrackState {
    let all = |wanted: &[TrackState]| recipients.iter().all(|recipient| wanted.contains(&recipient.state()));
    // A withdrawal that came before what it withdraws is for nobody.
    if recipients.is_empty() {
        TrackState::Recorded
    } else if all(&[TrackState::Withheld]) {
        TrackState::Withheld
    } else if all(&[TrackState::SetAside, TrackState::Withheld]) {
        TrackState::SetAside
    } else if all(&[TrackState::Taken, TrackState::SetAside, TrackState::Withheld]) {
        TrackState::Taken
    } else if recipients.iter().all(is_settled) {
        TrackState::Delivered
    } else {
        TrackState::Recorded
    }
}

fn is_settled(recipient: &TrackRecipient) -> bool {
    !matches!(recipient.state(), TrackState::Unspecified | TrackState::Queued | TrackState::Recorded)
}

fn is_reached(response: &TrackResponse, until: TrackUntil) -> bool {
    match until {
        TrackUntil::Unspecified => true,
        TrackUntil::Recorded => response.state() != TrackState::Queued,
        TrackUntil::Delivered => {
            response.state() == TrackState::Refused
                || (response.state() != TrackState::Queued && response.recipients.iter().all(is_settled))
        }
    }
}
