//! What this crate promises: golden vectors of every format, exact parsing, and what becomes of bytes that somebody tampered with.
//!
//! Keys, seeds, nonces and times are fixed: nothing here is random but what proptest makes.

// All of this is test code; the lint only recognises what stands inside a test function.
#![allow(clippy::unwrap_used)]

mod canonical;
mod deliveries;
mod fixtures;
mod fuzz;
mod garbage;
mod golden;
mod golden_exchange;
mod golden_journal;
mod golden_statement;
mod headers;
mod other_implementation;
mod seals;
mod seals_items;
mod signed_words;
mod statements;
mod stored_hub;
mod stored_node;
