//! Views: what is derived from a journal, kept in sled, so that reads need not walk the journal.
//!
//! A view may be deleted at any moment and is rebuilt from its journal; the [`Projection`] that knows how is
//! passed in. All tables live in **one** sled tree, so that the rows of a batch and the watermark (how far the
//! journal has been applied) become visible and survive together or not at all.
//!
//! **What this crate must not know:** what an entry means, what a row means, who may read it. It holds no bodies
//! and no titles, and **no acknowledgement may rest on it**: sled 0.34 ends a flush in `sync_file_range`, which
//! survives a killed process but not a power cut. Whatever must survive stands in the journal first.
//!
//! ```text
//! journal ──read──▶ Projection::project(entry, batch) ──▶ Views::apply(batch, watermark) ──▶ get, scan, last
//! ```
//!
//! All calls block on memory or disk for a short time, except [`Views::open`] and [`Views::catch_up`], which take
//! as long as there is to read: run those two on a blocking thread.

mod aside;
mod batch;
mod catch_up;
mod check;
mod error;
mod fingerprint;
mod groups;
mod key;
mod opening;
mod range;
mod rows;
mod store;
mod table;
mod views;
mod watermark;

pub use aside::FOLDERS_ASIDE_MAX;
pub use batch::{Batch, KEY_SIZE_MAX_BYTES, VALUE_SIZE_MAX_BYTES};
pub use catch_up::{
    BATCH_ROWS_FAR_BEHIND_MAX, BATCH_ROWS_MAX, BATCH_SIZE_MAX_BYTES, CatchUpError, FAR_BEHIND_ENTRIES, Projection,
    ProjectionError, READ_ENTRIES_MAX, told_on_log,
};
pub use error::ViewsError;
pub use key::{Key, KeyReader};
pub use opening::{Opened, Reason};
pub use store::{
    CACHE_SIZE_MAX_BYTES, CHECKED_AT_OPENING_ROWS_MAX, CLOSE_MAX_SECONDS, FLUSH_INTERVAL_MILLISECONDS, OPEN_MAX_SECONDS,
};
pub use table::Table;
pub use views::{Row, SCAN_ROWS_MAX, Views};
