//! Making a backup of a journal that goes on being written, in bounded memory.

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_journal::{Disk as _, Extent, RealDisk};
use concord_model::{Name, ParticipantCode, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::manifest::{BACKUP_FORMAT, FileEntry, Manifest, Owner};
use crate::place::JOURNAL_FOLDER;
use crate::{BackupError, MAGIC, SIGNATURE_DOMAIN, disk};

/// What is read and handed on at once.
pub const CHUNK_SIZE_BYTES: usize = 256 * 1024;
/// A public file larger than this is none of ours.
const PUBLIC_FILE_SIZE_MAX_BYTES: u64 = 1024 * 1024;

/// Whoever was sent to is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What is to be backed up.
#[derive(Debug, Clone)]
pub struct Source {
    /// The data folder.
    pub folder: PathBuf,
    /// Whose it is.
    pub owner: Owner,
    /// The participant.
    pub participant: ParticipantCode,
    /// The name of hub or node.
    pub name: Name,
    /// Public files of the folder that go with it where they are there: configuration and certificates, never a key.
    pub public_files: &'static [&'static str],
}

/// Sends a backup of the journal as far as `extent` says, in chunks of at most [`CHUNK_SIZE_BYTES`]. Blocks.
///
/// Fails with [`BackupError::Changed`] where a file of the extent is no longer there as it was: begin again then.
pub fn send(
    source: &Source,
    extent: &Extent,
    key: &SigningKey,
    now: Timestamp,
    emit: &mut dyn FnMut(Bytes) -> Result<(), Gone>,
) -> Result<Manifest, BackupError> {
    let public = read_public(source)?;
    let in_journal =
        extent.files.iter().map(|(name, size)| FileEntry { path: format!("{JOURNAL_FOLDER}/{name}"), size: *size });
    let beside = public.iter().map(|(path, bytes)| FileEntry { path: (*path).to_owned(), size: bytes.len() as u64 });
    let manifest = Manifest {
        owner: source.owner,
        participant: source.participant.to_string(),
        name: source.name.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at: now.as_micros(),
        tail: extent.tail.into(),
        signing_key: hexadecimal(&key.public().bytes),
        files: in_journal.chain(beside).collect(),
    };
    let mut out = Out { total: Sha256::new(), emit };
    out.head(&manifest)?;

    let folder = source.folder.join(JOURNAL_FOLDER);
    let journal = RealDisk::open(&folder).map_err(disk("read", &folder))?;
    let mut sums = Vec::new();
    for (name, size) in &extent.files {
        sums.push(send_file(&mut out, &journal, name, *size)?);
    }
    for (_, bytes) in &public {
        out.bytes(bytes)?;
        sums.push(Sha256::digest(bytes).into());
    }
    for sum in sums {
        let sum: [u8; 32] = sum;
        out.bytes(&sum)?;
    }
    let total: [u8; 32] = out.total.clone().finalize().into();
    out.bytes(&total)?;
    out.bytes(&key.sign(&[SIGNATURE_DOMAIN, &total].concat()))?;
    Ok(manifest)
}

fn send_file(out: &mut Out<'_>, journal: &RealDisk, name: &str, size: u64) -> Result<[u8; 32], BackupError> {
    let changed = |what: String| BackupError::Changed { file: name.to_owned(), what };
    let file = journal.open_read(name).map_err(|error| changed(error.to_string()))?;
    let (mut sum, mut offset) = (Sha256::new(), 0);
    while offset < size {
        let wanted = usize::try_from(size - offset).unwrap_or(usize::MAX).min(CHUNK_SIZE_BYTES);
        let mut chunk = vec![0; wanted];
        let read = file.read_at(offset, &mut chunk).map_err(|error| changed(error.to_string()))?;
        if read == 0 {
            return Err(changed(format!("it ends at byte {offset} of {size}")));
        }
        chunk.truncate(read);
        sum.update(&chunk);
        offset += read as u64;
        out.chunk(Bytes::from(chunk))?;
    }
    Ok(sum.finalize().into())
}

/// The public files that are there, whole: they are small, and may be replaced while the backup is made.
fn read_public(source: &Source) -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
    let mut found = Vec::new();
    for path in source.public_files {
        let at = source.folder.join(path);
        let file = match std::fs::File::open(&at) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.map_err(disk("read", &at))?,
        };
        let mut bytes = Vec::new();
        file.take(PUBLIC_FILE_SIZE_MAX_BYTES).read_to_end(&mut bytes).map_err(disk("read", &at))?;
        found.push((*path, bytes));
    }
    Ok(found)
}

struct Out<'a> {
    total: Sha256,
    emit: &'a mut dyn FnMut(Bytes) -> Result<(), Gone>,
}

impl Out<'_> {
    fn head(&mut self, manifest: &Manifest) -> Result<(), BackupError> {
        let json = serde_json::to_vec(manifest)
            .map_err(|error| BackupError::Changed { file: "the manifest".to_owned(), what: error.to_string() })?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        self.bytes(&[MAGIC.as_slice(), &BACKUP_FORMAT.to_le_bytes(), &length.to_le_bytes()].concat())?;
        json.chunks(CHUNK_SIZE_BYTES).try_for_each(|part| self.bytes(part))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        bytes.chunks(CHUNK_SIZE_BYTES).try_for_each(|part| self.chunk(Bytes::copy_from_slice(part)))
    }

    fn chunk(&mut self, chunk: Bytes) -> Result<(), BackupError> {
        self.total.update(&chunk);
        (self.emit)(chunk).map_err(|Gone| BackupError::Gone)
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
