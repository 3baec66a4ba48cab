//! What this crate promises, over real sockets, real TLS and real files.

// All of this is test code; the lint only recognises what stands inside a test function.
#![allow(clippy::unwrap_used)]

mod client_side;
mod damaged;
mod foreign;
mod issuing;
mod listener;
mod live;
mod profiles;
mod requests;
mod revocation;
mod statements;
mod support;
