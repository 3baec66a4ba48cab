//! Certificates under the anchor of the folder, and requests where the anchor's key is elsewhere.

use std::path::{Path, PathBuf};

use concord_identity::{
    Anchor, AnchorFolder, CertificateFacts, CertificateRequest, LeafKey, LeafKeyKind, LeafPublicKey, Profile,
    Requested, TlsError, add_key, certificates_from_pem, certificates_to_pem, is_authority, keys_in, load_key_of,
    read_text, replace_pair, unfit_for, write_public,
};
use concord_model::{Identity, Timestamp};
use rustls::pki_types::CertificateDer;

use super::moved::refuse_if_it_cannot_sign;
use super::{Holders, HoldersError, Place, make_folder};

/// The file of requests in a data folder.
pub const REQUEST_FILE: &str = "certificate-request.pem";
/// The longest life that a command gives a leaf, in days. Its anchor's end may come before.
pub const LIFETIME_MAX_DAYS: u32 = 10 * 365;

/// How long a certificate is to be valid, from when.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// Days.
    pub days: u32,
    /// From now on.
    pub now: Timestamp,
}

impl Lifetime {
    /// A year from now.
    pub fn usual(now: Timestamp) -> Self {
        Self { days: super::LEAF_LIFETIME_DAYS, now }
    }
}

/// A file of requests that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where it is.
    pub path: PathBuf,
    /// Who asks, with which key.
    pub requests: Vec<(Identity, LeafPublicKey)>,
}

impl Holders {
    /// Makes the server's own key and certificate, in a folder that has none.
    pub fn add_server(
        &self,
        anchor: &AnchorFolder,
        hosts: Vec<String>,
        life: Lifetime,
    ) -> Result<CertificateDer<'static>, HoldersError> {
        let place = self.place(&self.server)?;
        let key = self.make_key(&self.server, &place)?;
        self.keep_anchors(std::slice::from_ref(anchor.anchor()))?;
        let mut request = CertificateRequest::leaf(&self.server, key.public(), life.now).lasting(life.now, life.days);
        request.hosts = hosts;
        let certificate = anchor.issue(&request)?;
        replace_pair(&place.certificate(), &place.key(), std::slice::from_ref(&certificate))?;
        Ok(certificate)
    }

    /// Makes a key and a certificate for one of the participant's people or machines, in a profile of its own.
    pub fn add(
        &self,
        anchor: &AnchorFolder,
        holder: &Identity,
        address: Option<String>,
        life: Lifetime,
    ) -> Result<CertificateFacts, HoldersError> {
        let place = self.free_place(holder)?;
        let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
        let request = CertificateRequest::leaf(holder, key.public(), life.now).lasting(life.now, life.days);
        let certificate = anchor.issue(&request)?;
        make_folder(&place.folder)?;
        let settings = self.settings(holder, &place, address);
        Profile::create(&place.folder, &settings, std::slice::from_ref(&certificate), &key, anchor.anchor())?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The same for a key that its holder keeps: its profile has everything but the key.
    pub fn add_requested(
        &self,
        anchor: &AnchorFolder,
        holder: &Identity,
        requested: &Requested,
        address: Option<String>,
        life: Lifetime,
    ) -> Result<CertificateFacts, HoldersError> {
        let place = self.free_place(holder)?;
        let certificate = issue_requested(anchor, holder, requested, life)?;
        make_folder(&place.folder)?;
        let settings = self.settings(holder, &place, address);
        Profile::lay_out(&place.folder, &settings, std::slice::from_ref(&certificate), None, anchor.anchor())?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The same for a certificate that an authority of other software made for a key that its holder keeps. It is put in only if peers
    /// accept it for this name under the anchor that this folder goes by.
    pub fn add_certified(
        &self,
        holder: &Identity,
        text: &str,
        address: Option<String>,
        now: Timestamp,
    ) -> Result<CertificateFacts, HoldersError> {
        let place = self.free_place(holder)?;
        let (certificate, anchor) = self.certified(holder, text, now)?;
        make_folder(&place.folder)?;
        let settings = self.settings(holder, &place, address);
        Profile::lay_out(&place.folder, &settings, std::slice::from_ref(&certificate), None, &anchor)?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The one leaf of a text, if it is fit for this holder, and the anchor.
    pub fn certified(
        &self,
        holder: &Identity,
        text: &str,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, Anchor), HoldersError> {
        let anchor = self.anchor()?.ok_or(HoldersError::AnchorUnknown)?;
        let mut leaves = certificates_from_pem(text).map_err(|why| HoldersError::Unfit(vec![why]))?;
        leaves.retain(|der| !is_authority(der));
        let leaf = leaves.pop().ok_or(HoldersError::NoLeaf)?;
        let mut wrong = unfit_for(&leaf, holder, &anchor, now);
        if !leaves.is_empty() {
            wrong.push(format!("the file has {} certificates of holders; give one", leaves.len() + 1));
        }
        if CertificateFacts::read(&leaf).is_ok_and(|facts| self.taken_back().is_ok_and(|all| all.has(&facts))) {
            wrong.push("it, or another one for its key, was taken back; have one made for a new key".to_owned());
        }
        if wrong.is_empty() { Ok((leaf, anchor)) } else { Err(HoldersError::Unfit(wrong)) }
    }

    fn free_place(&self, holder: &Identity) -> Result<Place, HoldersError> {
        let place = self.place(holder)?;
        match place.is_whole() {
            true => Err(HoldersError::Known(holder.clone())),
            false => Ok(place),
        }
    }

    /// A new certificate in place of the one there, also of one that has expired: for the same key, or for a new one made here.
    pub fn renew(
        &self,
        anchor: &AnchorFolder,
        holder: &Identity,
        new_key: bool,
        life: Lifetime,
    ) -> Result<CertificateFacts, HoldersError> {
        let place = self.place(holder)?;
        let before = self.renewable(holder, &place)?;
        self.refuse_if_taken_back(holder, &before, new_key)?;
        if *holder == self.server {
            self.keep_anchors(&self.anchors()?)?;
        }
        let has_key = place.key().exists();
        if new_key && !has_key {
            return Err(HoldersError::KeyElsewhere { holder: holder.clone() });
        }
        let key = if new_key {
            let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
            add_key(&place.certificate(), &place.key(), &key)?;
            key.public()
        } else {
            before.key.clone().ok_or_else(|| HoldersError::KeyElsewhere { holder: holder.clone() })?
        };
        let mut request = CertificateRequest::leaf(holder, key, life.now).lasting(life.now, life.days);
        request.hosts = before.hosts;
        let certificate = anchor.issue(&request)?;
        self.put(&place, &certificate)?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The same for a new key that its holder keeps.
    pub fn renew_requested(
        &self,
        anchor: &AnchorFolder,
        holder: &Identity,
        requested: &Requested,
        life: Lifetime,
    ) -> Result<CertificateFacts, HoldersError> {
        let place = self.place(holder)?;
        self.refuse_if_taken_back(holder, &self.renewable(holder, &place)?, true)?;
        refuse_if_it_cannot_sign(holder, &requested.key)?;
        self.refuse_key_taken_back(holder, &requested.key.fingerprint())?;
        // Before the register has anything: beside another key the certificate would be of no use, and could not be put there.
        if place.key().exists() && !keys_in(&place.key())?.contains(&requested.key) {
            return Err(HoldersError::KeyOther { holder: holder.clone(), key: place.key() });
        }
        let certificate = issue_requested(anchor, holder, requested, life)?;
        self.put(&place, &certificate)?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The certificate that a holder has here.
    pub fn certificate_of(&self, holder: &Identity) -> Result<CertificateFacts, HoldersError> {
        self.present(holder, &self.place(holder)?)
    }

    /// The certificate that a holder has here, to be renewed: fails for whoever was taken back as for that, and not as for a stranger.
    pub fn certificate_to_renew(&self, holder: &Identity) -> Result<CertificateFacts, HoldersError> {
        self.renewable(holder, &self.place(holder)?)
    }

    /// What is to be renewed. Of somebody who was taken back, and whose profile is put away, the reason is that.
    fn renewable(&self, holder: &Identity, place: &Place) -> Result<CertificateFacts, HoldersError> {
        match self.present(holder, place) {
            Err(HoldersError::Unknown(_)) if self.was_taken_back(holder)? => {
                Err(HoldersError::TakenBack(holder.clone()))
            }
            found => found,
        }
    }

    pub(super) fn present(&self, holder: &Identity, place: &Place) -> Result<CertificateFacts, HoldersError> {
        match place.is_whole() {
            true => self.certificate_in(holder, place),
            false => Err(HoldersError::Unknown(holder.clone())),
        }
    }

    /// The certificate that stands there, also where a crash left the rest out.
    pub(super) fn certificate_in(&self, holder: &Identity, place: &Place) -> Result<CertificateFacts, HoldersError> {
        let path = place.certificate();
        if !path.exists() {
            return Err(HoldersError::Unknown(holder.clone()));
        }
        let content = |why| concord_identity::TlsError::Content { file: path.display().to_string(), why };
        let chain = certificates_from_pem(&read_text(&path)?).map_err(content)?;
        let leaf = chain.first().ok_or_else(|| HoldersError::Unknown(holder.clone()))?;
        Ok(CertificateFacts::read(leaf)?)
    }

    pub(super) fn put(&self, place: &Place, certificate: &CertificateDer<'_>) -> Result<(), HoldersError> {
        let chain = std::slice::from_ref(certificate);
        if place.key().exists() {
            return Ok(replace_pair(&place.certificate(), &place.key(), chain)?);
        }
        Ok(write_public(&place.certificate(), certificates_to_pem(chain).as_bytes())?)
    }

    /// Makes the key of a holder that has none here; a key that is there stays.
    fn make_key(&self, holder: &Identity, place: &Place) -> Result<LeafKey, HoldersError> {
        make_folder(&place.folder)?;
        if place.key().exists() {
            return Ok(LeafKey::load(&place.key())?);
        }
        let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
        key.save(&place.key())?;
        Ok(key)
    }

    /// Writes one file with the requests of these holders, each for the key that it has here, for one made now where it has none, or
    /// for a new one; the new one takes the place of the old with its certificate. What the file asked for before, and what has not come
    /// yet, it asks for still.
    pub fn request(
        &self,
        holders: &[Identity],
        hosts: Option<Vec<String>>,
        new_key: bool,
        now: Timestamp,
    ) -> Result<Asked, HoldersError> {
        let waiting = self.waiting();
        let (mut text, mut requests) = (String::new(), Vec::new());
        for holder in holders {
            let place = self.place(holder)?;
            let before = self.present(holder, &place).ok();
            if let Some(before) = &before {
                self.refuse_if_taken_back(holder, before, new_key)?;
            }
            let key = if new_key && place.key().exists() {
                let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
                add_key(&place.certificate(), &place.key(), &key)?;
                key
            } else if before.is_some() {
                if !place.key().exists() {
                    return Err(HoldersError::KeyElsewhere { holder: holder.clone() });
                }
                own_key(&place)?
            } else {
                self.make_key(holder, &place)?
            };
            let mut request = CertificateRequest::leaf(holder, key.public(), now);
            if *holder == self.server {
                let asked = || waiting.iter().find(|one| one.holder == *holder).map(|one| one.requested.hosts.clone());
                let before = before.map(|before| before.hosts);
                request.hosts = hosts.clone().or(before).or_else(asked).unwrap_or_default();
            }
            text.push_str(&format!("{holder}\nkey {}\n", key.public().fingerprint().grouped()));
            text.push_str(&request.to_pkcs10_pem(&key)?.replace("\r\n", "\n"));
            requests.push((holder.clone(), key.public()));
        }
        for one in waiting.into_iter().filter(|one| !holders.contains(&one.holder)) {
            text.push_str(&one.text);
            requests.push((one.holder, one.requested.key));
        }
        let path = self.dir.join(REQUEST_FILE);
        write_public(&path, text.as_bytes())?;
        Ok(Asked { path, requests })
    }
}

/// A request in the file whose certificate has not come.
struct Waiting {
    holder: Identity,
    requested: Requested,
    /// As it stands in the file, with the words before it.
    text: String,
}

impl Holders {
    /// The names of the server for software that is not ours: in its certificate, or in the request for it.
    pub(super) fn hosts_of_server(&self) -> Vec<String> {
        if let Ok(here) = self.certificate_of(&self.server) {
            return here.hosts;
        }
        let asked = self.waiting().into_iter().find(|one| one.holder == self.server);
        asked.map(|one| one.requested.hosts).unwrap_or_default()
    }

    /// What the file of requests asks for, of those of this folder, whose keys are here, and no certificate that is newer than the file.
    fn waiting(&self) -> Vec<Waiting> {
        let path = self.dir.join(REQUEST_FILE);
        let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let (Ok(text), Some(asked_at)) = (read_text(&path), changed(&path)) else { return Vec::new() };
        let texts = text.split_inclusive(REQUEST_END).map(|text| text.trim_start().to_owned());
        texts
            .filter_map(|text| {
                let requested = Requested::from_pem(&text).ok()?;
                let holder = requested.identity().ok()?;
                let place = self.place(&holder).ok()?;
                let waits = keys_in(&place.key()).is_ok_and(|keys| keys.contains(&requested.key))
                    && changed(&place.certificate()).is_none_or(|came_at| came_at < asked_at);
                waits.then(|| Waiting { holder, requested, text: format!("{text}\n") })
            })
            .collect()
    }
}

const REQUEST_END: &str = "-----END CERTIFICATE REQUEST-----";

/// The key of the certificate that is there; others may wait for theirs beside it.
fn own_key(place: &Place) -> Result<LeafKey, HoldersError> {
    let chain = certificates_from_pem(&read_text(&place.certificate())?);
    let chain = chain.map_err(|why| TlsError::Content { file: place.certificate().display().to_string(), why })?;
    Ok(match chain.first() {
        Some(leaf) => load_key_of(&place.key(), leaf)?,
        None => LeafKey::load(&place.key())?,
    })
}

/// The name is ours to give, and nothing else of the request is taken but the key.
fn issue_requested(
    anchor: &AnchorFolder,
    holder: &Identity,
    requested: &Requested,
    life: Lifetime,
) -> Result<CertificateDer<'static>, HoldersError> {
    let request = CertificateRequest::leaf(holder, requested.key.clone(), life.now).lasting(life.now, life.days);
    Ok(anchor.issue(&request)?)
}

/// Reads the requests of a file, each of which proves its key.
pub fn read_requests(path: &Path) -> Result<Vec<Requested>, HoldersError> {
    let text = read_text(path)?;
    Requested::all_from_pem(&text).map_err(|source| HoldersError::Request { path: path.to_owned(), source })
}
