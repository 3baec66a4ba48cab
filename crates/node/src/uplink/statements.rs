//! Officers' statements, each officer's in order, until the hub has answered. What one officer's statement meets does not hold
//! up another's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use concord_model::{Class, Name, Reason, Refusal};
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::stored::node::StatementAnswered;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::lane::broken;
use crate::context::Context;
use crate::link::{
    Attempt, FAILURES_ALARM_MIN, HubLink, LinkEnd, REFUSED_RETRY_SECONDS, RETRY_MAX_SECONDS, backoff, keep_up,
};
use crate::state::NodeState;

const ALARM: &str = "statements";
const REFUSED_NOTE: &str = "statement-refused";

pub(super) async fn run(context: Context, link: Arc<dyn HubLink>) {
    let attempt = || {
        let attempt = async {
            let end = forward(&context, link.as_ref()).await;
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood: true }
        };
        attempt.boxed()
    };
    keep_up(&context, ALARM, attempt).await;
}

/// An officer whose first statement got no answer, and when it is its turn again.
struct Postponed {
    until: Instant,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    failures: u32,
}

impl Default for Postponed {
    fn default() -> Self {
        Self { until: Instant::now(), waits: Box::new(backoff()), failures: 0 }
    }
}

/// Returns only when the node ends, or cannot read what it has.
async fn forward(context: &Context, link: &dyn HubLink) -> Result<(), LinkEnd> {
    let mut published = context.state.clone();
    let mut postponed: BTreeMap<Name, Postponed> = BTreeMap::new();
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        let Some((officer, number, sequence)) = first_waiting(&state, &postponed) else {
            let turn = postponed.values().map(|postponed| postponed.until).min();
            let turn = async {
                match turn {
                    Some(turn) => tokio::time::sleep_until(turn).await,
                    None => futures::future::pending().await,
                }
            };
            tokio::select! {
                // Either way all that waits is looked at anew, so neither starves the other.
                biased;
                () = turn => continue,
                changed = published.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
            }
        };
        let index = context.index.clone();
        let signed = concord_server::blocking(move || index.statement(sequence)).await;
        let signed = signed.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
        concord_faults::point("node.statement.forwarding");
        let run = Bytes::copy_from_slice(&context.run);
        let refused = match link.submit(SubmitRequest { statement: Some(signed), wait: None, run }).await {
            Ok(()) => None,
            Err(LinkEnd::Refused(refusal)) if is_answer(refusal.reason) => Some(refusal),
            Err(end) => {
                postpone(context, postponed.entry(officer.clone()).or_default(), &officer, number, end);
                context.keep_fence().await;
                continue;
            }
        };
        context.contact.heard(context.clock.now());
        postponed.remove(&officer);
        if postponed.is_empty() {
            context.readiness.clear(ALARM);
        }
        let answer = answered(&officer, number, refused.as_ref());
        if answer.whole {
            let what = format!(
                "the hub did not take statement {number} of the officer {officer} ({}): {}",
                answer.refused, answer.message
            );
            context.readiness.note(REFUSED_NOTE, what);
        } else {
            context.readiness.clear(REFUSED_NOTE);
        }
        concord_faults::point("node.statement.answered");
        context.writer.answer(answer).await.map_err(LinkEnd::not_kept)?;
        concord_faults::point("node.statement.kept");
    }
}

/// The statement stays, whatever happened; where it does not look like passing by itself, a person hears of it.
fn postpone(context: &Context, postponed: &mut Postponed, officer: &Name, number: u64, end: LinkEnd) {
    postponed.failures = postponed.failures.saturating_add(1);
    let repeated = postponed.failures >= FAILURES_ALARM_MIN && context.contact.is_connected();
    let (wait, why, alarmed) = match end {
        LinkEnd::Lost(why) => {
            let wait = postponed.waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS));
            (wait, why, repeated)
        }
        // No hold keeps a statement, so that leaving is always possible.
        LinkEnd::HubFull(refusal) | LinkEnd::OwnFull(refusal) | LinkEnd::Held(refusal) => {
            let wait = postponed.waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS));
            (wait, refusal.message, repeated)
        }
        LinkEnd::Refused(refusal) => {
            context.heard_refusal(&refusal);
            (Duration::from_secs(REFUSED_RETRY_SECONDS), refusal.to_string(), true)
        }
        LinkEnd::Stopped(why) => (Duration::from_secs(REFUSED_RETRY_SECONDS), why, true),
    };
    postponed.until = Instant::now() + wait;
    if alarmed {
        let what =
            format!("statement {number} of the officer {officer} waits here, the hub gives no answer to it: {why}");
        context.readiness.raise(ALARM, what);
    } else {
        tracing::debug!(%officer, number, why, "a statement got no answer");
    }
}

/// The statement that has waited longest, of all officers' first ones whose turn it is.
fn first_waiting(state: &NodeState, postponed: &BTreeMap<Name, Postponed>) -> Option<(Name, u64, u64)> {
    let now = Instant::now();
    let firsts = state.officers().iter().filter_map(|(name, officer)| {
        let (number, statement) = officer.first_waiting()?;
        let its_turn = postponed.get(name).is_none_or(|postponed| postponed.until <= now);
        its_turn.then(|| (name.clone(), number, statement.sequence))
    });
    firsts.min_by_key(|(_, _, sequence)| *sequence)
}

/// Whether the hub decided: it recorded the refusal, or will never take these bytes. All else may pass, and the statement waits.
/// `INTERNAL` stands for what came without a reason of ours.
fn is_answer(reason: Reason) -> bool {
    match reason {
        Reason::CallerNotAllowed | Reason::ArgumentInvalid | Reason::NotJoined | Reason::Internal => false,
        reason => {
            let decided = [Class::Invalid, Class::Unknown, Class::Denied, Class::Precondition, Class::Conflict];
            decided.contains(&reason.class())
        }
    }
}

fn answered(officer: &Name, number: u64, refused: Option<&Refusal>) -> StatementAnswered {
    StatementAnswered {
        officer: officer.to_string(),
        number,
        refused: refused.map(|refusal| refusal.reason.code().to_owned()).unwrap_or_default(),
        whole: refused.is_some_and(|refusal| is_whole(refusal.reason)),
        message: refused.map(|refusal| refusal.message.clone()).unwrap_or_default(),
    }
}

/// Whether the hub recorded nothing: the statement was not one to decide on.
fn is_whole(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::StatementMalformed
            | Reason::StatementSignatureInvalid
            | Reason::StatementOutOfOrder
            | Reason::StatementFork
    )
}
