//! What stands on the wire and in the journals: generated code, conversion to and from the model, digests, seals, and refusals
//! as rich gRPC statuses.
//!
//! Everything from outside passes through a parsing function here and comes out as a model type or a `Refusal`. This crate must
//! not know sockets, files, clocks, randomness or keys: nonces, seeds and signatures come in as arguments.

pub mod acknowledgement;
pub mod agreement;
pub mod bounds;
pub mod codec;
pub mod consignment;
pub mod convert;
pub mod delivery;
pub mod feed;
pub mod header;
pub mod proto;
pub mod receipt;
pub mod registry;
pub mod right;
pub mod status;
pub mod stored;
pub mod tree;

/// The signature suite of this version: Ed25519 with SHA-256.
pub const SUITE_ED25519: u32 = 1;
/// The protocol versions understood, the best first.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];

/// Checks that a peer that says this of itself can be spoken with.
///
/// Refuses with `PROTOCOL_UNSUPPORTED`.
pub fn check_limits(peer: Option<&proto::exchange::v1::Limits>) -> Result<(), concord_model::Refusal> {
    let unsupported = |what: &str, theirs: &[u32], ours: &[u32]| {
        let what = format!("the peer understands {what} {theirs:?}, this side {ours:?}: none in common");
        Err(concord_model::Refusal::new(concord_model::Reason::ProtocolUnsupported, what))
    };
    let (versions, suites) = peer.map_or((&[][..], &[][..]), |peer| (&peer.versions[..], &peer.suites[..]));
    if !versions.iter().any(|version| PROTOCOL_VERSIONS.contains(version)) {
        return unsupported("versions", versions, &PROTOCOL_VERSIONS);
    }
    if !suites.contains(&SUITE_ED25519) {
        return unsupported("signature suites", suites, &[SUITE_ED25519]);
    }
    Ok(())
}

/// What one side can do, as hellos and welcomes announce it.
pub fn limits() -> proto::exchange::v1::Limits {
    use concord_model::limits as model;
    proto::exchange::v1::Limits {
        versions: PROTOCOL_VERSIONS.to_vec(),
        suites: vec![SUITE_ED25519],
        body_size_max_bytes: model::BODY_SIZE_MAX_BYTES as u64,
        flash_body_size_max_bytes: model::FLASH_BODY_SIZE_MAX_BYTES as u64,
        consignment_size_max_bytes: model::CONSIGNMENT_SIZE_MAX_BYTES as u64,
        consign_unreceipted_max: model::CONSIGN_UNRECEIPTED_MAX as u32,
        commit_size_max_bytes: model::COMMIT_SIZE_MAX_BYTES as u64,
    }
}

/// Which limits a peer has announced lower than they are here, in words: limits are never lowered, so that it is an older version, and
/// what is larger waits or is refused by it. None where there is no such limit.
pub fn lower_limits(peer: &proto::exchange::v1::Limits) -> Option<String> {
    let ours = limits();
    let all = [
        ("a body", peer.body_size_max_bytes, ours.body_size_max_bytes),
        ("a body on lane flash", peer.flash_body_size_max_bytes, ours.flash_body_size_max_bytes),
        ("a consignment", peer.consignment_size_max_bytes, ours.consignment_size_max_bytes),
        ("a commit", peer.commit_size_max_bytes, ours.commit_size_max_bytes),
    ];
    let lower = all.into_iter().filter(|(_, theirs, ours)| theirs < ours);
    let told: Vec<String> =
        lower.map(|(what, theirs, ours)| format!("{what} of at most {theirs} bytes, here {ours}")).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use concord_model::Reason;

    use super::*;

    #[test]
    fn a_peer_without_a_version_or_a_suite_in_common_is_refused_by_name() {
        let reason = |peer: Option<&proto::exchange::v1::Limits>| check_limits(peer).map_err(|refusal| refusal.reason);
        assert_eq!(reason(Some(&limits())), Ok(()));
        assert_eq!(reason(None), Err(Reason::ProtocolUnsupported));
        let newer = proto::exchange::v1::Limits { versions: vec![3, 2], ..limits() };
        assert_eq!(reason(Some(&newer)), Err(Reason::ProtocolUnsupported));
        let both = proto::exchange::v1::Limits { versions: vec![2, 1], suites: vec![9, SUITE_ED25519], ..limits() };
        assert_eq!(reason(Some(&both)), Ok(()));
        let other = proto::exchange::v1::Limits { suites: vec![9], ..limits() };
        assert_eq!(reason(Some(&other)), Err(Reason::ProtocolUnsupported));
    }

    #[test]
    fn each_limit_that_a_peer_has_lower_is_named() {
        assert_eq!(lower_limits(&limits()), None);
        let larger = proto::exchange::v1::Limits { body_size_max_bytes: u64::MAX, ..limits() };
        assert_eq!(lower_limits(&larger), None);
        type Lower = fn(&mut proto::exchange::v1::Limits);
        let lowered: [(&str, Lower); 4] = [
            ("a body of at most 7 bytes", |limits| limits.body_size_max_bytes = 7),
            ("a body on lane flash of at most 7 bytes", |limits| limits.flash_body_size_max_bytes = 7),
            ("a consignment of at most 7 bytes", |limits| limits.consignment_size_max_bytes = 7),
            ("a commit of at most 7 bytes", |limits| limits.commit_size_max_bytes = 7),
        ];
        for (what, lower) in lowered {
            let mut peer = limits();
            lower(&mut peer);
            assert!(lower_limits(&peer).is_some_and(|told| told.starts_with(what)), "{what}");
        }
    }
}
