//! The batteries: promises held against faults that are made on purpose, many times, by a seed. A slice runs by default; the
//! environment asks for a campaign (`concord_tests::battery`).

#![allow(clippy::unwrap_used, reason = "a step that fails is a battery that fails")]

mod attacks;
mod attacks_messages;
mod canaries;
mod canaries_history;
mod canaries_search;
mod checker;
mod fan_out;
mod kills;
mod power;
mod power_disk;
mod stream_ends;
