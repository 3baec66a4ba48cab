//! Retention at a node: the bodies of exchanges that nobody waits for any more go.
//!
//! Invariant: an own exchange's bodies go only once the hub's receipt is here and every recipient is told to have it, or never to
//! get it; a received one's only once every agency that may have it has acknowledged it. Request ids, receipts and exchange ids
//! stay, so that a repeat is known for one.

use std::sync::Arc;

use concord_journal::{Bodies, Body, Entry, OldEntries};
use concord_ledger::IndexRange;
use concord_model::{Lane, Name, Reason, Refusal, Timestamp};
use concord_server::{Retention, RetentionTally};
use concord_wire::proto::operations::v1::RetentionReport;
use concord_wire::receipt::{self, Outcome};
use concord_wire::stored::Kept;
use concord_wire::stored::node::{NodeEntry, Received, Verdict, read};
use concord_wire::{header, header::exchange_id};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::index::{Index, IndexError, Place};
use crate::state::NodeState;

/// Goes through the journal from its beginning to what is too young.
struct Survey {
    old: OldEntries,
    settled: Settled,
}

/// Judges what may go, and counts it.
struct Settled {
    state: Arc<NodeState>,
    tally: RetentionTally,
}

impl Survey {
    fn new(context: &Context, before: Timestamp) -> Self {
        let journal = context.index.journal();
        let old = OldEntries::new(journal.as_ref(), before.as_micros(), journal.tail().sequence);
        Self { old, settled: Settled { state: context.now_state(), tally: RetentionTally::default() } }
    }

    /// The next bodies that may go; none at the end. Blocks.
    fn batch(&mut self, index: &Index) -> Result<Vec<Bodies>, IndexError> {
        let Self { old, settled } = self;
        old.gather(index.journal().as_ref(), IndexError::from, |entry, bodies| match read(entry)? {
            NodeEntry::Queued(kept, submissions) => {
                let agencies = submissions.iter().map(|submission| submission.agency.as_str()).collect();
                settled.queued(index, entry, &kept, agencies, bodies)
            }
            NodeEntry::Mail { lane, items, .. } => settled.mail(index, entry, lane, &items, bodies),
            _ => Ok(0),
        })
    }
}

impl Settled {
    fn queued(
        &mut self,
        index: &Index,
        entry: &Entry,
        kept: &Kept,
        agencies: Vec<&str>,
        bodies: &mut Vec<Bodies>,
    ) -> Result<u64, IndexError> {
        let there = index.journal().bodies(entry.sequence)?;
        let (lane, number) = (kept.sealed.chain.lane, kept.sealed.number);
        let receipt = index.receipt(lane, number)?;
        let outcomes = receipt.and_then(|receipt| receipt::parse(&receipt.statement).ok()).map(|one| one.outcomes);
        let mut size = 0;
        for ((position, serialised), agency) in (0_u32..).zip(&kept.sealed.headers).zip(agencies) {
            let outcome = outcomes.as_ref().and_then(|outcomes| outcomes.get(position as usize));
            let settled = match outcome {
                None => false,
                Some(Outcome::Refused(_)) => true,
                Some(Outcome::Recorded { audience, .. }) => {
                    // Of what a restored node fetched back nobody knows who handed it in.
                    let agency = (!agency.is_empty()).then(|| Name::parse(agency)).transpose();
                    let agency = agency.map_err(|_| IndexError::Row("an agency"))?;
                    let place = Place { id: exchange_id(serialised), lane, number, index: position.into(), agency };
                    let mut all = true;
                    for recipient in audience {
                        all = all && index.reached(&place, recipient)?.is_some();
                    }
                    all
                }
            };
            let range = kept.blob_range(position as usize);
            let range = IndexRange { first: range.start as u32, count: range.len() as u32 };
            size += self.add(&there, entry, (agreement(serialised), lane), range, settled, bodies);
        }
        Ok(size)
    }

    fn mail(
        &mut self,
        index: &Index,
        entry: &Entry,
        lane: Lane,
        items: &[Received],
        bodies: &mut Vec<Bodies>,
    ) -> Result<u64, IndexError> {
        let there = index.journal().bodies(entry.sequence)?;
        let (mut size, mut first) = (0, 0);
        for item in items {
            let range = IndexRange { first, count: item.blob_count };
            first += item.blob_count;
            // What was set aside is evidence, and stays.
            let Verdict::Accepted(delivery) = &item.verdict else { continue };
            let settled = header::parse(&delivery.header).is_ok_and(|header| {
                let mut entitled =
                    self.state.agencies().values().filter(|agency| agency.may_have(&header.measure)).peekable();
                // Where nobody may have it, nobody has seen it yet.
                entitled.peek().is_some() && entitled.all(|agency| agency.through(lane) >= item.number())
            });
            size += self.add(&there, entry, (agreement(&delivery.header), lane), range, settled, bodies);
        }
        Ok(size)
    }

    /// Adds the bodies of one exchange, if they may go and are there; how many bytes they take.
    fn add(
        &mut self,
        there: &[Body],
        entry: &Entry,
        (agreement, lane): (String, Lane),
        range: IndexRange,
        settled: bool,
        bodies: &mut Vec<Bodies>,
    ) -> u64 {
        let own = there.get(range.first as usize..(range.first + range.count) as usize).unwrap_or_default();
        if own.iter().all(|body| body.is_gone) {
            return 0;
        }
        if !settled {
            self.tally.stays();
            return 0;
        }
        let size = own.iter().filter(|body| !body.is_gone).map(|body| body.size_bytes).sum();
        self.tally.goes(&agreement, lane, size);
        Bodies { sequence: entry.sequence, first: range.first, count: range.count }.add_to(bodies);
        size
    }
}

fn agreement(serialised: &bytes::Bytes) -> String {
    header::parse(serialised).map_or_else(|_| String::new(), |header| header.agreement.id.to_string())
}

/// Keeps what must be kept, and lets go what need not be.
pub(crate) struct Keeper {
    context: Context,
    retention: Retention,
    running: Mutex<()>,
}

impl Keeper {
    /// By this configuration.
    pub(crate) fn new(context: Context, retention: Retention) -> Self {
        Self { context, retention, running: Mutex::default() }
    }

    /// What would go now, by the configured time or by another.
    ///
    /// Refuses with `ARGUMENT_INVALID` where there is none, and with `CLOCK_SUSPECT`.
    pub(crate) async fn preview(&self, days: Option<u32>) -> Result<RetentionReport, Refusal> {
        let before = self.retention.cut_off(days, self.context.clock.trusted_now())?;
        let mut survey = Survey::new(&self.context, before);
        while !survey.old.is_ended() {
            survey = self.step(survey).await?.0;
        }
        Ok(survey.settled.tally.report(before))
    }

    /// Lets it go, batch by batch.
    ///
    /// Refuses with `ARGUMENT_INVALID` and `CLOCK_SUSPECT` as above, with `QUEUE_FULL` while another run goes on, with `DISK_FULL`.
    pub(crate) async fn run(&self, days: Option<u32>) -> Result<RetentionReport, Refusal> {
        let before = self.retention.cut_off(days, self.context.clock.trusted_now())?;
        let busy = |_| Refusal::new(Reason::QueueFull, "another run of the retention goes on");
        let _one_at_a_time = self.running.try_lock().map_err(busy)?;
        let mut survey = Survey::new(&self.context, before);
        while !survey.old.is_ended() {
            let (next, bodies) = self.step(survey).await?;
            survey = next;
            if !bodies.is_empty() {
                self.context.writer.redact(bodies).await?;
            }
        }
        Ok(survey.settled.tally.report(before))
    }

    async fn step(&self, mut survey: Survey) -> Result<(Survey, Vec<Bodies>), Refusal> {
        let index = self.context.index.clone();
        let internal = |error: String| {
            tracing::error!(error, "the retention could not read");
            Refusal::new(Reason::Internal, "something failed inside this node")
        };
        let surveyed = concord_server::blocking(move || survey.batch(&index).map(|bodies| (survey, bodies)));
        surveyed.await.map_err(|error| internal(error.to_string()))?.map_err(|error| internal(error.to_string()))
    }

    /// Runs once a day where a time is configured, for as long as the process does.
    pub(crate) async fn keep(self: Arc<Self>) {
        let run = || {
            let keeper = Arc::clone(&self);
            async move { keeper.run(None).await }
        };
        self.retention.keep(run).await;
    }
}
