//! Questions to the views and to the journal behind them: where an exchange stands, what an agency has yet to get.

mod aside;
mod received;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use concord_journal::{Blob, Entry, Journal, ReadError};
use concord_model::{AsideEnd, Digest, ExchangeId, Lane, Name, ParticipantCode, RequestId, SetAsideReason, Timestamp};
use concord_views::{Key, KeyReader, SCAN_ROWS_MAX, Table, Views, ViewsError};
use concord_wire::proto::exchange::v1::RecordedReceipt;
use concord_wire::stored::node::{NodeEntry, Queued, read};
use concord_wire::stored::{Kept, StoredError};

use crate::damaged::Damaged;
use crate::projection::{
    ASIDE, CONSIGNMENT, EXCHANGE, FOUND, INBOX, InboxRow, LEAVING, REACHED, RECEIVED, RECORDED, RENEWED, REPEATED,
    REQUEST, Reached, Standing, TAKEN, UNTAKEN, WITHDRAWN, WithdrawnRow, about_of, chain_place, lane_key, request_key,
    told_row, withdrawn_key,
};
use crate::state::NodeState;
use crate::state::rights::About;

pub(crate) use aside::Evidence;
pub(crate) use received::{Became, ReceivedOne};

/// The views or the journal could not answer. Neither is the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The views failed.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// An entry cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// A row leads to an entry that is something else.
    #[error(
        "a row of the views leads nowhere ({0}): stop the process, remove the folder of the views, and start again"
    )]
    Row(&'static str),
}

const DISCARDED: &str = SetAsideReason::Discarded.as_str();
/// Hexadecimal digits of a whole exchange id.
const EXCHANGE_ID_DIGITS: usize = 64;

/// Where one of the own exchanges stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub id: ExchangeId,
    /// Its lane.
    pub lane: Lane,
    /// The epoch of its consignment.
    pub epoch: u32,
    /// The number of its consignment.
    pub number: u64,
    /// Its index in the consignment.
    pub index: u64,
    /// How it stands there.
    pub standing: Standing,
    /// Who submitted it; not known of what was fetched back from the hub and never stood here.
    pub agency: Option<Name>,
}

impl Place {
    /// Lane, epoch, number of the consignment and index in it.
    pub(crate) const fn position(&self) -> (Lane, u32, u64, u64) {
        (self.lane, self.epoch, self.number, self.index)
    }

    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut value = KeyReader::new(value);
        Some(Self {
            id: ExchangeId(Digest(key.try_into().ok()?)),
            lane: Lane::ALL.get(usize::from(value.small()?)).copied()?,
            epoch: value.number()?.try_into().ok()?,
            number: value.number()?,
            index: value.number()?,
            standing: Standing::from_small(value.small()?)?,
            agency: match value.text()?.as_str() {
                "" => None,
                agency => Some(Name::parse(agency).ok()?),
            },
        })
    }
}

/// Reads of one node's views and journal. Calls block for a short time. Clones share them.
#[derive(Clone)]
pub struct Index {
    views: Views,
    journal: Arc<dyn Journal>,
    damaged: Arc<Damaged>,
    looked: Arc<LookedBack>,
}

/// Agencies for which nothing uncollected lies behind their cursors, by the entry of the journal that last changed anybody's rights: while
/// nothing changes them, nobody need look again.
#[derive(Default)]
pub(crate) struct LookedBack(Mutex<BTreeMap<Name, u64>>);

impl LookedBack {
    /// Whether nothing was found under these rights.
    pub(crate) fn is_done(&self, agency: &Name, rights_at: u64) -> bool {
        self.known().get(agency) == Some(&rights_at)
    }

    /// Nothing was found.
    pub(crate) fn done(&self, agency: &Name, rights_at: u64) {
        self.known().insert(agency.clone(), rights_at);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Name, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Over views that follow this journal.
    pub fn new(views: Views, journal: Arc<dyn Journal>) -> Self {
        Self { views, journal, damaged: Arc::default(), looked: Arc::default() }
    }

    /// Deliveries of which the journal turned out to be damaged.
    pub fn damaged(&self) -> &Arc<Damaged> {
        &self.damaged
    }

    pub(crate) fn looked_back(&self) -> &LookedBack {
        &self.looked
    }

    pub(crate) fn views(&self) -> &Views {
        &self.views
    }

    /// Title and body of one exchange; none where one of them is damaged or gone. Blocks.
    pub(crate) fn whole_content(&self, sequence: u64, range: Range<usize>) -> Result<Option<Vec<Blob>>, ReadError> {
        match self.journal.blobs(sequence, range) {
            Ok(blobs) => Ok(Some(blobs)),
            Err(error) if error.is_damage() || matches!(error, ReadError::Redacted { .. }) => {
                tracing::warn!(sequence, %error, "an exchange goes without its content");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// The exchange that an agency submitted under a request id: its id, its entry's sequence and its index there.
    pub fn request(&self, agency: &Name, id: &RequestId) -> Result<Option<(ExchangeId, u64, u64)>, IndexError> {
        let key = request_key(agency.as_str(), id.as_str());
        let Some(value) = self.views.get(REQUEST, key.as_ref())? else {
            return Ok(None);
        };
        let mut reader = KeyReader::new(&value);
        let mut row = || Some((reader.fixed()?, reader.number()?, reader.number()?));
        let (id, sequence, index) = row().ok_or(IndexError::Row("a request"))?;
        Ok(Some((ExchangeId(Digest(id)), sequence, index)))
    }

    /// The consignment of an entry, with who submitted each exchange.
    pub fn queued(&self, sequence: u64) -> Result<Box<Queued>, IndexError> {
        match read(&self.read_one(sequence)?)? {
            NodeEntry::Queued(queued) => Ok(queued),
            _ => Err(IndexError::Row("a consignment")),
        }
    }

    /// The consignment of an entry, whether it was queued here or found at the hub.
    pub(crate) fn own_consignment(&self, sequence: u64) -> Result<Kept, IndexError> {
        match read(&self.read_one(sequence)?)? {
            NodeEntry::Queued(queued) => Ok(queued.kept),
            NodeEntry::Found(kept, _) => Ok(*kept),
            _ => Err(IndexError::Row("a consignment")),
        }
    }

    /// The journal sequence of a consignment, as this node queued it or had it back.
    pub fn consignment(&self, lane: Lane, epoch: u32, number: u64) -> Result<Option<u64>, IndexError> {
        let value = self.views.get(CONSIGNMENT, chain_place(lane, epoch, number).as_ref())?;
        value.map(|value| number_of(&value, "a consignment")).transpose()
    }

    /// The journal sequence of what the hub has under a number under which something else stands here, if it does.
    pub fn found(&self, lane: Lane, epoch: u32, number: u64) -> Result<Option<u64>, IndexError> {
        let value = self.views.get(FOUND, chain_place(lane, epoch, number).as_ref())?;
        value.map(|value| number_of(&value, "a consignment")).transpose()
    }

    /// The journal sequence of a consignment as the hub has it.
    pub fn recorded(&self, lane: Lane, epoch: u32, number: u64) -> Result<Option<u64>, IndexError> {
        match self.found(lane, epoch, number)? {
            Some(found) => Ok(Some(found)),
            None => self.consignment(lane, epoch, number),
        }
    }

    /// The journal sequence of a consignment that an own exchange stands, or stood, in. Blocks.
    pub(crate) fn own_sequence(&self, place: &Place, epoch: u32, number: u64) -> Result<u64, IndexError> {
        let sequence = match place.standing {
            Standing::AtHub => self.found(place.lane, epoch, number)?,
            Standing::Here => self.consignment(place.lane, epoch, number)?,
        };
        sequence.ok_or(IndexError::Row("an exchange"))
    }

    /// When an exchange was queued first, however often it was packed anew since.
    pub fn queued_at(&self, place: &Place) -> Result<Timestamp, IndexError> {
        Ok(Timestamp::from_micros(self.queued_first(place)?.recorded_at))
    }

    /// The entry that queued an exchange first, however often it was packed anew since. Blocks.
    pub(crate) fn queued_first(&self, place: &Place) -> Result<Entry, IndexError> {
        let (mut epoch, mut number) = (place.epoch, place.number);
        loop {
            let entry = self.read_one(self.own_sequence(place, epoch, number)?)?;
            let from = match read(&entry)? {
                NodeEntry::Queued(queued) => queued.packed_anew.filter(|(before, _)| *before < epoch),
                _ => None,
            };
            match from {
                Some(from) => (epoch, number) = from,
                None => return Ok(entry),
            }
        }
    }

    /// The receipt of an exchange's consignment, once it came. What another copy of this node handed in under the same number is no
    /// receipt for what stands here.
    pub fn receipt_of(&self, place: &Place) -> Result<Option<RecordedReceipt>, IndexError> {
        let found = self.found(place.lane, place.epoch, place.number)?.is_some();
        if found && place.standing != Standing::AtHub {
            return Ok(None);
        }
        self.receipt(place.lane, place.epoch, place.number)
    }

    /// The first receipt for a number of a chain, once it came.
    pub fn receipt(&self, lane: Lane, epoch: u32, number: u64) -> Result<Option<RecordedReceipt>, IndexError> {
        match self.receipt_in(FOUND, lane, epoch, number)? {
            Some(found) => Ok(Some(found)),
            None => self.receipt_in(RECORDED, lane, epoch, number),
        }
    }

    /// The newest receipt of an own consignment that a hub which lost data gave again, if one did.
    pub fn renewed_receipt(&self, lane: Lane, epoch: u32, number: u64) -> Result<Option<RecordedReceipt>, IndexError> {
        self.receipt_in(RENEWED, lane, epoch, number)
    }

    fn receipt_in(
        &self,
        table: Table,
        lane: Lane,
        epoch: u32,
        number: u64,
    ) -> Result<Option<RecordedReceipt>, IndexError> {
        let Some(value) = self.views.get(table, chain_place(lane, epoch, number).as_ref())? else {
            return Ok(None);
        };
        match read(&self.read_one(number_of(&value, "a receipt")?)?)? {
            NodeEntry::Receipt(receipt) | NodeEntry::ReceiptRenewed(receipt) | NodeEntry::Found(_, receipt) => {
                Ok(Some(receipt))
            }
            _ => Err(IndexError::Row("a receipt")),
        }
    }

    /// Where one of the own exchanges stands now.
    pub fn exchange(&self, id: &ExchangeId) -> Result<Option<Place>, IndexError> {
        let value = self.views.get(EXCHANGE, id.0.as_bytes())?;
        value.map(|value| Place::decode(id.0.as_bytes(), &value).ok_or(IndexError::Row("an exchange"))).transpose()
    }

    /// Own exchanges whose id begins with these hexadecimal digits, at most two: one is found, two are ambiguous.
    pub fn exchanges(&self, digits: &str, of: &Name) -> Result<Vec<Place>, IndexError> {
        let mut found = Vec::new();
        self.begin_so(EXCHANGE, digits, |key, value| {
            let place = Place::decode(key, value).ok_or(IndexError::Row("an exchange"))?;
            // Others' submissions are not the caller's to know of. Whose it was that came back from the hub nobody knows: it is
            // shown to whoever has all of its id, which was told to whoever queued it.
            let is_own = match &place.agency {
                Some(agency) => agency == of,
                None => digits.len() == EXCHANGE_ID_DIGITS,
            } || concord_faults::planted("show-what-others-sent");
            if is_own {
                found.push(place);
            }
            Ok(found.len() > 1)
        })?;
        Ok(found)
    }

    /// Exchanges of the own state, whoever submitted them, whose id begins with these hexadecimal digits; at most two.
    pub fn exchanges_of_all(&self, digits: &str) -> Result<Vec<Place>, IndexError> {
        let mut found = Vec::new();
        self.begin_so(EXCHANGE, digits, |key, value| {
            found.push(Place::decode(key, value).ok_or(IndexError::Row("an exchange"))?);
            Ok(found.len() > 1)
        })?;
        Ok(found)
    }

    /// Shows the rows of a table of exchange ids that begin with these hexadecimal digits, until enough were seen.
    fn begin_so(
        &self,
        table: Table,
        digits: &str,
        mut is_enough: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
    ) -> Result<(), IndexError> {
        let whole: Vec<u8> = digits
            .as_bytes()
            .chunks_exact(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let mut from = Vec::new();
        loop {
            let rows = self.views.scan(table, &from, &whole, SCAN_ROWS_MAX)?;
            for (key, value) in &rows {
                let id = Digest::from_slice(key).map_err(|_| IndexError::Row("an exchange"))?;
                if ExchangeId(id).to_string().starts_with(digits) && is_enough(key, value)? {
                    return Ok(());
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == SCAN_ROWS_MAX => from = after(key),
                _ => return Ok(()),
            }
        }
    }

    /// How far one exchange has come towards one recipient: state, time, reason; none where nothing was told yet.
    pub(crate) fn reached(
        &self,
        place: &Place,
        recipient: &ParticipantCode,
    ) -> Result<Option<(Reached, Timestamp, String)>, IndexError> {
        let prefix = chain_place(place.lane, place.epoch, place.number).text(recipient.as_str());
        // Of two of one state the later one counts, and in one moment that it was discarded.
        let order = |reached: Reached, at: Timestamp, reason: &str| (reached.rank(), at, reason == DISCARDED);
        let mut last: Option<(Reached, Timestamp, String)> = None;
        for (key, value) in self.views.scan(REACHED, &[], prefix.as_ref(), SCAN_ROWS_MAX)? {
            let row = reached_row(&key, &value).ok_or(IndexError::Row("a receipt's range"))?;
            let covers = (row.first..row.first.saturating_add(row.count)).contains(&place.index);
            let is_later = |(reached, at, reason): &(Reached, Timestamp, String)| {
                order(row.reached, row.at, &row.reason) > order(*reached, *at, reason)
            };
            if covers && last.as_ref().is_none_or(is_later) {
                last = Some((row.reached, row.at, row.reason));
            }
        }
        Ok(last)
    }

    /// The accepted deliveries of a lane from a number on, ascending.
    pub(crate) fn inbox(&self, lane: Lane, from: u64, limit: usize) -> Result<Vec<(u64, InboxRow)>, IndexError> {
        let prefix = lane_key(lane);
        let rows = self.views.scan(INBOX, prefix.clone().number(from).as_ref(), prefix.as_ref(), limit)?;
        let decoded = rows.into_iter().map(|(key, value)| {
            let number = lane_number(&key)?;
            Some((number, InboxRow::decode(&value)?))
        });
        decoded.collect::<Option<_>>().ok_or(IndexError::Row("a delivery"))
    }

    /// The number under which an exchange was accepted before.
    pub fn received_as(&self, id: &ExchangeId) -> Result<Option<u64>, IndexError> {
        let row = self.views.get(RECEIVED, id.0.as_bytes())?;
        row.map(|value| lane_number(&value).ok_or(IndexError::Row("a received exchange"))).transpose()
    }

    /// By what an exchange of this origin is not current any more, if it is not.
    pub(crate) fn withdrawn(
        &self,
        id: &ExchangeId,
        origin: &ParticipantCode,
    ) -> Result<Option<WithdrawnRow>, IndexError> {
        let row = self.views.get(WITHDRAWN, withdrawn_key(id, origin).as_ref())?;
        row.map(|value| WithdrawnRow::decode(&value).ok_or(IndexError::Row("a withdrawal"))).transpose()
    }

    /// What is to leave by entries after this one: each with its entry, its id and its origin. At most [`SCAN_ROWS_MAX`].
    pub(crate) fn leaving_after(&self, sequence: u64) -> Result<Vec<(u64, ExchangeId, ParticipantCode)>, IndexError> {
        let from = Key::new().number(sequence.saturating_add(1));
        let rows = self.views.scan(LEAVING, from.as_ref(), &[], SCAN_ROWS_MAX)?;
        let decoded = rows.into_iter().map(|(key, value)| {
            let (mut key, mut value) = (KeyReader::new(&key), KeyReader::new(&value));
            let id = ExchangeId(Digest(value.fixed()?));
            Some((key.number()?, id, ParticipantCode::parse(&value.text()?).ok()?))
        });
        decoded.collect::<Option<_>>().ok_or(IndexError::Row("what is to leave"))
    }

    /// Whether what stands under a number of a mailbox was withdrawn.
    pub(crate) fn is_withdrawn(&self, lane: Lane, number: u64) -> Result<bool, IndexError> {
        let row = self.views.get(INBOX, lane_key(lane).number(number).as_ref())?;
        let row = row.map(|value| InboxRow::decode(&value).ok_or(IndexError::Row("a delivery"))).transpose()?;
        Ok(row.is_some_and(|row| row.about.is_withdrawn))
    }

    /// Where an exchange was accepted.
    pub(crate) fn inbox_place(&self, id: &ExchangeId) -> Result<Option<InboxRow>, IndexError> {
        let Some(value) = self.views.get(RECEIVED, id.0.as_bytes())? else { return Ok(None) };
        let mut reader = KeyReader::new(&value);
        let place = reader.small().zip(reader.number()).map(|(lane, number)| Key::new().small(lane).number(number));
        let place = place.ok_or(IndexError::Row("a received exchange"))?;
        let row = self.views.get(INBOX, place.as_ref())?;
        row.map(|value| InboxRow::decode(&value).ok_or(IndexError::Row("a delivery"))).transpose()
    }

    /// The serialised header of an own exchange.
    pub(crate) fn own_header(&self, place: &Place) -> Result<Bytes, IndexError> {
        let missing = || IndexError::Row("an exchange");
        let kept = self.own_consignment(self.own_sequence(place, place.epoch, place.number)?)?;
        let position = usize::try_from(place.index).map_err(|_| missing())?;
        kept.sealed.headers.get(position).cloned().ok_or_else(missing)
    }

    /// Whether no agency has acknowledged an accepted delivery.
    pub fn is_untaken(&self, lane: Lane, number: u64) -> Result<bool, IndexError> {
        Ok(self.views.get(UNTAKEN, lane_key(lane).number(number).as_ref())?.is_some())
    }

    /// The number under which an accepted delivery came last, where it came again.
    pub fn repeated_as(&self, lane: Lane, number: u64) -> Result<Option<u64>, IndexError> {
        let value = self.views.get(REPEATED, lane_key(lane).number(number).as_ref())?;
        value.map(|value| number_of(&value, "a repeated delivery")).transpose()
    }

    /// The number under which the hub knows an accepted delivery now; none while it knows it under none.
    pub fn known_to_hub_as(&self, state: &NodeState, lane: Lane, number: u64) -> Result<Option<u64>, IndexError> {
        let number = self.repeated_as(lane, number)?.unwrap_or(number);
        Ok(state.mailbox(lane).is_known_to_hub(number).then_some(number))
    }

    /// What a delivery is about that no agency has acknowledged; none where one has.
    pub fn untaken_one(&self, lane: Lane, number: u64) -> Result<Option<About>, IndexError> {
        let value = self.views.get(UNTAKEN, lane_key(lane).number(number).as_ref())?;
        let about =
            value.map(|value| about_of(&mut KeyReader::new(&value)).ok_or(IndexError::Row("an untaken number")));
        about.transpose()
    }

    /// Numbers of a lane in `from..=through` that no agency has acknowledged, with what they are about; at most [`SCAN_ROWS_MAX`].
    pub fn untaken(&self, lane: Lane, from: u64, through: u64) -> Result<Vec<(u64, About)>, IndexError> {
        let prefix = lane_key(lane);
        let rows = self.views.scan(UNTAKEN, prefix.clone().number(from).as_ref(), prefix.as_ref(), SCAN_ROWS_MAX)?;
        let decoded =
            rows.into_iter().map(|(key, value)| Some((lane_number(&key)?, about_of(&mut KeyReader::new(&value))?)));
        let all: Vec<_> = decoded.collect::<Option<_>>().ok_or(IndexError::Row("an untaken number"))?;
        Ok(all.into_iter().take_while(|(number, _)| *number <= through).collect())
    }

    /// First acknowledgements after the `before`-th, in their order, and among them what had been set aside and came to an end, with how.
    pub fn told_after(
        &self,
        lane: Lane,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Option<AsideEnd>)>, IndexError> {
        let prefix = lane_key(lane);
        let from = prefix.clone().number(before.saturating_add(1));
        let rows = self.views.scan(TAKEN, from.as_ref(), prefix.as_ref(), limit)?;
        rows.iter().map(|(_, value)| told_row(value).ok_or(IndexError::Row("a taken number"))).collect()
    }

    /// The numbers of the same.
    pub fn taken_after(&self, lane: Lane, before: u64, limit: usize) -> Result<Vec<u64>, IndexError> {
        Ok(self.told_after(lane, before, limit)?.into_iter().map(|(number, _)| number).collect())
    }

    /// Numbers after `after` that were set aside (with the reason) or came as a notice (without one), ascending.
    pub fn aside(&self, lane: Lane, after: u64, limit: usize) -> Result<BTreeMap<u64, Option<String>>, IndexError> {
        let prefix = lane_key(lane);
        let from = prefix.clone().number(after.saturating_add(1));
        let rows = self.views.scan(ASIDE, from.as_ref(), prefix.as_ref(), limit)?;
        let decoded = rows.into_iter().map(|(key, value)| {
            let reason = KeyReader::new(&value).text()?;
            Some((lane_number(&key)?, (!reason.is_empty()).then_some(reason)))
        });
        decoded.collect::<Option<_>>().ok_or(IndexError::Row("a number set aside"))
    }

    /// A statement that waits, as it was signed.
    pub fn statement(&self, sequence: u64) -> Result<concord_wire::proto::agreement::v1::SignedStatement, IndexError> {
        match read(&self.read_one(sequence)?)? {
            NodeEntry::Statement(signed) => Ok(signed),
            _ => Err(IndexError::Row("a statement")),
        }
    }

    /// One blob beside an entry.
    pub(crate) fn blob(&self, sequence: u64, index: u64) -> Result<Blob, IndexError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok(self.journal.blob(sequence, index)?)
    }

    /// One entry without its bodies, also where its segment was trimmed.
    pub(crate) fn read_one(&self, sequence: u64) -> Result<concord_journal::Entry, IndexError> {
        Ok(self.journal.head(sequence)?)
    }
}

struct ReachedRow {
    reached: Reached,
    first: u64,
    count: u64,
    at: Timestamp,
    reason: String,
}

fn reached_row(key: &[u8], value: &[u8]) -> Option<ReachedRow> {
    let mut key = KeyReader::new(key);
    key.small()?;
    key.number()?;
    key.number()?;
    key.text()?;
    let (reached, first) = (Reached::from_small(key.small()?)?, key.number()?);
    let mut value = KeyReader::new(value);
    Some(ReachedRow {
        reached,
        first,
        count: value.number()?,
        at: Timestamp::from_micros(value.number()?.cast_signed()),
        reason: value.text()?,
    })
}

fn lane_number(key: &[u8]) -> Option<u64> {
    let mut reader = KeyReader::new(key);
    reader.small()?;
    reader.number()
}

fn number_of(value: &[u8], what: &'static str) -> Result<u64, IndexError> {
    KeyReader::new(value).number().ok_or(IndexError::Row(what))
}

/// The smallest key behind this one.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
