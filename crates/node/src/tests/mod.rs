//! The promises of state, writer and judgement, kept without sockets.

mod acknowledging;
mod feed;
mod judging;
mod queueing;
mod support;
mod uplink;
