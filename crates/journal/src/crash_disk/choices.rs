//! Who decides what survives: a seed, or all possibilities one after the other.

/// Decides.
pub trait Choices {
    /// One of `count` possibilities, from 0; `count` is at least 1.
    fn choose(&mut self, count: usize) -> usize;
}

/// Decides by a seed: the same seed, the same decisions.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// By this seed.
    pub const fn new(seed: u64) -> Seeded {
        Seeded(seed)
    }

    /// The next number (splitmix64).
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Choices for Seeded {
    fn choose(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count.max(1) as u64).unwrap_or(0)
    }
}

/// Goes through all decisions: ask, then [`advance`](Self::advance), until that says that there is no more.
#[derive(Debug, Default)]
pub struct Exhaustive {
    /// What was decided, of how many.
    taken: Vec<(usize, usize)>,
    position: usize,
}

impl Exhaustive {
    /// Prepares the next way through; false if that was the last.
    pub fn advance(&mut self) -> bool {
        self.taken.truncate(self.position);
        self.position = 0;
        while let Some((choice, count)) = self.taken.pop() {
            if choice + 1 < count {
                self.taken.push((choice + 1, count));
                return true;
            }
        }
        false
    }
}

impl Choices for Exhaustive {
    fn choose(&mut self, count: usize) -> usize {
        if self.position == self.taken.len() {
            self.taken.push((0, count));
        }
        self.position += 1;
        self.taken[self.position - 1].0
    }
}
