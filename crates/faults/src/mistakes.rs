//! The mistakes that a test may switch on.

/// Every planted mistake. A test walks the sources: each is asked for somewhere.
pub const MISTAKES: &[&str] = &[];
