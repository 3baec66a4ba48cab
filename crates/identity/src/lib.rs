//! Who is at the other end: certificates in, a [`Caller`] out; anchors, TLS configuration, signatures, keys and profiles.
//!
//! An identity is exactly one URI name in a certificate, and it is valid only under the anchor of the participant that
//! it names (DESIGN, section 7). Everything here serves that sentence.
//!
//! This crate must not know gRPC, the ledger or the journal, nor what a caller may do once it is known. It reads no
//! clock: moments come in as arguments, except in a handshake, where rustls brings the time. It opens no socket.

mod admission;
mod anchor;
mod anchor_folder;
mod anchors;
mod certificate;
mod chain;
mod facts;
mod files;
mod fingerprint;
mod fitness;
mod issue;
mod leaf_key;
mod moment;
mod own;
mod pair;
mod profile;
mod refusal;
mod register;
mod request;
mod revocation;
mod revoking;
mod settings;
mod signing;
mod signing_keys;
mod statement;
mod tls;
mod verifier;

pub use admission::{Admission, Barred, ExpectedServer};
pub use anchor::{ANCHORS_PER_FILE_MAX, Anchor, AnchorError};
pub use anchor_folder::{AnchorFolder, MadeList};
pub use anchors::{AnchorTable, Anchors};
pub use certificate::Caller;
pub use chain::{CERTIFICATE_SIZE_MAX_BYTES, INTERMEDIATES_MAX, verify_certificate};
pub use facts::CertificateFacts;
pub use files::{
    FileError, PEM_FILE_SIZE_MAX_BYTES, certificates_from_pem, certificates_to_pem, read_text, write_private,
    write_public,
};
pub use fingerprint::{bundle_fingerprint, enrolment_fingerprint};
pub use fitness::{is_authority, key_of, unfit_for};
pub use issue::{
    ANCHOR_LIFETIME_DAYS, AnchorKeys, CertificateRequest, IssueError, LEAF_BACKDATED_SECONDS, LEAF_LIFETIME_DAYS,
};
pub use leaf_key::{LeafKey, LeafKeyKind, LeafPublicKey, PublicKeyUnsupported};
pub use moment::rfc3339;
pub use own::{OwnError, check_own};
pub use pair::{add_key, keys_in, load_key_of, replace_pair};
pub use profile::{
    CERTIFICATE_FILE, KEY_FILE, Profile, ProfileError, ProfileSettings, ProfileWay, SERVER_ANCHOR_FILE, SETTINGS_FILE,
};
pub use refusal::{CertificateRefusal, HandshakeRefusal};
pub use register::{REGISTER_SIZE_MAX_BYTES, Register, RegisterHeld, Registered};
pub use request::{REQUESTS_PER_FILE_MAX, RequestError, Requested};
pub use revocation::{ChainNumbers, IssuerLists, RevocationFile, Revocations, Unfit};
pub use revoking::{LIST_LIFETIME_DAYS, Revoked, is_only_of, revoked_in};
pub use settings::settings_from_toml;
pub use signing::{
    KeyError, SignatureInvalid, SigningKey, public_key_from_bytes, public_key_from_spki, public_key_to_spki, verify,
};
pub use signing_keys::{SIGNING_KEYS_MAX, SigningKeys};
pub use statement::{STATEMENT_DOMAIN, StatementError, StatementSigner, check_signer, verify_statement};
pub use tls::{
    Application, Credentials, HybridKey, TlsError, client_config, client_config_with, judging_at, own_leaf,
    server_config, server_name, trying_config,
};
