//! The vocabulary of Concord: the words of the design as types that can only be made valid.
//!
//! Everything that enters from outside is parsed once, here, into a type; the rest of the program passes the types on.
//! This crate must not know any I/O, clock, randomness, network, disk or encoding: it holds names, not behaviour.

pub mod agreement;
pub mod contact;
pub mod digest;
pub mod exchange;
pub mod forum_role;
pub mod identity;
pub mod limits;
pub mod name;
pub mod receipt;
pub mod refusal;
pub mod registry;
pub mod right;
pub mod time;

pub use agreement::{
    AgreementDigest, AgreementRef, AgreementText, InForceAmong, OnwardRelease, Party, PartyRole, SecretariatAccess,
    Terms,
};
pub use contact::{Contact, Languages};
pub use digest::{ConsignmentDigest, Digest, ExchangeId, Fingerprint};
pub use exchange::{
    AgencyName, ChainKey, Description, ExchangeUuid, Handling, Header, Lane, Narrowing, Part, Withdrawal,
    WithdrawalKind,
};
pub use forum_role::{ForumRole, RoleScope};
pub use identity::{Identity, Role};
pub use name::{
    AgreementId, Language, MeasureCode, MediaRange, MediaType, Name, ParseError, ParticipantCode, RequestId, ShortLine,
    Telephone, Title,
};
pub use receipt::{AsideEnd, ReceiptState, SetAsideReason, WithheldReason};
pub use refusal::{Class, Reason, Refusal};
pub use registry::{Area, Measure, Participant, ParticipantKind, PublicKey};
pub use right::{Right, Scope};
pub use time::Timestamp;
