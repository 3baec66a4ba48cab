//! The key ranges behind `scan`, `last` and `last_at_or_before`, on whole row keys (table byte first).

use std::ops::Bound;

use crate::Table;

/// A range of row keys, both ends given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Bound<Vec<u8>>,
}

impl RowRange {
    /// One row.
    pub(crate) fn one(row: &[u8]) -> Self {
        Self { from: row.to_vec(), to: Bound::Included(row.to_vec()) }
    }

    /// All rows of `table`.
    pub(crate) fn table(table: Table) -> Self {
        Self::prefix(table, &[])
    }

    /// All rows of `table` whose key starts with `prefix`.
    pub(crate) fn prefix(table: Table, prefix: &[u8]) -> Self {
        let from = table.row(prefix);
        let to = after_all_with(&from);
        Self { from, to }
    }

    /// Those of them whose key is `from` or greater; `None` where there can be none.
    pub(crate) fn prefix_from(table: Table, prefix: &[u8], from: &[u8]) -> Option<Self> {
        let mut range = Self::prefix(table, prefix);
        range.from = range.from.max(table.row(from));
        range.not_empty()
    }

    /// Those of them whose key is `key` or smaller; `None` where there can be none.
    pub(crate) fn prefix_up_to(table: Table, prefix: &[u8], key: &[u8]) -> Option<Self> {
        let mut range = Self::prefix(table, prefix);
        let key = table.row(key);
        let beyond_the_key = match &range.to {
            Bound::Excluded(end) => *end > key,
            Bound::Included(end) => *end > key,
            Bound::Unbounded => true,
        };
        if beyond_the_key {
            range.to = Bound::Included(key);
        }
        range.not_empty()
    }

    /// The same range, ending before `key`; `None` where nothing is left.
    pub(crate) fn before(self, key: Vec<u8>) -> Option<Self> {
        Self { from: self.from, to: Bound::Excluded(key) }.not_empty()
    }

    /// As the pair that `range` functions take.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = match &self.to {
            Bound::Included(end) => Bound::Included(end.as_slice()),
            Bound::Excluded(end) => Bound::Excluded(end.as_slice()),
            Bound::Unbounded => Bound::Unbounded,
        };
        (Bound::Included(self.from.as_slice()), to)
    }

    /// Empty and inverted ranges make `BTreeMap::range` panic and sled's behave as it likes: sorted out here.
    fn not_empty(self) -> Option<Self> {
        let holds_something = match &self.to {
            Bound::Included(end) => self.from <= *end,
            Bound::Excluded(end) => self.from < *end,
            Bound::Unbounded => true,
        };
        holds_something.then_some(self)
    }
}

/// The end of all byte strings that start with `prefix`: its last byte that can grow, grown, the rest cut off.
fn after_all_with(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::RangeBounds;

    #[test]
    fn a_prefix_of_highest_bytes_ends_with_its_table_or_nowhere() {
        assert_eq!(RowRange::prefix(Table::new(7), &[0xFF, 0xFF]).to, Bound::Excluded(vec![8]));
        assert_eq!(RowRange::prefix(Table::new(255), &[0xFF]).to, Bound::Unbounded);
    }

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_the_rows_with_that_prefix(
            prefix in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..4),
            key in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..6),
            tables in (1u8..=255, 1u8..=255),
        ) {
            let range = RowRange::prefix(Table::new(tables.0), &prefix);
            let row = Table::new(tables.1).row(&key);
            let expected = tables.0 == tables.1 && key.starts_with(&prefix);
            prop_assert_eq!(RangeBounds::<[u8]>::contains(&range.bounds(), row.as_slice()), expected);
        }
    }
}
