//! The stories: what Concord promises, shown with real processes of the real binary. Each test is named by its promise.

#![allow(clippy::unwrap_used, reason = "a step that fails is a story that fails")]
#![allow(clippy::cloned_ref_to_slice_refs, reason = "a list of one id reads like a list of two")]

mod absence;
mod agencies;
mod agreed;
mod agreements;
mod audit;
mod away;
mod backup;
mod certificates;
mod clock;
mod commands_refused;
mod consignments_refused;
mod damage;
mod damaged_bodies;
mod demo;
mod disk;
mod epochs;
mod explained;
mod folders_refused;
mod healing_hub;
mod healing_node;
mod kills;
mod matrix;
mod network;
mod paperwork;
mod peers_refused;
mod quotas;
mod real_data;
mod receipts;
mod repeats;
mod replaced_node;
mod retention;
mod revocation;
mod rights;
mod servers;
mod strangers;
mod trims;
mod views_damaged;
mod withdrawn;
