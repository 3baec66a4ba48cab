//! One anchor follows another: both are known here for a while, so that certificates are made anew one by one.
//!
//! Invariant: the folder goes by the next anchor only once the hub has recorded that it follows, and everybody here knows both before the
//! first certificate under it is made. Each step is the same when it is done again.

use std::fs;
use std::path::{Path, PathBuf};

use concord_identity::{
    Anchor, AnchorFolder, FileError, SERVER_ANCHOR_FILE, certificates_from_pem, certificates_to_pem, read_text,
    unfit_for, write_public,
};
use concord_model::{Identity, ParticipantCode, Role, Timestamp};

use super::{ANCHOR_FOLDER, Holders, HoldersError, TLS_ANCHOR_FILE};

const NEXT_ANCHOR_FOLDER: &str = "anchor-next";
const REGISTER_FILE: &str = "issued.jsonl";
const SHOWN_DIGITS: usize = 8;

impl Holders {
    /// The anchor that is to follow, if one is prepared.
    pub fn next_anchor(&self) -> Result<Option<Anchor>, HoldersError> {
        let path = AnchorFolder::certificate_in(&self.dir.join(NEXT_ANCHOR_FOLDER));
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Anchor::from_pem(&read_text(&path)?)?))
    }

    /// Prepares the anchor that is to follow: makes one with its key in `anchor-next/`, or takes the certificate of one whose key is elsewhere.
    ///
    /// Fails where another one is prepared.
    pub fn prepare_next_anchor(&self, given: Option<Anchor>, now: Timestamp) -> Result<Anchor, HoldersError> {
        let folder = self.dir.join(NEXT_ANCHOR_FOLDER);
        match (self.next_anchor()?, given) {
            (Some(known), Some(given)) if known != given => Err(HoldersError::AnchorOther {
                given: given.fingerprint().grouped(),
                known: known.fingerprint().grouped(),
            }),
            (Some(known), _) => Ok(known),
            (None, Some(given)) => {
                super::make_folder(&folder)?;
                write_public(&AnchorFolder::certificate_in(&folder), given.to_pem().as_bytes())?;
                Ok(given)
            }
            (None, None) if AnchorFolder::key_in(&folder).exists() => {
                // A crash left a key that no certificate was made for: nobody knows it.
                let path = AnchorFolder::key_in(&folder);
                let removed = fs::remove_file(&path);
                removed.map_err(|source| FileError { action: "remove", path, source })?;
                Ok(AnchorFolder::create(&folder, &self.server.participant, now)?.anchor().clone())
            }
            (None, None) => Ok(AnchorFolder::create(&folder, &self.server.participant, now)?.anchor().clone()),
        }
    }

    /// Forgets what was prepared here and what nobody heard of: the folder goes by `known` alone again.
    pub fn give_up_next_anchor(&self, known: &[Anchor]) -> Result<(), HoldersError> {
        self.know_by(known)?;
        let folder = self.dir.join(NEXT_ANCHOR_FOLDER);
        let removed = fs::remove_dir_all(&folder);
        removed.map_err(|source| FileError { action: "remove", path: folder, source }.into())
    }

    /// Whether it has the anchor of another server's folder: a node of the secretariat's has its hub's.
    pub fn has_anchor_of_hub(&self) -> bool {
        self.server.role == Role::Node && self.server.participant == ParticipantCode::secretariat()
    }

    /// Whether the key of the anchor that this folder goes by is here.
    pub fn has_anchor_key(&self) -> bool {
        AnchorFolder::key_in(&self.anchor_folder()).exists()
    }

    /// A node of the secretariat's goes by the anchor that followed the hub's: both, until the one before is ended. It is the one in the folder that is
    /// given, which becomes the folder of this node's anchor, else the one that this node's link leads to; nothing where that is known already.
    ///
    /// Only whoever has the key can put it there, and what takes it in needs no server: a node that was left behind finds back by it.
    pub fn follow_anchor_of_hub(&self, given: Option<&Path>) -> Result<Option<Anchor>, HoldersError> {
        let link = self.anchor_folder();
        if !self.has_anchor_of_hub() || (given.is_none() && !link.is_symlink()) {
            return Ok(None);
        }
        let folder = given.map_or_else(|| link.clone(), Path::to_owned);
        let opened = match AnchorFolder::open(&folder) {
            Err(_) if given.is_none() => return Ok(None),
            opened => {
                opened.map_err(|source| HoldersError::AnchorKey { path: AnchorFolder::key_in(&folder), source })?
            }
        };
        let (next, mut known) = (opened.anchor().clone(), self.anchors()?);
        if *opened.participant() != self.server.participant {
            let shown = |anchor: &Anchor| anchor.fingerprint().grouped();
            return Err(HoldersError::AnchorOther {
                given: format!("{} of {}", shown(&next), opened.participant()),
                known: known.iter().map(shown).collect::<Vec<_>>().join(" or "),
            });
        }
        if given.is_some() {
            relink(&folder, &link)?;
        }
        if known.first() == Some(&next) {
            return Ok(None);
        }
        known.retain(|anchor| *anchor != next);
        known.insert(0, next.clone());
        self.know_by(&known)?;
        Ok(Some(next))
    }

    /// Lets the server and everybody's profile here know each other by these anchors, the present one first.
    pub fn know_by(&self, anchors: &[Anchor]) -> Result<(), HoldersError> {
        let ders: Vec<_> = anchors.iter().map(|anchor| anchor.der().clone()).collect();
        let text = certificates_to_pem(&ders);
        write_public(&self.dir.join(TLS_ANCHOR_FILE), text.as_bytes())?;
        for holder in self.everybody().iter().filter(|holder| **holder != self.server) {
            let place = self.place(holder)?;
            if place.is_whole() {
                write_public(&place.folder.join(SERVER_ANCHOR_FILE), text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Keeps what the server's people are known by where it stays when the anchor's folder is taken away, if it is not there yet: a hub's
    /// folder of an older version has it in that folder alone.
    pub fn keep_anchors(&self, anchors: &[Anchor]) -> Result<(), HoldersError> {
        let path = self.dir.join(TLS_ANCHOR_FILE);
        // What is prepared beside these, and counts in a moment, stays.
        let known = if path.exists() { self.anchors()? } else { Vec::new() };
        if anchors.iter().all(|anchor| known.contains(anchor)) {
            return Ok(());
        }
        let ders: Vec<_> = anchors.iter().map(|anchor| anchor.der().clone()).collect();
        Ok(write_public(&path, certificates_to_pem(&ders).as_bytes())?)
    }

    /// The prepared anchor takes the present one's place; that one's folder is kept beside it.
    pub fn follow_anchor(&self, next: &Anchor) -> Result<(), HoldersError> {
        let (present, coming) = (self.dir.join(ANCHOR_FOLDER), self.dir.join(NEXT_ANCHOR_FOLDER));
        if !coming.exists() {
            return Ok(());
        }
        if let Some(before) = anchor_in(&present).filter(|before| before != next) {
            rename(&present, &self.dir.join(format!("{ANCHOR_FOLDER}-{}", short(&before))))?;
        }
        rename(&coming, &present)
    }

    /// The anchors that others followed here, in no order.
    pub(super) fn anchors_before(&self) -> Vec<Anchor> {
        self.folders_before().iter().filter_map(|folder| anchor_in(folder)).collect()
    }

    /// Their folders.
    pub(super) fn folders_before(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_before = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("anchor-") && name != NEXT_ANCHOR_FOLDER
        };
        let mut all: Vec<_> = entries.map(|entry| entry.path()).filter(is_before).collect();
        // Of a hub's anchor, which a node of the secretariat's has, those before it lie at the hub.
        let beside = fs::canonicalize(self.anchor_folder()).ok().filter(|_| self.anchor_folder().is_symlink());
        if let Some(beside) = beside.as_deref().and_then(Path::parent) {
            let entries = fs::read_dir(beside).into_iter().flatten().flatten();
            all.extend(entries.map(|entry| entry.path()).filter(is_before));
        }
        all
    }

    /// Whether the register of an anchor before the present one is here, by which those are known whose profiles are elsewhere.
    pub fn has_register_before(&self) -> bool {
        self.folders_before().iter().any(|folder| folder.join(REGISTER_FILE).exists())
    }

    /// Whose certificate would not hold under this anchor alone, of those that are not taken back: by what is here, and, of those whose
    /// profiles are elsewhere, by the registers.
    pub fn not_under(&self, anchor: &Anchor, now: Timestamp) -> Result<Vec<Identity>, HoldersError> {
        let taken_back = self.taken_back()?;
        let mut others = self.everybody();
        others.retain(|holder| {
            let is_out = self.certificate_of(holder).is_ok_and(|here| taken_back.has(&here));
            !is_out && self.leaf_of(holder).is_some_and(|leaf| !unfit_for(&leaf, holder, anchor, now).is_empty())
        });
        others.extend(self.moved_not_under_present(now)?);
        others.extend(self.others_not_under_present(now)?);
        Ok(others)
    }

    fn leaf_of(&self, holder: &Identity) -> Option<rustls::pki_types::CertificateDer<'static>> {
        let text = read_text(&self.place(holder).ok()?.certificate()).ok()?;
        certificates_from_pem(&text).ok()?.into_iter().next()
    }
}

/// The link of a node of the secretariat's leads there from now on; a folder that is no link stays.
fn relink(folder: &Path, link: &Path) -> Result<(), HoldersError> {
    let failed = |source| FileError { action: "link to the trust anchor at", path: link.to_owned(), source };
    let folder = fs::canonicalize(folder).map_err(failed)?;
    if fs::canonicalize(link).is_ok_and(|there| there == folder) || (link.exists() && !link.is_symlink()) {
        return Ok(());
    }
    // Beside it first: a crash leaves one or the other.
    let beside = link.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error).into()),
        _ => {}
    }
    std::os::unix::fs::symlink(&folder, &beside).map_err(failed)?;
    rename(&beside, link)
}

pub(super) fn anchor_in(folder: &Path) -> Option<Anchor> {
    Anchor::from_pem(&read_text(&AnchorFolder::certificate_in(folder)).ok()?).ok()
}

/// The first digits of an anchor's fingerprint: its name among files.
pub(super) fn short(anchor: &Anchor) -> String {
    anchor.fingerprint().0.to_string().chars().take(SHOWN_DIGITS).collect()
}

fn rename(from: &Path, to: &Path) -> Result<(), HoldersError> {
    let renamed = fs::rename(from, to).and_then(|()| fs::File::open(to.parent().unwrap_or(to))?.sync_all());
    renamed.map_err(|source| FileError { action: "rename the folder", path: from.to_owned(), source }.into())
}
