//! Where rows are kept: in sled, or in memory for simulations. Both keep the same rules; the tests of batches run on both.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Row, ViewsError, range::RowRange, store::Store};

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
