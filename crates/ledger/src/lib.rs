//! The hub's pure state machine: `decide(command) -> fact | refusal`, `apply(fact)`, and the permit.
//!
//! It knows no clock, no network, no disk, no randomness and no encoding: time, positions and ids come in as arguments, and
//! of what it is made it says in serde's words only, for snapshots.
//! It holds what deciding needs, never the growing history of exchanges. Nodes reuse its registry and agreements, so that
//! both sides read the same statements the same way.

pub mod agreement;
pub mod approval;
pub mod audience;
pub mod chain;
pub mod command;
pub mod contact;
pub mod decision;
pub mod epoch;
pub mod fact;
pub mod feed;
pub mod history;
pub mod hold;
pub mod ledger;
pub mod loss;
pub mod mailbox;
pub mod nodes;
pub mod permit;
pub mod registry;
pub mod resume;
pub mod revision;
pub mod role;
pub mod signer;
pub mod statement;
pub mod succession;
pub mod withdrawal;

mod consignment;
mod healing;

pub use agreement::{Agreement, AgreementState, Agreements, GoesOn, PartyRecord, PartyState};
pub use approval::{
    APPROVAL_LASTS, APPROVALS_WAITING_MAX, Approvals, Quorum, Signed, Waiting, needs_others, that_count,
};
pub use audience::{Audience, AudienceRule, audience, check_terms, preview, why_not_in_audience};
pub use chain::{Chain, ChainStep, Chains, KeptReceipt};
pub use command::{Acknowledge, At, Candidate, Command, Consign, Handed, Item, NoticeOutcome, SenderNotice, Stood};
pub use contact::{ContactPoint, Contacts};
pub use decision::{Change, Changes};
pub use epoch::{ChainTip, ClosedEpoch, EpochOpening, Epochs};
pub use fact::{
    AgreementLapsed, AudienceGroup, Completed, ConsignmentRecorded, ExchangePlace, Fact, FeedResumed, Founding,
    HistoryBegun, IndexRange, ItemRefusal, MailAcknowledged, MailboxResumed, MailboxRun, NodeSeen, NotHealed,
    OriginNotices, ReceiptNotice, Recipient, StatementDecided, Told, WithdrawalRecorded, WithdrawnBefore,
};
pub use feed::Feed;
pub use history::{Histories, PastPositions};
pub use hold::{Hold, Holds};
pub use ledger::{Decision, LEDGER_STATE_VERSION, Ledger};
pub use loss::{Had, Losses, Lost};
pub use mailbox::{Mailbox, Mailboxes};
pub use nodes::{NodeLine, Nodes};
pub use permit::{Mail, Permit};
pub use registry::{EarlierKeys, Enrolment, Registry};
pub use resume::{Resume, Resumes, Shown};
pub use revision::Revision;
pub use role::{RoleHeld, RolePlace, Roles};
pub use signer::{LastStatement, Officer, SignerStep, Signers};
pub use statement::{
    ContactSetting, DecisionContent, ForumDecision, JoinRequest, Replacement, RoleDecision, Statement, StatementContent,
};
pub use succession::{AnchorSuccession, EndingAnchor, KeyRotation};
pub use withdrawal::{Found, Target, Withdrawals};
