//! Where rows are kept: in sled, or in memory for simulations. Both keep the same rules; the tests of batches run on both.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Row, ViewsError, groups::Groups, range::RowRange, store::Store};

/// The rows of one opening of views.
pub(crate) enum Rows {
    /// In a folder.
    Sled(Store),
    /// Gone with the last handle.
    Memory(Memory),
}

/// A sorted map behind a lock that is held for one call.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

/// A row and its new value, or its removal.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

impl Rows {
    pub(crate) fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        match self {
            Self::Sled(store) => store.get(row),
            Self::Memory(memory) => Ok(memory.rows().get(row).cloned()),
        }
    }

    /// The rows of `range`, ascending, at most `limit`.
    pub(crate) fn range(&self, range: &RowRange, limit: usize) -> Result<Vec<Row>, ViewsError> {
        match self {
            Self::Sled(store) => store.rows(range, limit),
            Self::Memory(memory) => {
                let rows = memory.rows();
                let found = rows.range::<[u8], _>(range.bounds()).take(limit);
                Ok(found.map(|(row, value)| (row.clone(), value.clone())).collect())
            }
        }
    }

    /// The last row of `range`.
    pub(crate) fn last(&self, range: &RowRange) -> Result<Option<Row>, ViewsError> {
        match self {
            Self::Sled(store) => store.last(range),
            Self::Memory(memory) => {
                let rows = memory.rows();
                let last = rows.range::<[u8], _>(range.bounds()).next_back();
                Ok(last.map(|(row, value)| (row.clone(), value.clone())))
            }
        }
    }

    /// The value of a row, once the rows that the answer lies among are checked.
    pub(crate) fn get_checked(&self, groups: &mut Groups, row: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        let value = self.get(row)?;
        let found: &[&[u8]] = if value.is_some() { &[row] } else { &[] };
        self.check(groups, &RowRange::one(row), found)?;
        Ok(value)
    }

    /// As [`Rows::range`], once the rows that the answer lies among are checked.
    pub(crate) fn range_checked(
        &self,
        groups: &mut Groups,
        range: &RowRange,
        limit: usize,
    ) -> Result<Vec<Row>, ViewsError> {
        let rows = self.range(range, limit)?;
        let mut answered = range.clone();
        if let Some((last, _)) = rows.last().filter(|_| rows.len() >= limit) {
            answered.to = Bound::Included(last.clone());
        }
        let found: Vec<&[u8]> = rows.iter().map(|(row, _)| row.as_slice()).collect();
        self.check(groups, &answered, &found)?;
        Ok(rows)
    }

    /// As [`Rows::last`], once the rows that the answer lies among are checked.
    pub(crate) fn last_checked(&self, groups: &mut Groups, range: &RowRange) -> Result<Option<Row>, ViewsError> {
        let last = self.last(range)?;
        let mut answered = range.clone();
        if let Some((row, _)) = &last {
            answered.from.clone_from(row);
        }
        let found: Vec<&[u8]> = last.iter().map(|(row, _)| row.as_slice()).collect();
        self.check(groups, &answered, &found)?;
        Ok(last)
    }

    /// Checks what was not of the groups that hold an answer. Whoever has the groups has the writer's lock, so that what was read
    /// before is what is checked.
    fn check(&self, groups: &mut Groups, answered: &RowRange, found: &[&[u8]]) -> Result<(), ViewsError> {
        let Self::Sled(store) = self else { return Ok(()) };
        for name in groups.unchecked_in(answered, found).map_err(|what| store.fail(what))? {
            store.check_group(groups, &name)?;
        }
        Ok(())
    }

    /// Makes all of these changes or none.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Result<(), ViewsError> {
        match self {
            Self::Sled(store) => {
                let mut batch = sled::Batch::default();
                for (row, value) in changes {
                    match value {
                        Some(value) => batch.insert(row, value),
                        None => batch.remove(row),
                    }
                }
                store.write(batch)
            }
            Self::Memory(memory) => {
                let mut rows = memory.rows();
                for (row, value) in changes {
                    match value {
                        Some(value) => rows.insert(row, value),
                        None => rows.remove(&row),
                    };
                }
                Ok(())
            }
        }
    }
}

impl Memory {
    /// Nothing under this lock can panic halfway through the changes of a batch.
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
