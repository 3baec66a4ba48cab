//! A fingerprint of all rows, kept up to date row by row.
//!
//! sled checks each page that it reads, but not that a page is the newest one: after damage or a power cut it may
//! come back with some rows older than others and report nothing. The fingerprint stands in the watermark row, so
//! a folder whose rows are not exactly those that were written with that watermark is found when it is opened.
//!
//! It finds accidents, not attackers: who can write the folder can write a fitting fingerprint.

use sha2::{Digest as _, Sha256};

/// The sum of the digests of all rows: the same whatever the order in which rows came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(u128);

impl Fingerprint {
    pub(crate) fn add(&mut self, row: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(of_row(row, value));
    }

    pub(crate) fn take(&mut self, row: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(of_row(row, value));
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

fn of_row(row: &[u8], value: &[u8]) -> u128 {
    let mut hash = Sha256::new();
    // With the length, the boundary between key and value is part of what is hashed.
    hash.update((row.len() as u64).to_be_bytes());
    hash.update(row);
    hash.update(value);
    leading(&hash.finalize())
}

/// The first 16 bytes of a SHA-256 digest as a number.
pub(crate) fn leading(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_does_not_matter_and_a_row_taken_is_gone() {
        let mut one = Fingerprint::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = Fingerprint::default();
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        assert_ne!(one, other);
        other.take(b"c", b"3");
        assert_eq!(one, other);
    }

    #[test]
    fn a_byte_moved_between_key_and_value_shows() {
        let mut one = Fingerprint::default();
        one.add(b"ab", b"c");
        let mut other = Fingerprint::default();
        other.add(b"a", b"bc");
        assert_ne!(one, other);
    }
}
