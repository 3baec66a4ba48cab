//! What stands on the wire and in the journals: generated code, conversion to and from the model, digests, seals, and refusals
//! as rich gRPC statuses.
//!
//! Everything from outside passes through a parsing function here and comes out as a model type or a `Refusal`. This crate must
//! not know sockets, files, clocks, randomness or keys: nonces, seeds and signatures come in as arguments.

pub mod acknowledgement;
pub mod agreement;
pub mod consignment;
pub mod convert;
pub mod delivery;
pub mod feed;
pub mod header;
pub mod proto;
pub mod receipt;
pub mod registry;
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
    }
}
