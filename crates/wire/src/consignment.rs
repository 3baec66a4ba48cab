//! Sealing a consignment at its origin and opening it at the hub.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_journal::{Blob, Digest as JournalDigest, NONCE_SIZE_BYTES};
use concord_ledger::{Candidate, ChainTip, ClosedEpoch, Item, Target};
use concord_model::limits::{CONSIGNMENT_EXCHANGES_MAX, CONSIGNMENT_SIZE_MAX_BYTES};
use concord_model::{
    ChainKey, ConsignmentDigest, Digest, ExchangeId, Fingerprint, Header, Name, ParseError, ParticipantCode, Reason,
    Refusal,
};
use prost::Message as _;

use crate::SUITE_ED25519;
use crate::convert::{decode_canonical, digest_bytes, lane, parse_lane, refuse, required};
use crate::header;
use crate::proto::exchange::v1 as pb;
use crate::tree::{SEED_SIZE_BYTES, Seed, Tree};

const CONSIGNMENT_DOMAIN: &str = "concord consignment v1";
const HEAD_DOMAIN: &str = "concord head v1";
const EPOCH_DOMAIN: &str = "concord epoch v1";

/// A sealed consignment without its blobs, as the node's and the hub's journal both keep it.
#[derive(Clone)]
pub struct Sealed {
    /// Its chain.
    pub chain: ChainKey,
    /// Its number in the chain, from 1.
    pub number: u64,
    /// The digest of the one before.
    pub previous: ConsignmentDigest,
    /// Its own digest.
    pub digest: ConsignmentDigest,
    /// The key that signed it.
    pub key: Fingerprint,
    /// Serialised `ConsignmentSeal`.
    pub seal: Bytes,
    /// Ed25519 over [`signed_message`] of the seal.
    pub signature: Bytes,
    /// Serialised `ConsignmentHead`.
    pub head: Bytes,
    /// Makes the tree again.
    pub seed: Seed,
    /// Serialised headers, in the origin's order.
    pub headers: Vec<Bytes>,
}

impl Sealed {
    /// The tree over its headers.
    pub fn tree(&self) -> Tree {
        Tree::build(&self.seed, self.headers.iter().map(|header| header::exchange_id(header)))
    }
}

/// A consignment as the hub opened it: seal, root, counts and signature hold; each exchange was judged for its form.
#[derive(Clone)]
pub struct Opened {
    /// The consignment.
    pub sealed: Sealed,
    /// One for each exchange, in order.
    pub candidates: Vec<Candidate>,
    /// The blobs of each exchange: the description, then the parts. Empty for an unfit one: its blobs are not kept.
    pub blobs: Vec<Vec<Blob>>,
    /// What its withdrawals withdraw, once it was looked for.
    pub targets: BTreeMap<u32, Target>,
    /// Which of its exchanges its node says to be withdrawn before.
    pub withdrawn_before: BTreeSet<u32>,
}

/// What the signature of a seal covers.
pub fn signed_message(seal: &[u8]) -> Vec<u8> {
    crate::agreement::in_domain(CONSIGNMENT_DOMAIN, seal)
}

/// The digest of a consignment, which the next one of its chain names.
pub fn digest(seal: &[u8]) -> ConsignmentDigest {
    ConsignmentDigest(Digest(JournalDigest::of(CONSIGNMENT_DOMAIN, &[seal]).0))
}

/// Closes serialised headers into the next consignment of a chain and signs it once.
///
/// `headers`: 1 to 1,024 of the chain's origin, node and lane, whose blobs fit a consignment; the caller closes before the limits.
pub fn seal(
    chain: ChainKey,
    number: u64,
    previous: ConsignmentDigest,
    seed: Seed,
    headers: Vec<Bytes>,
    key: Fingerprint,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Sealed {
    let head: Bytes = pb::ConsignmentHead {
        chain: Some(chain_key(&chain)),
        number,
        previous: digest_bytes(&previous.0),
        count: headers.len() as u32,
    }
    .encode_to_vec()
    .into();
    let root = Tree::build(&seed, headers.iter().map(|header| header::exchange_id(header))).root();
    let seal: Bytes = pb::ConsignmentSeal {
        suite: SUITE_ED25519,
        key_id: digest_bytes(&key.0),
        origin: chain.origin.to_string(),
        hub: chain.hub.to_string(),
        root: digest_bytes(&root),
        head: digest_bytes(&head_commitment(&seed, &head)),
    }
    .encode_to_vec()
    .into();
    let signature = Bytes::copy_from_slice(&sign(&signed_message(&seal)));
    Sealed { chain, number, previous, digest: digest(&seal), key, seal, signature, head, seed, headers }
}

/// The consignment as it goes over the wire.
pub fn to_message(sealed: &Sealed, blobs: impl IntoIterator<Item = Vec<Bytes>>) -> pb::Consignment {
    pb::Consignment {
        seal: sealed.seal.clone(),
        signature: sealed.signature.clone(),
        head: sealed.head.clone(),
        seed: Bytes::copy_from_slice(sealed.seed.as_bytes()),
        headers: sealed.headers.clone(),
        blobs: blobs.into_iter().map(|blobs| pb::ExchangeBlobs { blobs }).collect(),
    }
}

/// Opens a consignment of this origin. `verify` looks the key up and checks the signature; it refuses with `SIGNING_KEY_UNKNOWN` or
/// `SIGNATURE_INVALID`.
///
/// Refuses the whole with `CONSIGNMENT_MALFORMED`, `CONSIGNMENT_TOO_LARGE`, `CHAIN_MISMATCH` or `ROOT_MISMATCH`. What is wrong with
/// one exchange only makes that one an unfit candidate. Costs time in proportion to the bytes: call it outside the sequencer.
pub fn open(
    message: pb::Consignment,
    origin: &ParticipantCode,
    verify: impl FnOnce(&Fingerprint, &[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Opened, Refusal> {
    if message.encoded_len() > CONSIGNMENT_SIZE_MAX_BYTES {
        let size = format!("the consignment has {} bytes", message.encoded_len());
        return Err(Refusal::new(Reason::ConsignmentTooLarge, size));
    }
    let pb::Consignment { seal, signature, head, seed, headers, blobs } = message;
    let seed = <[u8; SEED_SIZE_BYTES]>::try_from(&seed[..])
        .map_err(|_| malformed(format!("the seed has {} bytes, not {SEED_SIZE_BYTES}", seed.len())))?;
    let sealed = parse_sealed(seal, signature, head, Seed::new(seed), headers)?;
    if &sealed.chain.origin != origin {
        let claimed = format!("the seal names {} as origin, the certificate {origin}", sealed.chain.origin);
        return Err(Refusal::new(Reason::ChainMismatch, claimed));
    }
    if blobs.len() != sealed.headers.len() {
        return Err(malformed(format!("{} headers with blobs of {}", sealed.headers.len(), blobs.len())));
    }

    let ids: Vec<ExchangeId> = sealed.headers.iter().map(|header| header::exchange_id(header)).collect();
    let (root, _) = seal_fields(&sealed.seal)?;
    if Tree::build(&sealed.seed, ids.iter().copied()).root() != root {
        return Err(Refusal::new(Reason::RootMismatch, "the root in the seal is not that of the headers"));
    }
    verify(&sealed.key, &signed_message(&sealed.seal), &sealed.signature)?;

    let mut candidates = Vec::with_capacity(ids.len());
    let mut kept = Vec::with_capacity(ids.len());
    for ((id, header), blobs) in ids.into_iter().zip(&sealed.headers).zip(blobs) {
        match open_exchange(header, blobs.blobs) {
            Ok((header, blobs)) => {
                candidates.push(Candidate::Fit(Box::new(Item { id, header })));
                kept.push(blobs);
            }
            Err(refusal) => {
                candidates.push(Candidate::Unfit(refusal));
                kept.push(Vec::new());
            }
        }
    }
    Ok(Opened { sealed, candidates, blobs: kept, targets: BTreeMap::new(), withdrawn_before: BTreeSet::new() })
}

/// Reads a sealed consignment whose parts came from the wire or from a journal. The tree and the signature are not checked here.
pub(crate) fn parse_sealed(
    seal: Bytes,
    signature: Bytes,
    head: Bytes,
    seed: Seed,
    headers: Vec<Bytes>,
) -> Result<Sealed, Refusal> {
    let fields = parse_seal(&seal)?;
    let key = Fingerprint(Digest::from_slice(&fields.key_id).map_err(refuse(Reason::ConsignmentMalformed))?);
    let (_, claimed_head) = seal_fields(&seal)?;
    if head_commitment(&seed, &head) != claimed_head {
        return Err(malformed("the head is not the one that was sealed"));
    }
    let reason = Reason::ConsignmentMalformed;
    let opened: pb::ConsignmentHead = decode_canonical(reason, reason, "head of the consignment", &head)?;
    let origin = ParticipantCode::parse(&fields.origin).map_err(refuse(reason))?;
    let chain = required(reason, "the chain of the consignment", opened.chain.as_ref())?;
    let chain = parse_chain_key(origin, chain)?;
    if fields.hub != chain.hub.as_str() {
        return Err(Refusal::new(Reason::ChainMismatch, "seal and head name different hubs"));
    }
    if !(1..=CONSIGNMENT_EXCHANGES_MAX).contains(&headers.len()) || headers.len() != opened.count as usize {
        let counts = format!("{} headers, the head says {}", headers.len(), opened.count);
        return Err(malformed(counts));
    }
    Ok(Sealed {
        chain,
        number: opened.number,
        previous: ConsignmentDigest(Digest::from_slice(&opened.previous).map_err(refuse(reason))?),
        digest: digest(&seal),
        key,
        seal,
        signature,
        head,
        seed,
        headers,
    })
}

/// A chain key as messages say it: without the origin, which is the caller.
pub fn chain_key(chain: &ChainKey) -> pb::ChainKey {
    pb::ChainKey {
        hub: chain.hub.to_string(),
        node: chain.node.to_string(),
        epoch: chain.epoch,
        lane: lane(chain.lane).into(),
    }
}

/// What the first consignment of a later epoch names as the one before: the tip of the epoch that was closed.
pub fn epoch_link(closed: u32, tip: &ChainTip) -> ConsignmentDigest {
    let parts = [&closed.to_be_bytes()[..], &tip.number.to_be_bytes(), tip.digest.0.as_bytes()];
    ConsignmentDigest(Digest(JournalDigest::of(EPOCH_DOMAIN, &parts).0))
}

/// Where an epoch ended, as messages say it.
pub fn closed_epoch(closed: &ClosedEpoch) -> pb::ClosedEpoch {
    let tip = |tip: &ChainTip| pb::ChainTip { number: tip.number, digest: digest_bytes(&tip.digest.0) };
    pb::ClosedEpoch { tips: closed.tips.iter().map(tip).collect() }
}

/// No chain is longer, whatever a node says that it was told: its numbers are counted on from there.
const TIP_MAX: u64 = 1 << 48;

/// Reads where an epoch ended. No consignment has number 0: an empty chain's tip has that and no digest.
pub fn parse_closed_epoch(message: &pb::ClosedEpoch) -> Result<ClosedEpoch, ParseError> {
    let tip = |tip: &pb::ChainTip| {
        let tip = ChainTip { number: tip.number, digest: ConsignmentDigest(Digest::from_slice(&tip.digest)?) };
        let has_digest = tip.digest != ChainTip::default().digest;
        if has_digest != (tip.number > 0) || tip.number > TIP_MAX {
            return Err(ParseError::new(
                "chain tip",
                tip.number.to_string(),
                "a number that a chain has, with its digest",
            ));
        }
        Ok(tip)
    };
    let tips = message.tips.iter().map(tip).collect::<Result<Vec<_>, ParseError>>()?;
    let count = tips.len().to_string();
    let tips = tips.try_into().map_err(|_| ParseError::new("closed epoch", &count, "one tip for each lane"))?;
    Ok(ClosedEpoch { tips })
}

/// Reads a chain key of this origin.
pub fn parse_chain_key(origin: ParticipantCode, chain: &pb::ChainKey) -> Result<ChainKey, Refusal> {
    let wrong = refuse(Reason::ConsignmentMalformed);
    Ok(ChainKey {
        origin,
        hub: Name::parse(&chain.hub).map_err(&wrong)?,
        node: Name::parse(&chain.node).map_err(&wrong)?,
        epoch: chain.epoch,
        lane: parse_lane(chain.lane).map_err(&wrong)?,
    })
}

/// A blob as it travels: nonce ‖ bytes.
pub fn blob_to_bytes(blob: &Blob) -> Bytes {
    let mut bytes = Vec::with_capacity(NONCE_SIZE_BYTES + blob.bytes().len());
    bytes.extend_from_slice(blob.nonce());
    bytes.extend_from_slice(blob.bytes());
    bytes.into()
}

/// Reads a blob as it travels and computes its commitment.
pub fn blob_from_bytes(bytes: Bytes) -> Option<Blob> {
    let nonce = bytes.get(..NONCE_SIZE_BYTES)?.try_into().ok()?;
    Some(Blob::seal(nonce, bytes.slice(NONCE_SIZE_BYTES..)))
}

/// The key that a seal says it was signed with, where it can be read.
pub fn seal_key(seal: &[u8]) -> Option<Fingerprint> {
    Digest::from_slice(&parse_seal(seal).ok()?.key_id).ok().map(Fingerprint)
}

/// The root and the head's commitment that a seal names.
pub(crate) fn seal_fields(seal: &[u8]) -> Result<(Digest, Digest), Refusal> {
    let fields = parse_seal(seal)?;
    let digest = |bytes: &[u8]| Digest::from_slice(bytes).map_err(refuse(Reason::ConsignmentMalformed));
    Ok((digest(&fields.root)?, digest(&fields.head)?))
}

/// Parses a seal of a known suite.
pub(crate) fn parse_seal(seal: &[u8]) -> Result<pb::ConsignmentSeal, Refusal> {
    let reason = Reason::ConsignmentMalformed;
    let fields: pb::ConsignmentSeal = decode_canonical(reason, reason, "seal of the consignment", seal)?;
    if fields.suite != SUITE_ED25519 {
        return Err(malformed(format!("signature suite {} is not known here", fields.suite)));
    }
    Ok(fields)
}

/// Checks that the blobs are those that the header commits to, and reads the header.
fn open_exchange(serialised: &Bytes, blobs: Vec<Bytes>) -> Result<(Header, Vec<Blob>), Refusal> {
    let header = header::parse(serialised)?;
    let mismatch = |what: String| Refusal::new(Reason::BlobMismatch, what);
    if blobs.len() != 1 + header.parts.len() {
        return Err(mismatch(format!("{} blobs for {} parts and a description", blobs.len(), header.parts.len())));
    }
    let blobs: Vec<Blob> = blobs
        .into_iter()
        .map(|bytes| blob_from_bytes(bytes).ok_or_else(|| mismatch("a blob is shorter than its nonce".into())))
        .collect::<Result<_, _>>()?;
    let Some((description, bodies)) = blobs.split_first() else {
        return Err(mismatch("the description is missing".into()));
    };
    if description.commitment().as_bytes() != header.description.as_bytes() {
        return Err(mismatch("the description does not match its commitment".into()));
    }
    header::parse_description(description.bytes())?;
    for (part, body) in header.parts.iter().zip(bodies) {
        if part.size_bytes != body.bytes().len() as u64 {
            return Err(mismatch(format!(
                "a body has {} bytes, its header says {}",
                body.bytes().len(),
                part.size_bytes
            )));
        }
        if body.commitment().as_bytes() != part.commitment.as_bytes() {
            return Err(mismatch("a body does not match its commitment".into()));
        }
        let limit = header.lane.body_size_max_bytes();
        if body.bytes().len() > limit {
            let size = format!("a body has {} bytes, lane {} takes {limit}", body.bytes().len(), header.lane);
            return Err(Refusal::new(Reason::BodyTooLarge, size));
        }
    }
    Ok((header, blobs))
}

fn head_commitment(seed: &Seed, head: &[u8]) -> Digest {
    Digest(JournalDigest::of(HEAD_DOMAIN, &[seed.head_salt().as_bytes(), head]).0)
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::new(Reason::ConsignmentMalformed, what)
}
