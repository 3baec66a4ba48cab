//! Certificates under the anchor of the folder, and requests where the anchor's key is elsewhere.

use std::path::{Path, PathBuf};

use concord_identity::{
    AnchorFolder, CertificateFacts, CertificateRequest, LeafKey, LeafKeyKind, LeafPublicKey, Profile, Requested,
    TlsError, add_key, certificates_from_pem, certificates_to_pem, load_key_of, read_text, replace_pair, write_public,
};
use concord_model::{Identity, Timestamp};
use rustls::pki_types::CertificateDer;

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

    fn free_place(&self, holder: &Identity) -> Result<Place, HoldersError> {
        let place = self.place(holder)?;
        match place.certificate().exists() {
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
        let before = self.present(holder, &place)?;
        let has_key = place.key().exists();
        if new_key && !has_key {
            return Err(HoldersError::KeyElsewhere { holder: holder.clone() });
        }
        let key = if new_key {
            let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
            add_key(&place.key(), &key)?;
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
        self.present(holder, &place)?;
        let certificate = issue_requested(anchor, holder, requested, life)?;
        self.put(&place, &certificate)?;
        Ok(CertificateFacts::read(&certificate)?)
    }

    /// The certificate that a holder has here.
    pub fn certificate_of(&self, holder: &Identity) -> Result<CertificateFacts, HoldersError> {
        self.present(holder, &self.place(holder)?)
    }

    pub(super) fn present(&self, holder: &Identity, place: &Place) -> Result<CertificateFacts, HoldersError> {
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
    /// for a new one; the new one takes the place of the old with its certificate.
    pub fn request(
        &self,
        holders: &[Identity],
        hosts: Option<Vec<String>>,
        new_key: bool,
        now: Timestamp,
    ) -> Result<Asked, HoldersError> {
        let (mut text, mut requests) = (String::new(), Vec::new());
        for holder in holders {
            let place = self.place(holder)?;
            let before = self.present(holder, &place).ok();
            let key = if new_key && place.key().exists() {
                let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
                add_key(&place.key(), &key)?;
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
                request.hosts = hosts.clone().or(before.map(|before| before.hosts)).unwrap_or_default();
            }
            text.push_str(&format!("{holder}\nkey {}\n", key.public().fingerprint().grouped()));
            text.push_str(&request.to_pkcs10_pem(&key)?.replace("\r\n", "\n"));
            requests.push((holder.clone(), key.public()));
        }
        let path = self.dir.join(REQUEST_FILE);
        write_public(&path, text.as_bytes())?;
        Ok(Asked { path, requests })
    }
}

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
