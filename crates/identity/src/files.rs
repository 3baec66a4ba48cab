//! Files of keys and certificates: read whole within a limit, written so that a crash leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

/// A file of keys, certificates or settings. A larger one is refused, so that a wrong path cannot fill the memory.
pub const PEM_FILE_SIZE_MAX_BYTES: u64 = 256 * 1024;

const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried: `read` or `write`.
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Reads a file of text of at most [`PEM_FILE_SIZE_MAX_BYTES`].
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let read = || {
        let mut text = String::new();
        let read = File::open(path)?.take(PEM_FILE_SIZE_MAX_BYTES + 1).read_to_string(&mut text)?;
        if read as u64 > PEM_FILE_SIZE_MAX_BYTES {
            return Err(io::Error::other(format!(
                "it is larger than {PEM_FILE_SIZE_MAX_BYTES} bytes; is this the right file?"
            )));
        }
        Ok(text)
    };
    read().map_err(|source| FileError { action: "read", path: path.to_owned(), source })
}

/// Writes a secret with mode 0600: whole or not at all, durable when this returns. Replaces what was there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, PRIVATE_MODE)
}

/// Writes what anybody may read with mode 0644: whole or not at all, durable when this returns.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, PUBLIC_MODE)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode).map_err(|source| FileError { action: "write", path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(temporary_name);

    let result = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if result.is_err()
        && let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(io::Error::other(format!("it failed, and {} could not be removed: {error}", temporary.display())));
    }
    result?;
    // Without this a power cut may bring back the old name, or none.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = match create_new(path, mode) {
        // Left by a process that died here; nobody else uses this name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create_new(path, mode)?
        }
        result => result?,
    };
    file.write_all(bytes)?;
    file.sync_all()
}

/// The mode stands from the first moment: a secret is never readable by others, not even while it is written.
fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// PEM blocks `CERTIFICATE`, in this order.
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|der| pem::encode_config(&Pem::new("CERTIFICATE", der.as_ref()), line_feeds())).collect()
}

/// The certificates of a PEM text in order; other blocks are passed over. Says what is wrong in words.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        // The library's own words may repeat a line of it, and a key may stand there by mistake.
        .map_err(|_| "the PEM text is damaged; give the file anew".to_owned())?;
    if certificates.is_empty() {
        return Err("no certificate ('BEGIN CERTIFICATE') was found".to_owned());
    }
    Ok(certificates)
}

pub(crate) fn private_key_to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(pem::encode_config(&Pem::new("PRIVATE KEY", pkcs8), line_feeds()))
}

fn line_feeds() -> EncodeConfig {
    EncodeConfig::new().set_line_ending(LineEnding::LF)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_has_mode_0600_and_replaces_a_readable_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_public(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_write_that_fails_names_the_path_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_private(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_a_key_where_certificates_belong_nothing_is_repeated_in_words() {
        for damaged in ["-----BEGIN PRIVATE KEY-----c2VjcmV0\n", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"] {
            let why = certificates_from_pem(damaged).unwrap_err();
            assert!(!why.contains("c2VjcmV0"), "{why}");
        }
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let text = "x".repeat(PEM_FILE_SIZE_MAX_BYTES as usize);
        write_public(&path, text.as_bytes()).unwrap();
        assert!(read_text(&path).is_ok());
        write_public(&path, format!("{text}x").as_bytes()).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("larger than"));
    }
}
