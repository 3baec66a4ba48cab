//! The operations of the system that a test may let fail.

/// Every operation that can be let fail. A test walks the sources: each stands in exactly one place.
pub const FAILURES: &[&str] = &["journal.sync"];
