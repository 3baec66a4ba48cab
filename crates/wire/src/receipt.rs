//! The hub's signed word that a consignment is durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, HistoryId};
use concord_ledger::ConsignmentRecorded;
use concord_model::{
    AgreementRef, ChainKey, ConsignmentDigest, Digest, Fingerprint, ParticipantCode, Reason, Refusal, Timestamp,
};
use prost::Message as _;

use crate::agreement::in_domain;
use crate::consignment::{chain_key, parse_chain_key};
use crate::convert::{decode_canonical, digest_bytes, parse_timestamp, refuse, required, timestamp};
use crate::header::{agreement_ref, parse_agreement_ref};
use crate::proto::exchange::v1 as pb;

const RECEIPT_DOMAIN: &str = "concord receipt v1";

/// What became of one exchange at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Recorded under this version for this frozen audience.
    Recorded {
        /// The version that decided.
        agreement: AgreementRef,
        /// Who is to have it, sorted.
        audience: Vec<ParticipantCode>,
    },
    /// Not accepted.
    Refused(Reason),
}

/// A receipt as its node reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The hub's history.
    pub history: HistoryId,
    /// The hub's journal entry.
    pub entry_digest: JournalDigest,
    /// The chain.
    pub chain: ChainKey,
    /// The consignment.
    pub number: u64,
    /// Its digest.
    pub digest: ConsignmentDigest,
    /// When the hub recorded it, by the hub's clock.
    pub recorded_at: Timestamp,
    /// One for each exchange, in order.
    pub outcomes: Vec<Outcome>,
}

/// Makes and signs the receipt of a recorded consignment; the same words at every repeat.
pub fn receipt(
    history: HistoryId,
    entry_digest: JournalDigest,
    recorded_at: Timestamp,
    fact: &ConsignmentRecorded,
    key: Fingerprint,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> pb::RecordedReceipt {
    let statement: Bytes = pb::RecordedStatement {
        hub: fact.chain.hub.to_string(),
        history: Bytes::copy_from_slice(history.as_bytes()),
        entry_digest: Bytes::copy_from_slice(entry_digest.as_bytes()),
        origin: fact.chain.origin.to_string(),
        chain: Some(chain_key(&fact.chain)),
        number: fact.number,
        consignment_digest: digest_bytes(&fact.digest.0),
        recorded_at: Some(timestamp(recorded_at)),
        outcomes: outcomes(fact),
    }
    .encode_to_vec()
    .into();
    let signature = Bytes::copy_from_slice(&sign(&in_domain(RECEIPT_DOMAIN, &statement)));
    pb::RecordedReceipt { statement, key_id: digest_bytes(&key.0), signature }
}

/// Reads a receipt and checks its signature with `verify`, which gets key, message and signature.
pub fn verify(
    receipt: &pb::RecordedReceipt,
    verify: impl FnOnce(&Fingerprint, &[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Recorded, Refusal> {
    let reason = Reason::SignatureInvalid;
    let wrong = refuse(reason);
    let key = Fingerprint(Digest::from_slice(&receipt.key_id).map_err(&wrong)?);
    verify(&key, &in_domain(RECEIPT_DOMAIN, &receipt.statement), &receipt.signature)?;
    parse(&receipt.statement)
}

/// Reads the statement of a receipt that was verified before it was kept.
pub fn parse(statement: &[u8]) -> Result<Recorded, Refusal> {
    let reason = Reason::ConsignmentMalformed;
    let wrong = refuse(reason);
    let message: pb::RecordedStatement = decode_canonical(reason, reason, "receipt", statement)?;
    let bytes16 =
        <[u8; 16]>::try_from(&message.history[..]).map_err(|_| Refusal::new(reason, "the receipt names no history"))?;
    let origin = ParticipantCode::parse(&message.origin).map_err(&wrong)?;
    let chain = required(reason, "the receipt's chain", message.chain.as_ref())?;
    let recorded_at = required(reason, "the receipt's time", message.recorded_at.as_ref())?;
    Ok(Recorded {
        history: HistoryId(bytes16),
        entry_digest: JournalDigest(Digest::from_slice(&message.entry_digest).map_err(&wrong)?.0),
        chain: parse_chain_key(origin, chain)?,
        number: message.number,
        digest: ConsignmentDigest(Digest::from_slice(&message.consignment_digest).map_err(&wrong)?),
        recorded_at: parse_timestamp(recorded_at).map_err(&wrong)?,
        outcomes: message.outcomes.iter().map(parse_outcome).collect::<Result<_, _>>()?,
    })
}

fn outcomes(fact: &ConsignmentRecorded) -> Vec<pb::ExchangeOutcome> {
    let mut by_index: BTreeMap<u32, pb::ExchangeOutcome> = BTreeMap::new();
    for group in &fact.groups {
        let outcome = pb::ExchangeOutcome {
            agreement: Some(agreement_ref(&group.agreement)),
            audience: group.recipients.iter().map(ToString::to_string).collect(),
            refused: String::new(),
        };
        for index in group.items.iter().flat_map(|range| range.indices()) {
            by_index.insert(index, outcome.clone());
        }
    }
    for refusal in &fact.refused {
        let refused = refusal.reason.code().to_owned();
        by_index.insert(refusal.index, pb::ExchangeOutcome { refused, ..Default::default() });
    }
    by_index.into_values().collect()
}

fn parse_outcome(message: &pb::ExchangeOutcome) -> Result<Outcome, Refusal> {
    let reason = Reason::ConsignmentMalformed;
    let wrong = refuse(reason);
    if !message.refused.is_empty() {
        // A newer hub may know reasons that this node does not: the refusal stands all the same.
        return Ok(Outcome::Refused(Reason::from_code(&message.refused).unwrap_or(Reason::Internal)));
    }
    let agreement = required(reason, "the agreement of a recorded exchange", message.agreement.as_ref())?;
    let audience = message.audience.iter().map(|code| ParticipantCode::parse(code).map_err(&wrong));
    Ok(Outcome::Recorded {
        agreement: parse_agreement_ref(agreement).map_err(&wrong)?,
        audience: audience.collect::<Result<_, _>>()?,
    })
}
