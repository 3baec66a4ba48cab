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
mod checked;
mod clock;
mod commands_refused;
mod consignments_refused;
mod damage;
mod damaged_bodies;
mod demo;
mod deployed;
mod disk;
mod epochs;
mod explained;
mod folders_refused;
mod healing_hub;
mod healing_node;
mod health;
mod keys;
mod kills;
mod matrix;
mod network;
mod peers_refused;
mod pins;
mod proxied;
mod quotas;
mod real_data;
mod receipts;
mod renewal;
mod repeats;
mod replaced_node;
mod retention;
mod revocation;
mod rights;
mod run_for_real;
mod servers;
mod service;
mod strangers;
mod traced;
mod trims;
mod views_damaged;
mod withdrawn;
