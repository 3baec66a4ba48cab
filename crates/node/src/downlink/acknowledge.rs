//! The next word about a mailbox: everything since what the hub has recorded of the last one.

use concord_journal::HistoryId;
use concord_model::{AsideEnd, Lane, Refusal, SetAsideReason};
use concord_wire::acknowledgement::{ACKNOWLEDGEMENT_NUMBERS_MAX, Said, sign};
use concord_wire::proto::exchange::v1::{Acknowledgement, AcknowledgementRecorded};

use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::state::NodeState;
use crate::state::decide::not_joined;

/// Whether there is something that the hub has not recorded.
pub(super) fn has_news(state: &NodeState, lane: Lane, recorded: &AcknowledgementRecorded) -> bool {
    let mailbox = state.mailbox(lane);
    mailbox.received_through > recorded.delivered_through || mailbox.taken_count > recorded.taken_count
}

/// What this node says about a lane, on top of what the hub has recorded, in the hub's history of now: the one in which the
/// last delivery came may have ended since. Blocks while the views are read.
pub(super) fn compose(
    context: &Context,
    state: &NodeState,
    lane: Lane,
    history: HistoryId,
    recorded: &AcknowledgementRecorded,
) -> Result<Acknowledgement, AcknowledgeError> {
    let hub = state.hub().ok_or_else(not_joined)?;
    let told = news(&context.index, lane, state.mailbox(lane).received_through, recorded)?;
    let said = Said {
        hub: hub.name.clone(),
        history,
        recipient: context.participant.clone(),
        node: context.node.clone(),
        lane,
        delivered_through: told.through,
        set_aside: told.set_aside,
        withheld: told.withheld,
        taken_before: recorded.taken_count,
        taken: told.taken,
        ended: told.ended,
    };
    let key = context.key();
    Ok(sign(&said, key.public().fingerprint, |message| key.sign(message)))
}

/// An acknowledgement could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcknowledgeError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) through: u64,
    pub(crate) set_aside: Vec<(u64, SetAsideReason)>,
    pub(crate) withheld: Vec<u64>,
    pub(crate) taken: Vec<u64>,
    /// Places in `taken` of what had been set aside and came to an end.
    pub(crate) ended: Vec<(u32, AsideEnd)>,
}

/// As much as one message may list; the rest follows when this is recorded.
pub(crate) fn news(
    index: &Index,
    lane: Lane,
    received_through: u64,
    recorded: &AcknowledgementRecorded,
) -> Result<News, IndexError> {
    let aside = index.aside(lane, recorded.delivered_through, ACKNOWLEDGEMENT_NUMBERS_MAX + 1)?;
    let too_many = aside.keys().nth(ACKNOWLEDGEMENT_NUMBERS_MAX);
    // The lists must be complete up to the number that is said.
    let through = too_many.map_or(received_through, |number| number - 1).min(received_through);
    let (mut set_aside, mut withheld) = (Vec::new(), Vec::new());
    for (number, reason) in aside.range(..=through) {
        match reason {
            Some(code) => {
                let reason = SetAsideReason::from_code(code).unwrap_or(SetAsideReason::SignatureInvalid);
                set_aside.push((*number, reason));
            }
            None => withheld.push(*number),
        }
    }
    let told = index.told_after(lane, recorded.taken_count, ACKNOWLEDGEMENT_NUMBERS_MAX)?;
    let told = told.into_iter().take_while(|(number, _)| *number <= through);
    let (taken, ends): (Vec<u64>, Vec<Option<AsideEnd>>) = told.unzip();
    let ended = (0..).zip(ends).filter_map(|(place, end)| Some((place, end?))).collect();
    Ok(News { through, set_aside, withheld, taken, ended })
}
