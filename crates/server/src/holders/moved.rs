//! Whose profile was moved away, to its person or to another machine, as it should be: this folder knows them by the anchors' registers.
//!
//! Their keys are never here. A new certificate is for the key that they have, and is written into a folder of its own, with the anchors
//! beside it, to be put into their profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use concord_identity::{
    Anchor, AnchorFolder, CERTIFICATE_FILE, CertificateFacts, CertificateRequest, LeafKeyKind, LeafPublicKey,
    Registered, Requested, SERVER_ANCHOR_FILE, certificates_to_pem, write_public,
};
use concord_model::{Identity, Role, Timestamp};

use super::succession::anchor_in;
use super::{Holders, HoldersError, Lifetime, TakenBack, make_folder};

/// Where certificates for profiles that are elsewhere are written, below the data folder.
pub const RENEWED_FOLDER: &str = "renewed";

/// Somebody whose profile is not in the folder, by the newest of their certificates that was not taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Who.
    pub holder: Identity,
    /// The last moment of that certificate, if it is known.
    pub not_after: Option<Timestamp>,
    /// Its key; none where it was registered without.
    pub key: Option<LeafPublicKey>,
    /// The present anchor issued it, and not one before.
    is_of_present: bool,
    /// Its anchor counts: that one was not ended.
    pub counts: bool,
}

impl Holders {
    /// Officers, operators and agencies whose profiles are elsewhere, as far as the registers are here: the present anchor's, and those of
    /// the anchors before it.
    pub fn moved(&self) -> Result<Vec<Moved>, HoldersError> {
        self.moved_but(&self.taken_back()?)
    }

    /// The same, by what was taken back.
    fn moved_but(&self, taken_back: &TakenBack) -> Result<Vec<Moved>, HoldersError> {
        let here = self.everybody();
        // A node beside its hub has the hub's anchor: whoever is not here has a place there.
        if self.anchor_folder().is_symlink() {
            return Ok(Vec::new());
        }
        let mut all = BTreeMap::<String, (Option<Timestamp>, Moved)>::new();
        let anchors = self.anchors()?;
        let folders = self.folders_before().into_iter().map(|folder| (folder, false));
        for (folder, is_of_present) in folders.chain([(self.anchor_folder(), true)]) {
            if folder.is_symlink() {
                continue;
            }
            let counts = is_of_present || is_of_one(&folder, &anchors);
            for one in AnchorFolder::register_in(&folder).read()? {
                let Ok(holder) = one.name.parse::<Identity>() else { continue };
                let is_somebody = matches!(holder.role, Role::Officer | Role::Operator | Role::Agency);
                if !is_somebody || self.place(&holder).is_err() || here.contains(&holder) || taken_back.has_one(&one) {
                    continue;
                }
                let (begun, not_after) = one.validity();
                let known = all.get(&one.name);
                // The present anchor's register comes last, and its lines in the order in which it issued.
                if known.is_none_or(|(before, known)| (is_of_present && !known.is_of_present) || *before <= begun) {
                    let key = one.public_key();
                    all.insert(one.name, (begun, Moved { holder, not_after, key, is_of_present, counts }));
                }
            }
        }
        Ok(all.into_values().map(|(_, moved)| moved).collect())
    }

    /// Whether somebody's profile is elsewhere, and a register here has a certificate of theirs that was not taken back.
    pub fn is_moved(&self, holder: &Identity) -> Result<bool, HoldersError> {
        Ok(self.moved()?.iter().any(|moved| moved.holder == *holder))
    }

    /// Those whose profiles are elsewhere, whose certificate holds, and who have none under the present anchor: as far as the registers here
    /// tell, they are shut out when the one before is ended.
    pub fn moved_not_under_present(&self, now: Timestamp) -> Result<Vec<Identity>, HoldersError> {
        let mut moved = self.moved()?;
        moved.retain(|one| !one.is_of_present && one.counts && one.not_after.is_some_and(|end| end >= now));
        Ok(moved.into_iter().map(|one| one.holder).collect())
    }

    /// Who has no place in this folder and holds a certificate of an anchor before the present one that lasts, and none of the present one: the
    /// secretariat's node and its agencies, which have the hub's anchor.
    pub(super) fn others_not_under_present(&self, now: Timestamp) -> Result<Vec<Identity>, HoldersError> {
        if self.anchor_folder().is_symlink() {
            return Ok(Vec::new());
        }
        let taken_back = self.taken_back()?;
        let lasts = |one: &Registered| one.validity().1.is_some_and(|end| end >= now) && !taken_back.has_one(one);
        let present = AnchorFolder::register_in(&self.anchor_folder()).read()?;
        let anchors = self.anchors()?;
        let counts = |folder: &PathBuf| !folder.is_symlink() && is_of_one(folder, &anchors);
        let mut others = Vec::new();
        for folder in self.folders_before().into_iter().filter(counts) {
            for one in AnchorFolder::register_in(&folder).read()?.iter().filter(|one| lasts(one)) {
                let Ok(holder) = one.name.parse::<Identity>() else { continue };
                let is_others = holder != self.server && matches!(holder.role, Role::Node | Role::Agency);
                let is_renewed = present.iter().any(|new| new.name == one.name && lasts(new));
                if is_others && self.place(&holder).is_err() && !is_renewed && !others.contains(&holder) {
                    others.push(holder);
                }
            }
        }
        Ok(others)
    }

    /// A new certificate for somebody whose profile is elsewhere: for the key that the register has, or for that of a request which its
    /// holder made. Returns it with the folder that has what is to be put into the profile.
    pub fn renew_moved(
        &self,
        anchor: &AnchorFolder,
        holder: &Identity,
        requested: Option<&Requested>,
        life: Lifetime,
    ) -> Result<(CertificateFacts, PathBuf), HoldersError> {
        let found = self.moved()?.into_iter().find(|moved| moved.holder == *holder);
        let moved = match found {
            Some(moved) => moved,
            None if self.was_taken_back(holder)? => return Err(HoldersError::TakenBack(holder.clone())),
            None => return Err(HoldersError::Unknown(holder.clone())),
        };
        let key = requested.map(|requested| requested.key.clone()).or(moved.key);
        let key = key.ok_or_else(|| HoldersError::KeyUnregistered { holder: holder.clone() })?;
        refuse_if_it_cannot_sign(holder, &key)?;
        self.refuse_key_taken_back(holder, &key.fingerprint())?;
        let request = CertificateRequest::leaf(holder, key, life.now).lasting(life.now, life.days);
        let certificate = anchor.issue(&request)?;
        let folder = self.dir.join(RENEWED_FOLDER).join(format!("{}-{}", holder.role, holder.name));
        make_folder(&folder)?;
        let known: Vec<_> = self.anchors()?.iter().map(|anchor| anchor.der().clone()).collect();
        write_public(&folder.join(SERVER_ANCHOR_FILE), certificates_to_pem(&known).as_bytes())?;
        let chain = certificates_to_pem(std::slice::from_ref(&certificate));
        write_public(&folder.join(CERTIFICATE_FILE), chain.as_bytes())?;
        Ok((CertificateFacts::read(&certificate)?, folder))
    }

    /// Until when the certificate lasts that each of the participant's people and agencies goes by: the newest that was not taken back.
    /// The server's own is not among them.
    pub fn ends(&self) -> Result<Vec<(Identity, Timestamp)>, HoldersError> {
        let taken_back = self.taken_back()?;
        let here = self.everybody().into_iter().filter(|holder| *holder != self.server).filter_map(|holder| {
            let facts = self.certificate_of(&holder).ok().filter(|facts| !taken_back.has(facts))?;
            Some((holder, facts.not_after))
        });
        let mut all: Vec<_> = here.collect();
        let moved = self.moved_but(&taken_back)?.into_iter().filter(|moved| moved.counts);
        all.extend(moved.filter_map(|moved| Some((moved.holder, moved.not_after?))));
        Ok(all)
    }
}

/// Whether the anchor of a folder is one of these.
fn is_of_one(folder: &Path, anchors: &[Anchor]) -> bool {
    anchor_in(folder).is_some_and(|anchor| anchors.contains(&anchor))
}

impl TakenBack {
    fn has_one(&self, one: &Registered) -> bool {
        one.revoked.is_some()
            || self.has_serial(&one.serial)
            || one.key_fingerprint().is_some_and(|key| self.has_key(&key))
    }
}

/// What an officer signs is verified with this key.
pub(super) fn refuse_if_it_cannot_sign(holder: &Identity, key: &LeafPublicKey) -> Result<(), HoldersError> {
    match holder.role == Role::Officer && key.own_kind() != Some(LeafKeyKind::Ed25519) {
        true => Err(HoldersError::Unfit(vec![format!(
            "the key for {holder} is not Ed25519, with which officers sign; have the request made with the key of its profile"
        )])),
        false => Ok(()),
    }
}
