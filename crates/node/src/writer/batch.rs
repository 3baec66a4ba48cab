//! One commit in the making: each command decided on the state as the ones before it leave it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_journal::{Blob, Digest, Draft, Entry, HistoryId, Tail};
use concord_model::limits::{CONSIGNMENT_EXCHANGES_MAX, CONSIGNMENT_SIZE_MAX_BYTES};
use concord_model::{ExchangeId, Lane, MeasureCode, Name, Reason, Refusal, RequestId, Timestamp};
use concord_views::SCAN_ROWS_MAX;
use concord_wire::consignment::{self, Sealed};
use concord_wire::header;
use concord_wire::proto::exchange::v1::MailboxResume;
use concord_wire::stored::node::{self as stored, MailboxResumed, Queued, Repeated, Submission, Verdict};
use concord_wire::tree::{SEED_SIZE_BYTES, Seed};

use super::WriterError;
use super::command::{Accepted, Answer, Command, Fetched, Judged, Prepared, Refused, Reply, answer};
use super::room::{COMMAND_BYTES_PER_COMMIT_MAX, exchange_size, size_of};
use crate::index::{Index, IndexError};
use crate::services::track::not_submitted;
use crate::signing::NodeKeys;
use crate::state::{FetchedStep, NodeState, Restoration, Step};

/// First acknowledgements that are told again when a mailbox is resumed. More are not: their senders see them as delivered.
pub(super) const TAKEN_AGAIN_MAX: usize = 500_000;
/// What seal, head, seed and lengths add to a consignment of headers and blobs.
const CONSIGNMENT_OVERHEAD_BYTES: usize = 8 * 1024;

pub(super) struct Batch<'a> {
    pub(super) state: NodeState,
    tail: Tail,
    pub(super) index: &'a Index,
    pub(super) keys: &'a NodeKeys,
    pub(super) now: Timestamp,
    drafts: Vec<Draft>,
    answers: Vec<Answer>,
    open: [OpenConsignment; Lane::ALL.len()],
    requests: BTreeMap<(Name, RequestId), (Bytes, Accepted)>,
    /// Accepted in this batch, each with its number.
    received: BTreeMap<ExchangeId, u64>,
    /// Given again in this batch: lane and first number, with the new one.
    repeated: BTreeMap<(usize, u64), u64>,
}

/// Exchanges of one lane that the next consignment closes.
#[derive(Default)]
struct OpenConsignment {
    exchanges: Vec<Prepared>,
    size_bytes: usize,
}

pub(super) struct Finished {
    pub(super) drafts: Vec<Draft>,
    pub(super) state: NodeState,
    /// To be called once the drafts are durable, or with the refusal of all of them.
    pub(super) answers: Vec<Answer>,
}

impl<'a> Batch<'a> {
    pub(super) fn begin(state: NodeState, tail: Tail, index: &'a Index, keys: &'a NodeKeys, now: Timestamp) -> Self {
        Self {
            state,
            tail,
            index,
            keys,
            now,
            drafts: Vec::new(),
            answers: Vec::new(),
            open: Default::default(),
            requests: BTreeMap::new(),
            received: BTreeMap::new(),
            repeated: BTreeMap::new(),
        }
    }

    /// Decides one command. All of it is answered after the commit: also a refusal may rest on what is not durable yet.
    pub(super) fn take(&mut self, command: Command) -> Result<(), WriterError> {
        if size_of(&command) > COMMAND_BYTES_PER_COMMIT_MAX {
            self.answers.push(command.too_large());
            return Ok(());
        }
        match command {
            Command::Submit(prepared, reply) => {
                let outcome = self.submit(*prepared)?;
                self.answer(reply, outcome);
            }
            Command::Refused(refused, reply) => {
                let Refused { agency, request_id, request, why, .. } = *refused;
                let before = self.answered_before(&(agency, request_id), &request)?;
                self.answer(reply, before.unwrap_or(Err(why)));
            }
            Command::Receipts(receipts, reply) => {
                let mut outcome = Ok(());
                for (receipt, recorded) in receipts {
                    match self.state.decide_receipt(&recorded) {
                        Ok(Step::Append) => self.push(stored::receipt(receipt, self.now))?,
                        Ok(Step::Repeat) => {}
                        Err(refusal) => {
                            outcome = Err(refusal);
                            break;
                        }
                    }
                }
                self.answer(reply, outcome);
            }
            Command::Effect(_, reply) => {
                let what = "what the journal does to itself is no part of a batch";
                self.answer(reply, Err(Refusal::new(Reason::Internal, what)));
            }
            Command::Ask(reply) => self.answer(reply, Ok(())),
            Command::Renew(receipts, reply) => {
                for (receipt, _) in receipts {
                    self.push(stored::receipt_renewed(receipt, self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::ResumeFeed(resumed, reply) => {
                let outcome = match self.state.decide_feed_resume(resumed.at) {
                    Ok(()) => self.push(stored::feed_resumed(&resumed, self.now)).map(Ok)?,
                    Err(refusal) => Err(refusal),
                };
                self.answer(reply, outcome);
            }
            Command::ResumeMailbox(lane, history, resume, taken_count, reply) => {
                let outcome = self.resume_mailbox(lane, history, &resume, taken_count)?;
                self.answer(reply, outcome);
            }
            Command::Feed(history, items, _, reply) => {
                let outcome = match self.state.decide_feed(items) {
                    Ok(items) if items.is_empty() => Ok(()),
                    Ok(items) => self.push(stored::feed(history.as_bytes(), items, self.now)).map(Ok)?,
                    Err(refusal) => Err(refusal),
                };
                self.answer(reply, outcome);
            }
            Command::Mail(lane, history, items, reply) => {
                let outcome = self.mail(lane, history, items)?;
                self.answer(reply, outcome);
            }
            Command::Acknowledge(agency, lane, through, rights_at, reply) => {
                let outcome = self.acknowledge(&agency, lane, through, rights_at)?;
                self.answer(reply, outcome);
            }
            Command::Collect(agency, lane, number, reply) => {
                let outcome = self.collect(agency, lane, number)?;
                self.answer(reply, outcome);
            }
            Command::RetryAside(lane, number, reply) => {
                let outcome = self.retry_aside(lane, number)?;
                self.answer(reply, outcome);
            }
            Command::DiscardAside(lane, number, why, reply) => {
                let outcome = self.discard_aside(lane, number, &why)?;
                self.answer(reply, outcome);
            }
            Command::Statement(signed, statement, reply) => {
                let outcome = self.state.decide_statement(&statement, self.now);
                if outcome == Ok(Step::Append) {
                    self.push(stored::statement(signed, self.now))?;
                }
                self.answer(reply, outcome);
            }
            Command::Answer(answer, reply) => {
                let officer = Name::parse(&answer.officer);
                if officer.is_ok_and(|officer| self.state.decide_answer(&officer, answer.number) == Step::Append) {
                    self.push(stored::answer(&answer, self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::Fetched(fetched, reply) => {
                let outcome = self.fetched(*fetched)?;
                self.answer(reply, outcome);
            }
            Command::Taken(lane, before, numbers, reply) => {
                let known = self.state.mailbox(lane).taken_count;
                // A repeat of what a crash let stand is passed over.
                let new = usize::try_from(known.saturating_sub(before)).unwrap_or(usize::MAX);
                let outcome = if before > known {
                    let gap = format!("taken deliveries of lane {lane} come after {before}, {known} are known");
                    Err(Refusal::new(Reason::NumberOutOfOrder, gap))
                } else if let Some(new) = numbers.get(new..).filter(|new| !new.is_empty()) {
                    self.push(stored::taken_recovered(lane, new.to_vec(), self.now)).map(Ok)?
                } else {
                    Ok(())
                };
                self.answer(reply, outcome);
            }
            Command::Begin(run, reply) => {
                if self.state.line().run() != Some(run) {
                    self.push(stored::run_begun(run, self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::Fence(why, reply) => {
                if self.state.decide_fence() == Step::Append {
                    self.push(stored::fenced(&why, self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::LiftFence(reply) => {
                if self.state.decide_fence_lift() == Step::Append {
                    self.push(stored::fence_lifted(self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::PackAnew(lane, hub_last, reply) => {
                let outcome = self.pack_anew(lane, hub_last)?;
                self.answer(reply, outcome);
            }
            Command::Recovered(fact, reply) => {
                let is_open = |restoration: Restoration| !restoration.recovered[fact.lane.slot()];
                if self.state.restoration().is_some_and(is_open) {
                    self.push(stored::lane_recovered(&fact, self.now))?;
                }
                self.answer(reply, Ok(()));
            }
            Command::ChangeRights(name, change, reply) => {
                let outcome = match self.state.decide_rights(&name, &change) {
                    Ok(Step::Append) => self.push(stored::rights_changed(&name, &change, self.now)).map(Ok)?,
                    Ok(Step::Repeat) => Ok(()),
                    Err(refusal) => Err(refusal),
                };
                self.answer(reply, outcome);
            }
            Command::ConfirmPin(whose, said, reply) => {
                let outcome = match self.state.decide_pin(&whose, &said) {
                    Ok((Step::Append, key)) => self.push(stored::pin_confirmed(&whose, &key, self.now)).map(Ok)?,
                    Ok((Step::Repeat, _)) => Ok(()),
                    Err(refusal) => Err(refusal),
                };
                self.answer(reply, outcome);
            }
            Command::AddAgency(name, measures, reply) => {
                let outcome = self.add_agency(&name, &measures)?;
                self.answer(reply, outcome);
            }
        }
        Ok(())
    }

    /// Closes what is open. Each commit closes what it queues: a consignment never waits to be filled.
    pub(super) fn finish(mut self) -> Result<Finished, WriterError> {
        for lane in Lane::ALL {
            self.close(lane)?;
        }
        Ok(Finished { drafts: self.drafts, state: self.state, answers: self.answers })
    }

    fn submit(&mut self, prepared: Prepared) -> Result<Result<Accepted, Refusal>, WriterError> {
        let key = (prepared.agency.clone(), prepared.request_id.clone());
        if let Some(first) = self.answered_before(&key, &prepared.request)? {
            return Ok(first);
        }
        // What the agency may send is judged by what holds when it is queued, not when it was looked at.
        let Accepted { measure, agreement, .. } = &prepared.answer;
        // Whatever an agency sent it may take back, once; of what nobody is known to have sent only what it may send.
        if let Some((measure, agreement)) = &prepared.by_right
            && self.state.decide_send(&prepared.agency, measure, agreement).is_err()
        {
            return Ok(Err(not_submitted()));
        }
        let is_withdrawal = prepared.withdraws.is_some() && prepared.second.is_none();
        if let Some(by) = self.withdrawn_before(&prepared)? {
            return Ok(match is_withdrawal {
                true => Ok(Accepted { id: by, ..prepared.answer }),
                false => {
                    let what = "what it is to take the place of was withdrawn meanwhile";
                    Err(Refusal::new(Reason::ExchangeWithdrawn, what))
                }
            });
        }
        let may = match is_withdrawal {
            true => Ok(()),
            false => self.state.decide_send(&prepared.agency, measure, agreement),
        };
        if let Err(refusal) = may.and_then(|()| self.state.decide_submit(prepared.lane)) {
            return Ok(Err(refusal));
        }
        let size = exchange_size(&prepared);
        let open = &self.open[prepared.lane.slot()];
        // What is taken back stands in an earlier consignment, so that the hub knows it by then.
        let is_beside = prepared.withdraws.is_some_and(|id| open.exchanges.iter().any(|one| one.answer.id == id));
        let count = open.exchanges.iter().map(Prepared::count).sum::<usize>() + prepared.count();
        let full = is_beside
            || count > CONSIGNMENT_EXCHANGES_MAX
            || open.size_bytes + size > CONSIGNMENT_SIZE_MAX_BYTES - CONSIGNMENT_OVERHEAD_BYTES;
        if full {
            self.close(prepared.lane)?;
        }
        self.requests.insert(key, (prepared.request.clone(), prepared.answer.clone()));
        let answer = prepared.answer.clone();
        let open = &mut self.open[prepared.lane.slot()];
        open.size_bytes += size;
        open.exchanges.push(prepared);
        Ok(Ok(answer))
    }

    /// By what that was withdrawn in this batch or before which something is to withdraw: two may have been prepared beside each other.
    fn withdrawn_before(&self, prepared: &Prepared) -> Result<Option<ExchangeId>, WriterError> {
        let (Some(id), Some((own, _))) = (prepared.withdraws, self.state.identity()) else { return Ok(None) };
        let mut open = self.open.iter().flat_map(|open| &open.exchanges);
        if let Some(other) = open.find(|other| other.withdraws == Some(id)) {
            return Ok(other.headers().last().map(|header| header::exchange_id(&header)));
        }
        Ok(crate::withdraw::withdrawn(self.index, &id, own)?.map(|row| row.by))
    }

    /// The answer that a request got in this batch or before.
    fn answered_before(
        &self,
        key: &(Name, RequestId),
        request: &Bytes,
    ) -> Result<Option<Result<Accepted, Refusal>>, WriterError> {
        if let Some((known, first)) = self.requests.get(key) {
            return Ok(Some(if known == request { Ok(first.clone()) } else { Err(conflict(&key.1)) }));
        }
        let first = first_answer(self.index, &key.0, &key.1, request)?;
        Ok(first.filter(|_| !concord_faults::planted("forget-request-ids")))
    }

    fn close(&mut self, lane: Lane) -> Result<(), WriterError> {
        let open = std::mem::take(&mut self.open[lane.slot()]);
        if open.exchanges.is_empty() {
            return Ok(());
        }
        // Every exchange passed `decide_submit`, which asks for the chain: the hub was joined.
        let Ok(chain) = self.state.chain_key(lane) else {
            return Ok(());
        };
        concord_faults::point("node.form.begin");
        let seed = Seed::new(concord_server::fresh::<SEED_SIZE_BYTES>()?);
        let end = *self.state.chain(lane);
        let headers = open.exchanges.iter().flat_map(Prepared::headers).collect();
        let key = self.keys.of(&self.state);
        let sealed = consignment::seal(
            chain,
            end.next_number(),
            end.last_digest,
            seed,
            headers,
            key.public().fingerprint,
            |message| key.sign(message),
        );
        let submissions = open.exchanges.iter().flat_map(|exchange| {
            let agency = exchange.agency.to_string();
            let second = exchange.second.iter().map(|_| Submission {
                agency: exchange.agency.to_string(),
                request_id: String::new(),
                content_digest: Bytes::new(),
            });
            let first = Submission {
                agency,
                request_id: exchange.request_id.to_string(),
                content_digest: Bytes::copy_from_slice(sealed.seed.request_digest(&exchange.request).as_bytes()),
            };
            std::iter::once(first).chain(second)
        });
        concord_faults::point("node.form.signed");
        let submissions = submissions.collect();
        let blobs = open.exchanges.into_iter().flat_map(|exchange| {
            let second = exchange.second.map(|second| second.blobs);
            std::iter::once(exchange.blobs).chain(second)
        });
        let blobs = blobs.collect();
        self.push(stored::queued(&sealed, blobs, submissions, self.now))
    }

    /// A consignment and its receipt go into one commit, so that it is never taken for one that waits for the hub.
    fn fetched(&mut self, fetched: Fetched) -> Result<Result<(), Refusal>, WriterError> {
        let Fetched { sealed, blobs, receipt, recorded } = fetched;
        let step = match self.state.decide_fetched(&sealed) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(FetchedStep::Compare) if !self.is_queued(&sealed)? => FetchedStep::Found,
            Ok(step) => step,
        };
        match step {
            FetchedStep::Repeat => return Ok(Ok(())),
            FetchedStep::Found => {
                return self.push(stored::found(&sealed, blobs, receipt, self.now)).map(Ok);
            }
            FetchedStep::Compare => {}
            FetchedStep::Append => {
                let unknown =
                    || Submission { agency: String::new(), request_id: String::new(), content_digest: Bytes::new() };
                let submissions = sealed.headers.iter().map(|_| unknown()).collect();
                self.push(stored::queued(&sealed, blobs, submissions, self.now))?;
            }
        }
        Ok(match self.state.decide_receipt(&recorded) {
            Ok(Step::Append) => Ok(self.push(stored::receipt(receipt, self.now))?),
            Ok(Step::Repeat) => Ok(()),
            Err(refusal) => Err(refusal),
        })
    }

    /// Whether exactly this consignment stands here under its number.
    fn is_queued(&self, sealed: &Sealed) -> Result<bool, WriterError> {
        let absent = IndexError::Row("a consignment");
        let sequence = self.index.consignment(sealed.chain.lane, sealed.chain.epoch, sealed.number)?.ok_or(absent)?;
        Ok(self.index.queued(sequence)?.kept.sealed.digest == sealed.digest)
    }

    fn mail(&mut self, lane: Lane, history: HistoryId, items: Vec<Judged>) -> Result<Result<(), Refusal>, WriterError> {
        let mut kept: Vec<(Verdict, Vec<Blob>)> = Vec::with_capacity(items.len());
        let mut next = self.state.mailbox(lane).received_through;
        for item in items {
            let number = match &item.verdict {
                Verdict::Accepted(delivery) | Verdict::SetAside(delivery, _) => delivery.number,
                Verdict::Withheld(number) => *number,
                Verdict::Repeated(repeated) => repeated.number,
            };
            if number <= next {
                continue;
            }
            if number != next + 1 {
                return Ok(self.state.decide_mail(lane, number).map(|_| ()));
            }
            next = number;
            if let Some(id) = item.id
                && let Some(repeated) = self.repeats(lane, id, number)?
            {
                kept.push((Verdict::Repeated(repeated), Vec::new()));
                continue;
            }
            if let (Verdict::Accepted(_), Some(id)) = (&item.verdict, item.id) {
                self.received.insert(id, number);
            }
            kept.push((item.verdict, item.blobs));
        }
        if !kept.is_empty() {
            self.push(stored::mail(lane, history.as_bytes(), kept, self.now))?;
        }
        Ok(Ok(()))
    }

    /// Whether an exchange was accepted before, so that this number of it has no effect of its own.
    fn repeats(&mut self, lane: Lane, id: ExchangeId, number: u64) -> Result<Option<Repeated>, WriterError> {
        if concord_faults::planted("take-a-repeat-for-new") {
            return Ok(None);
        }
        let (first_number, taken) = match self.received.get(&id) {
            Some(first) => (*first, false),
            None => match self.index.received_as(&id)? {
                Some(first) => {
                    let is_withdrawn = self.index.inbox_place(&id)?.is_some_and(|row| row.about.is_withdrawn);
                    let is_taken = !is_withdrawn && !self.index.is_untaken(lane, first)?
                        || self.taken_in_batch(lane).contains(&first);
                    (first, is_taken)
                }
                None => return Ok(None),
            },
        };
        self.repeated.insert((lane.slot(), first_number), number);
        metrics::counter!("concord_deliveries_repeated_total", "lane" => lane.as_str()).increment(1);
        Ok(Some(Repeated { number, id, first_number, taken }))
    }

    /// The number under which the hub knows an accepted delivery now; none while it knows it under none.
    pub(super) fn known_to_hub_as(&self, lane: Lane, number: u64) -> Result<Option<u64>, WriterError> {
        match self.repeated.get(&(lane.slot(), number)) {
            Some(again) => Ok(Some(*again).filter(|again| self.state.mailbox(lane).is_known_to_hub(*again))),
            None => Ok(self.index.known_to_hub_as(&self.state, lane, number)?),
        }
    }

    /// First acknowledgements that the hub forgot and whose numbers it has still are told again. The others come again with their
    /// deliveries.
    fn resume_mailbox(
        &mut self,
        lane: Lane,
        history: HistoryId,
        resume: &MailboxResume,
        taken_count: u64,
    ) -> Result<Result<(), Refusal>, WriterError> {
        let (at, common) = (resume.at, resume.common);
        if let Err(refusal) = self.state.decide_mailbox_resume(lane, at, common, taken_count) {
            return Ok(Err(refusal));
        }
        let mut taken = Vec::new();
        let mut told = taken_count;
        loop {
            let rows = self.index.told_after(lane, told, SCAN_ROWS_MAX)?;
            if rows.is_empty() || taken.len() >= TAKEN_AGAIN_MAX {
                break;
            }
            told += rows.len() as u64;
            let mailbox = self.state.mailbox(lane);
            // How it ended with what had been set aside is not told again: its sender's node has that by its own feed, or sees it taken.
            let taken_again = rows.into_iter().filter(|(_, ended)| ended.is_none()).map(|(number, _)| number);
            taken
                .extend(taken_again.filter(|number| (1..=common).contains(number) && mailbox.is_known_to_hub(*number)));
        }
        taken.truncate(TAKEN_AGAIN_MAX);
        let fact = MailboxResumed { lane, history: *history.as_bytes(), at, common, taken_count, taken };
        self.push(stored::mailbox_resumed(&fact, self.now)).map(Ok)
    }

    pub(super) fn taken_in_batch(&self, lane: Lane) -> BTreeSet<u64> {
        let mut taken = BTreeSet::new();
        for (sequence, draft) in (self.tail.sequence + 1..).zip(&self.drafts) {
            match stored::read(&preview(draft, &self.tail, sequence)) {
                Ok(stored::NodeEntry::AgencyAcknowledged(fact)) if fact.lane == lane => taken.extend(fact.taken),
                Ok(stored::NodeEntry::AgencyCollected(fact)) if fact.lane == lane => taken.extend([fact.number]),
                _ => {}
            }
        }
        taken
    }

    fn add_agency(&mut self, name: &Name, measures: &[MeasureCode]) -> Result<Result<(), Refusal>, WriterError> {
        match self.state.decide_agency(name, measures) {
            Ok(Step::Append) => self.push(stored::agency_added(name, measures, self.now)).map(Ok),
            Ok(Step::Repeat) => Ok(Ok(())),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Adds an entry and applies it as a replay would: from its bytes.
    pub(super) fn push(&mut self, draft: Draft) -> Result<(), WriterError> {
        let sequence = self.tail.sequence + 1 + self.drafts.len() as u64;
        let entry = stored::read(&preview(&draft, &self.tail, sequence)).map_err(crate::state::FoldError::from)?;
        self.state.apply(&entry, sequence, self.now)?;
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, outcome: Result<T, Refusal>) {
        self.answers.push(answer(reply, outcome));
    }
}

/// The answer that a request id was given before: the same again, or a conflict; none for a new one.
pub(crate) fn first_answer(
    index: &Index,
    agency: &Name,
    id: &RequestId,
    request: &[u8],
) -> Result<Option<Result<Accepted, Refusal>>, IndexError> {
    let Some((exchange, sequence, position)) = index.request(agency, id)? else {
        return Ok(None);
    };
    let Queued { kept, submissions, .. } = *index.queued(sequence)?;
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    let absent = IndexError::Row("a request");
    let (Some(submission), Some(serialised)) = (submissions.get(position), kept.sealed.headers.get(position)) else {
        return Err(absent);
    };
    if kept.sealed.seed.request_digest(request).as_bytes()[..] != submission.content_digest[..] {
        return Ok(Some(Err(conflict(id))));
    }
    let header = header::parse(serialised).map_err(|_| absent)?;
    Ok(Some(Ok(Accepted {
        id: exchange,
        agreement: header.agreement.id,
        measure: header.measure,
        exercise: header.exercise,
    })))
}

fn conflict(id: &RequestId) -> Refusal {
    Refusal::new(Reason::RequestIdConflict, format!("the request id {id} was used before with other content"))
}

/// The entry that a draft becomes, as far as reading it goes.
fn preview(draft: &Draft, tail: &Tail, sequence: u64) -> Entry {
    Entry {
        history: tail.history,
        sequence,
        recorded_at: draft.recorded_at,
        previous: Digest::ZERO,
        kind: draft.kind,
        version: draft.version,
        commit_first: tail.sequence + 1,
        payload: draft.payload.clone(),
        commitments: draft.blobs.iter().map(concord_journal::Blob::commitment).collect(),
        blobs: Vec::new(),
        digest: Digest::ZERO,
    }
}
