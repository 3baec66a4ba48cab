//! A participant's node: takes in what its agencies send and receive, queues it, brings it to the hub and back, and keeps its
//! own directory of who may have what.
//!
//! The way of an exchange out: `services` → `submit` → `writer` (journal, state, views) → `uplink`. In: `downlink` (feed and
//! mailboxes, judged) → `writer` → `services`. `state` is the pure fold of the journal; everything else is shell around it.
//!
//! It must not know the hub's ledger beyond what its feed tells, nor other participants' secrets: it holds its own keys, the
//! pinned anchor of the hub, and the fingerprints that its officers consented to.

mod agency;
pub mod backlog;
pub mod calls;
mod check;
pub mod config;
mod confirming;
pub mod context;
pub mod damaged;
pub mod downlink;
mod error;
mod folders;
mod hub_link;
pub mod index;
mod init;
mod join;
pub mod link;
mod open;
mod overdue;
pub mod paper;
mod pinning;
pub mod probe;
mod projection;
mod reminding;
mod reporting;
mod restore;
mod retention;
mod serve;
mod services;
pub mod signing;
pub mod state;
mod submit;
pub mod uplink;
mod withdraw;
mod withdrawals;
pub mod writer;

#[cfg(test)]
mod tests;

pub use agency::{AgencyAdded, AgencyCertificate, AgencyKey, add_agency, end_agency};
pub use check::{HubTried, check};
pub use config::{CONFIG_FILE, NodeConfig};
pub use error::NodeError;
pub use hub_link::hub_link;
pub use init::{InitOptions, Initialised, holders, init, init_by_request, install_certificates, refresh_join_request};
pub use join::{Joined, join};
pub use projection::NodeProjection;
pub use restore::{Restored, declare, rebuild, restore};
pub use serve::serve;
pub use services::server;
