//! Tables: the first byte of every row's key.

/// One table of the views: a key prefix inside the single sled tree.
///
/// Two tables never share a row. Declare them as constants, so that a wrong number stops the build:
///
/// ```
/// use concord_views::Table;
/// const MAILBOX: Table = Table::new(1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(u8);

impl Table {
    /// The table of the watermark, written by this crate only.
    pub(crate) const WATERMARK: Table = Table(0);

    /// A table with this number, 1 to 255.
    ///
    /// # Panics
    ///
    /// On 0, which is the watermark's; in a `const` that is an error of the build:
    ///
    /// ```compile_fail
    /// const WRONG: concord_views::Table = concord_views::Table::new(0);
    /// ```
    #[must_use]
    pub const fn new(number: u8) -> Self {
        assert!(number != 0, "table 0 is reserved for the watermark: choose 1 to 255");
        Self(number)
    }

    /// The row's key in the sled tree.
    pub(crate) fn row(self, key: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(1 + key.len());
        row.push(self.0);
        row.extend_from_slice(key);
        row
    }
}
