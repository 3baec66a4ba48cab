//! The entries of a node's journal.

mod aside;
mod pins;
mod rights;

use bytes::Bytes;
use concord_journal::{Blob, Draft, Entry, HistoryBegun, KIND_HISTORY_BEGUN, is_known_effect};
use concord_model::{
    Digest, ExchangeId, Fingerprint, Lane, MeasureCode, Name, ParseError, ParticipantCode, Reason, Refusal, Timestamp,
};
use prost::Message;

use super::{Kept, StoredError, check_blobs, check_version, decode, draft, keep, kept, malformed, required};
use crate::consignment::Sealed;
use crate::convert::{digest_bytes, lane, parse_lane};
use crate::proto::agreement::v1::SignedStatement;
use crate::proto::exchange::v1::{Delivery, RecordedReceipt};
use crate::proto::feed::v1::FeedItem;
use crate::proto::journal::v1 as pb;
use crate::proto::operations::v1::Bundle;

pub use crate::proto::journal::v1::{StatementAnswered, Submission};
pub use aside::{AsideEnded, AsideOutcome, aside_accepted, aside_discarded};
pub use pins::pin_confirmed;
pub use rights::{Collected, RightsChange, collected, rights_changed};

const KIND_FOUNDED: u16 = 101;
const KIND_JOINED: u16 = 102;
const KIND_AGENCY_ADDED: u16 = 103;
const KIND_QUEUED: u16 = 104;
const KIND_RECEIPT: u16 = 105;
const KIND_FEED: u16 = 106;
const KIND_MAIL: u16 = 107;
const KIND_AGENCY_ACKNOWLEDGED: u16 = 108;
const KIND_STATEMENT: u16 = 109;
const KIND_ANSWER: u16 = 110;
const KIND_FEED_RESUMED: u16 = 111;
const KIND_MAILBOX_RESUMED: u16 = 112;
const KIND_RECEIPT_RENEWED: u16 = 113;
const KIND_RESTORED: u16 = 115;
const KIND_TAKEN_RECOVERED: u16 = 116;
const KIND_LANE_RECOVERED: u16 = 117;
const KIND_RUN_BEGUN: u16 = 118;
const KIND_FOUND: u16 = 119;
const KIND_EPOCH_ENTERED: u16 = 120;
const KIND_FENCED: u16 = 121;
const KIND_FENCE_LIFTED: u16 = 122;

/// One entry of a node's journal.
pub enum NodeEntry {
    /// The journal's own entry.
    HistoryBegun(HistoryBegun),
    /// What the journal did to itself: nothing to take in.
    JournalEffect,
    /// The beginning of a node.
    Founded {
        /// Whose node.
        participant: ParticipantCode,
        /// Its name.
        node: Name,
    },
    /// The hub that it joined.
    Joined(Bundle),
    /// An agency was let in.
    AgencyAdded {
        /// Its name.
        name: Name,
        /// None means all.
        measures: Vec<MeasureCode>,
    },
    /// Exchanges queued in one consignment; their blobs stand beside the entry.
    Queued(Box<Queued>),
    /// The hub recorded a consignment.
    Receipt(RecordedReceipt),
    /// Items of the feed.
    Feed {
        /// The hub's history.
        history: [u8; 16],
        /// In order.
        items: Vec<FeedItem>,
    },
    /// Deliveries of one mailbox; their blobs stand beside the entry.
    Mail {
        /// The mailbox.
        lane: Lane,
        /// The hub's history.
        history: [u8; 16],
        /// In order of their numbers.
        items: Vec<Received>,
    },
    /// An agency acknowledged.
    AgencyAcknowledged(Acknowledged),
    /// What an agency may send and receive changed.
    RightsChanged(Name, RightsChange),
    /// An agency acknowledged one delivery behind its cursor.
    AgencyCollected(Collected),
    /// An officer confirmed this signing key of another participant.
    PinConfirmed(ParticipantCode, Fingerprint),
    /// A statement, to be forwarded.
    Statement(SignedStatement),
    /// The hub answered a statement.
    Answer(StatementAnswered),
    /// The hub lost data, and the feed goes on.
    FeedResumed(FeedResumed),
    /// The hub lost data, and a mailbox goes on.
    MailboxResumed(MailboxResumed),
    /// The hub recorded a consignment that it had forgotten.
    ReceiptRenewed(RecordedReceipt),
    /// The journal before it was put back or made anew.
    Restored(Restored),
    /// Of a restored journal: first acknowledgements of a lane's mailbox that the hub had been told, behind those that it knows.
    TakenRecovered(Lane, Vec<u64>),
    /// What the hub knew of a lane is here again.
    LaneRecovered(LaneRecovered),
    /// The node's process began.
    RunBegun([u8; 16]),
    /// What the hub has under a number under which something else stands here; its blobs stand beside the entry.
    Found(Box<Kept>, RecordedReceipt),
    /// A lane goes on in this epoch: nothing of the one before waits any more.
    EpochEntered(Lane, u32),
    /// The hub does not serve this copy of the node, and why: `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
    Fenced(Refusal),
    /// It serves it after all.
    FenceLifted,
    /// What had been set aside came to an end.
    AsideEnded(AsideEnded),
}

impl NodeEntry {
    /// What was received with this entry, in order: of a mailbox, or of what had been set aside and holds after all. None of any other.
    pub fn into_received(self) -> Option<Vec<Received>> {
        match self {
            Self::Mail { items, .. } => Some(items),
            Self::AsideEnded(AsideEnded { outcome: AsideOutcome::Accepted(item), .. }) => Some(vec![*item]),
            _ => None,
        }
    }
}

/// Exchanges queued in one consignment.
pub struct Queued {
    /// The consignment.
    pub kept: Kept,
    /// Who submitted each exchange. One that was packed anew names no request: that stands where it was queued first.
    pub submissions: Vec<Submission>,
    /// Epoch and number of the consignment, of the same lane, from which they were packed anew.
    pub packed_anew: Option<(u32, u64)>,
}

/// What the hub knew of one lane of a restored node is here again, as far as it had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRecovered {
    /// The lane.
    pub lane: Lane,
    /// How many consignments came back.
    pub fetched: u64,
    /// How far the hub had recorded acknowledgements of its mailbox.
    pub delivered_through: u64,
    /// Own exchanges whose content the hub has no more; the first of them.
    pub bodies_lost: Vec<ExchangeId>,
    /// How many there are.
    pub bodies_lost_count: u64,
}

/// The feed goes on after the hub lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedResumed {
    /// The hub's history.
    pub history: [u8; 16],
    /// The next item has the number after this one.
    pub at: u64,
    /// What is shown as the last digest until then.
    pub digest: Option<Digest>,
}

/// A mailbox goes on after the hub lost data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxResumed {
    /// The mailbox.
    pub lane: Lane,
    /// The hub's history.
    pub history: [u8; 16],
    /// The next delivery has the number after this one.
    pub at: u64,
    /// Numbers after this one, up to `at`, mean nothing to the hub any more.
    pub common: u64,
    /// How many first acknowledgements the hub knows.
    pub taken_count: u64,
    /// Those that it does not know and that are told again.
    pub taken: Vec<u64>,
}

/// How a journal came to be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// From a backup that was taken then.
    FromBackup(Timestamp),
    /// It was lost, and made anew from keys and papers.
    Rebuilt,
    /// An older copy was put back whose last entry is of then, and was declared later.
    Declared(Timestamp),
}

/// One number of a mailbox, as it was judged.
pub struct Received {
    /// What became of it.
    pub verdict: Verdict,
    /// How many blobs it has beside the entry.
    pub blob_count: u32,
}

/// What became of one number of a mailbox. Deliveries are without their blobs.
pub enum Verdict {
    /// Verified: agencies get it.
    Accepted(Delivery),
    /// Not verified: kept with its evidence.
    SetAside(Delivery, String),
    /// The hub sent a notice only.
    Withheld(u64),
    /// It was accepted before, under another number.
    Repeated(Repeated),
}

/// A delivery of an exchange that was accepted before under another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// The number under which it came again.
    pub number: u64,
    /// The exchange.
    pub id: ExchangeId,
    /// The number under which it was accepted.
    pub first_number: u64,
    /// Whether an agency had acknowledged it by then.
    pub taken: bool,
}

impl Received {
    /// Its number in the mailbox.
    pub fn number(&self) -> u64 {
        match &self.verdict {
            Verdict::Accepted(delivery) | Verdict::SetAside(delivery, _) => delivery.number,
            Verdict::Withheld(number) => *number,
            Verdict::Repeated(repeated) => repeated.number,
        }
    }
}

/// An agency acknowledged everything of a lane up to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The agency.
    pub agency: Name,
    /// The lane.
    pub lane: Lane,
    /// The number in the lane's mailbox.
    pub through: u64,
    /// Numbers that no agency had acknowledged before.
    pub taken: Vec<u64>,
    /// What the hub is told in place of them, where it gave numbers again since.
    pub taken_as: Option<Vec<u64>>,
    /// The agency's rights as this entry of the journal left them: under which what is acknowledged was given. 0: as they are.
    pub rights_at: u64,
}

impl Acknowledged {
    /// What the hub is told.
    pub fn told(&self) -> &[u64] {
        self.taken_as.as_ref().unwrap_or(&self.taken)
    }
}

/// The first entry of a node, after the history.
pub fn founded(participant: &ParticipantCode, node: &Name, recorded_at: Timestamp) -> Draft {
    plain(KIND_FOUNDED, &pb::NodeFounded { participant: participant.to_string(), node: node.to_string() }, recorded_at)
}

/// The hub that the node joins.
pub fn joined(bundle: Bundle, recorded_at: Timestamp) -> Draft {
    plain(KIND_JOINED, &pb::HubJoined { bundle: Some(bundle) }, recorded_at)
}

/// An agency is let in.
pub fn agency_added(name: &Name, measures: &[MeasureCode], recorded_at: Timestamp) -> Draft {
    let measures = measures.iter().map(ToString::to_string).collect();
    plain(KIND_AGENCY_ADDED, &pb::AgencyAdded { name: name.to_string(), measures }, recorded_at)
}

/// A closed consignment with its blobs and who submitted each exchange.
pub fn queued(sealed: &Sealed, blobs: Vec<Vec<Blob>>, submissions: Vec<Submission>, recorded_at: Timestamp) -> Draft {
    let message = pb::ExchangesQueued { consignment: Some(keep(sealed, &blobs)), submissions, packed_anew: None };
    draft(KIND_QUEUED, &message, blobs.into_iter().flatten().collect(), recorded_at)
}

/// Exchanges of a consignment of a closed epoch, anew in another, with the agencies that submitted them.
pub fn packed_anew(
    sealed: &Sealed,
    blobs: Vec<Vec<Blob>>,
    agencies: Vec<String>,
    (epoch, number): (u32, u64),
    recorded_at: Timestamp,
) -> Draft {
    let submission = |agency| Submission { agency, request_id: String::new(), content_digest: Bytes::new() };
    let message = pb::ExchangesQueued {
        consignment: Some(keep(sealed, &blobs)),
        submissions: agencies.into_iter().map(submission).collect(),
        packed_anew: Some(pb::PackedAnew { epoch, number }),
    };
    draft(KIND_QUEUED, &message, blobs.into_iter().flatten().collect(), recorded_at)
}

/// What the hub has in place of what stands here, with its receipt, both verified before.
pub fn found(sealed: &Sealed, blobs: Vec<Vec<Blob>>, receipt: RecordedReceipt, recorded_at: Timestamp) -> Draft {
    let message = pb::ConsignmentFound { consignment: Some(keep(sealed, &blobs)), receipt: Some(receipt) };
    draft(KIND_FOUND, &message, blobs.into_iter().flatten().collect(), recorded_at)
}

/// A lane goes on in the next epoch.
pub fn epoch_entered(lane_of: Lane, epoch: u32, recorded_at: Timestamp) -> Draft {
    plain(KIND_EPOCH_ENTERED, &pb::EpochEntered { lane: lane(lane_of).into(), epoch }, recorded_at)
}

/// A receipt, verified before.
pub fn receipt(receipt: RecordedReceipt, recorded_at: Timestamp) -> Draft {
    plain(KIND_RECEIPT, &pb::ReceiptKept { receipt: Some(receipt) }, recorded_at)
}

/// Items of the feed, in order.
pub fn feed(history: &[u8; 16], items: Vec<FeedItem>, recorded_at: Timestamp) -> Draft {
    plain(KIND_FEED, &pb::FeedApplied { history: Bytes::copy_from_slice(history), items }, recorded_at)
}

/// Deliveries of one mailbox, in order, each with its blobs.
pub fn mail(lane_of: Lane, history: &[u8; 16], items: Vec<(Verdict, Vec<Blob>)>, recorded_at: Timestamp) -> Draft {
    let mut blobs = Vec::new();
    let mut received = Vec::with_capacity(items.len());
    for (verdict, own) in items {
        let item = match verdict {
            Verdict::Accepted(delivery) => pb::received_item::Item::Accepted(delivery),
            Verdict::SetAside(delivery, reason) => {
                pb::received_item::Item::SetAside(pb::SetAsideDelivery { delivery: Some(delivery), reason })
            }
            Verdict::Withheld(number) => pb::received_item::Item::Withheld(number),
            Verdict::Repeated(repeated) => pb::received_item::Item::Repeated(pb::RepeatedDelivery {
                number: repeated.number,
                exchange_id: digest_bytes(&repeated.id.0),
                first_number: repeated.first_number,
                taken: repeated.taken,
            }),
        };
        received.push(pb::ReceivedItem { item: Some(item), blob_count: own.len() as u32 });
        blobs.extend(own);
    }
    let history = Bytes::copy_from_slice(history);
    let message = pb::MailReceived { lane: lane(lane_of).into(), history, items: received };
    draft(KIND_MAIL, &message, blobs, recorded_at)
}

/// An agency acknowledges.
pub fn agency_acknowledged(fact: &Acknowledged, recorded_at: Timestamp) -> Draft {
    let message = pb::AgencyAcknowledged {
        agency: fact.agency.to_string(),
        lane: lane(fact.lane).into(),
        through: fact.through,
        taken: fact.taken.clone(),
        taken_as: fact.taken_as.clone().map(|numbers| pb::TakenAs { numbers }),
        rights_at: fact.rights_at,
    };
    plain(KIND_AGENCY_ACKNOWLEDGED, &message, recorded_at)
}

/// A statement, verified before.
pub fn statement(signed: SignedStatement, recorded_at: Timestamp) -> Draft {
    plain(KIND_STATEMENT, &pb::StatementQueued { signed: Some(signed) }, recorded_at)
}

/// The hub's answer to a statement.
pub fn answer(answer: &StatementAnswered, recorded_at: Timestamp) -> Draft {
    plain(KIND_ANSWER, answer, recorded_at)
}

/// The feed goes on.
pub fn feed_resumed(fact: &FeedResumed, recorded_at: Timestamp) -> Draft {
    let message = pb::NodeFeedResumed {
        history: Bytes::copy_from_slice(&fact.history),
        at: fact.at,
        digest: fact.digest.as_ref().map(digest_bytes).unwrap_or_default(),
    };
    plain(KIND_FEED_RESUMED, &message, recorded_at)
}

/// A mailbox goes on.
pub fn mailbox_resumed(fact: &MailboxResumed, recorded_at: Timestamp) -> Draft {
    let message = pb::NodeMailboxResumed {
        lane: lane(fact.lane).into(),
        history: Bytes::copy_from_slice(&fact.history),
        at: fact.at,
        common: fact.common,
        taken_count: fact.taken_count,
        taken: fact.taken.clone(),
    };
    plain(KIND_MAILBOX_RESUMED, &message, recorded_at)
}

/// Another receipt of a consignment that has one, verified before.
pub fn receipt_renewed(receipt: RecordedReceipt, recorded_at: Timestamp) -> Draft {
    plain(KIND_RECEIPT_RENEWED, &pb::ReceiptRenewed { receipt: Some(receipt) }, recorded_at)
}

/// The journal was put back or made anew; what came after is not in it.
pub fn restored(how: Restored, recorded_at: Timestamp) -> Draft {
    let message = match how {
        Restored::FromBackup(taken_at) => pb::JournalRestored {
            cause: pb::RestoreCause::Backup.into(),
            taken_at: Some(crate::convert::timestamp(taken_at)),
        },
        Restored::Declared(last) => pb::JournalRestored {
            cause: pb::RestoreCause::Declared.into(),
            taken_at: Some(crate::convert::timestamp(last)),
        },
        Restored::Rebuilt => pb::JournalRestored { cause: pb::RestoreCause::Rebuilt.into(), taken_at: None },
    };
    plain(KIND_RESTORED, &message, recorded_at)
}

/// First acknowledgements that the hub had been told of come back.
pub fn taken_recovered(lane_of: Lane, taken: Vec<u64>, recorded_at: Timestamp) -> Draft {
    plain(KIND_TAKEN_RECOVERED, &pb::TakenRecovered { lane: lane(lane_of).into(), taken }, recorded_at)
}

/// What the hub knew of a lane is here again.
pub fn lane_recovered(fact: &LaneRecovered, recorded_at: Timestamp) -> Draft {
    let message = pb::LaneRecovered {
        lane: lane(fact.lane).into(),
        fetched: fact.fetched,
        delivered_through: fact.delivered_through,
        bodies_lost: fact.bodies_lost.iter().map(|id| digest_bytes(&id.0)).collect(),
        bodies_lost_count: fact.bodies_lost_count,
    };
    plain(KIND_LANE_RECOVERED, &message, recorded_at)
}

/// The node's process begins.
pub fn run_begun(run: [u8; 16], recorded_at: Timestamp) -> Draft {
    plain(KIND_RUN_BEGUN, &pb::RunBegun { run: Bytes::copy_from_slice(&run) }, recorded_at)
}

/// The hub does not serve this copy of the node, and why: `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
pub fn fenced(why: &Refusal, recorded_at: Timestamp) -> Draft {
    let message = pb::NodeFenced { reason: why.reason.code().to_owned(), message: why.message.clone() };
    plain(KIND_FENCED, &message, recorded_at)
}

/// The hub serves it after all.
pub fn fence_lifted(recorded_at: Timestamp) -> Draft {
    plain(KIND_FENCE_LIFTED, &pb::NodeFenceLifted {}, recorded_at)
}

/// Reads an entry of a node's journal; blobs need not be loaded.
pub fn read(entry: &Entry) -> Result<NodeEntry, StoredError> {
    check_version(entry)?;
    let bad = |error: ParseError| malformed(entry, error);
    Ok(match entry.kind {
        kind if is_known_effect(kind) => NodeEntry::JournalEffect,
        KIND_HISTORY_BEGUN => {
            let begun = HistoryBegun::decode(&entry.payload).map_err(|error| malformed(entry, error))?;
            NodeEntry::HistoryBegun(begun)
        }
        KIND_FOUNDED => {
            let message: pb::NodeFounded = decode(entry)?;
            let participant = ParticipantCode::parse(&message.participant).map_err(bad)?;
            NodeEntry::Founded { participant, node: Name::parse(&message.node).map_err(bad)? }
        }
        KIND_JOINED => {
            let message: pb::HubJoined = decode(entry)?;
            NodeEntry::Joined(required(entry, "the bundle", message.bundle)?)
        }
        KIND_AGENCY_ADDED => {
            let message: pb::AgencyAdded = decode(entry)?;
            let measures = message.measures.iter().map(|code| MeasureCode::parse(code));
            let measures = measures.collect::<Result<_, _>>().map_err(bad)?;
            NodeEntry::AgencyAdded { name: Name::parse(&message.name).map_err(bad)?, measures }
        }
        KIND_QUEUED => {
            let message: pb::ExchangesQueued = decode(entry)?;
            let stored = required(entry, "the consignment", message.consignment)?;
            let kept = kept(entry, stored)?;
            if message.submissions.len() != kept.sealed.headers.len() {
                return Err(malformed(entry, "its exchanges and who submitted them differ in number"));
            }
            let packed_anew = message.packed_anew.map(|from| (from.epoch, from.number));
            NodeEntry::Queued(Box::new(Queued { kept, submissions: message.submissions, packed_anew }))
        }
        KIND_FOUND => {
            let message: pb::ConsignmentFound = decode(entry)?;
            let kept = kept(entry, required(entry, "the consignment", message.consignment)?)?;
            NodeEntry::Found(Box::new(kept), required(entry, "the receipt", message.receipt)?)
        }
        KIND_EPOCH_ENTERED => {
            let message: pb::EpochEntered = decode(entry)?;
            NodeEntry::EpochEntered(parse_lane(message.lane).map_err(bad)?, message.epoch)
        }
        KIND_RECEIPT => {
            let message: pb::ReceiptKept = decode(entry)?;
            NodeEntry::Receipt(required(entry, "the receipt", message.receipt)?)
        }
        KIND_FEED => {
            let message: pb::FeedApplied = decode(entry)?;
            NodeEntry::Feed { history: read_history(entry, &message.history)?, items: message.items }
        }
        KIND_MAIL => {
            let message: pb::MailReceived = decode(entry)?;
            check_blobs(entry, message.items.iter().map(|item| item.blob_count))?;
            let items = message.items.into_iter().map(|item| read_received(entry, item));
            NodeEntry::Mail {
                lane: parse_lane(message.lane).map_err(bad)?,
                history: read_history(entry, &message.history)?,
                items: items.collect::<Result<_, _>>()?,
            }
        }
        KIND_AGENCY_ACKNOWLEDGED => {
            let message: pb::AgencyAcknowledged = decode(entry)?;
            NodeEntry::AgencyAcknowledged(Acknowledged {
                agency: Name::parse(&message.agency).map_err(bad)?,
                lane: parse_lane(message.lane).map_err(bad)?,
                through: message.through,
                taken: message.taken,
                taken_as: message.taken_as.map(|taken_as| taken_as.numbers),
                rights_at: message.rights_at,
            })
        }
        KIND_STATEMENT => {
            let message: pb::StatementQueued = decode(entry)?;
            NodeEntry::Statement(required(entry, "the statement", message.signed)?)
        }
        KIND_ANSWER => NodeEntry::Answer(decode(entry)?),
        KIND_FEED_RESUMED => {
            let message: pb::NodeFeedResumed = decode(entry)?;
            let digest = match &message.digest[..] {
                [] => None,
                digest => Some(Digest::from_slice(digest).map_err(bad)?),
            };
            let history = read_history(entry, &message.history)?;
            NodeEntry::FeedResumed(FeedResumed { history, at: message.at, digest })
        }
        KIND_MAILBOX_RESUMED => {
            let message: pb::NodeMailboxResumed = decode(entry)?;
            NodeEntry::MailboxResumed(MailboxResumed {
                lane: parse_lane(message.lane).map_err(bad)?,
                history: read_history(entry, &message.history)?,
                at: message.at,
                common: message.common,
                taken_count: message.taken_count,
                taken: message.taken,
            })
        }
        KIND_RECEIPT_RENEWED => {
            let message: pb::ReceiptRenewed = decode(entry)?;
            NodeEntry::ReceiptRenewed(required(entry, "the receipt", message.receipt)?)
        }
        KIND_TAKEN_RECOVERED => {
            let message: pb::TakenRecovered = decode(entry)?;
            NodeEntry::TakenRecovered(parse_lane(message.lane).map_err(bad)?, message.taken)
        }
        KIND_LANE_RECOVERED => {
            let message: pb::LaneRecovered = decode(entry)?;
            let lost = message.bodies_lost.iter().map(|id| Digest::from_slice(id).map(ExchangeId));
            NodeEntry::LaneRecovered(LaneRecovered {
                lane: parse_lane(message.lane).map_err(bad)?,
                fetched: message.fetched,
                delivered_through: message.delivered_through,
                bodies_lost: lost.collect::<Result<_, _>>().map_err(bad)?,
                bodies_lost_count: message.bodies_lost_count,
            })
        }
        KIND_RUN_BEGUN => {
            let message: pb::RunBegun = decode(entry)?;
            NodeEntry::RunBegun(read_history(entry, &message.run)?)
        }
        KIND_RESTORED => NodeEntry::Restored(read_restored(entry, &decode(entry)?)?),
        KIND_FENCED => {
            let message: pb::NodeFenced = decode(entry)?;
            match Reason::from_code(&message.reason) {
                Some(reason @ (Reason::NodeRolledBack | Reason::NodeSuperseded)) => {
                    NodeEntry::Fenced(Refusal::new(reason, message.message))
                }
                _ => return Err(malformed(entry, "its reason is none for which a copy of a node is not served")),
            }
        }
        KIND_FENCE_LIFTED => {
            let pb::NodeFenceLifted {} = decode(entry)?;
            NodeEntry::FenceLifted
        }
        aside::KIND_ASIDE_ENDED => return aside::read(entry),
        pins::KIND_PIN_CONFIRMED => return pins::read(entry),
        _ => return rights::read(entry),
    })
}

fn read_received(entry: &Entry, item: pb::ReceivedItem) -> Result<Received, StoredError> {
    use pb::received_item::Item;
    let verdict = match required(entry, "the verdict", item.item)? {
        Item::Accepted(delivery) => Verdict::Accepted(delivery),
        Item::SetAside(aside) => Verdict::SetAside(required(entry, "the delivery", aside.delivery)?, aside.reason),
        Item::Withheld(number) => Verdict::Withheld(number),
        Item::Repeated(repeated) => Verdict::Repeated(Repeated {
            number: repeated.number,
            id: ExchangeId(Digest::from_slice(&repeated.exchange_id).map_err(|error| malformed(entry, error))?),
            first_number: repeated.first_number,
            taken: repeated.taken,
        }),
    };
    Ok(Received { verdict, blob_count: item.blob_count })
}

fn read_restored(entry: &Entry, message: &pb::JournalRestored) -> Result<Restored, StoredError> {
    let taken_at = crate::convert::optional_timestamp(message.taken_at.as_ref());
    match (message.cause(), taken_at) {
        (pb::RestoreCause::Backup, Some(taken_at)) => Ok(Restored::FromBackup(taken_at)),
        (pb::RestoreCause::Rebuilt, None) => Ok(Restored::Rebuilt),
        (pb::RestoreCause::Declared, Some(last)) => Ok(Restored::Declared(last)),
        _ => Err(malformed(entry, "its cause and its time do not fit")),
    }
}

fn read_history(entry: &Entry, bytes: &[u8]) -> Result<[u8; 16], StoredError> {
    bytes.try_into().map_err(|_| malformed(entry, "a history has 16 bytes"))
}

fn plain(kind: u16, payload: &impl Message, recorded_at: Timestamp) -> Draft {
    draft(kind, payload, Vec::new(), recorded_at)
}
