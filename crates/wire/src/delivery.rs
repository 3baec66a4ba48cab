//! Deliveries: one exchange for one recipient, with what proves that its origin signed it.

use bytes::Bytes;
use concord_journal::Blob;
use concord_model::{
    Description, Digest, ExchangeId, Fingerprint, Header, Name, ParticipantCode, SetAsideReason, Timestamp,
};

use crate::consignment::{Sealed, blob_from_bytes, parse_seal, signed_message};
use crate::convert::{digest_bytes, timestamp};
use crate::header;
use crate::proto::exchange::v1 as pb;
use crate::tree::{TREE_DEPTH, Tree, root_from_path};

/// Makes the delivery of the exchange with this index; `None` where the consignment has no such exchange.
pub fn delivery(
    sealed: &Sealed,
    tree: &Tree,
    index: usize,
    number: u64,
    blobs: Vec<Bytes>,
    recorded_at: Timestamp,
    feed_number: u64,
) -> Option<pb::Delivery> {
    let (slot, path) = tree.path(index)?;
    Some(pb::Delivery {
        number,
        header: sealed.headers.get(index)?.clone(),
        leaf_salt: digest_bytes(&sealed.seed.leaf_salt(slot)),
        slot: slot.into(),
        path: path.iter().map(digest_bytes).collect(),
        seal: sealed.seal.clone(),
        signature: sealed.signature.clone(),
        blobs,
        recorded_at: Some(timestamp(recorded_at)),
        feed_number,
        recorded_before_loss: false,
    })
}

/// A delivery whose header, path, signature and blobs hold. Whether its recipient may have it is the node's to judge.
#[derive(Debug)]
pub struct Verified {
    /// The exchange.
    pub id: ExchangeId,
    /// Its header.
    pub header: Header,
    /// Its description.
    pub description: Description,
    /// The key under which its signature holds.
    pub key: Fingerprint,
    /// The description, then the parts.
    pub blobs: Vec<Blob>,
}

/// Verifies a delivery of this hub. `verify` gets origin, key, message and signature, looks the key up and says whether it holds.
pub fn verify(
    delivery: &pb::Delivery,
    hub: &Name,
    verify: impl FnOnce(&ParticipantCode, &Fingerprint, &[u8], &[u8]) -> Result<(), SetAsideReason>,
) -> Result<Verified, SetAsideReason> {
    let header = header::parse(&delivery.header).map_err(|_| SetAsideReason::HeaderInvalid)?;
    let id = header::exchange_id(&delivery.header);

    let unsigned = SetAsideReason::SignatureInvalid;
    let seal = parse_seal(&delivery.seal).map_err(|_| unsigned)?;
    let digest = |bytes: &[u8]| Digest::from_slice(bytes).map_err(|_| unsigned);
    let path: Vec<Digest> = delivery.path.iter().map(|sibling| digest(sibling)).collect::<Result<_, _>>()?;
    let path = <[Digest; TREE_DEPTH]>::try_from(path).map_err(|_| unsigned)?;
    let root = root_from_path(&digest(&delivery.leaf_salt)?, &id, delivery.slot, &path);
    if root != Some(digest(&seal.root)?) || seal.origin != header.origin.as_str() || seal.hub != hub.as_str() {
        return Err(unsigned);
    }
    let key = Fingerprint(digest(&seal.key_id)?);
    verify(&header.origin, &key, &signed_message(&delivery.seal), &delivery.signature)?;

    let mismatch = SetAsideReason::BodyMismatch;
    let blobs: Vec<Blob> =
        delivery.blobs.iter().cloned().map(blob_from_bytes).collect::<Option<_>>().ok_or(mismatch)?;
    let (description, bodies) = blobs.split_first().ok_or(mismatch)?;
    let commitments = header.parts.iter().map(|part| (&part.commitment, part.size_bytes));
    let bodies_hold = bodies.len() == header.parts.len()
        && commitments.zip(bodies).all(|((commitment, size), body)| {
            commitment.as_bytes() == body.commitment().as_bytes() && size == body.bytes().len() as u64
        });
    if !bodies_hold || header.description.as_bytes() != description.commitment().as_bytes() {
        return Err(mismatch);
    }
    let description = header::parse_description(description.bytes()).map_err(|_| SetAsideReason::HeaderInvalid)?;
    Ok(Verified { id, header, description, key, blobs })
}
