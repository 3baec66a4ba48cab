//! Snapshots of what a journal folds to, so that a start does not fold the world.
//!
//! A snapshot is a cache: the state after one entry of the journal, with that entry's digest. Deleting the folder changes
//! nothing but the time that the next start takes. *Invariant: a snapshot and the entries after it fold to the same value as
//! all entries*, so one is used only if its entry stands in the journal, and only by the program that wrote it.
//!
//! It must not know what a state means, nor anything that is truth.

mod file;
mod folder;
mod keep;
mod restore;

pub use file::{Form, SNAPSHOT_SIZE_MAX_BYTES, Unusable};
pub use folder::{Found, SNAPSHOTS_KEPT, SnapshotError, Snapshots};
pub use keep::{SNAPSHOT_ENTRIES, SNAPSHOT_PERIOD_SECONDS, keep};
pub use restore::{Restored, restore, state_before};
