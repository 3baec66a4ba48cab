//! The sequencer: one task that owns the ledger and is the only writer of the hub's journal.
//!
//! Invariant: nothing is answered, published or delivered before the journal says that it is durable; and everything that was
//! answered was decided on a ledger that had applied all entries before it.
//!
//! While a commit is being synced the next one is decided; it stays open for flash until the sync ends. So flash waits for at most
//! one commit in flight.
//!
//! A commit for which the disk has no room takes with it whatever was decided on top of it: the ledger goes back to what is durable,
//! and everybody who waits hears DISK_FULL, also who was to hear a refusal, since that rested on facts that never came to be.

use std::sync::Arc;

use concord_journal::{
    AppendError, Bodies, COMMIT_SIZE_MAX_BYTES, Committed, HistoryId, Journal, PreparedTrim, Redacted, Tail,
};
use concord_ledger::{
    Acknowledge, At, ConsignmentRecorded, Fact, Handed, HistoryBegun, Ledger, NotHealed, Shown, Statement,
    StatementContent, Stood,
};
use concord_model::{AgreementRef, Lane, Name, ParticipantCode, Reason, Refusal, Timestamp};
use concord_wire::consignment::Opened;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1 as exchange;
use futures::{FutureExt as _, TryFutureExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

mod commit;
mod decide;
mod recent;

use commit::{Commit, Decided, Due, Effect, InFlight, Written, impossible, send, size_estimate, synced};
use concord_server::{Clock, DiskRoom};
pub use recent::{Durable, Recent};

use crate::fencing::{NodeRun, ShownJournal};

/// Proposals that wait for the sequencer, flash and others each. Beyond it senders wait: their streams stop reading.
pub const PROPOSALS_WAITING_MAX: usize = 32;
/// What bulk leaves free in a commit, so that a flash consignment that comes while it is open still fits.
const FLASH_RESERVE_BYTES: u64 = 512 * 1024;

/// What is put before the sequencer, with the evidence that the journal keeps.
pub enum Proposal {
    /// A verified statement.
    Statement(Box<Statement>, SignedStatement),
    /// A consignment whose seal, root and signature hold.
    Consign(Box<Opened>),
    /// A recipient's verified word.
    Acknowledge(Box<Acknowledge>, exchange::Acknowledgement),
    /// A consignment that this hub forgot, with what it had decided about each exchange.
    Rehand(Box<Opened>, Vec<Stood>),
    /// A verified statement that is handed back.
    HandBack(Box<Handed>, SignedStatement),
    /// A feed goes on for a node that handed everything back.
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
        /// What it shows.
        journal: Box<ShownJournal>,
    },
    /// A mailbox goes on for a node that knows more of it.
    ResumeMailbox {
        /// Whose mailbox.
        recipient: ParticipantCode,
        /// Its lane.
        lane: Lane,
        /// What its node shows.
        shown: Shown,
    },
    /// Something that this hub lost cannot be had again.
    ListLost(NotHealed),
    /// The time of an agreement is over.
    Lapse(AgreementRef),
    /// Nothing: whoever asks wants to know that the sequencer and the journal still go on. Answered when what was being made durable
    /// before it is.
    Pulse(Lane),
    /// Bodies that nobody waits for any more go.
    Redact(Vec<Bodies>),
    /// Old segments go, for which a base is prepared.
    Trim(PreparedTrim),
    /// A new history, since data of this one was lost; nothing, where another one began meanwhile.
    BeginHistory {
        /// The history in which the loss was found.
        found_in: HistoryId,
        /// The new one.
        new: HistoryId,
    },
}

/// What became of a proposal; every answer that names an entry is given after that entry is durable.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The statement is recorded and accepted.
    Accepted,
    /// The consignment is recorded.
    Recorded(Box<RecordedAt>),
    /// The consignment was recorded before, at this sequence.
    Repeat(u64),
    /// The acknowledgement is recorded, or said nothing new.
    Acknowledged,
    /// What was asked for stands, by this or by an earlier decision.
    Stands,
}

/// Where and how a consignment was recorded: what its receipt says.
#[derive(Debug, Clone)]
pub struct RecordedAt {
    /// The history of the entry.
    pub history: HistoryId,
    /// The digest of the entry.
    pub entry_digest: concord_journal::Digest,
    /// When.
    pub recorded_at: Timestamp,
    /// What was decided.
    pub fact: ConsignmentRecorded,
}

/// An immutable picture of what is durable.
#[derive(Debug, Clone)]
pub struct Published {
    /// The ledger after all durable entries.
    pub ledger: Ledger,
    /// The journal's tail.
    pub tail: Tail,
}

/// Puts proposals before the sequencer and shows what it published.
#[derive(Clone)]
pub struct Sequencer {
    flash: mpsc::Sender<Waiting>,
    ordinary: mpsc::Sender<Waiting>,
    published: watch::Receiver<Arc<Published>>,
    recent: Recent,
}

struct Waiting {
    proposal: Proposal,
    /// The run of the node that handed it in, where a node did.
    by: Option<NodeRun>,
    answer: oneshot::Sender<Result<Answer, Refusal>>,
}

impl Sequencer {
    /// What is durable now.
    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// What is durable, as it moves.
    pub fn watch(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// The newest durable commits, for the projection.
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Puts a proposal in line; waits while the line is full. The receiver gets the answer after durability.
    pub async fn propose(&self, proposal: Proposal) -> Result<AnswerReceiver, Refusal> {
        self.wait_in_line(proposal, None).await
    }

    /// The same for what a node hands in: it is decided only while that run of the node is the one that is served, and refused with
    /// `NODE_SUPERSEDED` behind the fact that another one is.
    pub async fn propose_by(&self, by: &NodeRun, proposal: Proposal) -> Result<AnswerReceiver, Refusal> {
        self.wait_in_line(proposal, Some(by.clone())).await
    }

    async fn wait_in_line(&self, proposal: Proposal, by: Option<NodeRun>) -> Result<AnswerReceiver, Refusal> {
        let line = match &proposal {
            Proposal::Consign(opened) | Proposal::Rehand(opened, _) if opened.sealed.chain.lane == Lane::Flash => {
                &self.flash
            }
            Proposal::Acknowledge(acknowledge, _) if acknowledge.lane == Lane::Flash => &self.flash,
            Proposal::Pulse(Lane::Flash) => &self.flash,
            _ => &self.ordinary,
        };
        let (answer, receiver) = oneshot::channel();
        line.send(Waiting { proposal, by, answer }).await.map_err(|_| ending())?;
        Ok(receiver)
    }

    /// Resolves when the sequencer has answered, and the journal has done what it was doing before; also where the answer is a refusal.
    /// Never, where one of them hangs.
    pub async fn ask(&self) {
        if let Ok(receiver) = self.propose(Proposal::Pulse(Lane::Flash)).await {
            drop(receiver.await);
        }
    }

    /// Puts a proposal in line and waits for its answer.
    pub async fn decide(&self, proposal: Proposal) -> Result<Answer, Refusal> {
        answered(self.propose(proposal).await?).await
    }

    /// Puts what a node hands in in line and waits for its answer.
    pub async fn decide_by(&self, by: &NodeRun, proposal: Proposal) -> Result<Answer, Refusal> {
        answered(self.propose_by(by, proposal).await?).await
    }
}

/// Where the answer to a proposal comes.
pub type AnswerReceiver = oneshot::Receiver<Result<Answer, Refusal>>;

/// The answer to a proposal, once there is one.
pub async fn answered(receiver: AnswerReceiver) -> Result<Answer, Refusal> {
    receiver.await.unwrap_or_else(|_| Err(ending()))
}

fn ending() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "the hub is ending")
}

/// The task's own state. [`SequencerTask::run`] ends when all handles are gone, or with the journal's error.
pub struct SequencerTask {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    hub: Name,
    // Ahead of `published` by what is open or in flight.
    ledger: Ledger,
    tail: Tail,
    publisher: watch::Sender<Arc<Published>>,
    recent: Recent,
    flash: Line,
    ordinary: Line,
    room: DiskRoom,
}

/// What waits, and the first of it that did not fit into the open commit: only its own line waits for it.
struct Line {
    receiver: mpsc::Receiver<Waiting>,
    carried: Option<Waiting>,
    /// How full the open commit may become by this line.
    commit_size_max_bytes: u64,
}

impl Line {
    fn new(receiver: mpsc::Receiver<Waiting>, commit_size_max_bytes: u64) -> Self {
        Self { receiver, carried: None, commit_size_max_bytes }
    }

    fn has_room(&self) -> bool {
        self.carried.is_none()
    }
}

impl SequencerTask {
    /// Prepares the task on a ledger that has applied the whole journal.
    pub fn new(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, hub: Name, ledger: Ledger) -> (Self, Sequencer) {
        let tail = journal.tail();
        let (publisher, published) = watch::channel(Arc::new(Published { ledger: ledger.clone(), tail }));
        let (flash_in, flash) = mpsc::channel(PROPOSALS_WAITING_MAX);
        let (ordinary_in, ordinary) = mpsc::channel(PROPOSALS_WAITING_MAX);
        let flash = Line::new(flash, COMMIT_SIZE_MAX_BYTES);
        let ordinary = Line::new(ordinary, COMMIT_SIZE_MAX_BYTES - FLASH_RESERVE_BYTES);
        let recent = Recent::default();
        let room = DiskRoom::default();
        let task = Self { journal, clock, hub, ledger, tail, publisher, recent: recent.clone(), flash, ordinary, room };
        (task, Sequencer { flash: flash_in, ordinary: ordinary_in, published, recent })
    }

    /// Tells appends for which there was no room here.
    #[must_use]
    pub fn with_room(mut self, room: DiskRoom) -> Self {
        self.room = room;
        self
    }

    /// Decides, appends, publishes, answers, until all handles are gone. An error means that the outcome of a write is unknown: the
    /// process must end and find out by opening the journal again. A disk without room is none: nothing was written.
    pub async fn run(mut self) -> Result<(), AppendError> {
        let mut open = Commit::default();
        let mut in_flight: Option<InFlight> = None;
        let mut closed = false;
        loop {
            if concord_faults::failure("hub.sequencer.goes-on").is_err() {
                std::future::pending::<()>().await;
            }
            // How many entries of its own the journal appends is known when it is done: nothing is decided behind them meanwhile.
            if in_flight.as_ref().is_none_or(|in_flight| !in_flight.is_effect) {
                self.gather(&mut open);
            }
            if in_flight.is_none() {
                let commit = std::mem::take(&mut open);
                if commit.drafts.is_empty() && commit.begins.is_none() && commit.effect.is_none() {
                    commit.answer_known();
                } else {
                    in_flight = Some(self.issue(commit));
                }
            }
            if closed && in_flight.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                written = synced(&mut in_flight) => {
                    if let Some(done) = in_flight.take() {
                        match written {
                            Ok(written) => self.publish(done, written),
                            Err(AppendError::NoRoom { .. }) => self.undo(done, std::mem::take(&mut open)),
                            // Nothing was done, and nothing was decided behind it.
                            Err(error @ (AppendError::NotRedactable { .. } | AppendError::NotTrimmable { .. })) => {
                                let refusal = Refusal::new(Reason::Internal, error.to_string());
                                done.answers.into_iter().for_each(|(answer, _)| send(answer, Err(refusal.clone())));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Some(waiting) = self.flash.receiver.recv(), if self.flash.has_room() => self.flash.carried = Some(waiting),
                waiting = self.ordinary.receiver.recv(), if self.ordinary.has_room() && !closed => match waiting {
                    Some(waiting) => self.ordinary.carried = Some(waiting),
                    None => closed = true,
                },
            }
        }
    }

    /// Decides what waits already, flash first, until the open commit is full: it shares one sync.
    fn gather(&mut self, open: &mut Commit) {
        while let Some(waiting) = self.flash.carried.take().or_else(|| self.flash.receiver.try_recv().ok()) {
            self.flash.carried = self.take(waiting, open, self.flash.commit_size_max_bytes);
            if !self.flash.has_room() {
                break;
            }
        }
        while let Some(waiting) = self.ordinary.carried.take().or_else(|| self.ordinary.receiver.try_recv().ok()) {
            self.ordinary.carried = self.take(waiting, open, self.ordinary.commit_size_max_bytes);
            if !self.ordinary.has_room() {
                break;
            }
        }
    }

    /// Decides one proposal into the open commit; gives it back where it does not fit.
    fn take(&mut self, waiting: Waiting, open: &mut Commit, commit_size_max_bytes: u64) -> Option<Waiting> {
        if let Err(refusal) = self.check_run(waiting.by.as_ref()) {
            // That another run is served may not be durable yet.
            open.answers.push((waiting.answer, Due::Answer(Err(refusal))));
            return None;
        }
        if matches!(waiting.proposal, Proposal::Pulse(_)) {
            // Behind whatever is being synced, so that a journal that hangs is found too.
            open.answers.push((waiting.answer, Due::Answer(Ok(Answer::Stands))));
            return None;
        }
        // A history begins by an entry of the journal's own, so it has a commit of its own, and what comes waits for the next.
        if open.begins.is_some() || open.effect.is_some() {
            return Some(waiting);
        }
        if matches!(waiting.proposal, Proposal::Redact(_) | Proposal::Trim(_)) {
            return take_effect(waiting, open);
        }
        if matches!(waiting.proposal, Proposal::BeginHistory { .. }) {
            return self.take_history(waiting, open);
        }
        if !open.drafts.is_empty() && open.size_bytes + size_estimate(&waiting.proposal) > commit_size_max_bytes {
            return Some(waiting);
        }
        let Waiting { proposal, answer, by: _ } = waiting;
        // The clock is read once for each commit.
        concord_faults::point("hub.decide.begin");
        let now = *open.now.get_or_insert_with(|| self.clock.now());
        self.lapse_before(&proposal, now, open);
        let at = At { sequence: self.ledger.sequence() + 1, now: self.ledger.recorded_at(now) };
        match self.decide(proposal, at) {
            // It may rest on facts that are not durable yet.
            Err(refusal) => open.answers.push((answer, Due::Answer(Err(refusal)))),
            Ok(Decided::Known(due)) => open.answers.push((answer, due)),
            Ok(Decided::New { draft, fact, due, also }) => {
                let due = match due {
                    Due::Receipt { recorded_at, fact, .. } => {
                        Due::Receipt { draft: open.drafts.len(), recorded_at, fact }
                    }
                    due @ (Due::Answer(_) | Due::Effect) => due,
                };
                open.add(draft, at.sequence, *fact);
                if let Some((draft, fact)) = also.map(|also| *also) {
                    open.add(draft, at.sequence + 1, fact);
                }
                concord_faults::point("hub.decide.applied");
                open.answers.push((answer, due));
            }
        }
        None
    }

    /// What of an agreement is over lapses before a leave of it is decided: that can be all that an amendment waits for, and none comes into
    /// force when its time is over.
    fn lapse_before(&mut self, proposal: &Proposal, now: Timestamp, open: &mut Commit) {
        let Proposal::Statement(statement, _) = proposal else { return };
        let StatementContent::Leave(left) = &statement.content else { return };
        if self.clock.trusted_now().is_none() || concord_faults::planted("leave-before-the-lapse") {
            return;
        }
        let now = self.ledger.recorded_at(now);
        let due = self.ledger.agreements().due_to_lapse(now).map(|due| due.reference());
        let due: Vec<_> = due.filter(|due| due.id == left.id).collect();
        for reference in due {
            let at = At { sequence: self.ledger.sequence() + 1, now };
            if let Ok(Decided::New { draft, fact, .. }) = self.decide(Proposal::Lapse(reference), at) {
                open.add(draft, at.sequence, *fact);
            }
        }
    }

    /// Begins a history in an open commit that is empty; gives the proposal back where it is not.
    fn take_history(&mut self, waiting: Waiting, open: &mut Commit) -> Option<Waiting> {
        let Proposal::BeginHistory { found_in, new } = waiting.proposal else { return Some(waiting) };
        let present = self.ledger.histories().current();
        if present != Some(*found_in.as_bytes()) || new == found_in {
            open.answers.push((waiting.answer, Due::Answer(Ok(Answer::Stands))));
            return None;
        }
        if !open.drafts.is_empty() {
            return Some(waiting);
        }
        let now = *open.now.get_or_insert_with(|| self.clock.now());
        let at = At { sequence: self.ledger.sequence() + 1, now: self.ledger.recorded_at(now) };
        open.now = Some(at.now);
        let fact = Fact::HistoryBegun(HistoryBegun { history: *new.as_bytes(), parent: present });
        self.ledger.apply(&fact, at);
        open.begins = Some(new);
        open.facts.push((at.sequence, fact));
        open.answers.push((waiting.answer, Due::Answer(Ok(Answer::Stands))));
        None
    }

    /// Invariant: behind the fact that a run of a node is served, nothing that another one handed in is decided.
    fn check_run(&self, by: Option<&NodeRun>) -> Result<(), Refusal> {
        match by {
            Some(by) if !concord_faults::planted("record-of-the-other-copy") => {
                self.ledger.nodes().check_run(&by.participant, &by.run)
            }
            _ => Ok(()),
        }
    }

    fn issue(&mut self, commit: Commit) -> InFlight {
        metrics::histogram!("concord_commit_entries").record(commit.drafts.len() as f64);
        concord_faults::point("hub.commit.issued");
        let is_effect = commit.effect.is_some();
        let recorded_at = || self.ledger.recorded_at(self.clock.now()).as_micros();
        let append = match (commit.begins, commit.effect) {
            (Some(new), _) => {
                let recorded_at = commit.now.map_or(0, Timestamp::as_micros);
                self.journal.begin_history(self.tail, new, recorded_at).map_ok(Written::from).boxed()
            }
            (None, Some(Effect::Redact(bodies))) => {
                let redacted = self.journal.redact(self.tail, recorded_at(), bodies);
                let written = |Redacted { tail, gone, .. }| Written {
                    committed: Committed { appended: Vec::new(), tail },
                    is_whole: gone,
                };
                redacted.map_ok(written).boxed()
            }
            (None, Some(Effect::Trim(prepared))) => {
                self.journal.trim(self.tail, recorded_at(), prepared).map_ok(Written::from).boxed()
            }
            (None, None) => self.journal.append(self.tail, commit.drafts).map_ok(Written::from).boxed(),
        };
        InFlight {
            append,
            is_effect,
            facts: commit.facts,
            answers: commit.answers,
            ledger: self.ledger.clone(),
            begun: Instant::now(),
        }
    }

    /// commit point: the journal's append has resolved, so the facts are durable. A crash just before leaves them written in part or
    /// whole and nobody told; a crash just after leaves them recorded, and whoever asks again gets the same answer.
    fn publish(&mut self, mut done: InFlight, written: Written) {
        let Written { committed, is_whole } = written;
        metrics::histogram!("concord_commit_duration_seconds").record(done.begun.elapsed().as_secs_f64());
        concord_faults::point("hub.commit.durable");
        if done.is_effect {
            for sequence in self.tail.sequence + 1..=committed.tail.sequence {
                self.ledger.apply(&Fact::JournalEffect, At { sequence, now: self.ledger.last_recorded_at() });
                done.facts.push((sequence, Fact::JournalEffect));
            }
            done.ledger = self.ledger.clone();
        }
        self.tail = committed.tail;
        if !done.facts.is_empty() {
            self.recent.push(Durable { facts: done.facts, tail: committed.tail });
        }
        self.publisher.send_replace(Arc::new(Published { ledger: done.ledger, tail: committed.tail }));
        concord_faults::point("hub.commit.published");
        for (answer, due) in done.answers {
            let due = match due {
                Due::Answer(due) => due,
                Due::Effect if is_whole => Ok(Answer::Stands),
                Due::Effect => {
                    self.room.refused();
                    Err(DiskRoom::refusal())
                }
                Due::Receipt { draft, recorded_at, fact } => match committed.appended.get(draft) {
                    Some(appended) => Ok(Answer::Recorded(Box::new(RecordedAt {
                        history: committed.tail.history,
                        entry_digest: appended.digest,
                        recorded_at,
                        fact,
                    }))),
                    None => Err(impossible()),
                },
            };
            send(answer, due);
        }
        concord_faults::point("hub.commit.answered");
    }

    /// The disk had no room for the commit in flight: nothing of it is there.
    ///
    /// Invariant: the ledger never stands ahead of what is durable, in flight and open, in this order; so what goes takes with it
    /// all that was decided after it.
    fn undo(&mut self, refused: InFlight, open: Commit) {
        self.room.refused();
        self.ledger = self.publisher.borrow().ledger.clone();
        for (answer, _) in refused.answers.into_iter().chain(open.answers) {
            send(answer, Err(DiskRoom::refusal()));
        }
    }
}

/// What the journal does to itself is entries of its own, so it has a commit of its own; gives the proposal back where the open one is not
/// empty.
fn take_effect(waiting: Waiting, open: &mut Commit) -> Option<Waiting> {
    if !open.drafts.is_empty() {
        return Some(waiting);
    }
    open.effect = Some(match waiting.proposal {
        Proposal::Redact(bodies) => Effect::Redact(bodies),
        Proposal::Trim(prepared) => Effect::Trim(prepared),
        proposal => return Some(Waiting { proposal, ..waiting }),
    });
    open.answers.push((waiting.answer, Due::Effect));
    None
}
