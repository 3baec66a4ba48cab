//! Putting a damaged body back in its place.

use super::frame::{body_row, write_body};
use super::writer::Writer;
use crate::blob::{Blob, NONCE_SIZE_BYTES};
use crate::journal::MendError;

impl Writer {
    /// Puts a body back where its entry says that it stood.
    ///
    /// Invariant: nothing is written but bytes whose commitment stands in the verified table of the entry, in the place that the table
    /// gives them, and none where a fact names a hole. So a crash in between leaves the body damaged, as it was, and nothing else. It
    /// runs on the writer's thread, so that no redaction or trim happens beside it.
    pub(crate) fn mend(&mut self, sequence: u64, index: usize, body: &Blob) -> Result<(), MendError> {
        if self.failure.is_some() {
            return Err(MendError::Closed);
        }
        match self.shared.blob(sequence, index) {
            Ok(whole) if whole.commitment() == body.commitment() => return Ok(()),
            Ok(_) => return Err(MendError::Other { sequence, index }),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error.into()),
        }
        let (place, head, table) = self.shared.table(sequence)?;
        let stood = body_row(&table, index);
        let stood =
            stood.filter(|(_, length, commitment)| (*length, *commitment) == (body.bytes().len(), body.commitment()));
        let (before, ..) = stood.ok_or(MendError::Other { sequence, index })?;
        let mut bytes = Vec::with_capacity(NONCE_SIZE_BYTES + body.bytes().len());
        write_body(&mut bytes, body);
        let offset = place.offset + head.prefix_length() + before;
        let written = self.file_of(place.segment).and_then(|file| {
            concord_faults::point("journal.mend.begun");
            file.overwrite(offset, &bytes)?;
            concord_faults::point("journal.mend.written");
            file.sync_data()
        });
        written.map_err(|source| MendError::Disk { sequence, index, source })?;
        concord_faults::point("journal.mend.synced");
        // What was written is what a reader finds.
        self.shared.blob(sequence, index)?;
        tracing::warn!(sequence, index, "a damaged body was put back in its place");
        Ok(())
    }
}
