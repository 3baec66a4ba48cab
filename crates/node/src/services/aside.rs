//! What was set aside: shown, judged again, discarded.

use std::collections::BTreeMap;

use concord_model::{ExchangeId, Identity, Lane, Reason, Refusal, Title};
use concord_server::audit::Object;
use concord_wire::consignment::seal_key;
use concord_wire::convert::{digest_bytes, timestamp};
use concord_wire::header::{agreement_ref, parse};
use concord_wire::proto::operations::v1 as pb;
use tonic::Status;

use super::track::{id_digits, only};
use super::{internal, note_act, refused};
use crate::context::Context;
use crate::index::{Evidence, Index, IndexError};
use crate::state::{Directory, NodeState};
use crate::writer::{Discarding, Retried, not_set_aside};

/// Noted while something waits.
pub(crate) const SET_ASIDE_NOTE: &str = "set-aside";
/// What to do about it.
pub(crate) const SET_ASIDE_NEXT: &str = "`concord set-aside list` says what to do";

/// What is told at once.
const LISTED_MAX: usize = 1_000;
/// What is counted of a lane; more shows as this.
const COUNTED_MAX: usize = 100_000;
const ROWS_AT_ONCE: usize = 4096;

/// How many of a lane wait for a word, by the reason for which they were set aside. Blocks.
pub(crate) fn waiting(index: &Index, lane: Lane) -> Result<BTreeMap<String, u64>, IndexError> {
    let (mut from, mut counted, mut waiting) = (0, 0, BTreeMap::new());
    while counted < COUNTED_MAX {
        let rows = index.open_asides(lane, from, ROWS_AT_ONCE)?;
        let Some((last, _)) = rows.last() else { break };
        from = last + 1;
        counted += rows.len();
        for (_, row) in rows {
            *waiting.entry(row.reason).or_default() += 1;
        }
    }
    Ok(waiting)
}

/// How many of a lane wait for a word. Blocks.
pub(crate) fn count_waiting(index: &Index, lane: Lane) -> Result<u64, IndexError> {
    Ok(waiting(index, lane)?.values().sum())
}

/// What is noted while these wait, by reason; nothing where there are none.
pub(crate) fn note(waiting: &BTreeMap<String, u64>) -> Option<String> {
    let only = waiting.keys().next()?;
    let reasons = match waiting.len() {
        1 => only.clone(),
        _ => waiting.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", "),
    };
    let count: u64 = waiting.values().sum();
    Some(format!("{count} that did not verify ({reasons}) wait for a word: {SET_ASIDE_NEXT}"))
}

pub(crate) async fn list(
    context: &Context,
    request: pb::ListSetAsideRequest,
) -> Result<pb::ListSetAsideResponse, Status> {
    let (index, state) = (context.index.clone(), context.now_state());
    let work = move || list_now(&index, &state, &request.exchange_id);
    concord_server::blocking(work).await.map_err(internal)?.map_err(refused)
}

fn list_now(index: &Index, state: &NodeState, digits: &str) -> Result<pb::ListSetAsideResponse, Refusal> {
    let mut places = Vec::new();
    let mut count = 0;
    if digits.is_empty() {
        for lane in Lane::ALL {
            let rows = index.open_asides(lane, 0, LISTED_MAX - places.len()).map_err(failed)?;
            places.extend(rows.into_iter().map(|(number, _)| (lane, number)));
            count += count_waiting(index, lane).map_err(failed)?;
        }
    } else {
        let Place::Open(_, lane, number, _) = find(index, digits)? else { return Err(not_set_aside()) };
        places.push((lane, number));
        count = 1;
    }
    let mut set_aside = Vec::with_capacity(places.len());
    for (lane, number) in places {
        // One that came to an end meanwhile is none.
        if let Some(evidence) = index.evidence(lane, number).map_err(failed)? {
            set_aside.push(told(state.directory(), &evidence));
        }
    }
    Ok(pb::ListSetAsideResponse { set_aside, count })
}

fn told(directory: &Directory, evidence: &Evidence) -> pb::SetAsideExchange {
    let delivery = &evidence.delivery;
    let header = parse(&delivery.header).ok();
    let origin = header.as_ref().map(|header| &header.origin);
    let registered = origin.and_then(|origin| directory.registry.enrolment(origin));
    let registered = registered.map(|enrolment| enrolment.signing_key.fingerprint);
    let consented = header.as_ref().filter(|header| directory.is_pinned(&header.agreement)).and_then(|header| {
        let version = directory.agreements.version(&header.agreement)?;
        version.text.party(&header.origin).map(|party| party.signing_key)
    });
    pb::SetAsideExchange {
        exchange_id: digest_bytes(&evidence.id.0),
        lane: evidence.lane.to_string(),
        reason: evidence.reason.clone(),
        since: Some(timestamp(evidence.at)),
        origin: origin.map(ToString::to_string).unwrap_or_default(),
        agreement: header.as_ref().map(|header| agreement_ref(&header.agreement)),
        measure: header.as_ref().map(|header| header.measure.to_string()).unwrap_or_default(),
        recorded_at: delivery.recorded_at,
        key_id: seal_key(&delivery.seal).map(|key| digest_bytes(&key.0)).unwrap_or_default(),
        registered_key_id: registered.map(|key| digest_bytes(&key.0)).unwrap_or_default(),
        consented_key_id: consented.map(|key| digest_bytes(&key.0)).unwrap_or_default(),
        size_bytes: evidence.size_bytes,
        exercise: concord_wire::header::is_exercise(&delivery.header),
    }
}

/// Judges one again.
pub(crate) async fn retry(
    context: &Context,
    (by, method): (Identity, &'static str),
    request: pb::RetrySetAsideRequest,
) -> Result<pb::RetrySetAsideResponse, Status> {
    let place = place_of(context, request.exchange_id).await.map_err(refused)?;
    let (id, retried) = match place {
        Place::Open(id, lane, number, is_exercise) => {
            let done = context.writer.retry_aside(lane, number).await;
            note_act(context, &by, method, Object::marked_exchange(&id, is_exercise), &done);
            concord_faults::point("node.aside.retried");
            (id, done.map_err(refused)?)
        }
        Place::Held(id) => (id, Retried::Holds),
        Place::Discarded(_) => return Err(refused(not_set_aside())),
    };
    let reason = match retried {
        Retried::Holds => String::new(),
        Retried::Still(reason) => reason.to_string(),
    };
    Ok(pb::RetrySetAsideResponse { exchange_id: digest_bytes(&id.0), delivered: reason.is_empty(), reason })
}

/// Ends it with one.
pub(crate) async fn discard(
    context: &Context,
    (by, method): (Identity, &'static str),
    request: pb::DiscardSetAsideRequest,
) -> Result<pb::DiscardSetAsideResponse, Status> {
    if request.reason.is_empty() {
        let what = "say why it is discarded: that is kept beside it in the journal";
        return Err(refused(Refusal::new(Reason::ArgumentInvalid, what)));
    }
    let reason = Title::parse(&request.reason);
    let reason = reason.map_err(|error| refused(Refusal::new(Reason::TitleInvalid, error.to_string())))?;
    let id = match place_of(context, request.exchange_id).await.map_err(refused)? {
        Place::Open(id, lane, number, is_exercise) => {
            let why = Discarding { by: by.to_string(), reason: reason.to_string() };
            let done = context.writer.discard_aside(lane, number, why).await;
            note_act(context, &by, method, Object::marked_exchange(&id, is_exercise), &done);
            done.map_err(refused)?;
            id
        }
        Place::Discarded(id) => id,
        Place::Held(_) => return Err(refused(not_set_aside())),
    };
    Ok(pb::DiscardSetAsideResponse { exchange_id: digest_bytes(&id.0) })
}

/// Where something stands that was set aside.
enum Place {
    /// With whether it says that it is an exercise.
    Open(ExchangeId, Lane, u64, bool),
    /// It was found to hold before.
    Held(ExchangeId),
    /// It was discarded before.
    Discarded(ExchangeId),
}

async fn place_of(context: &Context, digits: String) -> Result<Place, Refusal> {
    let index = context.index.clone();
    let found = concord_server::blocking(move || find(&index, &digits));
    found.await.unwrap_or_else(|error| Err(Refusal::new(Reason::Internal, error.to_string())))
}

/// The one whose id begins so. Blocks.
fn find(index: &Index, digits: &str) -> Result<Place, Refusal> {
    let digits = id_digits(digits).ok_or_else(not_set_aside)?;
    let found = index.set_aside_ever(&digits).map_err(failed)?;
    let (id, lane, number, is_discarded) = only(found, &digits, not_set_aside)?;
    let evidence = index.evidence(lane, number).map_err(failed)?;
    Ok(match (evidence, is_discarded) {
        (Some(evidence), _) => {
            Place::Open(id, lane, number, concord_wire::header::is_exercise(&evidence.delivery.header))
        }
        (None, true) => Place::Discarded(id),
        (None, false) => Place::Held(id),
    })
}

fn failed(error: IndexError) -> Refusal {
    crate::submit::internal(&error)
}
