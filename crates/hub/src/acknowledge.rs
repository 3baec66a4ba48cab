//! Taking a recipient's signed word about its mailbox, and telling the senders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use concord_ledger::{Acknowledge, Agreements, ConsignmentRecorded, IndexRange, NoticeOutcome, SenderNotice};
use concord_model::{AsideEnd, Lane, Name, Reason, Refusal, SetAsideReason, WithheldReason};
use concord_wire::acknowledgement::{self, Said};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::status::RETRY_AFTER_SECONDS;
use concord_wire::stored::Kept;

use crate::delivery::permit;
use crate::fencing::NodeRun;
use crate::projection::{Run, run_with};
use crate::sequencer::Proposal;
use crate::shared::{Shared, internal};

/// Numbers that one fact acknowledges at most; a longer word becomes several facts with the same evidence.
const NUMBERS_PER_FACT_MAX: u64 = 4096;
/// How often an acknowledgement is assembled again because another one of the same mailbox came first.
const ASSEMBLED_AGAIN_MAX: usize = 8;

/// Verifies and records an acknowledgement of this node's mailbox. Answers how far the hub has recorded them then.
pub async fn acknowledge(
    shared: &Arc<Shared>,
    by: &NodeRun,
    node: &Name,
    lane: Lane,
    message: pb::Acknowledgement,
) -> Result<pb::AcknowledgementRecorded, Refusal> {
    let participant = &by.participant;
    let said = acknowledgement::verify(&message, |key, message, signature| {
        shared.verify_present(participant, key, message, signature)
    })?;
    let own = said.recipient == *participant && said.node == *node;
    if !own || said.hub != shared.hub || said.history != shared.history() || said.lane != lane {
        return Err(Refusal::new(Reason::CursorInvalid, "the acknowledgement is of another mailbox, hub or history"));
    }
    concord_faults::point("hub.acknowledge.verified");
    let said = Arc::new(said);
    let mut lost_races = 0;
    loop {
        let mailbox = shared.published().ledger.mailbox(participant, lane);
        let work = Arc::clone(&said);
        let Some(command) = shared.blocking(move |shared| assemble(shared, &work)).await? else {
            return Ok(recorded(mailbox));
        };
        concord_faults::point("hub.acknowledge.assembled");
        let decided = shared.sequencer.decide_by(by, Proposal::Acknowledge(Box::new(command), message.clone())).await;
        concord_faults::point("hub.acknowledge.decided");
        match decided {
            Ok(_) => lost_races = 0,
            // The stream goes on delivering meanwhile; ending it would have the node come back at once with the same word.
            Err(refusal) if refusal.reason == Reason::DiskFull => {
                tokio::time::sleep(Duration::from_secs(RETRY_AFTER_SECONDS)).await;
            }
            Err(refusal) => {
                let now = shared.published().ledger.mailbox(participant, lane);
                lost_races += 1;
                if now == mailbox || lost_races > ASSEMBLED_AGAIN_MAX {
                    return Err(refusal);
                }
            }
        }
    }
}

/// How far acknowledgements of a mailbox are recorded.
pub fn recorded(mailbox: concord_ledger::Mailbox) -> pb::AcknowledgementRecorded {
    pb::AcknowledgementRecorded { delivered_through: mailbox.delivered_through, taken_count: mailbox.taken_count }
}

/// Makes the next command of what was said, or nothing where all of it is recorded.
fn assemble(shared: &Shared, said: &Said) -> Result<Option<Acknowledge>, Refusal> {
    let mailbox = shared.published().ledger.mailbox(&said.recipient, said.lane);
    if said.delivered_through > mailbox.last {
        let beyond = format!("number {} is beyond the mailbox, which ends at {}", said.delivered_through, mailbox.last);
        return Err(Refusal::new(Reason::HistoryUnknown, beyond));
    }
    if said.taken_before > mailbox.taken_count {
        let gap = format!(
            "{} are recorded as taken, the acknowledgement begins after {}",
            mailbox.taken_count, said.taken_before
        );
        return Err(Refusal::new(Reason::CursorInvalid, gap));
    }
    let before = mailbox.delivered_through;
    let through = said.delivered_through.min(before.saturating_add(NUMBERS_PER_FACT_MAX)).max(before);
    let is_last_step = through >= said.delivered_through;
    // Repeats of what is recorded are passed over; what is taken is told once all of it is delivered.
    let told = usize::try_from(mailbox.taken_count - said.taken_before).unwrap_or(usize::MAX);
    let taken = if is_last_step { said.taken.get(told..).unwrap_or_default() } else { &[] };
    let outcome = |place: usize| match said.ended_at(place) {
        None => NoticeOutcome::Taken,
        Some(AsideEnd::Holds) => NoticeOutcome::Delivered,
        Some(AsideEnd::Discarded) => NoticeOutcome::SetAside(SetAsideReason::Discarded),
    };
    if through == before && taken.is_empty() {
        return Ok(None);
    }

    let mut notices = Notices::default();
    for number in before + 1..=through {
        notices.add(shared, said, number, None)?;
    }
    for (place, number) in (told..).zip(taken) {
        if *number > through {
            return Err(Refusal::new(Reason::CursorInvalid, format!("number {number} is taken but not delivered")));
        }
        notices.add(shared, said, *number, Some(outcome(place)))?;
    }
    Ok(Some(Acknowledge {
        recipient: said.recipient.clone(),
        lane: said.lane,
        delivered_before: before,
        delivered_through: through,
        taken_before: mailbox.taken_count,
        taken_count: mailbox.taken_count + taken.len() as u64,
        notices: notices.finish(),
    }))
}

/// Collects what senders are told, exchanges of one consignment with one outcome together.
#[derive(Default)]
struct Notices {
    run: Option<Run>,
    // The entry of the run, read once where something of it was withheld.
    fact: Option<(u64, ConsignmentRecorded, Box<Kept>)>,
    by_consignment: BTreeMap<(concord_model::ChainKey, u64, NoticeOutcome), BTreeSet<u32>>,
}

impl Notices {
    /// `later` is what is told of a number behind its delivery.
    fn add(&mut self, shared: &Shared, said: &Said, number: u64, later: Option<NoticeOutcome>) -> Result<(), Refusal> {
        let held = self.run.take().filter(|run| (run.first..run.end()).contains(&number));
        let run = match held {
            Some(run) => run,
            None => run_with(&shared.views, &shared.hub, &said.recipient, said.lane, number)
                .map_err(internal)?
                .ok_or_else(|| Refusal::new(Reason::CursorInvalid, format!("number {number} was not delivered")))?,
        };
        let index = run.index(number).ok_or_else(|| internal("a mailbox number stands for no exchange"))?;
        let outcome = match later {
            Some(outcome) => outcome,
            None => self.delivered_as(shared, said, &run, number, index)?,
        };
        let key = (run.chain.clone(), run.consignment, outcome);
        self.by_consignment.entry(key).or_default().insert(index);
        self.run = Some(run);
        Ok(())
    }

    /// What the recipient says that it got: the exchange, a notice, or something that it could not verify.
    fn delivered_as(
        &mut self,
        shared: &Shared,
        said: &Said,
        run: &Run,
        number: u64,
        index: u32,
    ) -> Result<NoticeOutcome, Refusal> {
        if let Ok(place) = said.set_aside.binary_search_by_key(&number, |(aside, _)| *aside) {
            return Ok(NoticeOutcome::SetAside(said.set_aside[place].1));
        }
        if said.withheld.binary_search(&number).is_err() {
            return Ok(NoticeOutcome::Delivered);
        }
        let (fact, kept) = match self.fact.take() {
            Some((sequence, fact, kept)) if sequence == run.sequence => (fact, kept),
            _ => shared.consignment(run.sequence)?,
        };
        let ledger = &shared.published().ledger;
        let reason = permit(ledger, &said.recipient, (&fact, &kept), run.sequence, index, shared.clock.now()).err();
        let reason = reason.unwrap_or_else(|| {
            let content = shared.journal.blobs(run.sequence, kept.blob_range(index as usize));
            // Where it may have it by now, its time was over by a clock that was put back since, or it had no right to it when it was due.
            match kept.expires_at(index) {
                _ if content.is_err() => WithheldReason::BodyLost,
                Some(_) => WithheldReason::Expired,
                None => WithheldReason::Left,
            }
        });
        let reason = as_told_to(ledger.agreements(), &fact, index, reason);
        let reason = if concord_faults::planted("say-left-of-all") { WithheldReason::Left } else { reason };
        self.fact = Some((run.sequence, fact, kept));
        Ok(NoticeOutcome::Withheld(reason))
    }

    fn finish(self) -> Vec<SenderNotice> {
        let notice = |((chain, number, outcome), indices): (_, BTreeSet<u32>)| {
            let mut items = Vec::new();
            indices.into_iter().for_each(|index| IndexRange::push(&mut items, index));
            SenderNotice { chain, number, items, outcome }
        };
        self.by_consignment.into_iter().map(notice).collect()
    }
}

/// Why a recipient did not get it, as its origin is told. One that left or was taken off hears nothing of what became of the others since.
fn as_told_to(
    agreements: &Agreements,
    fact: &ConsignmentRecorded,
    index: u32,
    reason: WithheldReason,
) -> WithheldReason {
    let of_membership = matches!(reason, WithheldReason::Removed | WithheldReason::AgreementEnded);
    let group = fact.group_of(index).filter(|_| of_membership);
    match group {
        Some(group) if !agreements.was_member_to_the_last(&group.agreement, &fact.chain.origin) => WithheldReason::Left,
        _ => reason,
    }
}
