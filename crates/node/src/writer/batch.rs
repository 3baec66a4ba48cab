//! One commit in the making: each command decided on the state as the ones before it leave it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_journal::{Blob, Digest, Draft, Entry, HistoryId, Tail};
use concord_model::limits::{CONSIGNMENT_EXCHANGES_MAX, CONSIGNMENT_SIZE_MAX_BYTES};
use concord_model::{ExchangeId, Lane, MeasureCode, Name, Reason, Refusal, RequestId, SetAsideReason, Timestamp};
use concord_views::SCAN_ROWS_MAX;
use concord_wire::consignment;
use concord_wire::header;
use concord_wire::stored::node::{self as stored, Acknowledged, Submission, Verdict};
use concord_wire::tree::{SEED_SIZE_BYTES, Seed};

use super::WriterError;
use super::command::{Accepted, Answer, Command, Judged, Prepared, Reply, answer};
use super::room::{COMMAND_BYTES_PER_COMMIT_MAX, exchange_size, size_of};
use crate::index::{Index, IndexError};
use crate::state::{NodeState, Step, slot};

/// What seal, head, seed and lengths add to a consignment of headers and blobs.
const CONSIGNMENT_OVERHEAD_BYTES: usize = 8 * 1024;

pub(super) struct Batch<'a> {
    state: NodeState,
    tail: Tail,
    index: &'a Index,
    key: &'a SigningKey,
    now: Timestamp,
    drafts: Vec<Draft>,
    answers: Vec<Answer>,
    open: [OpenConsignment; Lane::ALL.len()],
    requests: BTreeMap<(Name, RequestId), (Bytes, Accepted)>,
    received: BTreeSet<ExchangeId>,
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
    pub(super) fn begin(state: NodeState, tail: Tail, index: &'a Index, key: &'a SigningKey, now: Timestamp) -> Self {
        Self {
            state,
            tail,
            index,
            key,
            now,
            drafts: Vec::new(),
            answers: Vec::new(),
            open: Default::default(),
            requests: BTreeMap::new(),
            received: BTreeSet::new(),
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
            Command::Acknowledge(agency, lane, through, reply) => {
                let outcome = self.acknowledge(&agency, lane, through)?;
                self.answer(reply, outcome);
            }
            Command::Statement(signed, statement, reply) => {
                let outcome = self.state.decide_statement(&statement);
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
        if let Some((request, first)) = self.requests.get(&key) {
            return Ok(if *request == prepared.request { Ok(first.clone()) } else { Err(conflict(&key.1)) });
        }
        if let Some(repeat) = first_answer(self.index, &prepared.agency, &prepared.request_id, &prepared.request)? {
            return Ok(repeat);
        }
        if let Err(refusal) = self.state.decide_submit(prepared.lane) {
            return Ok(Err(refusal));
        }
        let size = exchange_size(&prepared);
        let open = &self.open[slot(prepared.lane)];
        let full = open.exchanges.len() >= CONSIGNMENT_EXCHANGES_MAX
            || open.size_bytes + size > CONSIGNMENT_SIZE_MAX_BYTES - CONSIGNMENT_OVERHEAD_BYTES;
        if full {
            self.close(prepared.lane)?;
        }
        self.requests.insert(key, (prepared.request.clone(), prepared.answer.clone()));
        let answer = prepared.answer.clone();
        let open = &mut self.open[slot(prepared.lane)];
        open.size_bytes += size;
        open.exchanges.push(prepared);
        Ok(Ok(answer))
    }

    fn close(&mut self, lane: Lane) -> Result<(), WriterError> {
        let open = std::mem::take(&mut self.open[slot(lane)]);
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
        let headers = open.exchanges.iter().map(|exchange| exchange.header.clone()).collect();
        let sealed = consignment::seal(
            chain,
            end.next_number(),
            end.last_digest,
            seed,
            headers,
            self.key.public().fingerprint,
            |message| self.key.sign(message),
        );
        let submissions = open.exchanges.iter().map(|exchange| Submission {
            agency: exchange.agency.to_string(),
            request_id: exchange.request_id.to_string(),
            content_digest: Bytes::copy_from_slice(sealed.seed.request_digest(&exchange.request).as_bytes()),
        });
        concord_faults::point("node.form.signed");
        let submissions = submissions.collect();
        let blobs = open.exchanges.into_iter().map(|exchange| exchange.blobs).collect();
        self.push(stored::queued(&sealed, blobs, submissions, self.now))
    }

    fn mail(&mut self, lane: Lane, history: HistoryId, items: Vec<Judged>) -> Result<Result<(), Refusal>, WriterError> {
        let mut kept: Vec<(Verdict, Vec<Blob>)> = Vec::with_capacity(items.len());
        let mut next = self.state.mailbox(lane).received_through;
        for item in items {
            let number = match &item.verdict {
                Verdict::Accepted(delivery) | Verdict::SetAside(delivery, _) => delivery.number,
                Verdict::Withheld(number) => *number,
            };
            if number <= next {
                continue;
            }
            if number != next + 1 {
                return Ok(self.state.decide_mail(lane, number).map(|_| ()));
            }
            next = number;
            let verdict = match item.verdict {
                Verdict::Accepted(delivery) => match item.id {
                    Some(id) if self.received.insert(id) && !self.index.is_received(&id)? => {
                        Verdict::Accepted(delivery)
                    }
                    _ => Verdict::SetAside(delivery, SetAsideReason::Duplicate.to_string()),
                },
                other => other,
            };
            kept.push((verdict, item.blobs));
        }
        if !kept.is_empty() {
            self.push(stored::mail(lane, history.as_bytes(), kept, self.now))?;
        }
        Ok(Ok(()))
    }

    /// Answers how far the cursor stands then: up to `through`, or as far as one entry goes.
    fn acknowledge(&mut self, agency: &Name, lane: Lane, through: u64) -> Result<Result<u64, Refusal>, WriterError> {
        let target = match self.state.decide_acknowledge(agency, lane, through) {
            Ok(Some(target)) => target,
            Ok(None) => return Ok(Ok(through)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(known) = self.state.agencies().get(agency) else {
            return Ok(Ok(through));
        };
        // Two acknowledgements in one batch: the later one asks the views before the earlier one's rows are there.
        let taken_before: BTreeSet<u64> = self.taken_in_batch(lane);
        let rows = self.index.untaken(lane, known.through(lane) + 1, target)?;
        let reached = match rows.last() {
            Some((last, _)) if rows.len() >= SCAN_ROWS_MAX => *last,
            _ => target,
        };
        let entitled = rows.into_iter().filter(|(number, measure)| {
            let code = MeasureCode::parse(measure);
            code.is_ok_and(|code| known.may_have(&code)) && !taken_before.contains(number)
        });
        let taken = entitled.map(|(number, _)| number).collect();
        let fact = Acknowledged { agency: agency.clone(), lane, through: reached, taken };
        self.push(stored::agency_acknowledged(&fact, self.now))?;
        Ok(Ok(reached))
    }

    fn taken_in_batch(&self, lane: Lane) -> BTreeSet<u64> {
        let mut taken = BTreeSet::new();
        for (sequence, draft) in (self.tail.sequence + 1..).zip(&self.drafts) {
            let entry = stored::read(&preview(draft, &self.tail, sequence));
            if let Ok(stored::NodeEntry::AgencyAcknowledged(fact)) = entry
                && fact.lane == lane
            {
                taken.extend(fact.taken);
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
    fn push(&mut self, draft: Draft) -> Result<(), WriterError> {
        let sequence = self.tail.sequence + 1 + self.drafts.len() as u64;
        let entry = stored::read(&preview(&draft, &self.tail, sequence)).map_err(crate::state::FoldError::from)?;
        self.state.apply(&entry, sequence, self.now)?;
        self.drafts.push(draft);
        Ok(())
    }

    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, outcome: Result<T, Refusal>) {
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
    let (kept, submissions, _) = index.queued(sequence)?;
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    let absent = IndexError::Row("a request");
    let (Some(submission), Some(serialised)) = (submissions.get(position), kept.sealed.headers.get(position)) else {
        return Err(absent);
    };
    if kept.sealed.seed.request_digest(request).as_bytes()[..] != submission.content_digest[..] {
        return Ok(Some(Err(conflict(id))));
    }
    let header = header::parse(serialised).map_err(|_| absent)?;
    Ok(Some(Ok(Accepted { id: exchange, agreement: header.agreement.id, measure: header.measure })))
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
