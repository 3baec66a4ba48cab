//! Retention at a node: the bodies of exchanges that nobody waits for any more go, and the old segments of the journal that held them.
//!
//! Invariant: an own exchange's bodies go only once the hub's receipt is here and every recipient is told to have it, or never to
//! get it; a received one's only once an agency has acknowledged it, and every agency that may have it. Those of one that was packed anew go where it
//! stood before, and those of one that the hub has by another copy of this node as if it stood there. Request ids, receipts and exchange
//! ids stay, so that a repeat is known for one. They stay where their segment goes too: a hub that lost data is handed all of it back.

use std::sync::Arc;

use concord_journal::{Bodies, Body, Entry, OldEntries, OldSegments, TrimError};
use concord_ledger::IndexRange;
use concord_model::{Lane, Name, Reason, Refusal, Timestamp};
use concord_server::audit::{Event, Object};
use concord_server::{AskedDays, CutOff, DiskRoom, OldBy, Retention, RetentionTally};
use concord_wire::consignment::Sealed;
use concord_wire::proto::exchange::v1::RecordedReceipt;
use concord_wire::proto::operations::v1::RetentionReport;
use concord_wire::receipt::{self, Outcome};
use concord_wire::stored::Kept;
use concord_wire::stored::node::{AsideEnded, AsideOutcome, NodeEntry, Received, Verdict, read};
use concord_wire::{header, header::exchange_id};
use tokio::sync::{Mutex, MutexGuard};

use crate::context::Context;
use crate::index::{Index, IndexError, Place};
use crate::open;
use crate::projection::Standing;
use crate::state::NodeState;
use crate::state::rights::About;

/// Goes through the journal from its beginning to what is too young.
struct Survey {
    old: OldEntries,
    settled: Settled,
}

/// Judges what may go, and counts it.
struct Settled {
    state: Arc<NodeState>,
    cut_off: CutOff,
    tally: RetentionTally,
    /// Whether bodies of what was set aside are there.
    holds_evidence: bool,
}

impl Settled {
    fn new(state: Arc<NodeState>, cut_off: CutOff) -> Self {
        Self { state, cut_off, tally: RetentionTally::default(), holds_evidence: false }
    }
}

impl Survey {
    fn new(context: &Context, cut_off: CutOff) -> Self {
        let journal = context.index.journal();
        let state = context.now_state();
        let before = cut_off.latest(state.directory().agreements.retention_days_min());
        let old = OldEntries::new(journal.as_ref(), before.as_micros(), journal.tail().sequence);
        Self { old, settled: Settled::new(state, cut_off) }
    }

    /// The next bodies that may go; none at the end. Blocks.
    fn batch(&mut self, index: &Index) -> Result<Vec<Bodies>, IndexError> {
        let Self { old, settled } = self;
        old.gather(index.journal().as_ref(), IndexError::from, |entry, bodies| settled.entry(index, entry, bodies))
    }
}

impl Settled {
    /// Adds what may go of one entry; how many bytes that is.
    fn entry(&mut self, index: &Index, entry: &Entry, bodies: &mut Vec<Bodies>) -> Result<u64, IndexError> {
        match read(entry)? {
            NodeEntry::Queued(queued) => {
                let Sealed { chain, number, .. } = &queued.kept.sealed;
                // What another copy of this node handed in under this number is no receipt for what stands here.
                let receipt = match index.found(chain.lane, chain.epoch, *number)? {
                    Some(_) => None,
                    None => index.receipt(chain.lane, chain.epoch, *number)?,
                };
                let agencies = queued.submissions.iter().map(|submission| submission.agency.as_str()).collect();
                self.queued(index, entry, &queued.kept, receipt, agencies, bodies)
            }
            NodeEntry::Found(kept, receipt) => {
                let agencies = vec![""; kept.sealed.headers.len()];
                self.queued(index, entry, &kept, Some(receipt), agencies, bodies)
            }
            NodeEntry::Mail { lane, items, .. } => self.mail(index, entry, (lane, false), &items, bodies),
            NodeEntry::AsideEnded(AsideEnded { lane, outcome: AsideOutcome::Accepted(item), .. }) => {
                self.mail(index, entry, (lane, true), std::slice::from_ref(item.as_ref()), bodies)
            }
            _ => Ok(0),
        }
    }

    fn queued(
        &mut self,
        index: &Index,
        entry: &Entry,
        kept: &Kept,
        receipt: Option<RecordedReceipt>,
        agencies: Vec<&str>,
        bodies: &mut Vec<Bodies>,
    ) -> Result<u64, IndexError> {
        let there = index.journal().bodies(entry.sequence)?;
        let (lane, epoch, number) = (kept.sealed.chain.lane, kept.sealed.chain.epoch, kept.sealed.number);
        let outcomes = outcomes(receipt);
        let mut size = 0;
        for ((position, serialised), agency) in (0_u32..).zip(&kept.sealed.headers).zip(agencies) {
            let Some((agreement, by)) = self.old_by(entry, serialised) else { continue };
            // Of what a restored node fetched back nobody knows who handed it in.
            let agency = (!agency.is_empty()).then(|| Name::parse(agency)).transpose();
            let agency = agency.map_err(|_| IndexError::Row("an agency"))?;
            let (id, index_here, standing) = (exchange_id(serialised), position.into(), Standing::Here);
            let place = Place { id, lane, epoch, number, index: index_here, standing, agency };
            let settled = match outcomes.get(position as usize) {
                Some(outcome) => is_over(index, &place, outcome)?,
                None => stands_elsewhere(index, &place)?,
            };
            let range = kept.blob_range(position as usize);
            let range = IndexRange { first: range.start as u32, count: range.len() as u32 };
            size += self.add(&there, entry, ((&agreement, by), lane), range, settled, bodies);
        }
        Ok(size)
    }

    fn mail(
        &mut self,
        index: &Index,
        entry: &Entry,
        (lane, is_late): (Lane, bool),
        items: &[Received],
        bodies: &mut Vec<Bodies>,
    ) -> Result<u64, IndexError> {
        let there = index.journal().bodies(entry.sequence)?;
        let (mut size, mut first) = (0, 0);
        for item in items {
            let range = IndexRange { first, count: item.blob_count };
            first += item.blob_count;
            let delivery = match &item.verdict {
                Verdict::Accepted(delivery) => delivery,
                // What was set aside is evidence, and stays until somebody has said what is to become of it.
                Verdict::SetAside(..) if index.is_open_aside(lane, item.number())? => {
                    let own = there.get(range.first as usize..(range.first + range.count) as usize).unwrap_or_default();
                    self.holds_evidence |= own.iter().any(|body| !body.is_gone);
                    continue;
                }
                Verdict::SetAside(delivery, _) => {
                    if let Some((agreement, by)) = self.old_by(entry, &delivery.header) {
                        size += self.add(&there, entry, ((&agreement, by), lane), range, true, bodies);
                    }
                    continue;
                }
                Verdict::Withheld(_) | Verdict::Repeated(_) => continue,
            };
            let Some((agreement, by)) = self.old_by(entry, &delivery.header) else { continue };
            let number = item.number();
            let settled = match header::parse(&delivery.header) {
                Ok(header) => {
                    let about = About::of(&header);
                    // What nobody took waits for whoever is granted the right to it, unless nobody has it any more.
                    let is_collected = !index.is_untaken(lane, number)? || index.damaged().is_gone(lane, number);
                    // What its origin took back nobody is given any more.
                    let id = exchange_id(&delivery.header);
                    // Cursors say nothing of what had been set aside: it is forgotten once all who may have it do.
                    let is_awaited = match is_late {
                        true => self.state.late_one(lane, number).is_some(),
                        false => self.state.is_awaited(&about, lane, number),
                    };
                    is_collected && !is_awaited || index.withdrawn(&id, &header.origin)?.is_some()
                }
                Err(_) => false,
            };
            size += self.add(&there, entry, ((&agreement, by), lane), range, settled, bodies);
        }
        Ok(size)
    }

    /// The agreement of an exchange that is old enough, and by what it is; what cannot be read has no term.
    fn old_by(&self, entry: &Entry, serialised: &bytes::Bytes) -> Option<(String, OldBy)> {
        let header = header::parse(serialised).ok();
        let term =
            header.as_ref().and_then(|header| self.state.directory().agreements.retention_days(&header.agreement));
        let by = self.cut_off.old_by(entry.recorded_at, term)?;
        Some((header.map_or_else(String::new, |header| header.agreement.id.to_string()), by))
    }

    /// Adds the bodies of one exchange, if they may go and are there; how many bytes they take.
    fn add(
        &mut self,
        there: &[Body],
        entry: &Entry,
        ((agreement, by), lane): ((&str, OldBy), Lane),
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
        self.tally.goes(agreement, lane, size, by);
        Bodies { sequence: entry.sequence, first: range.first, count: range.count }.add_to(bodies);
        size
    }
}

fn outcomes(receipt: Option<RecordedReceipt>) -> Vec<Outcome> {
    receipt.and_then(|receipt| receipt::parse(&receipt.statement).ok()).map(|one| one.outcomes).unwrap_or_default()
}

/// Whether nobody waits for an exchange any more that stands here with this outcome.
fn is_over(index: &Index, place: &Place, outcome: &Outcome) -> Result<bool, IndexError> {
    let Outcome::Recorded { audience, .. } = outcome else { return Ok(true) };
    for recipient in audience {
        if index.reached(place, recipient)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether nobody waits for what stands here without a receipt: it was packed anew, its bodies with it, or the hub has it by another
/// copy of this node. From there it may have come back without its bodies, which wait here then for what they would wait for there.
fn stands_elsewhere(index: &Index, here: &Place) -> Result<bool, IndexError> {
    let Some(now) = index.exchange(&here.id)? else { return Ok(false) };
    if now.standing == Standing::AtHub {
        let outcomes = outcomes(index.receipt_of(&now)?);
        let outcome = usize::try_from(now.index).ok().and_then(|position| outcomes.get(position));
        return outcome.map_or(Ok(false), |outcome| is_over(index, &now, outcome));
    }
    Ok(now.position() != here.position())
}

/// The old segments that go, as a trim takes them. Blocks.
///
/// Invariant: nothing goes but bodies, and none that somebody waits for, or that is evidence of what was set aside: see [`OldSegments`]
/// for what is kept. Nor goes what the views have yet to read.
fn old_segments(context: &Context, before: Timestamp) -> Result<Option<OldSegments>, IndexError> {
    let index = &context.index;
    let last = index.views().watermark().map_or(0, |at| at.sequence);
    let state = context.now_state();
    OldSegments::find(index.journal().as_ref(), before.as_micros(), last, IndexError::from, |entry, bodies| {
        if bodies.iter().all(|body| body.is_gone) {
            return Ok(true);
        }
        let mut settled = Settled::new(Arc::clone(&state), CutOff::ALL);
        settled.entry(index, entry, &mut Vec::new())?;
        Ok(!settled.tally.is_awaited() && !settled.holds_evidence)
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
    /// Refuses with `ARGUMENT_INVALID` where there is none, with `CLOCK_SUSPECT`, and with `QUEUE_FULL` while a run or another preview
    /// goes on: what goes beside it is nothing to count.
    pub(crate) async fn preview(&self, asked: AskedDays) -> Result<RetentionReport, Refusal> {
        let cut_off = self.cut_off(asked)?;
        let _alone = self.alone()?;
        let mut survey = Survey::new(&self.context, cut_off);
        while !survey.old.is_ended() {
            survey = self.step(survey).await?.0;
        }
        let mut tally = survey.settled.tally;
        if let Some(before) = cut_off.entries {
            let counted = self.blocking(move |context| {
                count(&mut tally, before, old_segments(context, before).map_err(internal)?.as_ref());
                Ok(tally)
            });
            tally = counted.await?;
        }
        Ok(tally.report(cut_off.bodies))
    }

    fn cut_off(&self, asked: AskedDays) -> Result<CutOff, Refusal> {
        let has_terms = self.context.now_state().directory().agreements.retention_days_min().is_some();
        self.retention.cut_off(asked, has_terms, self.context.clock.trusted_now())
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
    pub(crate) async fn run(&self, asked: AskedDays) -> Result<RetentionReport, Refusal> {
        self.run_if(asked, |_, _| true).await
    }

    /// The same, but old segments only if they are worth it, by what they are and the state that is to stand for them.
    async fn run_if(&self, asked: AskedDays, is_worth_it: IsWorthIt) -> Result<RetentionReport, Refusal> {
        let cut_off = self.cut_off(asked)?;
        let _alone = self.alone()?;
        let mut survey = Survey::new(&self.context, cut_off);
        while !survey.old.is_ended() {
            let (next, bodies) = self.step(survey).await?;
            survey = next;
            if !bodies.is_empty() {
                self.context.writer.redact(bodies).await?;
            }
        }
        let mut tally = survey.settled.tally;
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
        let prepared = self.blocking(move |context| {
            let old = old_segments(context, before).map_err(internal)?;
            let Some(old) = old else {
                count(&mut tally, before, None);
                return Ok((tally, None));
            };
            let journal = context.index.journal();
            let state = open::before(journal.as_ref(), old.first_kept).map_err(internal)?;
            if !is_worth_it(&old, &state) {
                count(&mut tally, before, None);
                return Ok((tally, None));
            }
            context.room.check_for(old.base_bytes(&state))?;
            count(&mut tally, before, Some(&old));
            let prepared = journal.prepare_trim(old.into_trim(state.into()));
            let full = |error: TrimError| if error.is_out_of_room() { DiskRoom::refusal() } else { internal(error) };
            Ok((tally, Some(prepared.map_err(full)?)))
        });
        let (tally, prepared) = prepared.await?;
        if let Some(prepared) = prepared {
            self.context.writer.trim(prepared).await?;
        }
        Ok(tally)
    }

    async fn step(&self, mut survey: Survey) -> Result<(Survey, Vec<Bodies>), Refusal> {
        let surveyed = self.blocking(move |context| {
            let bodies = survey.batch(&context.index).map_err(internal)?;
            Ok((survey, bodies))
        });
        surveyed.await
    }

    /// Runs a reading of journal or views where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let context = self.context.clone();
        concord_server::blocking(move || work(&context)).await.unwrap_or_else(|error| Err(internal(error)))
    }

    /// Runs once a day where a time is configured or an agreement has one, for as long as the process does; old segments go once as much of them goes as has
    /// to be written.
    pub(crate) async fn keep(self: Arc<Self>) {
        let run = || {
            let keeper = Arc::clone(&self);
            async move {
                let done = keeper.run_if(AskedDays::default(), OldSegments::is_worth_it).await;
                if let Ok(report) = &done {
                    keeper.context.audit.note(Event::local("retention", Object::retention(Some(report))));
                }
                done
            }
        };
        Retention::keep(run).await;
    }
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "the retention could not read");
    Refusal::new(Reason::Internal, "something failed inside this node")
}
