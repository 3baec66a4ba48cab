//! Retention at the hub: the bodies of exchanges that nobody waits for any more go.
//!
//! Invariant: a body goes only once every recipient's node has acknowledged its number, or may never have it any more. Facts,
//! receipts and commitments stay, so that repeats are answered and mailboxes are numbered as before.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_journal::{Bodies, Entry};
use concord_ledger::ConsignmentRecorded;
use concord_model::{Reason, Refusal, Timestamp};
use concord_server::{RETENTION_RUN_EVERY, RETENTION_TRY_AGAIN, Retention, RetentionTally};
use concord_wire::proto::operations::v1::RetentionReport;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::{HubEntry, read};
use tokio::sync::Mutex;

use crate::delivery::permit;
use crate::sequencer::{Proposal, Published};
use crate::shared::{Shared, internal};

/// What is overwritten at once: for so long flash waits.
const BATCH_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Exchanges of one batch.
const BATCH_EXCHANGES_MAX: usize = 10_000;
const ENTRIES_READ_AT_ONCE: usize = 256;

/// Goes through the journal from its beginning to what is too young.
struct Survey {
    published: Arc<Published>,
    before: Timestamp,
    next: u64,
    ended: bool,
    tally: RetentionTally,
}

impl Survey {
    fn new(shared: &Shared, before: Timestamp) -> Self {
        let (published, next) = (shared.published(), shared.journal.first_sequence());
        Self { published, before, next, ended: false, tally: RetentionTally::default() }
    }

    /// The next bodies that may go; none at the end. Blocks.
    fn batch(&mut self, shared: &Shared) -> Result<Vec<Bodies>, Refusal> {
        let (mut bodies, mut size) = (Vec::new(), 0);
        while !self.ended && size < BATCH_SIZE_MAX_BYTES && bodies.len() < BATCH_EXCHANGES_MAX {
            let wanted = self.published.tail.sequence.saturating_add(1).saturating_sub(self.next);
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(ENTRIES_READ_AT_ONCE);
            let entries = shared.journal.read(self.next, wanted).map_err(internal)?;
            self.ended = entries.is_empty();
            for entry in entries {
                if entry.recorded_at >= self.before.as_micros() && !concord_journal::is_reserved_kind(entry.kind) {
                    self.ended = true;
                }
                if self.ended || size >= BATCH_SIZE_MAX_BYTES || bodies.len() >= BATCH_EXCHANGES_MAX {
                    break;
                }
                if let HubEntry::Consignment(fact, kept) = read(&entry).map_err(internal)? {
                    size += self.consignment(shared, &entry, &fact, &kept, &mut bodies)?;
                }
                self.next = entry.sequence + 1;
            }
        }
        Ok(bodies)
    }

    /// Adds what may go of one entry; how many bytes that is.
    fn consignment(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        fact: &ConsignmentRecorded,
        kept: &Kept,
        bodies: &mut Vec<Bodies>,
    ) -> Result<u64, Refusal> {
        let there = shared.journal.bodies(entry.sequence).map_err(internal)?;
        let awaited = self.awaited(fact, entry.sequence, shared.clock.now());
        let mut size = 0;
        for group in &fact.groups {
            for index in group.items.iter().flat_map(|range| range.indices()) {
                let range = kept.blob_range(index as usize);
                let own = there.get(range.clone()).unwrap_or_default();
                let left: u64 = own.iter().filter(|body| !body.is_gone).map(|body| body.size_bytes).sum();
                if own.iter().all(|body| body.is_gone) {
                    continue;
                }
                if awaited.contains(&index) {
                    self.tally.stays();
                    continue;
                }
                self.tally.goes(&group.agreement.id.to_string(), fact.chain.lane, left);
                size += left;
                let (Ok(first), Ok(count)) = (u32::try_from(range.start), u32::try_from(range.len())) else { continue };
                match bodies.last_mut() {
                    Some(last) if last.sequence == entry.sequence && last.first + last.count == first => {
                        last.count += count;
                    }
                    _ => bodies.push(Bodies { sequence: entry.sequence, first, count }),
                }
            }
        }
        Ok(size)
    }

    /// The exchanges of an entry that some recipient has yet to acknowledge, and may have.
    fn awaited(&self, fact: &ConsignmentRecorded, recorded: u64, now: Timestamp) -> BTreeSet<u32> {
        let (ledger, lane) = (&self.published.ledger, fact.chain.lane);
        let mut awaited = BTreeSet::new();
        for recipient in fact.recipients() {
            let code = &recipient.run.recipient;
            let mailbox = ledger.mailbox(code, lane);
            // Where a mailbox was resumed, old numbers stand under new ones too: only when all of it is delivered is that.
            let delivered = match ledger.mailboxes().resumes(code, lane) {
                Some(_) if mailbox.delivered_through < mailbox.last => 0,
                Some(_) => u64::MAX,
                None => (mailbox.delivered_through + 1).saturating_sub(recipient.run.first),
            };
            let delivered = usize::try_from(delivered).unwrap_or(usize::MAX);
            let items = recipient.items.iter().flat_map(|range| range.indices());
            let rest = items.skip(delivered);
            awaited.extend(rest.filter(|index| permit(ledger, code, fact, recorded, *index, now).is_ok()));
        }
        awaited
    }
}

/// Keeps what must be kept, and lets go what need not be.
pub struct Keeper {
    shared: Arc<Shared>,
    retention: Retention,
    running: Mutex<()>,
}

impl Keeper {
    /// By this configuration.
    pub fn new(shared: Arc<Shared>, retention: Retention) -> Self {
        Self { shared, retention, running: Mutex::default() }
    }

    /// What would go now, by the configured time or by another.
    ///
    /// Refuses with `ARGUMENT_INVALID` where there is none, and with `CLOCK_SUSPECT`.
    pub async fn preview(&self, days: Option<u32>) -> Result<RetentionReport, Refusal> {
        let before = self.retention.cut_off(days, self.shared.clock.trusted_now())?;
        let surveyed = self.shared.blocking(move |shared| {
            let mut survey = Survey::new(shared, before);
            while !survey.ended {
                survey.batch(shared)?;
            }
            Ok(survey.tally.report(before))
        });
        surveyed.await
    }

    /// Lets it go, batch by batch.
    ///
    /// Refuses with `ARGUMENT_INVALID` and `CLOCK_SUSPECT` as above, with `QUEUE_FULL` while another run goes on, with `DISK_FULL`.
    pub async fn run(&self, days: Option<u32>) -> Result<RetentionReport, Refusal> {
        let before = self.retention.cut_off(days, self.shared.clock.trusted_now())?;
        let busy = |_| Refusal::new(Reason::QueueFull, "another run of the retention goes on");
        let _one_at_a_time = self.running.try_lock().map_err(busy)?;
        let mut survey = Survey::new(&self.shared, before);
        while !survey.ended {
            let surveyed = self.shared.blocking(move |shared| {
                let bodies = survey.batch(shared)?;
                Ok((survey, bodies))
            });
            let (next, bodies) = surveyed.await?;
            survey = next;
            if !bodies.is_empty() {
                self.shared.sequencer.decide(Proposal::Redact(bodies)).await?;
            }
        }
        Ok(survey.tally.report(before))
    }

    /// Runs once a day where a time is configured, for as long as the process does.
    pub async fn keep(self: Arc<Self>) {
        while self.retention.bodies_days.is_some() {
            let next = match self.run(None).await {
                Ok(report) => {
                    tracing::info!(rows = report.rows.len(), "the retention ran");
                    RETENTION_RUN_EVERY
                }
                Err(refusal) => {
                    tracing::warn!(why = refusal.message, "the retention did not run whole");
                    RETENTION_TRY_AGAIN
                }
            };
            tokio::time::sleep(next).await;
        }
    }
}
