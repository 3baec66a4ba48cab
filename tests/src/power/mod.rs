//! Power cuts under the real binary: hub and nodes run on disks of the tests' own, which forget what was not synced.

mod disk;
#[cfg(target_os = "linux")]
mod mount;
#[cfg(target_os = "linux")]
mod outage;

pub use disk::{Kind, Platter, ROOT};
#[cfg(target_os = "linux")]
pub use mount::{Missing, Mounted, is_missing};
#[cfg(target_os = "linux")]
pub use outage::Outage;
