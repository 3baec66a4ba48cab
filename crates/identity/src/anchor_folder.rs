//! The folder of an anchor: its certificate, its key, and the register of what it issued. It may be a hub's or node's own `anchor/`, or
//! stand on a machine without a network.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use concord_model::{Identity, ParticipantCode, Timestamp};
use rustls::pki_types::CertificateDer;

use crate::anchor::Anchor;
use crate::facts::CertificateFacts;
use crate::files::{self, FileError};
use crate::issue::{AnchorKeys, CertificateRequest, IssueError};
use crate::register::{Register, RegisterHeld, Registered};
use crate::revoking::{Revoked, revoked_in};

const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";
const REGISTER_FILE: &str = "issued.jsonl";
const FOLDER_MODE: u32 = 0o700;

/// A folder with an anchor and its key.
#[derive(Debug)]
pub struct AnchorFolder {
    keys: AnchorKeys,
    register: Register,
}

/// A list that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeList {
    /// PEM.
    pub text: String,
    /// When it says that its next one comes.
    pub next_update: Timestamp,
    /// How many certificates it names.
    pub named: usize,
}

impl AnchorFolder {
    /// Makes a new anchor in a folder that has none.
    pub fn create(path: &Path, participant: &ParticipantCode, now: Timestamp) -> Result<Self, IssueError> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        made.map_err(|source| FileError { action: "make the folder", path: path.to_owned(), source })?;
        if [CERTIFICATE_FILE, KEY_FILE].iter().any(|file| path.join(file).exists()) {
            return Err(IssueError::AnchorExists(path.to_owned()));
        }
        let keys = AnchorKeys::create(participant, now)?;
        keys.save(&path.join(CERTIFICATE_FILE), &path.join(KEY_FILE))?;
        Ok(Self { keys, register: Self::register_in(path) })
    }

    /// Opens one whose key is there.
    pub fn open(path: &Path) -> Result<Self, IssueError> {
        let keys = AnchorKeys::load(&path.join(CERTIFICATE_FILE), &path.join(KEY_FILE))?;
        Ok(Self { keys, register: Self::register_in(path) })
    }

    /// The register of the anchor in a folder, also where its key is elsewhere.
    pub fn register_in(path: &Path) -> Register {
        Register::at(path.join(REGISTER_FILE))
    }

    /// Where the certificate of an anchor stands in its folder.
    pub fn certificate_in(path: &Path) -> PathBuf {
        path.join(CERTIFICATE_FILE)
    }

    /// Where its key would be.
    pub fn key_in(path: &Path) -> PathBuf {
        path.join(KEY_FILE)
    }

    /// The anchor, for all to trust.
    pub fn anchor(&self) -> &Anchor {
        self.keys.anchor()
    }

    /// Whose anchor it is.
    pub fn participant(&self) -> &ParticipantCode {
        self.keys.participant()
    }

    /// Issues a certificate, which stands in the register before this returns. None for a key whose certificate was taken back: whoever
    /// has that key, and should not, would be let in again.
    pub fn issue(&self, request: &CertificateRequest) -> Result<CertificateDer<'static>, IssueError> {
        let key = request.key.fingerprint();
        let before = self.register.read()?;
        if before.iter().any(|one| one.revoked.is_some() && one.key_fingerprint() == Some(key)) {
            return Err(IssueError::KeyTakenBack { holder: request.uri_names.join(", "), key });
        }
        let certificate = self.keys.issue(request)?;
        self.register.issued(&CertificateFacts::read(&certificate)?)?;
        Ok(certificate)
    }

    /// What it issued to one of these names, also what it has taken back: a list of that may never have been written, so taking back
    /// can be repeated.
    pub fn issued_to(&self, names: &[Identity]) -> Result<Vec<Registered>, IssueError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let is_theirs = |one: &Registered| names.contains(&one.name);
        Ok(self.register.read()?.into_iter().filter(is_theirs).collect())
    }

    /// Lets nobody else issue or take back until what this returns is dropped. Whoever makes a list looks at the lists beside, and gives the
    /// new one its name, meanwhile.
    pub fn hold(&self) -> Result<RegisterHeld, IssueError> {
        Ok(self.register.hold()?)
    }

    /// Notes that these are taken back, each by its number and by its holder, if that is known, and makes the list of all that ever were: by
    /// the register, and by the lists beside.
    ///
    /// Invariant: what an earlier list of this anchor names, the new one names.
    pub fn revoke(
        &self,
        held: &mut RegisterHeld,
        these: &[(Option<Identity>, String)],
        beside: &[Vec<u8>],
        now: Timestamp,
        next_update_days: u32,
    ) -> Result<MadeList, IssueError> {
        self.register.revoked(held, these.iter().map(|(name, serial)| (name.as_ref(), serial.as_str())), now)?;
        let mut revoked = Revoked::new();
        for one in self.register.read()? {
            if one.revoked.is_some() {
                revoked.insert(one.serial.clone(), one.revoked_at().unwrap_or(now));
            }
        }
        if !concord_faults::planted("forget-who-was-taken-back-before") {
            revoked.extend(revoked_in(beside.iter().map(Vec::as_slice), self.anchor()));
        }
        let (text, next_update) = self.keys.revocation_list(&revoked, now, next_update_days)?;
        Ok(MadeList { text, next_update, named: revoked.len() })
    }

    /// Reads an anchor's certificate as its folder has it, without its key.
    pub fn certificate(path: &Path) -> Result<Anchor, IssueError> {
        Ok(Anchor::from_pem(&files::read_text(&path.join(CERTIFICATE_FILE))?)?)
    }
}
