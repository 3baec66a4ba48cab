//! Choices that follow from a seed alone: the batteries' own, with one stream for each purpose.

use concord_tests::battery;

/// One stream of choices.
#[derive(Debug, Clone)]
pub(crate) struct Chance(battery::Chance);

impl Chance {
    /// The choices of a seed, other ones for each purpose.
    pub(crate) fn of(seed: u64, purpose: u64) -> Self {
        let mut chance = Self(battery::Chance::of(seed ^ purpose.wrapping_mul(0xa076_1d64_78bd_642f)));
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.any()
    }

    /// Bytes in the place of the system's randomness.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// A number below `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// A number of this range, which is not empty.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Comes up once in `of` times.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.0.one_in(of)
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}
