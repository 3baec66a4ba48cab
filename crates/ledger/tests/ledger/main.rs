//! What the ledger promises: rule by rule, and over random histories against a model written from the design's words.

#![expect(clippy::unwrap_used, reason = "what a test relies on fails the test")]

mod agreements;
mod amendments;
mod approvals;
mod audiences;
mod chains;
mod consignments;
mod contacts_and_roles;
mod decisions;
mod enrolments;
mod epochs;
mod forum;
mod healing;
mod histories;
mod mailboxes;
mod manifests;
mod own_word;
mod permits;
mod properties;
mod reference;
mod replacements;
mod returns;
mod snapshots;
mod statements;
mod successions;
mod totality;
mod views;
mod withdrawals;
