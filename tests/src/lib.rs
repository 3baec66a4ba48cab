//! The stage of the end-to-end stories: real processes of the real binary, in a temporary folder, and a raw node that can say
//! what an honest one never would.
//!
//! It must not know how hub and node work inside: it sees commands, their output, files, ports and the protocol. A step that
//! fails is a story that fails, so the functions here panic, with what was run and what it said.

#![allow(clippy::unwrap_used, reason = "only tests call this: a step that fails is a story that fails")]

mod admin;
mod agency;
pub mod any_call;
pub mod battery;
pub mod checker;
mod collector;
mod command;
mod connect_proxy;
mod damage;
pub mod fan;
pub mod floods;
pub mod forge;
mod forum;
pub mod framing;
mod grpc;
pub mod honest;
pub mod http2;
pub mod kills;
pub mod load;
pub mod memory;
pub mod power;
mod process;
mod proxy;
mod raw;
mod raw_peer;
mod small_disk;
pub mod stage;
mod supervisor;
pub mod witness;

pub use admin::{Page, get};
pub use agency::{Agency, Sent, body_of, count_in_journal, exchange_ids, text_of};
pub use collector::{Collector, Posted, spans};
pub use command::{DEADLINE, Ended, concord, executable, on_a_terminal, run};
pub use connect_proxy::{ConnectProxy, Manner, Seen};
pub use damage::{append_to_last_segment, flip_bit, flip_bit_of_body, last_segment, remove_views};
pub use forum::{Dying, Forum, port_of_its_own, replace_line};
pub use grpc::{ServerSays, ask_server, flood_of_denied_calls};
pub use process::Process;
pub use proxy::{Flow, Proxy, Way};
pub use raw::{Answer, Draft, RawNode, reason_of};
pub use raw_peer::{IdleStreams, Mailbox, agreement_reference};
pub use small_disk::SmallDisk;
pub use supervisor::Supervisor;
