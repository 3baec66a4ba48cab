//! Officers' statements, each officer's in order, until the hub has answered.

use std::sync::Arc;

use concord_model::{Name, Reason, Refusal};
use concord_wire::stored::node::StatementAnswered;
use futures::FutureExt as _;

use super::lane::broken;
use crate::context::Context;
use crate::link::{Attempt, HubLink, LinkEnd, keep_up};
use crate::state::NodeState;

const ALARM: &str = "statements";

pub(super) async fn run(context: Context, link: Arc<dyn HubLink>) {
    let attempt = || {
        let attempt = async {
            let mut stood = false;
            let end = forward(&context, link.as_ref(), &mut stood).await;
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood }
        };
        attempt.boxed()
    };
    keep_up(&context, ALARM, attempt).await;
}

/// Returns only when the node ends.
async fn forward(context: &Context, link: &dyn HubLink, stood: &mut bool) -> Result<(), LinkEnd> {
    let mut published = context.state.clone();
    loop {
        let waiting = first_waiting(&published.borrow_and_update());
        let Some((officer, number, sequence)) = waiting else {
            if published.changed().await.is_err() {
                return Ok(());
            }
            continue;
        };
        let signed = context.index.statement(sequence).map_err(broken)?;
        let refused = match link.submit(signed).await {
            Ok(()) => None,
            Err(LinkEnd::Refused(refusal)) => Some(refusal),
            Err(end) => return Err(end),
        };
        *stood = true;
        context.contact.heard(context.clock.now());
        let answer = answered(&officer, number, refused.as_ref());
        if answer.whole {
            let what = format!(
                "the hub did not take statement {number} of the officer {officer} ({}): {}",
                answer.refused, answer.message
            );
            context.readiness.raise(ALARM, what);
        } else {
            context.readiness.clear(ALARM);
        }
        context.writer.answer(answer).await.map_err(LinkEnd::Refused)?;
    }
}

/// The statement that has waited longest, of all officers' first ones.
fn first_waiting(state: &NodeState) -> Option<(Name, u64, u64)> {
    let firsts = state.officers().iter().filter_map(|(name, officer)| {
        let (number, statement) = officer.first_waiting()?;
        Some((name.clone(), number, statement.sequence))
    });
    firsts.min_by_key(|(_, _, sequence)| *sequence)
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
            | Reason::CallerNotAllowed
            | Reason::Internal
    )
}
