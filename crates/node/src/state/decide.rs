//! What may be appended next, or why not. Pure: signatures were checked outside, views are asked outside.

use concord_journal::HistoryId;
use concord_ledger::Statement;
use concord_ledger::agreement::check_content;
use concord_model::{AgreementId, ChainKey, Lane, MeasureCode, Name, Reason, Refusal, Timestamp};
use concord_wire::consignment::Sealed;
use concord_wire::proto::feed::v1::FeedItem;
use concord_wire::receipt::Recorded;

use super::rights::{About, entitled};
use super::{Directory, LATE_MAX, NodeState};

/// Consignments of one lane that may wait for the hub. Beyond it an agency hears `QUEUE_FULL`.
pub const OUTBOX_CONSIGNMENTS_MAX: u64 = 1_000_000;
/// Statements of one officer that may wait for the hub. Beyond it the officer hears `QUEUE_FULL`.
pub const STATEMENTS_WAITING_MAX: usize = 32;

/// Times that one mailbox goes on under later numbers, since its hub lost data. Beyond it the link ends with `HISTORY_UNKNOWN`.
pub(crate) const HOLES_MAX: usize = 1024;
/// First acknowledgements of one mailbox that its hub may forget at once: their rows change together.
pub(crate) const TAKEN_FORGOTTEN_MAX: u64 = 4_000_000;

/// What a consignment that the hub gives back comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchedStep {
    /// It is the next of its chain, and nothing stands here yet.
    Append,
    /// One with its number waits here for a receipt: this one, or another.
    Compare,
    /// It follows one under whose number something else stands here.
    Found,
    /// Its receipt is here.
    Repeat,
}

/// What a repeated or new command comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Append it.
    Append,
    /// It stands there already; nothing to do.
    Repeat,
}

impl NodeState {
    /// The chain of a lane that takes what is queued, once a hub was joined.
    pub fn chain_key(&self, lane: Lane) -> Result<ChainKey, Refusal> {
        self.chain_key_in(lane, self.chain(lane).epoch)
    }

    /// The chain of a lane in an epoch, once a hub was joined.
    pub fn chain_key_in(&self, lane: Lane, epoch: u32) -> Result<ChainKey, Refusal> {
        let (Some((origin, node)), Some(hub)) = (self.identity(), self.hub()) else {
            return Err(not_joined());
        };
        Ok(ChainKey { origin: origin.clone(), hub: hub.name.clone(), node: node.clone(), epoch, lane })
    }

    /// Whether an agency may send something of this measure under this agreement now.
    ///
    /// Refuses with `AGENCY_UNKNOWN`, `AGENCY_UNCONFIRMED` and `MEASURE_NOT_ALLOWED`.
    pub fn decide_send(&self, agency: &Name, measure: &MeasureCode, agreement: &AgreementId) -> Result<(), Refusal> {
        let known = self.agency(agency)?;
        if known.may_send(measure, agreement) {
            return Ok(());
        }
        let what = format!("this agency may not send {measure} under {agreement}");
        Err(Refusal::new(Reason::MeasureNotAllowed, what))
    }

    /// Whether the chain of a lane takes one more consignment.
    pub fn decide_submit(&self, lane: Lane) -> Result<(), Refusal> {
        self.chain_key(lane)?;
        self.refuse_while_recovering()?;
        self.refuse_while_fenced()?;
        if self.chain(lane).waits_for_packing() {
            let packing = format!(
                "what waits on lane {lane} is being packed anew into the epoch that the officer opened, and as much came behind it \
                 meanwhile as may; submit again in a moment"
            );
            return Err(Refusal::new(Reason::QueueFull, packing));
        }
        if self.chain(lane).unrecorded() >= OUTBOX_CONSIGNMENTS_MAX {
            let full = format!("{OUTBOX_CONSIGNMENTS_MAX} consignments of lane {lane} wait for the hub");
            return Err(Refusal::new(Reason::QueueFull, full));
        }
        Ok(())
    }

    /// Invariant: a restored node takes nothing that it would number before it knows which numbers it gave out before, so that it
    /// never makes a fork by itself.
    fn refuse_while_recovering(&self) -> Result<(), Refusal> {
        if self.is_recovering() {
            let what = "this node was restored, and has not yet fetched back from the hub what it lost";
            return Err(Refusal::new(Reason::Recovering, what));
        }
        Ok(())
    }

    /// Invariant: once it is journaled that the hub serves another copy of this node, nothing is numbered here, whichever process
    /// asks and whether the hub is there, until it is journaled that the hub welcomed this one.
    fn refuse_while_fenced(&self) -> Result<(), Refusal> {
        self.fence().cloned().map_or(Ok(()), Err)
    }

    /// Whether it is news that the hub does not serve this copy. It says so again and again; the first time is kept.
    pub fn decide_fence(&self) -> Step {
        if self.fence().is_none() { Step::Append } else { Step::Repeat }
    }

    /// Whether it is news that the hub serves this copy.
    pub fn decide_fence_lift(&self) -> Step {
        if self.fence().is_some() { Step::Append } else { Step::Repeat }
    }

    /// What a consignment that the hub gives back is to its chain.
    pub fn decide_fetched(&self, sealed: &Sealed) -> Result<FetchedStep, Refusal> {
        let (lane, epoch, number) = (sealed.chain.lane, sealed.chain.epoch, sealed.number);
        if sealed.chain != self.chain_key_in(lane, epoch)? {
            return Err(Refusal::new(Reason::ChainMismatch, "the hub gave a consignment of another chain"));
        }
        let unknown = || {
            let what = format!("the hub gave a consignment of epoch {epoch} of lane {lane}, which is not open here");
            Refusal::new(Reason::ChainMismatch, what)
        };
        let chain = self.chain_in(lane, epoch).ok_or_else(unknown)?;
        if number <= chain.recorded_through {
            return Ok(FetchedStep::Repeat);
        }
        if number != chain.recorded_through + 1 {
            let next = chain.recorded_through + 1;
            let gap = format!("consignment {number} of lane {lane} came where {next} is next");
            return Err(Refusal::new(Reason::NumberOutOfOrder, gap));
        }
        if chain.forked_from.is_some() {
            return Ok(FetchedStep::Found);
        }
        if number <= chain.last_number {
            return Ok(FetchedStep::Compare);
        }
        if sealed.previous != chain.last_digest {
            let what = format!("consignment {number} of lane {lane} does not follow the one that stands here");
            return Err(Refusal::new(Reason::Fork, what));
        }
        Ok(FetchedStep::Append)
    }

    /// Receipts come in the chain's order, each once.
    pub fn decide_receipt(&self, recorded: &Recorded) -> Result<Step, Refusal> {
        let (lane, epoch) = (recorded.chain.lane, recorded.chain.epoch);
        if recorded.chain != self.chain_key_in(lane, epoch)? {
            return Err(Refusal::new(Reason::ChainMismatch, "the receipt is for another chain"));
        }
        // Whatever is left behind has its receipts.
        let Some(chain) = self.chain_in(lane, epoch) else { return Ok(Step::Repeat) };
        if recorded.number <= chain.recorded_through {
            return Ok(Step::Repeat);
        }
        if recorded.number != chain.recorded_through + 1 || recorded.number > chain.last_number {
            let order = format!(
                "a receipt for consignment {} of lane {lane} where that of {} is next",
                recorded.number,
                chain.recorded_through + 1
            );
            return Err(Refusal::new(Reason::NumberOutOfOrder, order));
        }
        Ok(Step::Append)
    }

    /// The chain into which what a closed epoch of a lane left is packed anew, once it is known what the hub recorded of it:
    /// everything up to the tip at which it was closed, or all that a hub has which lost data since.
    pub fn decide_pack_anew(&self, lane: Lane, hub_last: u64) -> Result<ChainKey, Refusal> {
        self.refuse_while_fenced()?;
        let chain = self.chain(lane);
        let tip = self.closed(lane, chain.epoch).ok_or_else(|| {
            Refusal::new(Reason::Internal, format!("epoch {} of lane {lane} is not closed", chain.epoch))
        })?;
        if chain.recorded_through < tip.number.min(hub_last) {
            let what = format!("not all that was recorded in epoch {} of lane {lane} is known here yet", chain.epoch);
            return Err(Refusal::new(Reason::Internal, what));
        }
        self.chain_key_in(lane, chain.epoch.saturating_add(1))
    }

    /// Feed items are applied without a gap; those applied before are passed over. Returns the new ones.
    pub fn decide_feed(&self, items: Vec<FeedItem>) -> Result<Vec<FeedItem>, Refusal> {
        let mut next = self.feed().number + 1;
        let mut new = Vec::with_capacity(items.len());
        for item in items {
            if item.number < next {
                continue;
            }
            if item.number != next {
                let gap = format!("feed item {} came where {next} is next", item.number);
                return Err(Refusal::new(Reason::HistoryUnknown, gap));
            }
            next += 1;
            new.push(item);
        }
        Ok(new)
    }

    /// Whether a feed that goes on after `at` goes forward.
    pub fn decide_feed_resume(&self, at: u64) -> Result<(), Refusal> {
        forward("the feed", self.feed().number, at)
    }

    /// Whether a mailbox that goes on after `at` goes forward, and the hub knows of no more first acknowledgements than it was told.
    pub fn decide_mailbox_resume(&self, lane: Lane, at: u64, common: u64, taken_count: u64) -> Result<(), Refusal> {
        let mailbox = self.mailbox(lane);
        forward("a mailbox", mailbox.received_through, at)?;
        if taken_count > mailbox.taken_count {
            let more = format!(
                "{} first acknowledgements of lane {lane} were made here, and the hub would know of {taken_count}",
                mailbox.taken_count
            );
            return Err(Refusal::new(Reason::NumberOutOfOrder, more));
        }
        if mailbox.taken_count - taken_count > TAKEN_FORGOTTEN_MAX || mailbox.holes_count() >= HOLES_MAX {
            let much = format!(
                "mailbox {lane} was resumed {} times, at most {HOLES_MAX} are kept; {} first acknowledgements would be told anew, at \
                 most {TAKEN_FORGOTTEN_MAX}",
                mailbox.holes_count(),
                mailbox.taken_count - taken_count
            );
            return Err(Refusal::new(Reason::HistoryUnknown, much));
        }
        if common > at {
            return Err(Refusal::new(Reason::NumberOutOfOrder, "what is common lies behind where a mailbox goes on"));
        }
        Ok(())
    }

    /// Whether this number is the next of its mailbox.
    pub fn decide_mail(&self, lane: Lane, number: u64) -> Result<Step, Refusal> {
        let next = self.mailbox(lane).received_through + 1;
        match number {
            number if number < next => Ok(Step::Repeat),
            number if number == next => Ok(Step::Append),
            number => {
                let gap = format!("number {number} of mailbox {lane} came where {next} is next");
                Err(Refusal::new(Reason::NumberOutOfOrder, gap))
            }
        }
    }

    /// From where an agency's acknowledgement, of what was given under those rights, moves its cursors; none where it moves none.
    ///
    /// Refuses with `RECOVERING` until the hub has said what was acknowledged before: the list of first acknowledgements is counted by
    /// both sides, and one in between would take the place of another.
    pub fn decide_acknowledge(
        &self,
        agency: &Name,
        lane: Lane,
        through: u64,
        rights_at: u64,
    ) -> Result<Option<u64>, Refusal> {
        self.refuse_while_recovering()?;
        let known = self.agency(agency)?;
        if through > self.mailbox(lane).received_through {
            return Err(Refusal::new(Reason::CursorInvalid, "the cursor lies beyond what this node has received"));
        }
        Ok(known.moved_by(lane, through, rights_at))
    }

    /// Whether an agency may acknowledge one delivery behind its cursor, by what it is about.
    ///
    /// Refuses with `RECOVERING`, as above.
    pub fn decide_collect(&self, agency: &Name, about: &About) -> Result<Step, Refusal> {
        self.refuse_while_recovering()?;
        let known = self.agency(agency)?;
        Ok(if entitled(known, about) { Step::Append } else { Step::Repeat })
    }

    /// Whether it may be said now how it ends with something that was set aside.
    ///
    /// Refuses with `NOT_JOINED`, and with `RECOVERING`, as above.
    pub fn decide_aside(&self) -> Result<(), Refusal> {
        self.hub().ok_or_else(not_joined)?;
        self.refuse_while_recovering()
    }

    /// Whether something that was set aside may be given to agencies: they are behind with no more of that than is kept.
    ///
    /// Refuses with `QUEUE_FULL`.
    pub fn decide_late(&self) -> Result<(), Refusal> {
        if self.late().len() < LATE_MAX {
            return Ok(());
        }
        let full = format!("{LATE_MAX} exchanges that had been set aside wait for agencies: retry when they took some");
        Err(Refusal::new(Reason::QueueFull, full))
    }

    /// Whether an officer's verified statement is the next one, and would stand by what the directory knows.
    pub fn decide_statement(&self, statement: &Statement, now: Timestamp) -> Result<Step, Refusal> {
        let hub = self.hub().ok_or_else(not_joined)?;
        self.refuse_while_recovering()?;
        self.refuse_while_fenced()?;
        if statement.hub != hub.name {
            let other = format!("the statement is for the hub {}, this node joined {}", statement.hub, hub.name);
            return Err(Refusal::new(Reason::StatementMalformed, other));
        }
        let officer = self.officers().get(&statement.officer);
        let known = officer.and_then(|officer| officer.statement(statement.number));
        let freed = known.is_some_and(|known| known.answer.as_ref().is_some_and(|answer| answer.whole));
        match known {
            Some(known) if known.digest == statement.digest && !freed => return Ok(Step::Repeat),
            Some(_) if !freed => {
                let fork =
                    format!("statement {} of {} was made with other content", statement.number, statement.officer);
                return Err(Refusal::new(Reason::StatementFork, fork));
            }
            _ => {}
        }
        let next = officer.map_or(1, super::Officer::next_number);
        if statement.number != next {
            let order = format!("statement {} of {} came where {next} is next", statement.number, statement.officer);
            return Err(Refusal::new(Reason::StatementOutOfOrder, order));
        }
        if officer.is_some_and(|officer| officer.waiting().count() >= STATEMENTS_WAITING_MAX) {
            let full = format!("{STATEMENTS_WAITING_MAX} statements of this officer wait for the hub");
            return Err(Refusal::new(Reason::QueueFull, full));
        }
        let directory = self.directory();
        let Directory { registry, agreements, epochs, .. } = &**directory;
        check_content(registry, agreements, epochs, &statement.participant, &statement.content, now)?;
        Ok(Step::Append)
    }

    /// Whether the hub's answer belongs to a statement that waits for one.
    pub fn decide_answer(&self, officer: &Name, number: u64) -> Step {
        let statement = self.officers().get(officer).and_then(|officer| officer.statement(number));
        match statement {
            Some(statement) if statement.answer.is_none() => Step::Append,
            _ => Step::Repeat,
        }
    }

    /// Whether a welcome's histories let positions of this node stand: `(history, number)` lies within today's past.
    pub fn position_stands(
        position: Option<(HistoryId, u64)>,
        current: (HistoryId, u64),
        past: impl IntoIterator<Item = (HistoryId, u64)>,
    ) -> bool {
        let Some((history, number)) = position else {
            return true;
        };
        let mut all = std::iter::once(current).chain(past);
        all.any(|(known, last)| known == history && number <= last)
    }
}

fn forward(what: &str, number: u64, at: u64) -> Result<(), Refusal> {
    if at < number {
        let back = format!("{what} stands at {number} here, and the hub would go on after {at}");
        return Err(Refusal::new(Reason::NumberOutOfOrder, back));
    }
    Ok(())
}

pub(crate) fn not_joined() -> Refusal {
    Refusal::new(Reason::NotJoined, "this node has not joined a hub yet")
}

pub(crate) fn agency_unknown(agency: &Name) -> Refusal {
    Refusal::new(Reason::AgencyUnknown, format!("the agency {agency} was not added to this node, or was ended"))
}
