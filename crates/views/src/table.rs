//! Tables: the first byte of every row's key.

/// One table of the views: a key prefix inside the single sled tree.
///
/// Two tables never share a row. Declare them as constants, so that a wrong number stops the build:
///
/// ```
/// use concord_views::Table;
/// const MAILBOX: Table = Table::new(1);
/// ```
///
/// Rows are checked in groups ([`Table::grouped_by_first_bits`], [`Table::grouped_by_last_bits`]); without a word about it, all
/// rows of the table are one group, which is right for a table that stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    number: u8,
    grouping: Grouping,
}

/// Which rows of a table are checked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Grouping {
    /// Those whose keys begin with the same bits.
    FirstBits(u16),
    /// Those whose keys differ in so many last bits only.
    LastBits(u16),
}

impl Table {
    /// The table of the watermark, written by this crate only.
    pub(crate) const WATERMARK: Table = Table { number: 0, grouping: Grouping::FirstBits(0) };

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
        Self { number, grouping: Grouping::FirstBits(0) }
    }

    /// The same table, in which the rows whose keys begin with the same `bits` bits are one group: for keys that begin with a
    /// digest. A group of about a thousand rows is checked in milliseconds. The rows of one folder keep their grouping: with
    /// another one, give the projection another version.
    #[must_use]
    pub const fn grouped_by_first_bits(self, bits: u16) -> Self {
        Self { grouping: Grouping::FirstBits(bits), ..self }
    }

    /// The same table, in which the rows whose keys differ in their last `bits` bits only are one group: for keys that end in a
    /// number, which then has 2^`bits` neighbours in its group.
    #[must_use]
    pub const fn grouped_by_last_bits(self, bits: u16) -> Self {
        Self { grouping: Grouping::LastBits(bits), ..self }
    }

    /// Whether no two of them have the same number. A projection asks it of all of its tables, in a `const`, so that a number that is
    /// given twice stops the build:
    ///
    /// ```
    /// # use concord_views::Table;
    /// const MAILBOX: Table = Table::new(1);
    /// const FEED: Table = Table::new(2);
    /// const _: () = assert!(Table::all_differ(&[MAILBOX, FEED]));
    /// assert!(!Table::all_differ(&[MAILBOX, FEED, Table::new(1)]));
    /// ```
    #[must_use]
    pub const fn all_differ(tables: &[Table]) -> bool {
        let mut seen = [false; 256];
        let mut index = 0;
        while index < tables.len() {
            let number = tables[index].number as usize;
            if seen[number] {
                return false;
            }
            seen[number] = true;
            index += 1;
        }
        true
    }

    pub(crate) fn number(self) -> u8 {
        self.number
    }

    pub(crate) fn grouping(self) -> Grouping {
        self.grouping
    }

    /// The row's key in the sled tree.
    pub(crate) fn row(self, key: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(1 + key.len());
        row.push(self.number);
        row.extend_from_slice(key);
        row
    }
}
