//! What a delivery may weigh: bounds on every field, so that whatever the hub sends fits into one commit, as evidence too.

use concord_model::limits::HEADER_SIZE_MAX_BYTES;
use concord_model::{Reason, Refusal};
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::tree::TREE_DEPTH;
use prost::Message as _;

/// What an entry adds to one delivery.
pub(super) const DELIVERY_OVERHEAD_BYTES: u64 = 1024;
/// What a journal adds to each blob: nonce, digest and lengths.
const BLOB_OVERHEAD_BYTES: u64 = 128;
/// Description and parts of one exchange. With more the hub hears nothing, and this lane ends with an alarm.
const DELIVERY_BLOBS_MAX: usize = 16;
/// A serialised seal: names, digests and numbers. With more this lane ends with an alarm.
const SEAL_SIZE_MAX_BYTES: usize = 4 * 1024;
const DIGEST_SIZE_BYTES: usize = 32;
const SIGNATURE_SIZE_MAX_BYTES: usize = 64;

/// About what it takes in a commit.
pub(super) fn size_of(delivery: &Delivery) -> u64 {
    delivery.encoded_len() as u64 + delivery.blobs.len() as u64 * BLOB_OVERHEAD_BYTES + DELIVERY_OVERHEAD_BYTES
}

/// The hub checked all these when it recorded the exchange: one that is otherwise is the hub's fault, not its origin's, and is
/// not taken in, not even as evidence.
pub(super) fn check_shape(delivery: &Delivery) -> Result<(), Refusal> {
    let wrong = |what: &str| {
        let what = format!("delivery {} of the hub does not have its shape: {what}", delivery.number);
        Err(Refusal::new(Reason::Internal, what))
    };
    if delivery.header.len() > HEADER_SIZE_MAX_BYTES {
        return wrong("its header is too large");
    }
    if delivery.leaf_salt.len() != DIGEST_SIZE_BYTES {
        return wrong("its salt does not have 32 bytes");
    }
    if delivery.path.len() != TREE_DEPTH || delivery.path.iter().any(|sibling| sibling.len() != DIGEST_SIZE_BYTES) {
        return wrong("its path does not have ten digests");
    }
    if delivery.seal.len() > SEAL_SIZE_MAX_BYTES || delivery.signature.len() > SIGNATURE_SIZE_MAX_BYTES {
        return wrong("its seal or signature is too large");
    }
    if delivery.blobs.len() > DELIVERY_BLOBS_MAX {
        return wrong("it has too many blobs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_field_has_a_bound_and_none_is_left_out_of_the_size() {
        let digest = || Bytes::from(vec![1; DIGEST_SIZE_BYTES]);
        let good = Delivery {
            header: Bytes::from(vec![1; HEADER_SIZE_MAX_BYTES]),
            leaf_salt: digest(),
            path: vec![digest(); TREE_DEPTH],
            seal: Bytes::from(vec![1; SEAL_SIZE_MAX_BYTES]),
            signature: Bytes::from(vec![1; SIGNATURE_SIZE_MAX_BYTES]),
            blobs: vec![digest(); DELIVERY_BLOBS_MAX],
            ..Delivery::default()
        };
        assert_eq!(check_shape(&good), Ok(()));
        let larger = || Bytes::from(vec![1; HEADER_SIZE_MAX_BYTES + 1]);
        type Change = fn(&mut Delivery, Bytes);
        let changes: [Change; 8] = [
            |delivery, larger| delivery.header = larger,
            |delivery, larger| delivery.leaf_salt = larger,
            |delivery, _| delivery.leaf_salt = Bytes::new(),
            |delivery, larger| delivery.path.push(larger),
            |delivery, larger| delivery.path[9] = larger,
            |delivery, larger| delivery.seal = larger,
            |delivery, larger| delivery.signature = larger,
            |delivery, larger| delivery.blobs.push(larger),
        ];
        for (which, change) in changes.into_iter().enumerate() {
            let mut delivery = good.clone();
            change(&mut delivery, larger());
            assert_eq!(check_shape(&delivery).map_err(|refusal| refusal.reason), Err(Reason::Internal), "{which}");
            assert!(size_of(&delivery) >= delivery.encoded_len() as u64, "{which}");
        }
    }
}
