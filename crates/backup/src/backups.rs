//! Backups of a running hub or node, one at a time.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_journal::FileJournal;
use concord_model::Timestamp;
use tokio::sync::{Semaphore, mpsc};

use crate::send::{Gone, Source, send};
use crate::{BackupError, Manifest};

/// Chunks that are read and not yet taken; reading waits beyond it.
pub const CHUNKS_WAITING_MAX: usize = 4;

/// Makes backups of one data folder; clones share the limit of one at a time.
#[derive(Clone)]
pub struct Backups {
    source: Source,
    journal: Arc<FileJournal>,
    key: Arc<dyn Fn() -> Arc<SigningKey> + Send + Sync>,
    one_at_a_time: Arc<Semaphore>,
}

impl Backups {
    /// Of this folder and its open journal, each signed with the key that counts when it is taken.
    pub fn new(
        source: Source,
        journal: Arc<FileJournal>,
        key: impl Fn() -> Arc<SigningKey> + Send + Sync + 'static,
    ) -> Self {
        Self { source, journal, key: Arc::new(key), one_at_a_time: Arc::new(Semaphore::new(1)) }
    }

    /// Begins a backup up to the tail of now; none while another one is being made. Dropping the receiver ends it.
    pub fn start(&self, now: Timestamp) -> Option<mpsc::Receiver<Result<Bytes, BackupError>>> {
        let permit = Arc::clone(&self.one_at_a_time).try_acquire_owned().ok()?;
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let extent = this.journal.extent();
            let mut emit = |chunk| chunks.blocking_send(Ok(chunk)).map_err(|_| Gone);
            let made: Result<Manifest, BackupError> = send(&this.source, &extent, &(this.key)(), now, &mut emit);
            if let Err(error) = made {
                // Whoever is gone need not hear it.
                let _gone = chunks.blocking_send(Err(error));
            }
            drop(permit);
        });
        Some(receiver)
    }
}
