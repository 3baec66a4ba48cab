//! The append-only, hash-chained record: the only truth on disk.
//!
//! An [`Entry`] is a payload of some kind and version with [`Blob`]s beside it; its digest covers the entry
//! before it. Batches are appended in one durable write; the end of the record is its [`Tail`]; one unbroken
//! past of it is a *history*. [`FileJournal`] keeps it in segment files, [`MemoryJournal`] in memory, and
//! [`verify`] and [`walk`] read a folder beside a running writer.
//!
//! **What it must not know:** exchanges, participants, ledgers, gRPC, clocks or randomness. Times, ids and nonces
//! come in as arguments; what a payload means is its writer's affair. It also takes no lock on its folder: the
//! process does that once for all its folders.

mod blob;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod crash_disk;
mod digest;
mod entry;
mod file;
mod history;
#[cfg(feature = "conformance")]
pub mod hooked;
mod journal;
mod memory;
mod old;
mod redaction;
mod trim;

pub use blob::{Blob, Commitment, NONCE_SIZE_BYTES};
pub use digest::{Digest, HistoryId, Tail};
pub use entry::{Draft, Entry, KIND_RESERVED_FIRST, is_known_effect, is_reserved_kind};
pub use file::{
    Cut, Damage, Disk, DiskFile, Extent, Fault, FileJournal, FrameMark, OpenError, OpenOptions, Opened, RealDisk,
    SCRUB_STEP_SIZE_BYTES, SEGMENT_SIZE_DEFAULT_BYTES, SEGMENT_SIZE_MAX_BYTES, SEGMENT_SIZE_MIN_BYTES, Unfinished,
    Verified, VerifyError, Walk, segment_size, verify, walk,
};
pub use history::{HISTORY_BEGUN_VERSION, HistoryBegun, HistoryBegunError, KIND_HISTORY_BEGUN};
pub use journal::{
    AppendError, Appended, COMMIT_SIZE_MAX_BYTES, Committed, Journal, MendError, READ_SIZE_MAX_BYTES, ReadError,
};
pub use memory::MemoryJournal;
pub use old::{Held, OldEntries, OldSegments};
pub use redaction::{Bodies, Body, KIND_REDACTED, KIND_REDACTION_STEP, REDACTION_VERSION, Redacted};
pub use trim::{Base, KIND_TRIMMED, PreparedTrim, Trim, TrimError};
