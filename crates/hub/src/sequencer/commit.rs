//! The commit that is being decided, and the one that is being synced.

use std::future::pending;

use concord_journal::{AppendError, Bodies, Committed, Draft, HistoryId, PreparedTrim};
use concord_ledger::{Audience, ConsignmentRecorded, Fact, Ledger, Stood};
use concord_model::{Reason, Refusal, Timestamp};
use concord_wire::consignment::Opened;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Proposal};

/// A commit that is being decided or synced.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) drafts: Vec<Draft>,
    /// A history to begin in place of drafts.
    pub(super) begins: Option<HistoryId>,
    /// What the journal is to do to itself in place of drafts.
    pub(super) effect: Option<Effect>,
    /// One for each draft.
    pub(super) facts: Vec<(u64, Fact)>,
    pub(super) size_bytes: u64,
    pub(super) now: Option<Timestamp>,
    pub(super) answers: Vec<(oneshot::Sender<Result<Answer, Refusal>>, Due)>,
}

/// What the journal does to itself.
pub(super) enum Effect {
    Redact(Vec<Bodies>),
    Trim(PreparedTrim),
}

impl Commit {
    /// One more entry, with what it says.
    pub(super) fn add(&mut self, draft: Draft, sequence: u64, fact: Fact) {
        self.size_bytes += draft.size_bytes();
        self.drafts.push(draft);
        self.facts.push((sequence, fact));
    }

    /// Without drafts, and with no commit in flight, all that the answers name is durable already.
    pub(super) fn answer_known(self) {
        for (answer, due) in self.answers {
            if let Due::Answer(due) = due {
                send(answer, due);
            }
        }
    }
}

/// What to answer when the commit is durable.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost the hot path an allocation")]
pub(super) enum Due {
    Answer(Result<Answer, Refusal>),
    /// Whether all of what it was to do to itself is done the journal says then.
    Effect,
    /// A receipt needs the digest of the draft with this index.
    Receipt {
        draft: usize,
        recorded_at: Timestamp,
        fact: ConsignmentRecorded,
    },
}

/// What is durable of a commit.
pub(super) struct Written {
    pub(super) committed: Committed,
    /// All of it; of a redaction for which there was no room, less may be.
    pub(super) is_whole: bool,
}

impl From<Committed> for Written {
    fn from(committed: Committed) -> Self {
        Self { committed, is_whole: true }
    }
}

pub(super) struct InFlight {
    /// It is what the journal does to itself.
    pub(super) is_effect: bool,
    pub(super) facts: Vec<(u64, Fact)>,
    pub(super) append: BoxFuture<'static, Result<Written, AppendError>>,
    pub(super) answers: Vec<(oneshot::Sender<Result<Answer, Refusal>>, Due)>,
    pub(super) ledger: Ledger,
    pub(super) begun: Instant,
}

pub(super) enum Decided {
    /// Nothing to append: the answer names what stands, or will stand, already.
    Known(Due),
    New {
        draft: Draft,
        fact: Box<Fact>,
        due: Due,
        /// What follows from it, in the same commit; the estimate of the proposal's size has it.
        also: Option<Box<(Draft, Fact)>>,
    },
}

/// The end of the sync that is under way; never, where none is.
pub(super) async fn synced(in_flight: &mut Option<InFlight>) -> Result<Written, AppendError> {
    match in_flight {
        Some(in_flight) => in_flight.append.as_mut().await,
        None => pending().boxed().await,
    }
}

/// An upper bound of the entry that a proposal makes.
pub(super) fn size_estimate(proposal: &Proposal) -> u64 {
    const PAYLOAD_OVERHEAD_BYTES: u64 = 64 * 1024;
    let own = match proposal {
        Proposal::Consign(opened) => consignment_size(opened),
        // With the entry that lists those of which there is no content.
        Proposal::Rehand(opened, stood) => {
            let listed = |stood: &Stood| match stood {
                Stood::Recorded(Audience { recipients, .. }) => {
                    LISTED_SIZE_BYTES + recipients.len() * LISTED_RECIPIENT_SIZE_BYTES
                }
                Stood::Refused(_) => 0,
            };
            consignment_size(opened) + stood.iter().map(listed).sum::<usize>() as u64
        }
        Proposal::Statement(_, signed) | Proposal::HandBack(_, signed) => prost::Message::encoded_len(signed) as u64,
        Proposal::Acknowledge(acknowledge, signed) => {
            prost::Message::encoded_len(signed) as u64 + acknowledge.notices.len() as u64 * 256
        }
        Proposal::ResumeFeed { .. }
        | Proposal::ResumeMailbox { .. }
        | Proposal::SeeNode { .. }
        | Proposal::BeginHistory { .. }
        | Proposal::ListLost(_)
        | Proposal::Lapse(_)
        | Proposal::Pulse(_)
        | Proposal::Redact(_)
        | Proposal::Trim(_) => 0,
    };
    own + PAYLOAD_OVERHEAD_BYTES
}

/// What one exchange takes in the list of what cannot be healed, and each of its recipients, at most.
const LISTED_SIZE_BYTES: usize = 128;
const LISTED_RECIPIENT_SIZE_BYTES: usize = 8;

fn consignment_size(opened: &Opened) -> u64 {
    let headers: usize = opened.sealed.headers.iter().map(|header| header.len() + 64).sum();
    let blobs: usize = opened.blobs.iter().flatten().map(|blob| blob.bytes().len() + 128).sum();
    (headers + blobs) as u64
}

/// Whoever asked may be gone; what was decided stands all the same.
pub(super) fn send(answer: oneshot::Sender<Result<Answer, Refusal>>, due: Result<Answer, Refusal>) {
    let _gone = answer.send(due);
}

pub(super) fn impossible() -> Refusal {
    Refusal::new(Reason::Internal, "the ledger decided something else than it was asked")
}

#[cfg(test)]
mod tests {
    use concord_ledger::{Lost, NotHealed};
    use concord_model::{Digest, ExchangeId, ParticipantCode};
    use concord_wire::stored::hub::not_healed;

    use super::*;

    /// A commit that is larger than the journal takes would end the hub.
    #[test]
    fn the_estimate_has_room_for_the_list_of_what_is_lost() {
        let code = ParticipantCode::parse("KAZ").unwrap();
        for recipients in [1, 27, 256] {
            let recipients = vec![code.clone(); recipients];
            let each = LISTED_SIZE_BYTES + recipients.len() * LISTED_RECIPIENT_SIZE_BYTES;
            let lost = Lost::Exchange { id: ExchangeId(Digest::ZERO), recipients };
            let longest = Reason::ALL.iter().copied().max_by_key(|reason| reason.code().len()).unwrap();
            let fact = NotHealed { participant: code.clone(), lost: vec![(lost, longest); 1000] };
            let size = not_healed(&fact, Timestamp::from_micros(1)).size_bytes();
            assert!(size <= 1000 * each as u64 + 1024, "{size} bytes, {each} for each");
        }
    }
}
