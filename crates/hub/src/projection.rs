//! The hub's views: which numbers of a mailbox stand for which exchanges, and which entry each feed number tells.
//!
//! A pure function of one entry at a time: numbers stand in the facts. No titles, no bodies, and no index by exchange id.

use concord_journal::Entry;
use concord_ledger::feed::FOUNDING_FEED_NUMBER;
use concord_ledger::{ConsignmentRecorded, Fact, IndexRange, NoticeOutcome, Resume};
use concord_model::{ChainKey, Lane, Name, ParticipantCode};
use concord_views::{Batch, Key, KeyReader, Projection, ProjectionError, SCAN_ROWS_MAX, Table, Views, ViewsError};
use concord_wire::stored::StoredError;
use concord_wire::stored::hub::read;

/// (recipient, lane, first number) → the run of numbers that one entry gave.
const MAILBOXES: Table = Table::new(1).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// (participant, feed number) → the entry that is told; of one that is told again, behind which number.
const FEEDS: Table = Table::new(2).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// (origin, node, epoch, lane, number) → the entry of a consignment.
const CONSIGNMENTS: Table = Table::new(3).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// (recipient, lane, count) → the entry that told of first acknowledgements up to the one with this count.
const TAKEN: Table = Table::new(4).grouped_by_last_bits(GROUP_NUMBER_BITS);
const _: () = assert!(Table::all_differ(&[MAILBOXES, FEEDS, CONSIGNMENTS, TAKEN]));
/// Rows of 2^10 neighbouring numbers are checked together.
const GROUP_NUMBER_BITS: u16 = 10;
/// Raised when a row changes its shape: views are rebuilt then.
const VERSION: u32 = 4;

/// Projects the hub's journal.
pub struct HubProjection;

impl Projection for HubProjection {
    fn version(&self) -> u32 {
        VERSION
    }

    fn project(&mut self, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
        let fact = read(entry).map_err(unreadable)?.into_fact();
        Ok(project_fact(entry.sequence, &fact, batch)?)
    }
}

/// Writes the rows of one fact.
pub fn project_fact(sequence: u64, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), ViewsError> {
    let mut tell = |participant: &ParticipantCode, number: u64, sequence: u64| {
        let row = FeedRow { sequence, again_behind: None };
        batch.put(FEEDS, feed_key(participant, number).as_ref(), row.encode().as_ref())
    };
    match fact {
        Fact::HistoryBegun(_) | Fact::JournalEffect | Fact::NodeSeen(_) | Fact::NotHealed(_) => {}
        Fact::Founded(founding) => {
            for participant in &founding.participants {
                tell(&participant.code, FOUNDING_FEED_NUMBER, sequence)?;
            }
        }
        Fact::Statement(fact) => {
            for (participant, number, earlier) in fact.tells() {
                let row = FeedRow { sequence: earlier.unwrap_or(sequence), again_behind: None };
                batch.put(FEEDS, feed_key(participant, number).as_ref(), row.encode().as_ref())?;
            }
        }
        Fact::Lapsed(fact) => {
            for told in &fact.told {
                tell(&told.participant, told.number, sequence)?;
            }
        }
        Fact::Acknowledged(fact) => {
            for notices in &fact.told {
                tell(&notices.told.participant, notices.told.number, sequence)?;
            }
            let mut notices = fact.told.iter().flat_map(|told| &told.notices);
            if notices.any(|notice| notice.outcome == NoticeOutcome::Taken) {
                let key = mailbox_prefix(&fact.recipient, fact.lane).number(fact.taken_count);
                batch.put(TAKEN, key.as_ref(), Key::new().number(sequence).as_ref())?;
            }
        }
        Fact::Consignment(fact) => {
            let key = consignment_key(&fact.chain, fact.number);
            batch.put(CONSIGNMENTS, key.as_ref(), Key::new().number(sequence).as_ref())?;
            record_mail(sequence, fact, batch)?;
        }
        Fact::FeedResumed(fact) => tell_again(&fact.participant, &fact.resume, batch)?,
        Fact::MailboxResumed(fact) => post_again(&fact.recipient, fact.lane, &fact.resume, batch)?,
    }
    Ok(())
}

/// Gives what stands in `common+1..=last` of a feed again behind `at`, each thing once, as `Resumes::again` counts it.
///
/// From row to row, never from number to number: a hole is as wide as a peer said that it is.
fn tell_again(participant: &ParticipantCode, resume: &Resume, batch: &mut Batch<'_>) -> Result<(), ViewsError> {
    let prefix = Key::new().text(participant.as_str());
    let mut rows = Vec::new();
    let mut through = resume.last;
    while let Some((key, value)) =
        batch.last_at_or_before(FEEDS, prefix.as_ref(), feed_key(participant, through).as_ref())?
    {
        let Some((number, row)) = last_number(&key).zip(FeedRow::decode(&value)) else { break };
        if number <= resume.common {
            break;
        }
        if row.again_behind.is_none_or(|at| resume.common >= at) {
            rows.push(row.sequence);
        }
        through = number - 1;
    }
    for (number, sequence) in (resume.at.saturating_add(1)..).zip(rows.into_iter().rev()) {
        let row = FeedRow { sequence, again_behind: Some(resume.at) };
        batch.put(FEEDS, feed_key(participant, number).as_ref(), row.encode().as_ref())?;
    }
    Ok(())
}

/// Gives what stands in `common+1..=last` of a mailbox again behind `at`, run by run; all of them mean something, since everything up
/// to an earlier hole is delivered.
fn post_again(
    recipient: &ParticipantCode,
    lane: Lane,
    resume: &Resume,
    batch: &mut Batch<'_>,
) -> Result<(), ViewsError> {
    let prefix = mailbox_prefix(recipient, lane);
    let first = resume.common.saturating_add(1);
    let mut rows = Vec::new();
    let mut through = resume.last;
    while through >= first {
        let key = prefix.clone().number(through);
        let row = batch.last_at_or_before(MAILBOXES, prefix.as_ref(), key.as_ref())?;
        let Some(row) = row.and_then(|(key, value)| RunRow::decode(&key, &value)) else { break };
        if row.end() <= first {
            break;
        }
        through = row.first.saturating_sub(1);
        rows.push(row);
    }
    let mut next = resume.at.saturating_add(1);
    for row in rows.into_iter().rev() {
        let from = row.first.max(first);
        let again = row.from(from, next);
        next = again.end();
        batch.put(MAILBOXES, prefix.clone().number(again.first).as_ref(), again.encode().as_ref())?;
    }
    Ok(())
}

/// A run of mailbox numbers that one entry gave to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The first number.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// The entry.
    pub sequence: u64,
    /// The recipient's feed number at recording.
    pub feed_number: u64,
    /// The chain of the consignment.
    pub chain: ChainKey,
    /// The consignment.
    pub consignment: u64,
    /// Its exchanges, one for each number, in order.
    pub items: Vec<IndexRange>,
}

impl Run {
    /// The index within the consignment that a number stands for.
    pub fn index(&self, number: u64) -> Option<u32> {
        let place = number.checked_sub(self.first).filter(|place| *place < u64::from(self.count))?;
        self.items.iter().flat_map(|range| range.indices()).nth(usize::try_from(place).ok()?)
    }

    /// The number after its last.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// The run that holds a number of a mailbox, if the views know it yet.
pub fn run_with(
    views: &Views,
    hub: &Name,
    recipient: &ParticipantCode,
    lane: Lane,
    number: u64,
) -> Result<Option<Run>, ViewsError> {
    let prefix = mailbox_prefix(recipient, lane);
    let key = prefix.clone().number(number);
    let row = views.last_at_or_before(MAILBOXES, prefix.as_ref(), key.as_ref())?;
    Ok(row.and_then(|(key, value)| read_run(hub, lane, &key, &value)).filter(|run| number < run.end()))
}

/// The entry that a feed number tells, if the views know it yet.
pub fn feed_entry(views: &Views, participant: &ParticipantCode, number: u64) -> Result<Option<u64>, ViewsError> {
    let row = views.get(FEEDS, feed_key(participant, number).as_ref())?;
    Ok(row.and_then(|value| FeedRow::decode(&value)).map(|row| row.sequence))
}

/// The entry of a consignment, if the views know it yet.
pub fn consignment_entry(views: &Views, chain: &ChainKey, number: u64) -> Result<Option<u64>, ViewsError> {
    let row = views.get(CONSIGNMENTS, consignment_key(chain, number).as_ref())?;
    Ok(row.and_then(|value| KeyReader::new(&value).number()))
}

/// The entries that told of first acknowledgements of a mailbox from the `from`-th on, each with the count up to which it goes.
pub fn taken_entries(
    views: &Views,
    recipient: &ParticipantCode,
    lane: Lane,
    from: u64,
) -> Result<Vec<(u64, u64)>, ViewsError> {
    let prefix = mailbox_prefix(recipient, lane);
    let rows = views.scan(TAKEN, prefix.clone().number(from).as_ref(), prefix.as_ref(), SCAN_ROWS_MAX)?;
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let mut key = KeyReader::new(&key);
        key.text()?;
        key.small()?;
        Some((key.number()?, KeyReader::new(&value).number()?))
    };
    Ok(rows.into_iter().filter_map(|(key, value)| read((key.to_vec(), value.to_vec()))).collect())
}

fn record_mail(sequence: u64, fact: &ConsignmentRecorded, batch: &mut Batch<'_>) -> Result<(), ViewsError> {
    for recipient in fact.recipients() {
        let run = &recipient.run;
        let key = mailbox_prefix(&run.recipient, fact.chain.lane).number(run.first);
        let row = RunRow {
            first: run.first,
            count: run.count,
            sequence,
            feed_number: run.feed_number,
            origin: fact.chain.origin.to_string(),
            node: fact.chain.node.to_string(),
            epoch: fact.chain.epoch.into(),
            consignment: fact.number,
            items: recipient.items,
        };
        batch.put(MAILBOXES, key.as_ref(), row.encode().as_ref())?;
    }
    Ok(())
}

/// A row of a feed.
struct FeedRow {
    /// The entry.
    sequence: u64,
    /// Of one that is told again: the number behind which it was, so that it is not told a third time beside the first.
    again_behind: Option<u64>,
}

impl FeedRow {
    fn encode(&self) -> Key {
        let value = Key::new().number(self.sequence);
        self.again_behind.into_iter().fold(value, Key::number)
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut value = KeyReader::new(value);
        Some(Self { sequence: value.number()?, again_behind: value.number() })
    }
}

/// A row of a mailbox.
struct RunRow {
    first: u64,
    count: u32,
    sequence: u64,
    feed_number: u64,
    origin: String,
    node: String,
    epoch: u64,
    consignment: u64,
    items: Vec<IndexRange>,
}

impl RunRow {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The rest of it from a number on, under new numbers from `first` on.
    fn from(self, number: u64, first: u64) -> Self {
        let passed = u32::try_from(number.saturating_sub(self.first)).unwrap_or(u32::MAX).min(self.count);
        let mut items = Vec::new();
        let rest = self.items.iter().flat_map(|range| range.indices()).skip(passed as usize);
        rest.for_each(|index| IndexRange::push(&mut items, index));
        Self { first, count: self.count - passed, items, ..self }
    }

    fn encode(&self) -> Key {
        let value = Key::new()
            .number(self.count.into())
            .number(self.sequence)
            .number(self.feed_number)
            .text(&self.origin)
            .text(&self.node)
            .number(self.epoch)
            .number(self.consignment);
        let ranges = self.items.iter();
        ranges.fold(value, |value, range| value.number(u64::from(range.first) << 32 | u64::from(range.count)))
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let first = last_number(key)?;
        let mut value = KeyReader::new(value);
        let (count, sequence, feed_number) = (value.number()?, value.number()?, value.number()?);
        let (origin, node) = (value.text()?, value.text()?);
        let (epoch, consignment) = (value.number()?, value.number()?);
        let mut items = Vec::new();
        while let Some(range) = value.number() {
            items.push(IndexRange { first: (range >> 32) as u32, count: range as u32 });
        }
        let count = count.try_into().ok()?;
        Some(Self { first, count, sequence, feed_number, origin, node, epoch, consignment, items })
    }
}

fn read_run(hub: &Name, lane: Lane, key: &[u8], value: &[u8]) -> Option<Run> {
    let RunRow { first, count, sequence, feed_number, origin, node, epoch, consignment, items } =
        RunRow::decode(key, value)?;
    let chain = ChainKey {
        origin: ParticipantCode::parse(&origin).ok()?,
        hub: hub.clone(),
        node: Name::parse(&node).ok()?,
        epoch: epoch.try_into().ok()?,
        lane,
    };
    Some(Run { first, count, sequence, feed_number, chain, consignment, items })
}

fn mailbox_prefix(recipient: &ParticipantCode, lane: Lane) -> Key {
    Key::new().text(recipient.as_str()).small(lane.slot() as u8)
}

fn consignment_key(chain: &ChainKey, number: u64) -> Key {
    let key = Key::new().text(chain.origin.as_str()).text(chain.node.as_str());
    key.number(chain.epoch.into()).small(chain.lane.slot() as u8).number(number)
}

/// The number with which a key ends.
fn last_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(key.len().checked_sub(8)?..)?.try_into().ok()?))
}

fn feed_key(participant: &ParticipantCode, number: u64) -> Key {
    Key::new().text(participant.as_str()).number(number)
}

fn unreadable(error: StoredError) -> ProjectionError {
    match error {
        StoredError::UnknownKind { kind, version, .. } => ProjectionError::UnknownEntry { kind, version },
        StoredError::Malformed { .. } => ProjectionError::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use concord_journal::{Digest, HistoryId, Tail};
    use concord_ledger::{FeedResumed, Ledger, Shown};

    /// What is behind each number of KAZ's feed.
    fn feed(views: &Views) -> Vec<(u64, u64)> {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        let rows = views.scan(FEEDS, Key::new().text("KAZ").as_ref(), Key::new().text("KAZ").as_ref(), 10_000).unwrap();
        let numbers = rows.iter().filter_map(|(key, _)| last_number(key));
        numbers.map(|number| (number, feed_entry(views, &kaz, number).unwrap().unwrap())).collect()
    }

    #[test]
    fn what_whoever_comes_back_missed_is_told_one_by_one_right_before_its_return() {
        let parse = |code: &str| ParticipantCode::parse(code).unwrap();
        let digest = concord_model::Digest::ZERO;
        let id = "KAZ/floods".parse().unwrap();
        let agreement = concord_model::AgreementRef { id, version: 1, digest: concord_model::AgreementDigest(digest) };
        let statement = concord_ledger::Statement {
            participant: parse("KAZ"),
            officer: Name::parse("officer").unwrap(),
            hub: Name::parse("main").unwrap(),
            number: 1,
            made_at: concord_model::Timestamp::from_micros(1),
            digest,
            content: concord_ledger::StatementContent::Return(agreement, digest),
        };
        let told = |code: &str, number| concord_ledger::Told { participant: parse(code), number };
        let fact = Fact::Statement(concord_ledger::StatementDecided {
            statement,
            refused: None,
            told: vec![told("IRN", 3), told("KAZ", 9)],
            closes: None,
            missed: vec![4, 6],
            needs: 1,
            approvals: Vec::new(),
            completes: None,
            begins_with: Vec::new(),
        });
        let views = Views::in_memory(VERSION);
        let mut batch = views.batch();
        project_fact(12, &fact, &mut batch).unwrap();
        views.apply(batch, Tail { history: HistoryId([1; 16]), sequence: 12, digest: Digest([0; 32]) }).unwrap();
        assert_eq!(feed(&views), [(7, 4), (8, 6), (9, 12)]);
        assert_eq!(feed_entry(&views, &parse("IRN"), 3).unwrap(), Some(12), "the others heard of it when it was said");
        assert_eq!(feed_entry(&views, &parse("IRN"), 2).unwrap(), None);
    }

    #[test]
    fn positions_that_a_node_makes_up_widen_holes_and_cost_no_more_than_the_feed_is_long() {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        let views = Views::in_memory(VERSION);
        let mut ledger = Ledger::default();
        let mut project = |sequence: u64, fact: &Fact| {
            let at = concord_ledger::At { sequence, now: concord_model::Timestamp::from_micros(1) };
            ledger.apply(fact, at);
            let mut batch = views.batch();
            project_fact(sequence, fact, &mut batch).unwrap();
            let tail = Tail { history: HistoryId([1; 16]), sequence, digest: Digest([0; 32]) };
            views.apply(batch, tail).unwrap();
            ledger.clone()
        };
        let told =
            |participant: &ParticipantCode, number| concord_ledger::Told { participant: participant.clone(), number };
        let acknowledged = |number| {
            Fact::Acknowledged(concord_ledger::MailAcknowledged {
                recipient: ParticipantCode::parse("IRN").unwrap(),
                lane: Lane::Routine,
                delivered_through: number,
                taken_count: 0,
                told: vec![concord_ledger::OriginNotices { told: told(&kaz, number), notices: Vec::new() }],
            })
        };
        let mut now = Ledger::default();
        for number in 1..=5 {
            now = project(number, &acknowledged(number));
        }
        let mut sequence = 5;
        for made_up in 1..=30_u8 {
            sequence += 1;
            let shown = Shown { history: [made_up; 16], number: 1 << 39, digest: None };
            let resume = now.feed().resumes(&kaz).cloned().unwrap_or_default();
            let resume = resume.decide(shown, 0, now.feed_last(&kaz), 1000).unwrap();
            now = project(sequence, &Fact::FeedResumed(FeedResumed { participant: kaz.clone(), resume }));
            let rows = feed(&views);
            assert_eq!(rows.len(), 5 + 5 * usize::from(made_up));
            let again: Vec<_> = rows.iter().rev().take(5).rev().map(|(_, sequence)| *sequence).collect();
            assert_eq!(again, [1, 2, 3, 4, 5]);
            assert_eq!(rows.last().unwrap().0, now.feed_last(&kaz), "views and ledger count the same");
        }
    }
}
