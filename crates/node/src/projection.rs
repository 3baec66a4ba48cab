//! The node's views: where things stand in the journal. No titles and no bodies, and nothing that an acknowledgement rests on.
//!
//! Each entry's rows follow from the entry and from rows written before, so that a rebuild gives the same rows.

use concord_journal::Entry;
use concord_ledger::NoticeOutcome;
use concord_model::{
    AgencyName, AgreementId, AsideEnd, Digest, ExchangeId, Header, Lane, MeasureCode, ParticipantCode, WithdrawalKind,
};
use concord_views::{Batch, Key, KeyReader, Projection, ProjectionError, Table};
use concord_wire::consignment::Sealed;
use concord_wire::convert::optional_timestamp;
use concord_wire::proto::exchange::v1::{Delivery, RecordedReceipt};
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::proto::feed::v1::{FeedItem, Receipts};
use concord_wire::stored::StoredError;
use concord_wire::stored::node::{
    Acknowledged, AsideEnded, AsideOutcome, Collected, MailboxResumed, NodeEntry, Queued, Received, Verdict, read,
};
use concord_wire::{feed, header, receipt, stored::Kept};

use sha2::{Digest as _, Sha256};

use crate::index::Place;
use crate::state::rights::About;

/// Rows of 2^10 neighbouring numbers are checked together.
const GROUP_NUMBER_BITS: u16 = 10;
/// Rows are checked together whose digests begin with the same bits: a thousandth of all.
const GROUP_DIGEST_BITS: u16 = 10;
/// A sequence of 2^10 neighbouring ones.
const GROUP_SEQUENCE_BITS: u16 = 64 - 10;
/// Lane, epoch and number of 2^6 neighbouring consignments, with all their recipients.
const GROUP_REACHED_BITS: u16 = 8 + 64 + 64 - 6;

/// Own exchange id → lane, epoch, consignment number, index, how it stands there, agency: where it stands now.
pub(crate) const EXCHANGE: Table = Table::new(1).grouped_by_first_bits(GROUP_DIGEST_BITS);
/// Digest of agency and request id → exchange id, journal sequence, index.
pub(crate) const REQUEST: Table = Table::new(2).grouped_by_first_bits(GROUP_DIGEST_BITS);
/// Lane, epoch, consignment number → journal sequence.
pub(crate) const CONSIGNMENT: Table = Table::new(3).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, epoch, consignment number → journal sequence of its first receipt.
pub(crate) const RECORDED: Table = Table::new(4).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, epoch, consignment number, recipient, state, first index → count, time, reason.
pub(crate) const REACHED: Table = Table::new(5).grouped_by_first_bits(GROUP_REACHED_BITS);
/// Lane, mailbox number → where it stands, and what its agencies are chosen by.
pub(crate) const INBOX: Table = Table::new(6).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Received exchange id → lane, mailbox number.
pub(crate) const RECEIVED: Table = Table::new(7).grouped_by_first_bits(GROUP_DIGEST_BITS);
/// Lane, mailbox number → measure, agreement: accepted, and acknowledged by no agency yet.
pub(crate) const UNTAKEN: Table = Table::new(8).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, count → mailbox number, and where it is none how what had been set aside ended: the k-th first acknowledgement.
pub(crate) const TAKEN: Table = Table::new(9).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, mailbox number → reason: set aside, or empty for a notice.
pub(crate) const ASIDE: Table = Table::new(10).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, mailbox number → the number under which the same exchange came last.
pub(crate) const REPEATED: Table = Table::new(11).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, mailbox number: acknowledged first before the journal was restored.
pub(crate) const TAKEN_BEFORE: Table = Table::new(12).grouped_by_last_bits(GROUP_NUMBER_BITS);
/// Lane, epoch, consignment number → journal sequence of the newest receipt, where a hub that lost data gave one again.
pub(crate) const RENEWED: Table = Table::new(13).grouped_by_last_bits(GROUP_NUMBER_BITS);

/// Lane, epoch, consignment number → journal sequence of what the hub has in place of what stands here.
pub(crate) const FOUND: Table = Table::new(14).grouped_by_last_bits(GROUP_NUMBER_BITS);

/// Exchange id, origin → withdrawal, kind, what takes its place, when: of what its origin took back.
pub(crate) const WITHDRAWN: Table = Table::new(15).grouped_by_first_bits(GROUP_DIGEST_BITS);
/// Journal sequence, index → exchange id, origin: a withdrawal, or what was withdrawn before it came, by which content is to go.
pub(crate) const LEAVING: Table = Table::new(16).grouped_by_first_bits(GROUP_SEQUENCE_BITS);

/// Exchange id → lane, mailbox number, journal sequence, index, whether it was discarded: set aside, the last time where it came more than
/// once.
pub(crate) const SET_ASIDE: Table = Table::new(17).grouped_by_first_bits(GROUP_DIGEST_BITS);

/// Lane, mailbox number → journal sequence, index, first blob, blobs, time, exchange id, reason: set aside, and nobody has said what is to
/// become of it.
pub(crate) const OPEN_ASIDE: Table = Table::new(18).grouped_by_last_bits(GROUP_NUMBER_BITS);

const _: () = assert!(Table::all_differ(&[
    EXCHANGE,
    REQUEST,
    CONSIGNMENT,
    RECORDED,
    REACHED,
    INBOX,
    RECEIVED,
    UNTAKEN,
    TAKEN,
    ASIDE,
    REPEATED,
    TAKEN_BEFORE,
    RENEWED,
    FOUND,
    WITHDRAWN,
    LEAVING,
    SET_ASIDE,
    OPEN_ASIDE,
]));

/// Turns a node's entries into rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeProjection;

impl NodeProjection {
    /// The version of the rows; another one rebuilds the views.
    pub const VERSION: u32 = 11;
}

/// How a recipient's state is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Delivered = 1,
    Taken = 2,
    Withheld = 3,
    SetAside = 4,
}

impl Reached {
    /// Which of two that were told is the later one. What was set aside may hold after all.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::SetAside => 0,
            Self::Delivered => 1,
            Self::Taken => 2,
            Self::Withheld => 3,
        }
    }

    pub(crate) fn from_small(small: u8) -> Option<Self> {
        [Self::Delivered, Self::Taken, Self::Withheld, Self::SetAside]
            .into_iter()
            .find(|reached| *reached as u8 == small)
    }
}

/// How one of the own exchanges stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In a consignment of this journal's chain.
    Here = 1,
    /// In one that another copy of this node handed in: the hub has it, and something else stands here under that number.
    AtHub = 2,
}

impl Standing {
    pub(crate) fn from_small(small: u8) -> Option<Self> {
        [Self::Here, Self::AtHub].into_iter().find(|standing| *standing as u8 == small)
    }
}

/// The key of a request: of one length, and spread evenly whatever an agency numbers its requests by.
pub(crate) fn request_key(agency: &str, request_id: &str) -> Key {
    Key::new().fixed(&Sha256::digest(Key::new().text(agency).text(request_id)).into())
}

/// The beginning of a key: its lane.
pub(crate) fn lane_key(lane: Lane) -> Key {
    Key::new().small(lane.slot() as u8)
}

/// A place in a chain.
pub(crate) fn chain_place(lane: Lane, epoch: u32, number: u64) -> Key {
    lane_key(lane).number(epoch.into()).number(number)
}

impl Projection for NodeProjection {
    fn version(&self) -> u32 {
        Self::VERSION
    }

    fn project(&mut self, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
        let (sequence, recorded_at) = (entry.sequence, entry.recorded_at);
        match read(entry).map_err(unreadable)? {
            NodeEntry::Queued(entry) => {
                let agencies = entry.submissions.iter().map(|submission| submission.agency.as_str());
                stands(Standing::Here, &entry.kept, agencies, (sequence, recorded_at), batch)?;
                requested(&entry, sequence, batch)
            }
            // Who handed it in to the other copy is unknown, unless the same stood here.
            NodeEntry::Found(kept, _) => {
                stands(Standing::AtHub, &kept, std::iter::repeat(""), (sequence, recorded_at), batch)
            }
            NodeEntry::MailboxResumed(resumed) => resumed_mailbox(&resumed, batch),
            NodeEntry::Receipt(kept) => receipted(RECORDED, &kept, sequence, batch),
            // What was told of the exchanges stands: the second receipt may name fewer recipients, and they have had it.
            NodeEntry::ReceiptRenewed(kept) => receipted(RENEWED, &kept, sequence, batch),
            NodeEntry::Feed { items, .. } => {
                for item in &items {
                    if let Some(Content::Receipts(receipts)) = &item.content {
                        told(item, receipts, batch)?;
                    }
                }
                Ok(())
            }
            NodeEntry::Mail { lane, items, .. } => mail(lane, &items, entry, batch),
            NodeEntry::AgencyAcknowledged(fact) => acknowledged(&fact, batch),
            NodeEntry::AgencyCollected(fact) => collected(&fact, batch),
            NodeEntry::AsideEnded(fact) => aside_ended(&fact, entry, batch),
            NodeEntry::HistoryBegun(_)
            | NodeEntry::JournalEffect
            | NodeEntry::Founded { .. }
            | NodeEntry::Joined(_)
            | NodeEntry::AgencyAdded { .. }
            | NodeEntry::RightsChanged(..)
            | NodeEntry::PinConfirmed(..)
            | NodeEntry::Statement(_)
            | NodeEntry::FeedResumed(_)
            | NodeEntry::Answer(_)
            | NodeEntry::LaneRecovered(_)
            | NodeEntry::RunBegun(_)
            | NodeEntry::Fenced(_)
            | NodeEntry::FenceLifted
            | NodeEntry::EpochEntered(..)
            | NodeEntry::Restored(_) => Ok(()),
            NodeEntry::TakenRecovered(lane, taken) => recovered(lane, &taken, batch),
        }
    }
}

/// A consignment, and that its exchanges stand there from now on.
fn stands<'a>(
    standing: Standing,
    kept: &Kept,
    agencies: impl Iterator<Item = &'a str>,
    (sequence, entry_at): (u64, i64),
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let Sealed { chain, number, headers, .. } = &kept.sealed;
    let place = chain_place(chain.lane, chain.epoch, *number);
    let table = if standing == Standing::AtHub { FOUND } else { CONSIGNMENT };
    batch.put(table, place.as_ref(), Key::new().number(sequence).as_ref())?;
    for ((index, serialised), agency) in (0_u64..).zip(headers).zip(agencies) {
        let id = header::exchange_id(serialised);
        // What comes back from the hub names nobody; where it stood here before, whoever submitted it is known.
        let known = if agency.is_empty() { submitted_by(&id, batch)? } else { agency.to_owned() };
        let row = place.clone().number(index).small(standing as u8).text(&known);
        batch.put(EXCHANGE, id.0.as_bytes(), row.as_ref())?;
    }
    withdrawn_here(kept, sequence, entry_at, batch)
}

/// What of a consignment of this node's own takes earlier exchanges back.
fn withdrawn_here(kept: &Kept, sequence: u64, at: i64, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let Sealed { chain, headers, .. } = &kept.sealed;
    for (index, serialised) in (0_u64..).zip(headers) {
        let Some(withdrawal) = header::withdraws(serialised) else { continue };
        let by = header::exchange_id(serialised);
        let before = usize::try_from(index).ok().and_then(|index| headers.get(index.checked_sub(1)?));
        let successor = before.filter(|_| withdrawal.kind == WithdrawalKind::Superseded);
        let row =
            WithdrawnRow { by, kind: withdrawal.kind, successor: successor.map(|one| header::exchange_id(one)), at };
        let key = withdrawn_key(&withdrawal.exchange, &chain.origin);
        // Packed anew it is the same.
        let known = batch.get(WITHDRAWN, key.as_ref())?.and_then(|value| WithdrawnRow::decode(&value));
        if known.is_none_or(|known| known.by != by) {
            batch.put(WITHDRAWN, key.as_ref(), row.encode().as_ref())?;
        }
        leaves((sequence, index), &withdrawal.exchange, &chain.origin, batch)?;
    }
    Ok(())
}

/// Content that is to go, to be looked for by what shows it.
fn leaves(
    (sequence, index): (u64, u64),
    exchange: &ExchangeId,
    origin: &ParticipantCode,
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let key = Key::new().number(sequence).number(index);
    let value = Key::new().fixed(exchange.0.as_bytes()).text(origin.as_str());
    Ok(batch.put(LEAVING, key.as_ref(), value.as_ref())?)
}

/// Who submitted an exchange, as far as its row tells; empty where nothing does.
fn submitted_by(id: &ExchangeId, batch: &Batch<'_>) -> Result<String, ProjectionError> {
    let Some(row) = batch.get(EXCHANGE, id.0.as_bytes())? else { return Ok(String::new()) };
    let place = Place::decode(id.0.as_bytes(), &row).ok_or_else(|| malformed("the row of an exchange"))?;
    Ok(place.agency.map_or_else(String::new, |agency| agency.to_string()))
}

/// The requests that a consignment answers: none of what came back from the hub, which does not know who submitted it, nor of what was
/// packed anew, whose requests stand where it was queued first.
fn requested(entry: &Queued, sequence: u64, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    for ((index, serialised), submission) in (0_u64..).zip(&entry.kept.sealed.headers).zip(&entry.submissions) {
        // A withdrawal that goes with what takes the place of something has that one's request.
        if submission.request_id.is_empty() || submission.agency.is_empty() || entry.packed_anew.is_some() {
            continue;
        }
        let key = request_key(&submission.agency, &submission.request_id);
        let id = header::exchange_id(serialised);
        let value = Key::new().fixed(id.0.as_bytes()).number(sequence).number(index);
        batch.put(REQUEST, key.as_ref(), value.as_ref())?;
    }
    Ok(())
}

fn receipted(
    table: Table,
    kept: &RecordedReceipt,
    sequence: u64,
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let recorded = receipt::parse(&kept.statement).map_err(malformed)?;
    let key = chain_place(recorded.chain.lane, recorded.chain.epoch, recorded.number);
    Ok(batch.put(table, key.as_ref(), Key::new().number(sequence).as_ref())?)
}

/// What cannot be read was verified before it was journaled, so that only a journal of another version has it. It is passed
/// over: a row that is missing shows an exchange less far than it came, a projection that fails would stop the node for ever.
fn told(item: &FeedItem, receipts: &Receipts, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let at = optional_timestamp(item.recorded_at.as_ref()).unwrap_or_default();
    let Ok(recipient) = ParticipantCode::parse(&receipts.recipient) else {
        tracing::warn!(number = item.number, "receipts of the feed name no participant: passed over");
        return Ok(());
    };
    for message in &receipts.receipts {
        let notice = match feed::parse_receipt(message) {
            Ok(notice) => notice,
            Err(refusal) => {
                tracing::warn!(number = item.number, why = refusal.message, "a receipt of the feed is passed over");
                continue;
            }
        };
        let (reached, reason) = match notice.outcome {
            NoticeOutcome::Delivered => (Reached::Delivered, ""),
            NoticeOutcome::Taken => (Reached::Taken, ""),
            NoticeOutcome::Withheld(reason) => (Reached::Withheld, reason.as_str()),
            NoticeOutcome::SetAside(reason) => (Reached::SetAside, reason.as_str()),
        };
        let about = chain_place(notice.lane, notice.epoch, notice.number).text(recipient.as_str());
        for range in &notice.items {
            let key = about.clone().small(reached as u8).number(range.first.into());
            let value = Key::new().number(range.count.into()).number(at.as_micros().cast_unsigned()).text(reason);
            batch.put(REACHED, key.as_ref(), value.as_ref())?;
        }
    }
    Ok(())
}

fn mail(lane: Lane, items: &[Received], entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let mut first_blob = 0_u64;
    for (index, item) in (0_u64..).zip(items) {
        let key = lane_key(lane).number(item.number());
        match &item.verdict {
            Verdict::Accepted(delivery) => accepted(lane, delivery, entry, (index, first_blob), false, batch)?,
            Verdict::SetAside(delivery, reason) => {
                batch.put(ASIDE, key.as_ref(), Key::new().text(reason).as_ref())?;
                let id = header::exchange_id(&delivery.header);
                closes_aside(&id, batch)?;
                let place = key.clone().number(entry.sequence).number(index).small(0);
                batch.put(SET_ASIDE, id.0.as_bytes(), place.as_ref())?;
                let open = OpenAside {
                    sequence: entry.sequence,
                    index,
                    first_blob,
                    blob_count: item.blob_count.into(),
                    at: entry.recorded_at,
                    exchange_id: *id.0.as_bytes(),
                    reason: reason.clone(),
                };
                batch.put(OPEN_ASIDE, key.as_ref(), open.encode().as_ref())?;
            }
            Verdict::Withheld(_) => batch.put(ASIDE, key.as_ref(), Key::new().text("").as_ref())?,
            Verdict::Repeated(repeated) => {
                let first = lane_key(lane).number(repeated.first_number);
                batch.put(REPEATED, first.as_ref(), Key::new().number(repeated.number).as_ref())?;
                if repeated.taken {
                    take(lane, &[repeated.number], batch)?;
                }
            }
        }
        first_blob += u64::from(item.blob_count);
    }
    Ok(())
}

/// What was accepted. `is_late`: it had been set aside, and no cursor speaks of it.
fn accepted(
    lane: Lane,
    delivery: &Delivery,
    entry: &Entry,
    (index, first_blob): (u64, u64),
    is_late: bool,
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let key = lane_key(lane).number(delivery.number);
    let (mut row, header) = InboxRow::of(delivery, entry, index, first_blob)?;
    row.is_late = is_late;
    let (id, origin) = (ExchangeId(Digest(row.exchange_id)), &header.origin);
    row.about.is_withdrawn = batch.get(WITHDRAWN, withdrawn_key(&id, origin).as_ref())?.is_some();
    row.was_taken = row.about.is_withdrawn && batch.get(TAKEN_BEFORE, key.as_ref())?.is_some();
    if row.about.is_withdrawn {
        leaves((entry.sequence, index), &id, origin, batch)?;
    }
    batch.put(INBOX, key.as_ref(), row.encode().as_ref())?;
    let received = key.clone().text(origin.as_str());
    batch.put(RECEIVED, &row.exchange_id, received.as_ref())?;
    closes_aside(&id, batch)?;
    if let Some(withdrawal) = header.withdraws {
        let by = WithdrawnRow { by: id, kind: withdrawal.kind, successor: None, at: row.recorded_at };
        withdrawn_by(&by, &withdrawal.exchange, origin, (entry.sequence, index), batch)?;
    }
    // Of a restored node: an agency had it before the journal was lost, and the hub was told.
    if !row.about.is_withdrawn && batch.get(TAKEN_BEFORE, key.as_ref())?.is_none() {
        batch.put(UNTAKEN, key.as_ref(), about_row(&row.about).as_ref())?;
    }
    Ok(())
}

/// Nobody need say any more what is to become of an exchange that was set aside: it came again, or it holds.
fn closes_aside(id: &ExchangeId, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let Some(value) = batch.get(SET_ASIDE, id.0.as_bytes())? else { return Ok(()) };
    let (place, _) = received_place(&value).ok_or_else(|| malformed("the row of what was set aside"))?;
    batch.remove(OPEN_ASIDE, place.as_ref());
    Ok(())
}

/// What had been set aside came to an end.
fn aside_ended(fact: &AsideEnded, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let key = lane_key(fact.lane).number(fact.number);
    if let Some(told_as) = fact.told_as {
        told_behind(fact.lane, &[told_as], Some(fact.end()), batch)?;
    }
    match &fact.outcome {
        AsideOutcome::Accepted(item) => match &item.verdict {
            Verdict::Accepted(delivery) => accepted(fact.lane, delivery, entry, (0, 0), true, batch),
            _ => Err(malformed("what had been set aside was accepted without its delivery")),
        },
        AsideOutcome::Discarded { .. } => {
            let open = batch.get(OPEN_ASIDE, key.as_ref())?.and_then(|value| OpenAside::decode(&value));
            let open = open.ok_or_else(|| malformed("what was discarded had not been set aside"))?;
            let place = key.clone().number(open.sequence).number(open.index).small(1);
            batch.put(SET_ASIDE, &open.exchange_id, place.as_ref())?;
            batch.remove(OPEN_ASIDE, key.as_ref());
            Ok(())
        }
    }
}

/// Something that was set aside and of which nobody has said what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenAside {
    /// The journal entry.
    pub(crate) sequence: u64,
    /// Its item in the entry.
    pub(crate) index: u64,
    /// Its first blob in the entry.
    pub(crate) first_blob: u64,
    pub(crate) blob_count: u64,
    /// When it was journaled here, in microseconds.
    pub(crate) at: i64,
    pub(crate) exchange_id: [u8; 32],
    pub(crate) reason: String,
}

impl OpenAside {
    fn encode(&self) -> Key {
        let key = Key::new().number(self.sequence).number(self.index).number(self.first_blob).number(self.blob_count);
        key.number(self.at.cast_unsigned()).fixed(&self.exchange_id).text(&self.reason)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = KeyReader::new(value);
        Some(Self {
            sequence: reader.number()?,
            index: reader.number()?,
            first_blob: reader.number()?,
            blob_count: reader.number()?,
            at: reader.number()?.cast_signed(),
            exchange_id: reader.fixed()?,
            reason: reader.text()?,
        })
    }
}

/// A withdrawal came. It counts for what its own origin sent, and for nothing else.
fn withdrawn_by(
    row: &WithdrawnRow,
    exchange: &ExchangeId,
    origin: &ParticipantCode,
    place: (u64, u64),
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let key = withdrawn_key(exchange, origin);
    if batch.get(WITHDRAWN, key.as_ref())?.is_some() {
        return Ok(());
    }
    batch.put(WITHDRAWN, key.as_ref(), row.encode().as_ref())?;
    leaves(place, exchange, origin, batch)?;
    let Some(received) = batch.get(RECEIVED, exchange.0.as_bytes())? else { return Ok(()) };
    let (inbox, sent_by) = received_row(&received).ok_or_else(|| malformed("the row of a received exchange"))?;
    if sent_by != origin.as_str() && !concord_faults::planted("withdraw-for-anyone") {
        return Ok(());
    }
    // Whoever has yet to be given it is not; whoever had it keeps what it said.
    if let Some(value) = batch.get(INBOX, inbox.as_ref())? {
        let mut row = InboxRow::decode(&value).ok_or_else(|| malformed("the row of a delivery"))?;
        row.about.is_withdrawn = true;
        row.was_taken = batch.get(UNTAKEN, inbox.as_ref())?.is_none();
        batch.put(INBOX, inbox.as_ref(), row.encode().as_ref())?;
    }
    batch.remove(UNTAKEN, inbox.as_ref());
    Ok(())
}

/// The place in the inbox that a row of the received names, and who sent it.
fn received_row(value: &[u8]) -> Option<(Key, String)> {
    let (place, mut reader) = received_place(value)?;
    Some((place, reader.text()?))
}

/// The place in a mailbox that a row begins with.
fn received_place(value: &[u8]) -> Option<(Key, KeyReader<'_>)> {
    let mut reader = KeyReader::new(value);
    let place = Key::new().small(reader.small()?).number(reader.number()?);
    Some((place, reader))
}

/// The key of what an origin took back.
pub(crate) fn withdrawn_key(exchange: &ExchangeId, origin: &ParticipantCode) -> Key {
    Key::new().fixed(exchange.0.as_bytes()).text(origin.as_str())
}

/// By what something is not current any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithdrawnRow {
    /// The withdrawal.
    pub(crate) by: ExchangeId,
    pub(crate) kind: WithdrawalKind,
    /// What takes its place, as its own node knows.
    pub(crate) successor: Option<ExchangeId>,
    /// When that was queued, or recorded, in microseconds.
    pub(crate) at: i64,
}

impl WithdrawnRow {
    fn encode(&self) -> Key {
        let key = Key::new().fixed(self.by.0.as_bytes()).small(u8::from(self.kind == WithdrawalKind::Superseded));
        let key = key.number(self.at.cast_unsigned());
        self.successor.iter().fold(key, |key, successor| key.fixed(successor.0.as_bytes()))
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = KeyReader::new(value);
        let by = ExchangeId(Digest(reader.fixed()?));
        let kind = if reader.small()? == 1 { WithdrawalKind::Superseded } else { WithdrawalKind::Withdrawn };
        let at = reader.number()?.cast_signed();
        Some(Self { by, kind, at, successor: reader.fixed().map(|id| ExchangeId(Digest(id))) })
    }
}

/// What an agency acknowledged once is no first acknowledgement any more, whether it is here or comes again.
fn recovered(lane: Lane, taken: &[u64], batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    take(lane, taken, batch)?;
    for number in taken {
        let key = lane_key(lane).number(*number);
        batch.remove(UNTAKEN, key.as_ref());
        batch.put(TAKEN_BEFORE, key.as_ref(), &[])?;
    }
    Ok(())
}

fn acknowledged(fact: &Acknowledged, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    take(fact.lane, fact.told(), batch)?;
    for number in &fact.taken {
        batch.remove(UNTAKEN, lane_key(fact.lane).number(*number).as_ref());
    }
    Ok(())
}

fn collected(fact: &Collected, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    take(fact.lane, fact.told(), batch)?;
    batch.remove(UNTAKEN, lane_key(fact.lane).number(fact.number).as_ref());
    Ok(())
}

/// Adds first acknowledgements behind the last one.
fn take(lane: Lane, numbers: &[u64], batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    told_behind(lane, numbers, None, batch)
}

/// Adds what is told of numbers behind their delivery: that an agency took them, or how it ended where they had been set aside.
fn told_behind(
    lane: Lane,
    numbers: &[u64],
    ended: Option<AsideEnd>,
    batch: &mut Batch<'_>,
) -> Result<(), ProjectionError> {
    let lane = lane_key(lane);
    let mut count = last_taken(&lane, batch)?;
    for number in numbers {
        count += 1;
        let value = Key::new().number(*number);
        let value = match ended {
            None => value,
            Some(AsideEnd::Holds) => value.small(1),
            Some(AsideEnd::Discarded) => value.small(2),
        };
        batch.put(TAKEN, lane.clone().number(count).as_ref(), value.as_ref())?;
    }
    Ok(())
}

/// A number of which something is told behind its delivery, and how it ended where that is what is told.
pub(crate) fn told_row(value: &[u8]) -> Option<(u64, Option<AsideEnd>)> {
    let mut reader = KeyReader::new(value);
    let number = reader.number()?;
    Some(match reader.small() {
        None => (number, None),
        Some(1) => (number, Some(AsideEnd::Holds)),
        Some(_) => (number, Some(AsideEnd::Discarded)),
    })
}

fn last_taken(lane: &Key, batch: &Batch<'_>) -> Result<u64, ProjectionError> {
    let Some((key, _)) = batch.last(TAKEN, lane.as_ref())? else { return Ok(0) };
    let mut last = KeyReader::new(&key);
    last.small();
    last.number().ok_or_else(|| malformed("a row of the taken has no count"))
}

/// What the hub knows of the first acknowledgements stays, and what it forgot follows anew.
fn resumed_mailbox(resumed: &MailboxResumed, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
    let lane = lane_key(resumed.lane);
    let last = last_taken(&lane, batch)?;
    for count in resumed.taken_count + 1..=last {
        batch.remove(TAKEN, lane.clone().number(count).as_ref());
    }
    for (count, number) in (resumed.taken_count + 1..).zip(&resumed.taken) {
        batch.put(TAKEN, lane.clone().number(count).as_ref(), Key::new().number(*number).as_ref())?;
    }
    Ok(())
}

/// One accepted delivery: where it stands and by what its agencies are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboxRow {
    /// The journal entry.
    pub(crate) sequence: u64,
    /// Its item in the entry.
    pub(crate) index: u64,
    /// Its first blob in the entry.
    pub(crate) first_blob: u64,
    /// When the hub recorded it, in microseconds.
    pub(crate) recorded_at: i64,
    /// When it was journaled here, in microseconds.
    pub(crate) delivered_at: i64,
    pub(crate) exchange_id: [u8; 32],
    /// Of what is withdrawn: whether an agency had acknowledged it before. Of the rest that it is not among the untaken tells.
    pub(crate) was_taken: bool,
    /// It had been set aside: no cursor speaks of it.
    pub(crate) is_late: bool,
    pub(crate) about: About,
}

/// By what the agencies of a delivery are chosen.
fn about_row(about: &About) -> Key {
    with_about(Key::new(), about)
}

/// Names of agencies, where it is only for some, behind their number plus one.
fn with_about(key: Key, about: &About) -> Key {
    let key = key
        .text(about.measure.as_str())
        .text(about.agreement.as_str())
        .number(u64::from(about.strict) | u64::from(about.exercise) << 1);
    let key = key.number(u64::from(about.is_withdrawn));
    match &about.only {
        None => key.number(0),
        Some(only) => {
            let named = only.iter().map(ToString::to_string);
            named.fold(key.number(only.len() as u64 + 1), |key, agency| key.text(&agency))
        }
    }
}

/// The same, read again.
pub(crate) fn about_of(reader: &mut KeyReader<'_>) -> Option<About> {
    let measure = MeasureCode::parse(&reader.text()?).ok()?;
    let agreement = AgreementId::parse(&reader.text()?).ok()?;
    let flags = reader.number()?;
    let (strict, exercise) = (flags & 1 != 0, flags & 2 != 0);
    let is_withdrawn = reader.number()? != 0;
    let only = match reader.number()?.checked_sub(1) {
        None => None,
        Some(count) => Some((0..count).map(|_| reader.text()?.parse::<AgencyName>().ok()).collect::<Option<_>>()?),
    };
    Some(About { measure, agreement, strict, only, is_withdrawn, exercise })
}

impl InboxRow {
    fn of(delivery: &Delivery, entry: &Entry, index: u64, first_blob: u64) -> Result<(Self, Header), ProjectionError> {
        let parsed = header::parse(&delivery.header).map_err(malformed)?;
        let recorded_at = optional_timestamp(delivery.recorded_at.as_ref()).unwrap_or_default();
        let row = Self {
            sequence: entry.sequence,
            index,
            first_blob,
            recorded_at: recorded_at.as_micros(),
            delivered_at: entry.recorded_at,
            exchange_id: *header::exchange_id(&delivery.header).0.as_bytes(),
            was_taken: false,
            is_late: false,
            about: About::of(&parsed),
        };
        Ok((row, parsed))
    }

    fn encode(&self) -> Key {
        let key = Key::new()
            .number(self.sequence)
            .number(self.index)
            .number(self.first_blob)
            .number(self.recorded_at.cast_unsigned())
            .number(self.delivered_at.cast_unsigned())
            .fixed(&self.exchange_id)
            .small(u8::from(self.was_taken) | u8::from(self.is_late) << 1);
        with_about(key, &self.about)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = KeyReader::new(value);
        let (sequence, index, first_blob) = (reader.number()?, reader.number()?, reader.number()?);
        let (recorded_at, delivered_at) = (reader.number()?.cast_signed(), reader.number()?.cast_signed());
        let (exchange_id, flags) = (reader.fixed()?, reader.small()?);
        let (was_taken, is_late) = (flags & 1 != 0, flags & 2 != 0);
        let about = about_of(&mut reader)?;
        Some(Self { sequence, index, first_blob, recorded_at, delivered_at, exchange_id, was_taken, is_late, about })
    }
}

fn malformed(what: impl ToString) -> ProjectionError {
    ProjectionError::Malformed(what.to_string())
}

fn unreadable(error: StoredError) -> ProjectionError {
    match error {
        StoredError::UnknownKind { kind, version, .. } => ProjectionError::UnknownEntry { kind, version },
        error @ StoredError::Malformed { .. } => malformed(error),
    }
}
