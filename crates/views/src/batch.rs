//! Batches: rows that become visible together with the watermark, and that the projection reads back meanwhile.

use std::{cell::RefCell, collections::BTreeMap, sync::MutexGuard};

use concord_journal::Tail;

use crate::{
    Row, Table, ViewsError,
    range::RowRange,
    rows::Rows,
    table::Grouping,
    views::Written,
    watermark::{self, Watermark},
};

/// Largest key of a row. A larger one is [`ViewsError::RowTooLarge`]; identifiers are far below it.
pub const KEY_SIZE_MAX_BYTES: usize = 1024;

/// Largest value of a row. A larger one is [`ViewsError::RowTooLarge`]: views hold references, never bodies.
pub const VALUE_SIZE_MAX_BYTES: usize = 64 * 1024;

/// Pending changes on top of the views, made by [`crate::Views::batch`].
///
/// Reads see the pending changes first and the views below, so a projection of entry N + 1 sees what it wrote for
/// N in the same batch. There is one batch at a time: while it lives, `Views::batch` on another thread waits, and
/// on the same thread waits for ever. Dropped without [`crate::Views::apply`], it changes nothing.
pub struct Batch<'a> {
    store: &'a Rows,
    writer: RefCell<MutexGuard<'a, Written>>,
    groupings: BTreeMap<u8, Grouping>,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pending_size: usize,
    /// What each change since the last `keep` replaced in `pending`, oldest first.
    replaced: Vec<Replaced>,
}

/// A row and what was pending for it: nothing, its removal, or a value.
type Replaced = (Vec<u8>, Option<Option<Vec<u8>>>);

impl<'a> Batch<'a> {
    pub(crate) fn new(store: &'a Rows, writer: MutexGuard<'a, Written>) -> Self {
        let (writer, groupings) = (RefCell::new(writer), BTreeMap::new());
        Self { store, writer, groupings, pending: BTreeMap::new(), pending_size: 0, replaced: Vec::new() }
    }

    /// Writes a row, replacing one with the same key.
    ///
    /// # Errors
    ///
    /// [`ViewsError::RowTooLarge`].
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), ViewsError> {
        if key.len() > KEY_SIZE_MAX_BYTES || value.len() > VALUE_SIZE_MAX_BYTES {
            return Err(ViewsError::RowTooLarge { key_size: key.len(), value_size: value.len() });
        }
        self.change(table, key, Some(value.to_vec()));
        Ok(())
    }

    /// Removes a row; there need not be one.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.change(table, key, None);
    }

    /// The value under `key`, pending changes included.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        let row = table.row(key);
        match self.pending.get(&row) {
            Some(pending) => Ok(pending.clone()),
            None => self.store.get_checked(&mut self.writer.borrow_mut().groups, &row),
        }
    }

    /// The last row of `table` whose key starts with `prefix`, pending changes included.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Row>, ViewsError> {
        self.last_in(RowRange::prefix(table, prefix))
    }

    /// The last of those rows whose key is `key` or smaller, pending changes included.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last_at_or_before(&self, table: Table, prefix: &[u8], key: &[u8]) -> Result<Option<Row>, ViewsError> {
        RowRange::prefix_up_to(table, prefix, key).map_or(Ok(None), |range| self.last_in(range))
    }

    /// How many rows are pending.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.pending.len()
    }

    /// About how many bytes of keys and values are pending; rows written twice count twice.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.pending_size
    }

    /// Makes the changes so far part of the batch.
    pub(crate) fn keep(&mut self) {
        self.replaced.clear();
    }

    /// Takes back the changes since the last `keep`: half of an entry must not be applied.
    pub(crate) fn take_back(&mut self) {
        while let Some((row, replaced)) = self.replaced.pop() {
            match replaced {
                Some(value) => self.pending.insert(row, value),
                None => self.pending.remove(&row),
            };
        }
    }

    /// Writes everything together with `at`; answers the new watermark's sequence.
    pub(crate) fn apply(self, at: Tail) -> Result<u64, ViewsError> {
        let mut writer = self.writer.into_inner();
        let current = writer.watermark.at.sequence;
        if at.sequence <= current {
            return Err(ViewsError::NotForward { current, asked: at.sequence });
        }
        let mut changes: Vec<_> = self.pending.into_iter().collect();
        let replaced = changes.iter().map(|(row, _)| self.store.get(row)).collect::<Result<Vec<_>, _>>()?;
        let grouping = |row: &[u8]| {
            let known = row.first().and_then(|number| self.groupings.get(number));
            known.copied().unwrap_or(Grouping::FirstBits(0))
        };
        let changed = writer.groups.changed(writer.watermark.rows, &mut changes, &replaced, grouping);
        let next = Watermark { at, rows: changed.fingerprint, ..writer.watermark };
        if !concord_faults::planted("forget-the-watermark") {
            changes.push((watermark::row(), Some(next.encode())));
        }
        concord_faults::point("views.write.before");
        self.store.write(changes)?;
        concord_faults::point("views.write.after");
        writer.watermark = next;
        writer.groups.apply(changed);
        Ok(at.sequence)
    }

    fn change(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        self.pending_size += key.len() + value.as_ref().map_or(0, Vec::len);
        self.groupings.insert(table.number(), table.grouping());
        let row = table.row(key);
        let replaced = self.pending.insert(row.clone(), value);
        self.replaced.push((row, replaced));
    }

    /// The greater of the last pending row and the last stored row that is not pending.
    fn last_in(&self, range: RowRange) -> Result<Option<Row>, ViewsError> {
        let pending = self.pending.range::<[u8], _>(range.bounds()).rev();
        let pending = pending.filter_map(|(row, value)| Some((row.clone(), value.clone()?))).next();
        let mut stored = None;
        let mut searched = Some(range);
        while let Some(range) = searched {
            let Some(last) = self.store.last_checked(&mut self.writer.borrow_mut().groups, &range)? else {
                break;
            };
            if !self.pending.contains_key(&last.0) {
                stored = Some(last);
                break;
            }
            searched = range.before(last.0);
        }
        // Keys differ, so the values never decide.
        Ok(pending.max(stored).map(crate::views::without_table))
    }
}
