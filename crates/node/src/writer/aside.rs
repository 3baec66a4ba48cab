//! What was set aside comes to an end: it is judged again and holds, or an officer discards it.
//!
//! Invariants: nothing goes to an agency but what holds by the state that this very commit continues; each comes to one end, whoever asks
//! again and whatever ends in between; and what did not hold, and was not discarded, stays where it is with its evidence.

use concord_model::{Lane, Reason, Refusal, SetAsideReason};
use concord_wire::header;
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::stored::node as stored;

use super::WriterError;
use super::batch::Batch;
use crate::downlink::judge;
use crate::index::IndexError;
use crate::state::decide::not_joined;

/// What became of something that was judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retried {
    /// It holds: its agencies are given it from now on.
    Holds,
    /// It does not, for this reason.
    Still(SetAsideReason),
}

/// Who discards something, and why.
pub(crate) struct Discarding {
    /// A URI name.
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl Batch<'_> {
    /// Alone in its batch: the views know what stands before it.
    pub(super) fn retry_aside(&mut self, lane: Lane, number: u64) -> Result<Result<Retried, Refusal>, WriterError> {
        if let Err(refusal) = self.state.decide_aside().and_then(|()| self.state.decide_late()) {
            return Ok(Err(refusal));
        }
        let Some(evidence) = self.index.evidence(lane, number)? else { return Ok(Err(not_set_aside())) };
        let delivery = match self.index.as_it_came(&evidence) {
            Ok(delivery) => delivery,
            Err(IndexError::Journal(error)) => {
                let what = format!("its evidence cannot be read any more: {error}; its sender can send it again");
                return Ok(Err(Refusal::new(Reason::BlobMismatch, what)));
            }
            Err(error) => return Err(error.into()),
        };
        let (Some((own, _)), Some(hub)) = (self.state.identity(), self.state.hub()) else {
            return Ok(Err(not_joined()));
        };
        let judged = judge(self.state.directory(), hub, own, lane, &delivery);
        let blobs = match judged {
            Ok(verified) => verified.blobs,
            Err(_) if concord_faults::planted("take-what-does-not-hold") => {
                delivery.blobs.iter().cloned().filter_map(concord_wire::consignment::blob_from_bytes).collect()
            }
            Err(reason) => return Ok(Ok(Retried::Still(reason))),
        };
        if let Ok(parsed) = header::parse(&delivery.header)
            && self.index.withdrawn(&evidence.id, &parsed.origin)?.is_some()
        {
            let what = "its origin withdrew it since; discard it";
            return Ok(Err(Refusal::new(Reason::ExchangeWithdrawn, what)));
        }
        let told_as = self.known_to_hub_as(lane, number)?;
        let bare = Delivery { blobs: Vec::new(), ..delivery };
        self.push(stored::aside_accepted(lane, bare, blobs, told_as, self.now))?;
        Ok(Ok(Retried::Holds))
    }

    /// Alone in its batch, as above.
    pub(super) fn discard_aside(
        &mut self,
        lane: Lane,
        number: u64,
        why: &Discarding,
    ) -> Result<Result<(), Refusal>, WriterError> {
        if let Err(refusal) = self.state.decide_aside() {
            return Ok(Err(refusal));
        }
        if !self.index.is_open_aside(lane, number)? {
            return Ok(Err(not_set_aside()));
        }
        let told_as = self.known_to_hub_as(lane, number)?;
        self.push(stored::aside_discarded((lane, number), &why.by, &why.reason, told_as, self.now)).map(Ok)
    }
}

/// What is none, or came to an end.
pub(crate) fn not_set_aside() -> Refusal {
    Refusal::new(Reason::ExchangeUnknown, "nothing that is set aside at this node begins so")
}
