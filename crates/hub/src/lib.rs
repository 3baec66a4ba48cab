//! The hub: stores what nodes consign, decides who may have it, and redistributes it to exactly those.
//!
//! The way of an exchange through it: `services::exchange` → `consign` (opened, verified) → `sequencer` (decided, durable) →
//! `projection` (mailbox rows) → `delivery` (permit, sent) → `acknowledge` (recorded, told to the sender) → `feed`.
//!
//! Its parts are public so that a simulation can drive them without sockets; the binary uses `init` and `serve` only.
//!
//! It must not know agencies: they are their states' own. It must not decide anything in another place than the ledger, and must
//! not send a byte of an exchange but through a permit.

pub mod acknowledge;
pub mod allowance;
mod approvals;
pub mod away;
mod check;
mod config;
pub mod consign;
pub mod damaged;
pub mod delivery;
mod error;
pub mod explain;
pub mod feed;
pub mod feeds;
pub mod fencing;
pub mod fetch;
pub mod fleet;
pub mod follow;
pub mod healing;
mod init;
pub mod lags;
pub mod lapses;
pub mod losses;
pub mod node_clocks;
mod noted;
pub mod overdue;
pub mod positions;
pub mod probes;
pub mod projection;
pub mod responses;
mod restore;
pub mod retention;
mod seed;
pub mod sequencer;
mod serve;
pub mod services;
pub mod shared;
pub mod snapshot;
pub mod streams;
pub mod withdrawals;

pub use check::check;
pub use config::{Config, QUORUM_DEFAULT};
pub use error::HubError;
pub use init::{InitOptions, Initialised, holders, init, init_by_request, install_certificates};
pub use restore::{Restored, refound, restore};
pub use seed::Seed;
pub use serve::serve;
