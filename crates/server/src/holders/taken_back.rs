//! Who was taken back, by all that this folder knows: the anchor's register, where that is here, and the lists of the anchor.

use std::collections::BTreeSet;
use std::fs;

use concord_identity::{AnchorFolder, CertificateFacts, IssueError, revoked_in};
use concord_model::{Fingerprint, Identity};

use super::remove::lists_in;
use super::{Holders, HoldersError};
use crate::revocation::REVOCATION_FOLDER;

/// Certificates and keys that are not to come back.
#[derive(Debug, Clone, Default)]
pub struct TakenBack {
    serials: BTreeSet<String>,
    keys: BTreeSet<Fingerprint>,
}

impl TakenBack {
    /// This certificate is out, or its key is.
    pub fn has(&self, certificate: &CertificateFacts) -> bool {
        self.serials.contains(&certificate.serial)
            || certificate.key_fingerprint().is_some_and(|key| self.has_key(&key))
    }

    /// The certificate of this number was taken back.
    pub fn has_serial(&self, serial: &str) -> bool {
        self.serials.contains(serial)
    }

    /// A certificate for this key was taken back.
    pub fn has_key(&self, key: &Fingerprint) -> bool {
        self.keys.contains(key)
    }
}

impl Holders {
    /// All that was taken back and that is known here. A list of an authority below the anchor does not count for this.
    pub fn taken_back(&self) -> Result<TakenBack, HoldersError> {
        let mut all = TakenBack::default();
        // What one anchor took back, the next does not certify anew.
        let mut registered = Vec::new();
        for folder in std::iter::once(self.anchor_folder()).chain(self.folders_before()) {
            registered.extend(AnchorFolder::register_in(&folder).read()?);
        }
        for one in registered.iter().filter(|one| one.revoked.is_some()) {
            all.serials.insert(one.serial.clone());
        }
        let folder = self.dir.join(REVOCATION_FOLDER);
        if fs::exists(&folder).unwrap_or(false) {
            let lists = lists_in(&folder)?;
            for anchor in self.anchors()?.into_iter().chain(self.anchors_before()) {
                all.serials.extend(revoked_in(lists.iter().map(Vec::as_slice), &anchor).into_keys());
            }
        }
        // Whose key it was, the register says of the anchor that issued it, and another's, or a list, that it was taken back.
        for one in registered.iter().filter(|one| all.serials.contains(&one.serial)) {
            all.keys.extend(one.key_fingerprint());
        }
        // The register may be elsewhere: then a list says by its number whose key it was, where the certificate is still here.
        for holder in self.everybody() {
            let here = self.place(&holder).ok().and_then(|place| self.certificate_in(&holder, &place).ok());
            if let Some(facts) = here.filter(|facts| all.serials.contains(&facts.serial)) {
                all.keys.extend(facts.key_fingerprint());
            }
        }
        Ok(all)
    }

    /// Refuses a key that was taken back, before anything is done for it: the anchor would refuse it too, but only when it issues.
    pub fn refuse_key_taken_back(&self, holder: &Identity, key: &Fingerprint) -> Result<(), HoldersError> {
        match self.taken_back()?.has_key(key) {
            true => Err(IssueError::KeyTakenBack { holder: holder.to_string(), key: *key }.into()),
            false => Ok(()),
        }
    }

    /// Whether this name was taken back, with all its certificates, as far as the anchor's register is here: of a single one that was taken
    /// back by its number the others count.
    pub(super) fn was_taken_back(&self, holder: &Identity) -> Result<bool, HoldersError> {
        let register = AnchorFolder::register_in(&self.anchor_folder()).read()?;
        let name = holder.to_string();
        let mut its = register.iter().filter(|one| one.name == name).peekable();
        Ok(its.peek().is_some() && its.all(|one| one.revoked.is_some()))
    }

    /// Refuses whoever was taken back and whose profile was left. The server itself goes on with a new key.
    pub(super) fn refuse_if_taken_back(
        &self,
        holder: &Identity,
        certificate: &CertificateFacts,
        new_key: bool,
    ) -> Result<(), HoldersError> {
        match self.taken_back()?.has(certificate) && !(new_key && *holder == self.server) {
            true => Err(HoldersError::TakenBack(holder.clone())),
            false => Ok(()),
        }
    }
}
