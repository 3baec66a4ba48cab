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
/// (participant, feed number) → the entry that is told.
const FEEDS: Table = Table::new(2).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// (origin, node, epoch, lane, number) → the entry of a consignment.
const CONSIGNMENTS: Table = Table::new(3).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// (recipient, lane, count) → the entry that told of first acknowledgements up to the one with this count.
const TAKEN: Table = Table::new(4).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Rows of 2^10 neighbouring numbers are checked together.
const GROUP_NUMBER_BITS: u16 = 10;
/// Raised when a row changes its shape: views are rebuilt then.
const VERSION: u32 = 3;

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
    let mut tell = |participant: &ParticipantCode, number: u64| {
        batch.put(FEEDS, feed_key(participant, number).as_ref(), Key::new().number(sequence).as_ref())
    };
    match fact {
        Fact::HistoryBegun(_) | Fact::JournalEffect | Fact::NodeSeen(_) => {}
        Fact::Founded(founding) => {
            for participant in &founding.participants {
                tell(&participant.code, FOUNDING_FEED_NUMBER)?;
            }
        }
        Fact::Statement(fact) => {
            for told in &fact.told {
                tell(&told.participant, told.number)?;
            }
        }
        Fact::Acknowledged(fact) => {
            for notices in &fact.told {
                tell(&notices.told.participant, notices.told.number)?;
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

/// Gives what stands in `common+1..=last` of a feed again behind `at`; numbers of a hole have no row.
fn tell_again(participant: &ParticipantCode, resume: &Resume, batch: &mut Batch<'_>) -> Result<(), ViewsError> {
    let mut next = resume.at;
    for number in resume.common + 1..=resume.last {
        if let Some(row) = batch.get(FEEDS, feed_key(participant, number).as_ref())? {
            next += 1;
            batch.put(FEEDS, feed_key(participant, next).as_ref(), &row)?;
        }
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
    let mut number = resume.common + 1;
    while number <= resume.last {
        let key = prefix.clone().number(number);
        let row = batch.last_at_or_before(MAILBOXES, prefix.as_ref(), key.as_ref())?;
        let Some(row) = row.and_then(|(key, value)| RunRow::decode(&key, &value)).filter(|row| number < row.end())
        else {
            number += 1;
            continue;
        };
        let end = row.end();
        let again = row.from(number, number - resume.common + resume.at);
        batch.put(MAILBOXES, prefix.clone().number(again.first).as_ref(), again.encode().as_ref())?;
        number = end;
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
    Ok(row.and_then(|value| KeyReader::new(&value).number()))
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
        let first = u64::from_be_bytes(key.get(key.len().checked_sub(8)?..)?.try_into().ok()?);
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
    Key::new().text(recipient.as_str()).small(slot(lane))
}

fn consignment_key(chain: &ChainKey, number: u64) -> Key {
    let key = Key::new().text(chain.origin.as_str()).text(chain.node.as_str());
    key.number(chain.epoch.into()).small(slot(chain.lane)).number(number)
}

const fn slot(lane: Lane) -> u8 {
    match lane {
        Lane::Flash => 0,
        Lane::Priority => 1,
        Lane::Routine => 2,
    }
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
