//! Retention at the hub: the bodies of exchanges that nobody waits for any more go, and the old segments of the journal that held them.
//!
//! Invariant: a body goes only once every recipient's node has acknowledged its number, or may never have it any more. Facts,
//! receipts and commitments stay, so that repeats are answered and mailboxes are numbered as before. They stay where their segment goes
//! too: a node that is rebuilt is given all of its feed and all of its chain back.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_journal::{Bodies, Entry, OldEntries, OldSegments, TrimError};
use concord_ledger::ConsignmentRecorded;
use concord_model::{Reason, Refusal, Timestamp};
use concord_server::audit::{Event, Object};
use concord_server::{AskedDays, CutOff, DiskRoom, Retention, RetentionTally};
use concord_wire::proto::operations::v1::RetentionReport;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::{HubEntry, read};
use tokio::sync::{Mutex, MutexGuard};

use crate::delivery::permit;
use crate::sequencer::{Proposal, Published};
use crate::shared::{Shared, internal};
use crate::snapshot;

/// Goes through the journal from its beginning to what is too young.
struct Survey {
    published: Arc<Published>,
    old: OldEntries,
    cut_off: CutOff,
    tally: RetentionTally,
}

impl Survey {
    fn new(shared: &Shared, cut_off: CutOff) -> Self {
        let published = shared.published();
        let before = cut_off.latest(published.ledger.agreements().retention_days_min());
        let old = OldEntries::new(shared.journal.as_ref(), before.as_micros(), published.tail.sequence);
        Self { published, old, cut_off, tally: RetentionTally::default() }
    }

    /// The next bodies that may go; none at the end. Blocks.
    fn batch(&mut self, shared: &Shared) -> Result<Vec<Bodies>, Refusal> {
        let Self { published, old, cut_off, tally } = self;
        old.gather(shared.journal.as_ref(), internal, |entry, bodies| {
            let HubEntry::Consignment(fact, kept) = read(entry).map_err(internal)? else { return Ok(0) };
            consignment(shared, published, (cut_off, tally), entry, (&fact, &kept), bodies)
        })
    }
}

/// Adds what may go of one entry; how many bytes that is.
fn consignment(
    shared: &Shared,
    published: &Published,
    (cut_off, tally): (&CutOff, &mut RetentionTally),
    entry: &Entry,
    (fact, kept): (&ConsignmentRecorded, &Kept),
    bodies: &mut Vec<Bodies>,
) -> Result<u64, Refusal> {
    let there = shared.journal.bodies(entry.sequence).map_err(internal)?;
    let awaited = awaited(published, (fact, kept), entry.sequence, shared.clock.now());
    let mut size = 0;
    for group in &fact.groups {
        let term = published.ledger.agreements().retention_days(&group.agreement);
        let Some(by) = cut_off.old_by(entry.recorded_at, term) else { continue };
        for index in group.items.iter().flat_map(|range| range.indices()) {
            let range = kept.blob_range(index as usize);
            let own = there.get(range.clone()).unwrap_or_default();
            let left: u64 = own.iter().filter(|body| !body.is_gone).map(|body| body.size_bytes).sum();
            if own.iter().all(|body| body.is_gone) {
                continue;
            }
            if awaited.contains(&index) {
                tally.stays();
                continue;
            }
            tally.goes(&group.agreement.id.to_string(), fact.chain.lane, left, by);
            size += left;
            let (Ok(first), Ok(count)) = (u32::try_from(range.start), u32::try_from(range.len())) else { continue };
            Bodies { sequence: entry.sequence, first, count }.add_to(bodies);
        }
    }
    Ok(size)
}

/// The exchanges of an entry that some recipient has yet to acknowledge, and may have.
fn awaited(
    published: &Published,
    (fact, kept): (&ConsignmentRecorded, &Kept),
    recorded: u64,
    now: Timestamp,
) -> BTreeSet<u32> {
    let (ledger, lane) = (&published.ledger, fact.chain.lane);
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
        awaited.extend(rest.filter(|index| permit(ledger, code, (fact, kept), recorded, *index, now).is_ok()));
    }
    awaited
}

/// The old segments that go, as a trim takes them. Blocks.
///
/// Invariant: nothing goes but bodies, and none that somebody waits for: see [`OldSegments`] for what is kept. Nor goes what the views have
/// yet to read.
fn old_segments(shared: &Shared, before: Timestamp) -> Result<Option<OldSegments>, Refusal> {
    let published = shared.published();
    let projected = shared.views.watermark().map_or(0, |at| at.sequence);
    let last = projected.min(published.tail.sequence);
    OldSegments::find(shared.journal.as_ref(), before.as_micros(), last, internal, |entry, bodies| {
        if bodies.iter().all(|body| body.is_gone) {
            return Ok(true);
        }
        let HubEntry::Consignment(fact, kept) = read(entry).map_err(internal)? else { return Ok(true) };
        let mut tally = RetentionTally::default();
        consignment(shared, &published, (&CutOff::ALL, &mut tally), entry, (&fact, &kept), &mut Vec::new())?;
        Ok(!tally.is_awaited())
    })
}

/// Counts them.
fn count(tally: &mut RetentionTally, before: Timestamp, old: Option<&OldSegments>) {
    let size = old.map(|old| old.size).unwrap_or_default();
    let entries = old.map_or(0, |old| old.entries);
    tally.segments(before, size.segments, size.bytes, entries);
}

/// Whether old segments go, by what they are and the state that is to stand for them.
type IsWorthIt = fn(&OldSegments, &[u8]) -> bool;

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
    /// Refuses with `ARGUMENT_INVALID` where there is none, with `CLOCK_SUSPECT`, and with `QUEUE_FULL` while a run or another preview
    /// goes on: what goes beside it is nothing to count.
    pub async fn preview(&self, asked: AskedDays) -> Result<RetentionReport, Refusal> {
        let cut_off = self.cut_off(asked)?;
        let _alone = self.alone()?;
        let surveyed = self.shared.blocking(move |shared| {
            let mut survey = Survey::new(shared, cut_off);
            while !survey.old.is_ended() {
                survey.batch(shared)?;
            }
            if let Some(before) = cut_off.entries {
                count(&mut survey.tally, before, old_segments(shared, before)?.as_ref());
            }
            Ok(survey.tally.report(cut_off.bodies))
        });
        surveyed.await
    }

    fn cut_off(&self, asked: AskedDays) -> Result<CutOff, Refusal> {
        let has_terms = self.shared.published().ledger.agreements().retention_days_min().is_some();
        self.retention.cut_off(asked, has_terms, self.shared.clock.trusted_now())
    }

    /// Invariant: nothing goes beside whoever counts what would go, or lets it go.
    fn alone(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let busy =
            |_| Refusal::new(Reason::QueueFull, "another run or preview of the retention goes on; ask again later");
        self.running.try_lock().map_err(busy)
    }

    /// Lets it go: bodies batch by batch, then old segments.
    ///
    /// Refuses with `ARGUMENT_INVALID`, `CLOCK_SUSPECT` and `QUEUE_FULL` as above, and with `DISK_FULL`.
    pub async fn run(&self, asked: AskedDays) -> Result<RetentionReport, Refusal> {
        self.run_if(asked, |_, _| true).await
    }

    /// The same, but old segments only if they are worth it, by what they are and the state that is to stand for them.
    async fn run_if(&self, asked: AskedDays, is_worth_it: IsWorthIt) -> Result<RetentionReport, Refusal> {
        let cut_off = self.cut_off(asked)?;
        let _alone = self.alone()?;
        let mut survey = Survey::new(&self.shared, cut_off);
        while !survey.old.is_ended() {
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
        let mut tally = survey.tally;
        if let Some(before) = cut_off.entries {
            tally = self.trim(before, tally, is_worth_it).await?;
        }
        Ok(tally.report(cut_off.bodies))
    }

    /// Refuses with `DISK_FULL` where what is to stand for them would not leave the reserve.
    async fn trim(
        &self,
        before: Timestamp,
        mut tally: RetentionTally,
        is_worth_it: IsWorthIt,
    ) -> Result<RetentionTally, Refusal> {
        let prepared = self.shared.blocking(move |shared| {
            let old = old_segments(shared, before)?;
            let Some(old) = old else {
                count(&mut tally, before, None);
                return Ok((tally, None));
            };
            let state = snapshot::before(shared.journal.as_ref(), old.first_kept).map_err(internal)?;
            if !is_worth_it(&old, &state) {
                count(&mut tally, before, None);
                return Ok((tally, None));
            }
            shared.room.check_for(old.base_bytes(&state))?;
            count(&mut tally, before, Some(&old));
            let prepared = shared.journal.prepare_trim(old.into_trim(state.into()));
            let full = |error: TrimError| if error.is_out_of_room() { DiskRoom::refusal() } else { internal(error) };
            Ok((tally, Some(prepared.map_err(full)?)))
        });
        let (tally, prepared) = prepared.await?;
        if let Some(prepared) = prepared {
            self.shared.sequencer.decide(Proposal::Trim(prepared)).await?;
        }
        Ok(tally)
    }

    /// Runs once a day where a time is configured or an agreement has one, for as long as the process does; old segments go once as much of them goes as has
    /// to be written.
    pub async fn keep(self: Arc<Self>) {
        let run = || {
            let keeper = Arc::clone(&self);
            async move {
                let done = keeper.run_if(AskedDays::default(), OldSegments::is_worth_it).await;
                if let Ok(report) = &done {
                    keeper.shared.audit.note(Event::local("retention", Object::retention(Some(report))));
                }
                done
            }
        };
        Retention::keep(run).await;
    }
}
