//! What agencies and officers ask of a node, behind gRPC: for the services, and for whoever drives a node without sockets.

pub use crate::services::{Cursor, Cursors, Item, Items, acknowledge, give, given, hand_in};
pub use crate::submit::submit;
pub use crate::withdraw::withdraw;
