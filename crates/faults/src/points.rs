//! The crash points, by crate and in the order of the way of an exchange.

/// Every crash point. A test walks the sources: each stands in exactly one place.
pub const POINTS: &[&str] = &[];
