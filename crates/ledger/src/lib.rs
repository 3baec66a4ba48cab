//! The hub's pure state machine: `decide(command) -> fact | refusal`, `apply(fact)`, and the permit.
//!
//! It knows no clock, no network, no disk, no randomness and no encoding: time, positions and ids come in as arguments, and
//! of what it is made it says in serde's words only, for snapshots.
//! It holds what deciding needs, never the growing history of exchanges. Nodes reuse its registry and agreements, so that
//! both sides read the same statements the same way.

pub mod agreement;
pub mod audience;
pub mod chain;
pub mod command;
pub mod fact;
pub mod feed;
pub mod history;
pub mod ledger;
pub mod mailbox;
pub mod permit;
pub mod registry;
pub mod signer;
pub mod statement;

mod consignment;

pub use agreement::{Agreement, AgreementState, Agreements, PartyRecord, PartyState};
pub use audience::{Audience, audience};
pub use chain::{Chain, ChainStep, Chains, KeptReceipt};
pub use command::{Acknowledge, At, Candidate, Command, Consign, Item, NoticeOutcome, SenderNotice};
pub use fact::{
    AudienceGroup, ConsignmentRecorded, Fact, Founding, HistoryBegun, IndexRange, ItemRefusal, MailAcknowledged,
    MailboxRun, OriginNotices, ReceiptNotice, Recipient, StatementDecided, Told,
};
pub use feed::Feed;
pub use history::{Histories, PastPositions};
pub use ledger::{Decision, LEDGER_STATE_VERSION, Ledger};
pub use mailbox::{Mailbox, Mailboxes};
pub use permit::{Mail, Permit};
pub use registry::{Enrolment, Registry};
pub use signer::{LastStatement, SignerStep, Signers};
pub use statement::{JoinRequest, Statement, StatementContent};
