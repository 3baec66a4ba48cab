//! The ledger: one value of what was decided so far. A copy is a handful of pointers, since one is published at every commit.

use std::sync::Arc;

use concord_model::{ChainKey, Lane, Name, Participant, ParticipantCode, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::agreement::{Agreement, Agreements};
use crate::approval::Approvals;
use crate::chain::Chains;
use crate::command::At;
use crate::epoch::Epochs;
use crate::fact::{ConsignmentRecorded, Fact, StatementDecided, WithdrawalRecorded};
use crate::feed::{Feed, is_told_to_all};
use crate::history::{Histories, PastPositions};
use crate::loss::Losses;
use crate::mailbox::{Mailbox, Mailboxes};
use crate::nodes::Nodes;
use crate::registry::Registry;
use crate::signer::Signers;
use crate::statement::{Statement, StatementContent};
use crate::withdrawal::Withdrawals;

mod decide;

/// What a snapshot of the ledger holds and means. Raised whenever a field of it changes, or what [`Ledger::apply`] makes of a
/// fact: snapshots of another version are ignored.
pub const LEDGER_STATE_VERSION: u32 = 18;

/// All that deciding needs. It begins empty, and every fact of the journal is applied in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    registry: Arc<Registry>,
    agreements: Arc<Agreements>,
    signers: Arc<Signers>,
    approvals: Arc<Approvals>,
    chains: Arc<Chains>,
    epochs: Arc<Epochs>,
    mailboxes: Arc<Mailboxes>,
    feed: Arc<Feed>,
    histories: Arc<Histories>,
    nodes: Arc<Nodes>,
    losses: Arc<Losses>,
    withdrawals: Withdrawals,
    sequence: u64,
    recorded_at: Timestamp,
}

/// What became of a command that was not refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost the hot path an allocation")]
pub enum Decision {
    /// To be appended, and applied once it is.
    Fact {
        /// What was decided.
        fact: Fact,
        /// Of a statement whose content was refused: what its officer hears when the fact is durable.
        refusal: Option<Refusal>,
    },
    /// Decided before: answer from that fact, append nothing.
    Repeat {
        /// The journal sequence where the fact stands.
        sequence: u64,
        /// Of a statement whose content was refused then: the same reason again.
        refusal: Option<Refusal>,
    },
    /// Nothing to record.
    Nothing,
}

impl Ledger {
    /// Takes in a fact at its place; `at.now` is its `recorded_at`. Total: it refuses nothing and cannot fail.
    pub fn apply(&mut self, fact: &Fact, at: At) {
        self.sequence = at.sequence;
        // The time of a begun history is the clock's when the journal was opened, before anybody had vouched for that clock;
        // so may that be of what the journal does to itself.
        if !matches!(fact, Fact::HistoryBegun(_) | Fact::JournalEffect) {
            self.recorded_at = self.recorded_at(at.now);
        }
        match fact {
            Fact::JournalEffect => {}
            Fact::HistoryBegun(begun) => {
                let (chains, mailboxes, feed) = (&self.chains, &self.mailboxes, &self.feed);
                Arc::make_mut(&mut self.histories).apply(begun, |history| PastPositions {
                    history,
                    chains: chains.last_numbers(),
                    mailboxes: mailboxes.last_numbers(),
                    feeds: feed.last_numbers(),
                });
            }
            Fact::Founded(founding) => {
                if self.registry.hub().is_none() {
                    Arc::make_mut(&mut self.feed).found(founding);
                    Arc::make_mut(&mut self.feed).told_all(at.sequence);
                    Arc::make_mut(&mut self.registry).found(founding, self.recorded_at);
                }
            }
            Fact::Statement(decided) => {
                if decided.refused.is_none() {
                    self.apply_said(decided, at.sequence);
                    let Statement { participant, officer, number, .. } = &decided.statement;
                    if self.losses.lists(participant, officer, *number) {
                        Arc::make_mut(&mut self.losses).came_back(participant, officer, *number);
                    }
                }
                Arc::make_mut(&mut self.signers).apply(decided, at.sequence);
                Arc::make_mut(&mut self.feed).apply(&decided.told);
            }
            Fact::Consignment(recorded) => {
                if recorded.rehanded {
                    self.loss_shown();
                }
                Arc::make_mut(&mut self.chains).apply(recorded, at.sequence);
                Arc::make_mut(&mut self.mailboxes).record(&recorded.mailboxes, recorded.chain.lane);
                self.apply_withdrawals(recorded, at.sequence);
            }
            Fact::Acknowledged(acknowledged) => {
                Arc::make_mut(&mut self.mailboxes).acknowledge(acknowledged);
                let told = acknowledged.told.iter().map(|notices| &notices.told);
                Arc::make_mut(&mut self.feed).apply(told);
            }
            Fact::FeedResumed(resumed) => {
                self.loss_shown();
                Arc::make_mut(&mut self.feed).resume(resumed, at.sequence);
            }
            Fact::NotHealed(fact) => Arc::make_mut(&mut self.losses).apply(fact),
            Fact::Lapsed(lapsed) => {
                let (position, at) = (self.sequence, self.recorded_at);
                Arc::make_mut(&mut self.agreements).lapse(&lapsed.agreement, position, at);
                Arc::make_mut(&mut self.feed).apply(&lapsed.told);
            }
            Fact::NodeSeen(seen) => Arc::make_mut(&mut self.nodes).apply(seen),
            Fact::MailboxResumed(resumed) => {
                self.loss_shown();
                Arc::make_mut(&mut self.mailboxes).resume(resumed, at.sequence);
            }
        }
    }

    /// Of thousands that are handed in again each shows the same loss, and copies nothing.
    fn loss_shown(&mut self) {
        if !self.histories.knows_of_loss() {
            Arc::make_mut(&mut self.histories).loss_shown();
        }
    }

    fn apply_withdrawals(&mut self, recorded: &ConsignmentRecorded, sequence: u64) {
        self.withdrawals.apply(recorded, sequence);
        let origin = &recorded.chain.origin;
        let lost = |withdrawal: &&WithdrawalRecorded| self.losses.lists_exchange(origin, &withdrawal.exchange);
        let found: Vec<_> = recorded.withdrawals.iter().filter(lost).map(|one| one.exchange).collect();
        for exchange in found {
            // Nobody is to have it any more.
            Arc::make_mut(&mut self.losses).withdrawn(origin, &exchange);
        }
    }

    /// Takes in a statement that was accepted: it takes effect, waits for signatures, or is one.
    fn apply_said(&mut self, decided: &StatementDecided, sequence: u64) {
        let (statement, at) = (&decided.statement, self.recorded_at);
        // Touched by the few statements that it is about only: a copy is made of what others read.
        match &statement.content {
            StatementContent::Reject(rejected) => Arc::make_mut(&mut self.approvals).end(rejected),
            StatementContent::Approve(approved) => {
                let approvals = Arc::make_mut(&mut self.approvals);
                approvals.sign(approved, &statement.officer, at, sequence);
                if decided.completes.is_some()
                    && let Some(waiting) = approvals.take(approved)
                {
                    let signed_by: Vec<Name> = waiting.signed.iter().map(|signed| signed.officer.clone()).collect();
                    self.apply_effective(&waiting.statement, &signed_by, decided, sequence);
                }
            }
            _ if decided.waits() => {
                let approvals = Arc::make_mut(&mut self.approvals);
                approvals.wait(statement, decided.needs, &decided.approvals, at, sequence);
            }
            _ => {
                // It may have waited here when it was handed back with its signatures.
                if self.approvals.is_without_effect(&statement.digest) {
                    Arc::make_mut(&mut self.approvals).take(&statement.digest);
                }
                let signed_by = std::iter::once(statement).chain(&decided.approvals);
                let signed_by: Vec<Name> = signed_by.map(|one| one.officer.clone()).collect();
                self.apply_effective(statement, &signed_by, decided, sequence);
            }
        }
    }

    /// Takes in a statement that takes effect with what was decided here.
    fn apply_effective(
        &mut self,
        statement: &Statement,
        signed_by: &[Name],
        decided: &StatementDecided,
        sequence: u64,
    ) {
        if is_told_to_all(&statement.content) {
            Arc::make_mut(&mut self.feed).told_all(sequence);
        }
        match statement.content {
            StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::RotateKey(_) => {
                self.close_epoch(statement, decided);
                Arc::make_mut(&mut self.registry).apply(statement, signed_by, self.recorded_at);
            }
            StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::Hold { .. }
            | StatementContent::Release(_)
            | StatementContent::Decided(_)
            | StatementContent::SetContact(_)
            | StatementContent::Role(_) => {
                Arc::make_mut(&mut self.registry).apply(statement, signed_by, self.recorded_at);
            }
            _ => {
                let (position, at) = (self.sequence, self.recorded_at);
                Arc::make_mut(&mut self.agreements).apply(statement, position, at);
            }
        }
    }

    fn close_epoch(&mut self, statement: &Statement, decided: &StatementDecided) {
        let Some((participant, _)) = statement.closes() else { return };
        let key = self.registry.enrolment(participant).map(|enrolment| enrolment.signing_key.fingerprint);
        let closed = decided.closes.as_deref().copied().unwrap_or_default();
        Arc::make_mut(&mut self.epochs).close(participant, closed, key.filter(|_| statement.changes_key()));
        // With its keys the node's journal is lost; one that changes its key goes on with it.
        if matches!(statement.content, StatementContent::Replace(_)) {
            Arc::make_mut(&mut self.nodes).replaced(participant);
        }
    }

    /// The moment that an entry decided now is recorded at: never before the last one's.
    pub fn recorded_at(&self, now: Timestamp) -> Timestamp {
        self.recorded_at.max(now)
    }

    /// The moment of the last fact that was decided; the epoch before the first.
    pub fn last_recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    /// The journal sequence of the last fact applied; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The hub's name, once it is founded.
    pub fn hub(&self) -> Option<&Name> {
        self.registry.hub()
    }

    /// Participants, catalogue and keys.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All agreements.
    pub fn agreements(&self) -> &Agreements {
        &self.agreements
    }

    /// The officers' last statements.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// What waits for signatures of the secretariat's officers.
    pub fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// All chains.
    pub fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The closed epochs of chains.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// All mailboxes.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// All feeds.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The copies of nodes that are served.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What was lost and cannot be had again.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// What was withdrawn.
    pub fn withdrawals(&self) -> &Withdrawals {
        &self.withdrawals
    }

    /// The current history and the ones before it.
    pub fn histories(&self) -> &Histories {
        &self.histories
    }

    /// All participants, by code.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.registry.participants()
    }

    /// Each trust anchor in DER, with the participant that it vouches for.
    pub fn anchors(&self) -> impl Iterator<Item = (&ParticipantCode, &[u8])> {
        self.registry.anchors()
    }

    /// What this participant may be shown of the agreements.
    pub fn agreements_visible_to(&self, participant: &ParticipantCode) -> impl Iterator<Item = &Agreement> {
        self.agreements.visible_to(participant)
    }

    /// The number of the last consignment of a chain; 0 before its first.
    pub fn chain_last(&self, key: &ChainKey) -> u64 {
        self.chains.last(key)
    }

    /// Where one recipient's mailbox of one lane stands.
    pub fn mailbox(&self, recipient: &ParticipantCode, lane: Lane) -> Mailbox {
        self.mailboxes.get(recipient, lane)
    }

    /// The number of the last thing that a participant was told.
    pub fn feed_last(&self, participant: &ParticipantCode) -> u64 {
        self.feed.last(participant)
    }
}
