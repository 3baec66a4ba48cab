//! The entries of the hub's journal: a fact of the ledger with the evidence for it.

use bytes::Bytes;
use concord_journal::{Blob, Draft, Entry, HistoryBegun as JournalHistoryBegun, KIND_HISTORY_BEGUN, is_known_effect};
use concord_ledger::{
    AgreementLapsed, AudienceGroup, ConsignmentRecorded, ExchangePlace, Fact, FeedResumed, Founding, HistoryBegun,
    ItemRefusal, Lost, MailAcknowledged, MailboxResumed, MailboxRun, NodeSeen, NotHealed, OriginNotices, Resume, Shown,
    StatementContent, StatementDecided, Told, WithdrawalRecorded, WithdrawnBefore,
};
use concord_model::{Digest, ExchangeId, Name, ParseError, ParticipantCode, Reason, Timestamp};

use super::{Kept, StoredError, check_version, decode, draft, keep, kept, malformed, required, unknown};
use crate::agreement::{certificate_fingerprint, parse_statement, public_key};
use crate::consignment::{Sealed, closed_epoch, parse_closed_epoch};
use crate::convert::{digest_bytes, lane, parse_lane, parse_ranges, ranges};
use crate::header::{agreement_ref, parse_agreement_ref};
use crate::proto::agreement::v1::SignedStatement;
use crate::proto::exchange::v1::Acknowledgement;
use crate::proto::journal::v1 as pb;
use crate::{feed, registry};

/// Kind of [`pb::HubFounded`].
pub const KIND_FOUNDED: u16 = 1;
/// Kind of [`pb::StatementDecided`].
pub const KIND_STATEMENT: u16 = 2;
/// Kind of [`pb::ConsignmentRecorded`].
pub const KIND_CONSIGNMENT: u16 = 3;
/// Kind of [`pb::MailAcknowledged`].
pub const KIND_ACKNOWLEDGED: u16 = 4;
/// Kind of [`pb::HubFeedResumed`].
pub const KIND_FEED_RESUMED: u16 = 5;
/// Kind of [`pb::HubMailboxResumed`].
pub const KIND_MAILBOX_RESUMED: u16 = 6;
/// Kind of [`pb::NodeSeen`].
pub const KIND_NODE_SEEN: u16 = 10;
/// Kind of [`pb::NotHealed`].
pub const KIND_NOT_HEALED: u16 = 11;
/// Kind of [`pb::AgreementLapsed`].
pub const KIND_LAPSED: u16 = 12;

/// One entry of the hub's journal.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost every reader an allocation")]
pub enum HubEntry {
    /// The journal's own entry.
    HistoryBegun(HistoryBegun),
    /// What the journal did to itself: nothing to take in.
    JournalEffect,
    /// The beginning of a hub.
    Founded(Founding),
    /// A statement, as it was signed.
    Statement(StatementDecided, SignedStatement),
    /// A consignment, as it was sealed; its blobs stand beside the entry.
    Consignment(ConsignmentRecorded, Box<Kept>),
    /// A recipient's word, as it was signed.
    Acknowledged(MailAcknowledged, Acknowledgement),
    /// A feed goes on after the hub lost data.
    FeedResumed(FeedResumed),
    /// A mailbox goes on after the hub lost data.
    MailboxResumed(MailboxResumed),
    /// This copy of a node is served.
    NodeSeen(NodeSeen),
    /// Something that was lost cannot be had again.
    NotHealed(NotHealed),
    /// The time of an agreement was over.
    Lapsed(AgreementLapsed),
}

impl HubEntry {
    /// The fact, for the ledger.
    pub fn into_fact(self) -> Fact {
        match self {
            Self::HistoryBegun(fact) => Fact::HistoryBegun(fact),
            Self::JournalEffect => Fact::JournalEffect,
            Self::Founded(fact) => Fact::Founded(fact),
            Self::Statement(fact, _) => Fact::Statement(fact),
            Self::Consignment(fact, _) => Fact::Consignment(fact),
            Self::Acknowledged(fact, _) => Fact::Acknowledged(fact),
            Self::FeedResumed(fact) => Fact::FeedResumed(fact),
            Self::MailboxResumed(fact) => Fact::MailboxResumed(fact),
            Self::NodeSeen(fact) => Fact::NodeSeen(fact),
            Self::NotHealed(fact) => Fact::NotHealed(fact),
            Self::Lapsed(fact) => Fact::Lapsed(fact),
        }
    }
}

/// The first entry of a hub, after the history.
pub fn founded(founding: &Founding, recorded_at: Timestamp) -> Draft {
    let message = pb::HubFounded {
        hub: founding.hub.to_string(),
        anchor: Bytes::copy_from_slice(&founding.anchor),
        signing_key: Bytes::copy_from_slice(&founding.signing_key.bytes),
        registry: Some(registry::registry(&founding.participants, &founding.areas, &founding.measures)),
    };
    draft(KIND_FOUNDED, &message, Vec::new(), recorded_at)
}

/// A statement with its signature.
pub fn statement(fact: &StatementDecided, signed: SignedStatement, recorded_at: Timestamp) -> Draft {
    let message = pb::StatementDecided {
        signed: Some(signed),
        refused: fact.refused.map(|reason| reason.code().to_owned()).unwrap_or_default(),
        told: fact.told.iter().map(told).collect(),
        closes: fact.closes.as_deref().map(closed_epoch),
        missed: fact.missed.clone(),
    };
    draft(KIND_STATEMENT, &message, Vec::new(), recorded_at)
}

/// A consignment with its blobs; those of refused exchanges are left out.
pub fn consignment(
    fact: &ConsignmentRecorded,
    sealed: &Sealed,
    mut blobs: Vec<Vec<Blob>>,
    recorded_at: Timestamp,
) -> Draft {
    for refused in &fact.refused {
        if let Some(blobs) = blobs.get_mut(refused.index as usize) {
            blobs.clear();
        }
    }
    let message = pb::ConsignmentRecorded {
        consignment: Some(keep(sealed, &blobs)),
        groups: fact.groups.iter().map(group).collect(),
        refused: fact
            .refused
            .iter()
            .map(|refusal| pb::ItemRefusal { index: refusal.index, reason: refusal.reason.code().to_owned() })
            .collect(),
        mailboxes: fact
            .mailboxes
            .iter()
            .map(|run| pb::MailboxRun {
                recipient: run.recipient.to_string(),
                first: run.first,
                count: run.count,
                feed_number: run.feed_number,
            })
            .collect(),
        rehanded: fact.rehanded,
        withdrawals: fact.withdrawals.iter().map(withdrawal).collect(),
        withdrawn_before: fact
            .withdrawn_before
            .iter()
            .map(|one| pb::WithdrawnBefore { index: one.index, exchange_id: digest_bytes(&one.exchange.0) })
            .collect(),
    };
    draft(KIND_CONSIGNMENT, &message, blobs.into_iter().flatten().collect(), recorded_at)
}

/// A recipient's word with its signature. `hub` completes the chains of its notices.
pub fn acknowledged(fact: &MailAcknowledged, signed: Acknowledgement, hub: &Name, recorded_at: Timestamp) -> Draft {
    let message = pb::MailAcknowledged {
        acknowledgement: Some(signed),
        recipient: fact.recipient.to_string(),
        lane: lane(fact.lane).into(),
        delivered_through: fact.delivered_through,
        taken_count: fact.taken_count,
        told: fact
            .told
            .iter()
            .map(|notices| pb::OriginNotices {
                told: Some(told(&notices.told)),
                receipts: notices.notices.iter().map(|notice| feed::receipt(hub, notice)).collect(),
            })
            .collect(),
    };
    draft(KIND_ACKNOWLEDGED, &message, Vec::new(), recorded_at)
}

/// A feed goes on.
pub fn feed_resumed(fact: &FeedResumed, recorded_at: Timestamp) -> Draft {
    let resume = &fact.resume;
    let message = pb::HubFeedResumed {
        participant: fact.participant.to_string(),
        history: Bytes::copy_from_slice(&resume.shown.history),
        number: resume.shown.number,
        digest: resume.shown.digest.as_ref().map(digest_bytes).unwrap_or_default(),
        common: resume.common,
        last: resume.last,
        at: resume.at,
    };
    draft(KIND_FEED_RESUMED, &message, Vec::new(), recorded_at)
}

/// A mailbox goes on.
pub fn mailbox_resumed(fact: &MailboxResumed, recorded_at: Timestamp) -> Draft {
    let resume = &fact.resume;
    let message = pb::HubMailboxResumed {
        recipient: fact.recipient.to_string(),
        lane: lane(fact.lane).into(),
        history: Bytes::copy_from_slice(&resume.shown.history),
        number: resume.shown.number,
        digest: resume.shown.digest.as_ref().map(digest_bytes).unwrap_or_default(),
        common: resume.common,
        last: resume.last,
        at: resume.at,
    };
    draft(KIND_MAILBOX_RESUMED, &message, Vec::new(), recorded_at)
}

/// This copy of a node is served.
pub fn node_seen(fact: &NodeSeen, recorded_at: Timestamp) -> Draft {
    let message = pb::NodeSeen {
        participant: fact.participant.to_string(),
        history: Bytes::copy_from_slice(&fact.history),
        run: Bytes::copy_from_slice(&fact.run),
    };
    draft(KIND_NODE_SEEN, &message, Vec::new(), recorded_at)
}

/// Something that was lost cannot be had again.
pub fn not_healed(fact: &NotHealed, recorded_at: Timestamp) -> Draft {
    let what = |lost: &Lost| match lost {
        Lost::Exchange { id, recipients } => pb::lost::What::Exchange(pb::LostExchange {
            exchange_id: digest_bytes(&id.0),
            recipients: recipients.iter().map(ToString::to_string).collect(),
        }),
        Lost::Statement { officer, number } => {
            pb::lost::What::Statement(pb::LostStatement { officer: officer.to_string(), number: *number })
        }
        Lost::Consignment { lane: of, epoch, number } => {
            pb::lost::What::Consignment(pb::LostConsignment { lane: lane(*of).into(), epoch: *epoch, number: *number })
        }
    };
    let one = |(lost, reason): &(Lost, Reason)| pb::Lost { reason: reason.code().to_owned(), what: Some(what(lost)) };
    let message =
        pb::NotHealed { participant: fact.participant.to_string(), lost: fact.lost.iter().map(one).collect() };
    draft(KIND_NOT_HEALED, &message, Vec::new(), recorded_at)
}

/// The time of an agreement was over.
pub fn lapsed(fact: &AgreementLapsed, recorded_at: Timestamp) -> Draft {
    let message = pb::AgreementLapsed {
        agreement: Some(agreement_ref(&fact.agreement)),
        told: fact.told.iter().map(told).collect(),
    };
    draft(KIND_LAPSED, &message, Vec::new(), recorded_at)
}

/// Reads an entry of the hub's journal; blobs need not be loaded.
pub fn read(entry: &Entry) -> Result<HubEntry, StoredError> {
    check_version(entry)?;
    match entry.kind {
        kind if is_known_effect(kind) => Ok(HubEntry::JournalEffect),
        KIND_HISTORY_BEGUN => {
            let begun = JournalHistoryBegun::decode(&entry.payload).map_err(|error| malformed(entry, error))?;
            let parent = begun.parent.map(|tail| *tail.history.as_bytes());
            Ok(HubEntry::HistoryBegun(HistoryBegun { history: *begun.history.as_bytes(), parent }))
        }
        KIND_FOUNDED => Ok(HubEntry::Founded(read_founded(entry)?)),
        KIND_STATEMENT => read_statement(entry),
        KIND_CONSIGNMENT => {
            let message: pb::ConsignmentRecorded = decode(entry)?;
            let stored = required(entry, "the consignment", message.consignment)?;
            let kept = kept(entry, stored)?;
            let fact = read_audiences(&kept.sealed, message.groups, message.refused, message.mailboxes)
                .map_err(|error| malformed(entry, error))?;
            let withdrawals = message.withdrawals.iter().map(read_withdrawal).collect::<Result<_, _>>();
            let before = message.withdrawn_before.iter().map(read_withdrawn_before).collect::<Result<_, _>>();
            let fact = ConsignmentRecorded {
                rehanded: message.rehanded,
                withdrawals: withdrawals.map_err(|error: ParseError| malformed(entry, error))?,
                withdrawn_before: before.map_err(|error: ParseError| malformed(entry, error))?,
                ..fact
            };
            Ok(HubEntry::Consignment(fact, Box::new(kept)))
        }
        KIND_ACKNOWLEDGED => read_acknowledged(entry),
        KIND_FEED_RESUMED => {
            let message: pb::HubFeedResumed = decode(entry)?;
            let participant = ParticipantCode::parse(&message.participant).map_err(|error| malformed(entry, error))?;
            let numbers = (message.number, message.common, message.last, message.at);
            let resume = read_resume(entry, &message.history, &message.digest, numbers)?;
            Ok(HubEntry::FeedResumed(FeedResumed { participant, resume }))
        }
        KIND_MAILBOX_RESUMED => {
            let message: pb::HubMailboxResumed = decode(entry)?;
            let recipient = ParticipantCode::parse(&message.recipient).map_err(|error| malformed(entry, error))?;
            let lane = parse_lane(message.lane).map_err(|error| malformed(entry, error))?;
            let numbers = (message.number, message.common, message.last, message.at);
            let resume = read_resume(entry, &message.history, &message.digest, numbers)?;
            Ok(HubEntry::MailboxResumed(MailboxResumed { recipient, lane, resume }))
        }
        KIND_NODE_SEEN => {
            let message: pb::NodeSeen = decode(entry)?;
            let word = |bytes: &[u8]| {
                <[u8; 16]>::try_from(bytes).map_err(|_| malformed(entry, "a history and a run have 16 bytes"))
            };
            Ok(HubEntry::NodeSeen(NodeSeen {
                participant: ParticipantCode::parse(&message.participant).map_err(|error| malformed(entry, error))?,
                history: word(&message.history)?,
                run: word(&message.run)?,
            }))
        }
        KIND_NOT_HEALED => {
            let message: pb::NotHealed = decode(entry)?;
            let read = |lost| read_lost(lost).map_err(|error| malformed(entry, error));
            Ok(HubEntry::NotHealed(NotHealed {
                participant: ParticipantCode::parse(&message.participant).map_err(|error| malformed(entry, error))?,
                lost: message.lost.into_iter().map(read).collect::<Result<_, _>>()?,
            }))
        }
        KIND_LAPSED => {
            let message: pb::AgreementLapsed = decode(entry)?;
            let bad = |error| malformed(entry, error);
            let agreement = required(entry, "the agreement", message.agreement)?;
            Ok(HubEntry::Lapsed(AgreementLapsed {
                agreement: parse_agreement_ref(&agreement).map_err(bad)?,
                told: message.told.iter().map(read_told).collect::<Result<_, _>>().map_err(bad)?,
            }))
        }
        _ => Err(unknown(entry)),
    }
}

fn read_lost(message: pb::Lost) -> Result<(Lost, Reason), ParseError> {
    let reason = parse_reason(&message.reason)?;
    let lost =
        match message.what.ok_or_else(|| ParseError::new("lost", "", "an exchange, a statement or a consignment"))? {
            pb::lost::What::Exchange(exchange) => Lost::Exchange {
                id: ExchangeId(Digest::from_slice(&exchange.exchange_id)?),
                recipients: exchange
                    .recipients
                    .iter()
                    .map(|code| ParticipantCode::parse(code))
                    .collect::<Result<_, _>>()?,
            },
            pb::lost::What::Statement(statement) => {
                Lost::Statement { officer: Name::parse(&statement.officer)?, number: statement.number }
            }
            pb::lost::What::Consignment(consignment) => Lost::Consignment {
                lane: parse_lane(consignment.lane)?,
                epoch: consignment.epoch,
                number: consignment.number,
            },
        };
    Ok((lost, reason))
}

fn parse_reason(code: &str) -> Result<Reason, ParseError> {
    Reason::from_code(code).ok_or_else(|| ParseError::new("reason", code, "a reason of this version"))
}

/// Its place is the entry's, which the ledger adds.
fn read_resume(
    entry: &Entry,
    history: &[u8],
    digest: &[u8],
    (number, common, last, at): (u64, u64, u64, u64),
) -> Result<Resume, StoredError> {
    let history = history.try_into().map_err(|_| malformed(entry, "a history has 16 bytes"))?;
    let digest = match digest {
        [] => None,
        digest => Some(Digest::from_slice(digest).map_err(|error| malformed(entry, error))?),
    };
    if common > last || last > at || number > at {
        return Err(malformed(entry, "a resumption goes back"));
    }
    Ok(Resume { shown: Shown { history, number, digest }, common, last, at, again: 0, sequence: 0 })
}

fn read_founded(entry: &Entry) -> Result<Founding, StoredError> {
    let message: pb::HubFounded = decode(entry)?;
    let bad = |error: ParseError| malformed(entry, error);
    let registry = required(entry, "the registry", message.registry)?;
    let registry = registry::parse(&registry).map_err(bad)?;
    let key = <[u8; 32]>::try_from(&message.signing_key[..]).map_err(|_| malformed(entry, "a key has 32 bytes"))?;
    Ok(Founding {
        hub: Name::parse(&message.hub).map_err(bad)?,
        anchor_fingerprint: certificate_fingerprint(&message.anchor),
        anchor: message.anchor.to_vec(),
        signing_key: public_key(key),
        participants: registry.participants,
        areas: registry.areas,
        measures: registry.measures,
    })
}

fn read_statement(entry: &Entry) -> Result<HubEntry, StoredError> {
    let message: pb::StatementDecided = decode(entry)?;
    let signed = required(entry, "the statement", message.signed)?;
    let statement = parse_statement(&signed).map_err(|refusal| malformed(entry, refusal))?;
    let refused = match message.refused.as_str() {
        "" => None,
        code => Some(read_reason(entry, code)?),
    };
    let told = message.told.iter().map(read_told).collect::<Result<_, _>>().map_err(|error| malformed(entry, error))?;
    let closes = message.closes.as_ref().map(parse_closed_epoch).transpose();
    let closes = closes.map_err(|error| malformed(entry, error))?.map(Box::new);
    if closes.is_some() != (refused.is_none() && statement.closes().is_some()) {
        return Err(malformed(entry, "where an epoch ended stands with the statement that closed it, and only there"));
    }
    let missed = message.missed;
    let comes_back = refused.is_none() && matches!(statement.content, StatementContent::Return(..));
    let are_before =
        missed.is_sorted_by(|one, next| one < next) && missed.last().is_none_or(|last| *last < entry.sequence);
    let is_fit = missed.is_empty() || comes_back && are_before;
    if !is_fit {
        return Err(malformed(
            entry,
            "what was missed stands with the statement that comes back, sorted, and before it",
        ));
    }
    Ok(HubEntry::Statement(StatementDecided { statement, refused, told, closes, missed }, signed))
}

fn read_audiences(
    sealed: &Sealed,
    groups: Vec<pb::AudienceGroup>,
    refused: Vec<pb::ItemRefusal>,
    mailboxes: Vec<pb::MailboxRun>,
) -> Result<ConsignmentRecorded, ParseError> {
    let read_group = |group: &pb::AudienceGroup| {
        let agreement = group.agreement.as_ref();
        let agreement = agreement.ok_or_else(|| ParseError::new("audience group", "", "an agreement"))?;
        let recipients = group.recipients.iter().map(|code| ParticipantCode::parse(code)).collect::<Result<_, _>>()?;
        Ok(AudienceGroup { agreement: parse_agreement_ref(agreement)?, recipients, items: parse_ranges(&group.items)? })
    };
    let read_refusal =
        |refusal: &pb::ItemRefusal| Ok(ItemRefusal { index: refusal.index, reason: parse_reason(&refusal.reason)? });
    let read_run = |run: &pb::MailboxRun| {
        let recipient = ParticipantCode::parse(&run.recipient)?;
        Ok(MailboxRun { recipient, first: run.first, count: run.count, feed_number: run.feed_number })
    };
    Ok(ConsignmentRecorded {
        chain: sealed.chain.clone(),
        number: sealed.number,
        digest: sealed.digest,
        count: sealed.headers.len() as u32,
        groups: groups.iter().map(read_group).collect::<Result<_, ParseError>>()?,
        refused: refused.iter().map(read_refusal).collect::<Result<_, ParseError>>()?,
        mailboxes: mailboxes.iter().map(read_run).collect::<Result<_, ParseError>>()?,
        rehanded: false,
        withdrawals: Vec::new(),
        withdrawn_before: Vec::new(),
    })
}

fn read_acknowledged(entry: &Entry) -> Result<HubEntry, StoredError> {
    let message: pb::MailAcknowledged = decode(entry)?;
    let bad = |error: ParseError| malformed(entry, error);
    let signed = required(entry, "the acknowledgement", message.acknowledgement)?;
    let mut all = Vec::with_capacity(message.told.len());
    for notices in &message.told {
        let told = required(entry, "who is told", notices.told.as_ref())?;
        let receipts = notices.receipts.iter().map(feed::parse_receipt);
        all.push(OriginNotices {
            told: read_told(told).map_err(bad)?,
            notices: receipts.collect::<Result<_, _>>().map_err(|refusal| malformed(entry, refusal))?,
        });
    }
    let fact = MailAcknowledged {
        recipient: ParticipantCode::parse(&message.recipient).map_err(bad)?,
        lane: parse_lane(message.lane).map_err(bad)?,
        delivered_through: message.delivered_through,
        taken_count: message.taken_count,
        told: all,
    };
    Ok(HubEntry::Acknowledged(fact, signed))
}

fn read_reason(entry: &Entry, code: &str) -> Result<Reason, StoredError> {
    Reason::from_code(code).ok_or_else(|| malformed(entry, format!("reason {code} is not known")))
}

fn withdrawal(withdrawal: &WithdrawalRecorded) -> pb::WithdrawalRecorded {
    let target = withdrawal.target.unwrap_or(ExchangePlace { sequence: 0, index: 0 });
    pb::WithdrawalRecorded {
        index: withdrawal.index,
        exchange_id: digest_bytes(&withdrawal.exchange.0),
        sequence: target.sequence,
        target_index: target.index,
    }
}

fn read_withdrawal(message: &pb::WithdrawalRecorded) -> Result<WithdrawalRecorded, ParseError> {
    let place = ExchangePlace { sequence: message.sequence, index: message.target_index };
    Ok(WithdrawalRecorded {
        index: message.index,
        exchange: ExchangeId(Digest::from_slice(&message.exchange_id)?),
        target: (place.sequence > 0).then_some(place),
    })
}

fn read_withdrawn_before(message: &pb::WithdrawnBefore) -> Result<WithdrawnBefore, ParseError> {
    Ok(WithdrawnBefore { index: message.index, exchange: ExchangeId(Digest::from_slice(&message.exchange_id)?) })
}

fn group(group: &AudienceGroup) -> pb::AudienceGroup {
    pb::AudienceGroup {
        agreement: Some(agreement_ref(&group.agreement)),
        recipients: group.recipients.iter().map(ToString::to_string).collect(),
        items: ranges(&group.items),
    }
}

fn told(told: &Told) -> pb::Told {
    pb::Told { participant: told.participant.to_string(), number: told.number }
}

fn read_told(message: &pb::Told) -> Result<Told, ParseError> {
    Ok(Told { participant: ParticipantCode::parse(&message.participant)?, number: message.number })
}
