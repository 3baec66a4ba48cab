//! What was decided: the entries of the hub's journal. Applying a fact is total.

use concord_model::{
    AgreementRef, Area, ChainKey, ConsignmentDigest, ExchangeId, Fingerprint, Lane, Measure, Name, Participant,
    ParticipantCode, PublicKey, Reason,
};
use serde::{Deserialize, Serialize};

use crate::command::NoticeOutcome;
use crate::epoch::ClosedEpoch;
use crate::loss::Lost;
use crate::resume::Resume;
use crate::statement::{DecisionContent, ForumDecision, Statement, StatementContent};

/// One entry of the hub's journal, as the ledger sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost every reader an allocation")]
pub enum Fact {
    /// The journal's own entry: a history began.
    HistoryBegun(HistoryBegun),
    /// What the journal did to itself: nothing changes by it but the sequence.
    JournalEffect,
    /// The beginning of a hub.
    Founded(Founding),
    /// A statement, accepted or refused.
    Statement(StatementDecided),
    /// A consignment, with the audience of each of its exchanges.
    Consignment(ConsignmentRecorded),
    /// How far a recipient has its mailbox.
    Acknowledged(MailAcknowledged),
    /// A feed goes on after the hub lost data.
    FeedResumed(FeedResumed),
    /// A mailbox goes on after the hub lost data.
    MailboxResumed(MailboxResumed),
    /// This copy of a node is served.
    NodeSeen(NodeSeen),
    /// Something that the hub lost cannot be had again.
    NotHealed(NotHealed),
    /// The time of an agreement was over.
    Lapsed(AgreementLapsed),
}

/// The time of a version of an agreement was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreementLapsed {
    /// Which version.
    pub agreement: AgreementRef,
    /// Who is told.
    pub told: Vec<Told>,
}

/// What the hub had, lost, and cannot have again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHealed {
    /// Whose it is: the origin of the exchanges, or the participant that made the statements.
    pub participant: ParticipantCode,
    /// What, and why it cannot be had.
    pub lost: Vec<(Lost, Reason)>,
}

/// This copy of a participant's node is served from now on, and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Whose node.
    pub participant: ParticipantCode,
    /// The history of its journal.
    pub history: [u8; 16],
    /// The run of its process.
    pub run: [u8; 16],
}

/// A history began: the first, or one after a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryBegun {
    /// The new history.
    pub history: [u8; 16],
    /// The history before, if there was one; its positions are those at this entry.
    pub parent: Option<[u8; 16]>,
}

/// How a hub begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// The hub's name.
    pub hub: Name,
    /// The secretariat's trust anchor, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The hub's key for receipts.
    pub signing_key: PublicKey,
    /// Who there is.
    pub participants: Vec<Participant>,
    /// The areas of the catalogue.
    pub areas: Vec<Area>,
    /// The catalogue.
    pub measures: Vec<Measure>,
}

/// A participant is told something under this number of its feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who.
    pub participant: ParticipantCode,
    /// The number, the next of its feed.
    pub number: u64,
}

/// A statement and what became of it. A refused one uses its number up and tells only its own participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementDecided {
    /// What was said.
    pub statement: Statement,
    /// Why it was refused, if it was.
    pub refused: Option<Reason>,
    /// Who is told.
    pub told: Vec<Told>,
    /// Of an accepted one that opens an epoch: where the one before ended.
    pub closes: Option<Box<ClosedEpoch>>,
    /// Of one that comes back to an agreement: the journal sequences of what those on it said since it left, which it is told with it. Sorted.
    pub missed: Vec<u64>,
    /// How many officers must sign before it takes effect, its own included; 1 where it does by itself. The configuration said so when
    /// it was decided.
    pub needs: u32,
    /// Of one that is handed back: the approvals that came with it, each of another officer.
    pub approvals: Vec<Statement>,
    /// Of the last approval that was needed: what takes effect here.
    pub completes: Option<Completed>,
    /// Of one that adds a participant: the entries that its feed begins with.
    pub begins_with: Vec<u64>,
}

/// What has all the signatures that it needs, by the entries where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The statement that waited.
    pub statement: u64,
    /// The approvals that came before the one that completes it, in order; those that it was handed back with stand in its own entry.
    pub approvals: Vec<u64>,
}

impl StatementDecided {
    /// A statement that needs nobody else.
    pub fn alone(statement: Statement, refused: Option<Reason>, told: Vec<Told>) -> Self {
        Self {
            statement,
            refused,
            told,
            closes: None,
            missed: Vec::new(),
            needs: 1,
            approvals: Vec::new(),
            completes: None,
            begins_with: Vec::new(),
        }
    }

    /// The participant that it adds, whose feed begins with entries of before.
    pub fn begins(&self) -> Option<&ParticipantCode> {
        match &self.statement.content {
            StatementContent::Decided(ForumDecision { content: DecisionContent::AddParticipant(added), .. }) => {
                Some(&added.code).filter(|_| !self.begins_with.is_empty())
            }
            _ => None,
        }
    }

    /// Whether it was accepted, and takes effect only with further signatures.
    pub fn waits(&self) -> bool {
        self.refused.is_none() && u64::from(self.needs) > 1 + self.approvals.len() as u64
    }
}

/// A participant's feed goes on after the hub lost data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedResumed {
    /// Whose feed.
    pub participant: ParticipantCode,
    /// From where to where.
    pub resume: Resume,
}

/// A mailbox goes on after the hub lost data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxResumed {
    /// Whose mailbox.
    pub recipient: ParticipantCode,
    /// Its lane.
    pub lane: Lane,
    /// From where to where; `common` is how far the hub knows that it is delivered.
    pub resume: Resume,
}

/// A consignment as recorded: audience groups and first numbers, not a list for each exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsignmentRecorded {
    /// Its chain.
    pub chain: ChainKey,
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: ConsignmentDigest,
    /// How many exchanges it has.
    pub count: u32,
    /// Which exchanges go to whom; groups in order of their first item, each item in at most one.
    pub groups: Vec<AudienceGroup>,
    /// Which exchanges were refused, in order.
    pub refused: Vec<ItemRefusal>,
    /// Which numbers each recipient gets: its items of all groups, in the consignment's order.
    pub mailboxes: Vec<MailboxRun>,
    /// It was recorded before the hub lost data, and came again with its receipt.
    pub rehanded: bool,
    /// Which of its exchanges are accepted withdrawals, and of what.
    pub withdrawals: Vec<WithdrawalRecorded>,
    /// Which of its exchanges had been withdrawn before they came: refused, or as they stood before the hub lost data.
    pub withdrawn_before: Vec<WithdrawnBefore>,
}

/// Where an exchange stands in the hub's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExchangePlace {
    /// The entry of its consignment.
    pub sequence: u64,
    /// Its index there.
    pub index: u32,
}

/// A withdrawal that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawalRecorded {
    /// Which exchange of the consignment it is.
    pub index: u32,
    /// What it withdraws.
    pub exchange: ExchangeId,
    /// Where that stands, where it was recorded before.
    pub target: Option<ExchangePlace>,
}

/// An exchange that had been withdrawn before it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawnBefore {
    /// Which exchange of the consignment it is.
    pub index: u32,
    /// Its id.
    pub exchange: ExchangeId,
}

/// Exchanges of one consignment under one agreement version with one frozen audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceGroup {
    /// The version that decided.
    pub agreement: AgreementRef,
    /// The frozen audience, sorted, without the origin; empty only for withdrawals of what has yet to come.
    pub recipients: Vec<ParticipantCode>,
    /// The exchanges.
    pub items: Vec<IndexRange>,
}

/// Consecutive indices within a consignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRange {
    /// The first.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

impl IndexRange {
    /// The indices.
    pub fn indices(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    /// Adds an index to ranges that grow in order.
    pub fn push(ranges: &mut Vec<Self>, index: u32) {
        match ranges.last_mut() {
            Some(last) if last.first.checked_add(last.count) == Some(index) => last.count += 1,
            _ => ranges.push(Self { first: index, count: 1 }),
        }
    }
}

/// An exchange that the hub did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRefusal {
    /// Which exchange.
    pub index: u32,
    /// Why.
    pub reason: Reason,
}

/// The numbers that one recipient's mailbox gets from one consignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRun {
    /// Whose mailbox; the lane is the chain's.
    pub recipient: ParticipantCode,
    /// The first number.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// The recipient's feed number at recording: it judges the delivery after applying its feed up to here.
    pub feed_number: u64,
}

/// How far a recipient has its mailbox, and what its senders are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailAcknowledged {
    /// Whose mailbox.
    pub recipient: ParticipantCode,
    /// Its lane.
    pub lane: Lane,
    /// Everything up to and with this number is durable at its node.
    pub delivered_through: u64,
    /// How many were acknowledged by a first agency.
    pub taken_count: u64,
    /// What is told to each origin, sorted by origin.
    pub told: Vec<OriginNotices>,
}

/// Notices to one origin under one number of its feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginNotices {
    /// Who is told, under which number.
    pub told: Told,
    /// What.
    pub notices: Vec<ReceiptNotice>,
}

/// One notice, as the origin reads it; its participant is `told`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptNotice {
    /// The origin's node that sent it.
    pub node: Name,
    /// The chain epoch.
    pub epoch: u32,
    /// The lane.
    pub lane: Lane,
    /// The consignment.
    pub number: u64,
    /// Its exchanges.
    pub items: Vec<IndexRange>,
    /// What happened to them.
    pub outcome: NoticeOutcome,
}

/// A recipient of a consignment with the indices of the exchanges that it gets, in order of its mailbox numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its run of numbers.
    pub run: MailboxRun,
    /// The exchanges, one for each number.
    pub items: Vec<IndexRange>,
}

impl StatementDecided {
    /// The entries of before that one whom it tells is told first: what whoever comes back missed, and what everybody was told to whoever
    /// joins the registry. By this the numbers are given, and read.
    pub(crate) fn earlier(&self, participant: &ParticipantCode) -> &[u64] {
        if self.begins() == Some(participant) {
            &self.begins_with
        } else if *participant == self.statement.participant {
            &self.missed
        } else {
            &[]
        }
    }

    /// Whom it tells something, under which number, and the entry that says it, if that is one of before: these are told one by one, right
    /// before it.
    pub fn tells(&self) -> impl Iterator<Item = (&ParticipantCode, u64, Option<u64>)> {
        self.told.iter().flat_map(|told| {
            let earlier = self.earlier(&told.participant);
            let first = told.number.saturating_sub(earlier.len() as u64);
            let entries = earlier.iter().copied().map(Some).chain([None]);
            (first..).zip(entries).map(|(number, entry)| (&told.participant, number, entry))
        })
    }
}

impl ConsignmentRecorded {
    /// The group of one exchange, if it was recorded.
    pub fn group_of(&self, index: u32) -> Option<&AudienceGroup> {
        self.groups.iter().find(|group| group.items.iter().any(|range| range.indices().contains(&index)))
    }

    /// Each recipient with the exchanges that its numbers stand for.
    pub fn recipients(&self) -> impl Iterator<Item = Recipient> + '_ {
        self.mailboxes.iter().map(|run| {
            let mut indices: Vec<u32> = self
                .groups
                .iter()
                .filter(|group| group.recipients.binary_search(&run.recipient).is_ok())
                .flat_map(|group| group.items.iter().flat_map(|range| range.indices()))
                .collect();
            indices.sort_unstable();
            let mut items = Vec::new();
            indices.into_iter().for_each(|index| IndexRange::push(&mut items, index));
            Recipient { run: run.clone(), items }
        })
    }
}
