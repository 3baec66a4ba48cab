//! The hub's views: which numbers of a mailbox stand for which exchanges, and which entry each feed number tells.
//!
//! A pure function of one entry at a time: numbers stand in the facts. No titles, no bodies, and no index by exchange id.

use concord_journal::Entry;
use concord_ledger::feed::FOUNDING_FEED_NUMBER;
use concord_ledger::{ConsignmentRecorded, Fact, IndexRange};
use concord_model::{ChainKey, Lane, Name, ParticipantCode};
use concord_views::{Batch, Key, KeyReader, Projection, ProjectionError, Table, Views, ViewsError};
use concord_wire::stored::StoredError;
use concord_wire::stored::hub::read;

/// (recipient, lane, first number) → the run of numbers that one entry gave.
const MAILBOXES: Table = Table::new(1);
/// (participant, feed number) → the entry that is told.
const FEEDS: Table = Table::new(2);
/// Raised when a row changes its shape: views are rebuilt then.
const VERSION: u32 = 1;

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
        Fact::HistoryBegun(_) => {}
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
        }
        Fact::Consignment(fact) => record_mail(sequence, fact, batch)?,
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

fn record_mail(sequence: u64, fact: &ConsignmentRecorded, batch: &mut Batch<'_>) -> Result<(), ViewsError> {
    for recipient in fact.recipients() {
        let run = &recipient.run;
        let key = mailbox_prefix(&run.recipient, fact.chain.lane).number(run.first);
        let value = Key::new()
            .number(run.count.into())
            .number(sequence)
            .number(run.feed_number)
            .text(fact.chain.origin.as_str())
            .text(fact.chain.node.as_str())
            .number(fact.chain.epoch.into())
            .number(fact.number);
        let value = recipient
            .items
            .iter()
            .fold(value, |value, range| value.number(u64::from(range.first) << 32 | u64::from(range.count)));
        batch.put(MAILBOXES, key.as_ref(), value.as_ref())?;
    }
    Ok(())
}

fn read_run(hub: &Name, lane: Lane, key: &[u8], value: &[u8]) -> Option<Run> {
    let first = u64::from_be_bytes(key.get(key.len().checked_sub(8)?..)?.try_into().ok()?);
    let mut value = KeyReader::new(value);
    let (count, sequence, feed_number) = (value.number()?, value.number()?, value.number()?);
    let (origin, node) = (value.text()?, value.text()?);
    let (epoch, consignment) = (value.number()?, value.number()?);
    let mut items = Vec::new();
    while let Some(range) = value.number() {
        items.push(IndexRange { first: (range >> 32) as u32, count: range as u32 });
    }
    let chain = ChainKey {
        origin: ParticipantCode::parse(&origin).ok()?,
        hub: hub.clone(),
        node: Name::parse(&node).ok()?,
        epoch: epoch.try_into().ok()?,
        lane,
    };
    Some(Run { first, count: count.try_into().ok()?, sequence, feed_number, chain, consignment, items })
}

fn mailbox_prefix(recipient: &ParticipantCode, lane: Lane) -> Key {
    let lane = match lane {
        Lane::Flash => 0,
        Lane::Priority => 1,
        Lane::Routine => 2,
    };
    Key::new().text(recipient.as_str()).small(lane)
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
