//! What the sequencer is asked to decide. Signatures, digests and shapes were verified before, outside the sequencer.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::{
    AgreementRef, ChainKey, ConsignmentDigest, ExchangeId, Fingerprint, Header, Lane, ParticipantCode, Reason, Refusal,
    SetAsideReason, Timestamp, WithheldReason,
};

use crate::approval::Quorum;
use crate::audience::Audience;
use crate::epoch::{ChainTip, ClosedEpoch};
use crate::fact::{Founding, IndexRange, NotHealed};
use crate::nodes::NodeLine;
use crate::resume::Shown;
use crate::signer::LastStatement;
use crate::statement::Statement;
use crate::withdrawal::Target;

/// Where and when the fact will stand, read once per commit by the sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The journal sequence that the fact will have.
    pub sequence: u64,
    /// The hub's clock; `recorded_at` is the later of this and the last one.
    pub now: Timestamp,
}

/// What can be decided.
#[derive(Debug, Clone)]
pub enum Command {
    /// The beginning of a hub.
    Found(Founding),
    /// A verified statement, and how many officers of the secretariat must sign what needs more than one.
    Statement(Statement, Quorum),
    /// A consignment whose seal, root and signature hold.
    Consign(Consign),
    /// A recipient's verified word about its mailbox.
    Acknowledge(Acknowledge),
    /// A verified statement that a node hands back to a hub that lost data.
    HandBack(Handed),
    /// A node has handed everything back: its feed goes on.
    ResumeFeed {
        /// Whose feed.
        participant: ParticipantCode,
        /// What its node shows.
        shown: Shown,
        /// The last number that both have.
        common: u64,
    },
    /// A node shows its journal.
    SeeNode {
        /// Whose node.
        participant: ParticipantCode,
        /// The line of its journal.
        line: NodeLine,
    },
    /// Something cannot be healed.
    ListLost(NotHealed),
    /// The time of an agreement is over.
    Lapse(AgreementRef),
    /// A node knows numbers of its mailbox that the hub lost.
    ResumeMailbox {
        /// Whose mailbox.
        recipient: ParticipantCode,
        /// Its lane.
        lane: Lane,
        /// What its node shows.
        shown: Shown,
    },
}

/// A verified statement that a node hands back.
#[derive(Debug, Clone)]
pub struct Handed {
    /// What was said.
    pub statement: Statement,
    /// Whose node hands it back.
    pub by: ParticipantCode,
    /// Whether its feed told it; else the hub had only answered it, so that its participant is still to be told.
    pub was_told: bool,
    /// Why the hub had refused it; of the own officers' only.
    pub refused: Option<Reason>,
    /// Of one that opens an epoch: where the one before ended, as its own node was told.
    pub closes: Option<ClosedEpoch>,
    /// The approvals that came with it, each verified as the statement itself.
    pub approvals: Vec<Statement>,
    /// How many officers of the secretariat must have signed what needs more than one.
    pub quorum: Quorum,
}

impl Handed {
    /// Whether only its own participant's node says so.
    pub fn is_own(&self) -> bool {
        self.statement.participant == self.by
    }

    /// Whether what is known of it stands, whatever is said here.
    pub fn changes_nothing(&self, known: &LastStatement) -> bool {
        // What could mean nothing because the version that it names had not come back may mean something by now, its own word too: else
        // a leave that somebody brought first who was never told of that version would be forgotten. The same of keys that had not: an
        // enrolment may have waited for signatures.
        let was_too_early = matches!(
            known.refused,
            Some(Reason::AgreementUnknown | Reason::ParticipantNotEnrolled | Reason::SigningKeyUnknown)
        );
        known.refused.is_none() || self.refused.is_some() || self.is_own() && !was_too_early
    }
}

/// A consignment whose seal, root and signature hold.
#[derive(Debug, Clone)]
pub struct Consign {
    /// Its chain; origin and node are the certificate's.
    pub chain: ChainKey,
    /// Its number in the chain.
    pub number: u64,
    /// The digest of the one before, as the head says.
    pub previous: ConsignmentDigest,
    /// Of the first of a later epoch: the tip of the epoch before that `previous` was found to name.
    pub begins_after: Option<ChainTip>,
    /// Its own digest.
    pub digest: ConsignmentDigest,
    /// The key under which its signature was verified.
    pub key: Fingerprint,
    /// Its exchanges in order.
    pub exchanges: Vec<Candidate>,
    /// What became of each of them when the hub recorded it before it lost data, by its own receipt: that stands.
    pub stood: Option<Vec<Stood>>,
    /// What was found of what each withdrawal among them withdraws.
    pub targets: BTreeMap<u32, Target>,
    /// Which of them their origin withdrew before, as its node says: the withdrawals may have been lost here.
    pub withdrawn_before: BTreeSet<u32>,
}

/// What a hub decided about an exchange that it forgot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stood {
    /// It was recorded for these.
    Recorded(Audience),
    /// It was refused.
    Refused(Reason),
}

/// One exchange of a consignment: fit to be decided, or already refused for what it is.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// Its header parsed and its blobs match.
    Fit(Box<Item>),
    /// Its own form refuses it, whatever the state.
    Unfit(Refusal),
}

/// An exchange fit to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The digest of its header.
    pub id: ExchangeId,
    /// The header.
    pub header: Header,
}

impl Candidate {
    /// The reason why it is unfit, if it is.
    pub fn unfit(&self) -> Option<Reason> {
        match self {
            Self::Fit(_) => None,
            Self::Unfit(refusal) => Some(refusal.reason),
        }
    }
}

/// A recipient's verified word about one of its mailboxes, with what its senders are to be told.
///
/// The delivery task assembles `notices` for exactly the numbers after `delivered_before`; the ledger keeps no mailbox content.
#[derive(Debug, Clone)]
pub struct Acknowledge {
    /// Whose mailbox.
    pub recipient: ParticipantCode,
    /// The lane of the mailbox.
    pub lane: Lane,
    /// How far the hub had recorded deliveries when the notices were assembled; another value now refuses the command.
    pub delivered_before: u64,
    /// How far the recipient has them durably; at least `delivered_before`.
    pub delivered_through: u64,
    /// How many first acknowledgements by an agency the hub had recorded when the notices were assembled.
    pub taken_before: u64,
    /// How many there are now; at least `taken_before`.
    pub taken_count: u64,
    /// What senders are to be told.
    pub notices: Vec<SenderNotice>,
}

/// One notice to a sender about exchanges of one of its consignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderNotice {
    /// The chain of the consignment; its origin is told.
    pub chain: ChainKey,
    /// The consignment.
    pub number: u64,
    /// Its exchanges that it is about.
    pub items: Vec<IndexRange>,
    /// What happened to them.
    pub outcome: NoticeOutcome,
}

/// What happened to deliveries of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeOutcome {
    /// Durable at the recipient's node.
    Delivered,
    /// Acknowledged by a first agency.
    Taken,
    /// The number was filled with a notice.
    Withheld(WithheldReason),
    /// The recipient's node could not verify it.
    SetAside(SetAsideReason),
}
