//! What two people read to each other when a participant is enrolled: one number over everything that must be right.

use concord_model::{Digest, Fingerprint, Name, ParticipantCode, PublicKey};
use sha2::{Digest as _, Sha256};

const ENROLMENT_DOMAIN: &[u8] = b"concord enrolment v1\0";
const BUNDLE_DOMAIN: &[u8] = b"concord hub bundle v1\0";

/// Over what a participant hands in to be enrolled: its code, its anchor, its node's signing key.
/// Both sides show it [`Fingerprint::grouped`].
pub fn enrolment_fingerprint(participant: &ParticipantCode, anchor_der: &[u8], signing_key: &PublicKey) -> Fingerprint {
    over(ENROLMENT_DOMAIN, [participant.as_str().as_bytes(), anchor_der, &signing_key.bytes])
}

/// Over what the hub hands out to those who enrol: its name, the anchor and the key that it was founded with, and the anchors by which it
/// is known now, where they are others.
pub fn bundle_fingerprint<'a>(
    hub: &'a Name,
    hub_anchor_der: &'a [u8],
    hub_signing_key: &'a PublicKey,
    present_anchors: impl IntoIterator<Item = &'a [u8]>,
) -> Fingerprint {
    let founding = [hub.as_str().as_bytes(), hub_anchor_der, &hub_signing_key.bytes];
    over(BUNDLE_DOMAIN, founding.into_iter().chain(present_anchors))
}

/// SHA-256 of domain ‖ (length as 8 bytes, big-endian ‖ bytes) of each field, so that no byte can change fields.
fn over<'a>(domain: &[u8], fields: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(domain);
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    Fingerprint(Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::public_key_from_bytes;

    #[test]
    fn the_encoding_is_this_one_for_ever() {
        let code = ParticipantCode::parse("KAZ").unwrap();
        let key = public_key_from_bytes([7; 32]);
        assert_eq!(
            enrolment_fingerprint(&code, b"anchor", &key).grouped(),
            "2e7eb855 ac597b73 c7d69311 bc9d3b06 e8ebcb62 ff23cc80 4043eb7b e665641a"
        );
        assert_eq!(
            bundle_fingerprint(&Name::parse("main").unwrap(), b"anchor", &key, []).grouped(),
            "6687590b f2126aa0 9387061c d3bed848 14a80c6a cfc8878d da6582cb b5cc93ec"
        );
    }

    #[test]
    fn every_field_counts_and_no_byte_moves_between_fields() {
        let code = |text| ParticipantCode::parse(text).unwrap();
        let (key, other) = (public_key_from_bytes([1; 32]), public_key_from_bytes([2; 32]));
        let mut all = vec![
            enrolment_fingerprint(&code("KAZ"), b"anchor", &key),
            enrolment_fingerprint(&code("UZB"), b"anchor", &key),
            enrolment_fingerprint(&code("KAZ"), b"anchos", &key),
            enrolment_fingerprint(&code("KAZ"), b"anchor", &other),
            enrolment_fingerprint(&code("KA"), b"Zanchor", &key),
        ];
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 5);
    }
}
