//! What a backup says of itself.

use concord_journal::Tail;
use concord_model::{Name, ParticipantCode, Timestamp};
use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const BACKUP_FORMAT: u32 = 1;
/// The longest manifest: tens of thousands of segments. A longer one is refused before it is read.
pub const MANIFEST_SIZE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Whose journal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The hub's.
    Hub,
    /// A node's.
    Node,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::Node => "node",
        })
    }
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Whose journal it is.
    pub owner: Owner,
    /// The participant: `KAZ`, or `SEC` for the hub.
    pub participant: String,
    /// The name of the hub or node.
    pub name: String,
    /// The version of the program that made it.
    pub version: String,
    /// When it was begun, in microseconds since the Unix epoch: what was acknowledged later is not in it.
    pub taken_at: i64,
    /// The end of the journal in it.
    pub tail: ManifestTail,
    /// The Ed25519 public key whose signature ends the file, in hexadecimal.
    pub signing_key: String,
    /// The files, in the order in which they stand in it.
    pub files: Vec<FileEntry>,
}

/// A journal's tail in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTail {
    /// 16 bytes.
    pub history: String,
    /// The last entry.
    pub sequence: u64,
    /// 32 bytes.
    pub digest: String,
}

impl From<Tail> for ManifestTail {
    fn from(tail: Tail) -> Self {
        Self { history: tail.history.to_string(), sequence: tail.sequence, digest: tail.digest.to_string() }
    }
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the data folder: `journal/…` or one of the public files.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

impl Manifest {
    /// What cannot stand in a manifest, in words; none if all of it can.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Err(error) = ParticipantCode::parse(&self.participant) {
            return Some(error.to_string());
        }
        if let Err(error) = Name::parse(&self.name) {
            return Some(error.to_string());
        }
        if self.key().is_none() {
            return Some("its signing key is not one".to_owned());
        }
        let mut seen = std::collections::BTreeSet::new();
        self.files.iter().find_map(|file| {
            let fits = is_plain(&file.path) && seen.insert(&file.path);
            (!fits).then(|| format!("it names the file {:?}, which can be in no backup, or twice", file.path))
        })
    }

    /// The public key whose signature ends the file.
    pub fn key(&self) -> Option<[u8; 32]> {
        let bytes: Option<Vec<u8>> = (0..self.signing_key.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(self.signing_key.get(at..at + 2)?, 16).ok())
            .collect();
        bytes?.try_into().ok()
    }

    /// When it was begun.
    pub fn taken_at(&self) -> Timestamp {
        Timestamp::from_micros(self.taken_at)
    }
}

/// A path that stays inside the folder: one folder at most, and plain names.
fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.bytes().all(is_letter)
    };
    match path.split_once('/') {
        Some((folder, name)) => is_name(folder) && is_name(name),
        None => is_name(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leads_out_of_the_folder() {
        for good in ["node.toml", "journal/00000000000000000001.segment", "tls/certificate.pem", "join-request.json"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/", "/etc", "../x", "a/../b", "a/b/c", "a//b", ".hidden", "a/.b", "A", "a\\b", "a\0"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
