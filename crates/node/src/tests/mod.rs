//! The promises of state, writer and judgement, kept without sockets.

mod acknowledging;
mod aside;
mod epochs;
mod explaining;
mod feed;
mod fencing;
mod full;
mod healing;
mod judging;
mod links;
mod queueing;
mod receiving;
mod recovering;
mod restored;
mod rights;
mod saying;
mod snapshots;
mod support;
mod uplink;
mod withdrawn;
