//! The signing keys of one server: several in one file while one follows another. Which of them counts, the registry says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use concord_model::Fingerprint;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::files;
use crate::signing::{KeyError, SigningKey};

/// Keys in one file: the one that counts, the one before it, and what is on its way. Over it the file is refused.
pub const SIGNING_KEYS_MAX: usize = 8;

/// The keys of a file, the one that counted last first. Read again where one is asked for that is not among them: it may have come since.
pub struct SigningKeys {
    path: PathBuf,
    /// The first that was read: signs where the registry names none.
    first: Arc<SigningKey>,
    held: RwLock<Vec<Arc<SigningKey>>>,
}

impl SigningKeys {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let held = read(path)?;
        let first = held.first().map(Arc::clone).ok_or(KeyError::NotPem)?;
        Ok(Self { path: path.to_owned(), first, held: RwLock::new(held) })
    }

    /// One key that stands in no file.
    pub fn only(key: SigningKey) -> Self {
        let first = Arc::new(key);
        Self { path: PathBuf::new(), first: Arc::clone(&first), held: RwLock::new(vec![first]) }
    }

    /// All of them.
    pub fn held(&self) -> Vec<Arc<SigningKey>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key with this fingerprint; none where the file does not have it either.
    pub fn named(&self, fingerprint: &Fingerprint) -> Option<Arc<SigningKey>> {
        let is_it = |key: &&Arc<SigningKey>| key.public().fingerprint == *fingerprint;
        if let Some(key) = self.held().iter().find(is_it) {
            return Some(Arc::clone(key));
        }
        let read = read(&self.path).ok()?;
        let key = read.iter().find(is_it).map(Arc::clone)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = read;
        Some(key)
    }

    /// The key with this fingerprint, else the first: for whoever has to sign before the registry names one.
    pub fn named_or_first(&self, fingerprint: Option<&Fingerprint>) -> Arc<SigningKey> {
        fingerprint.and_then(|fingerprint| self.named(fingerprint)).unwrap_or_else(|| Arc::clone(&self.first))
    }

    /// Which the file held first when it was read.
    pub fn first(&self) -> &Arc<SigningKey> {
        &self.first
    }

    /// Adds a key to a file, behind the others; durable when it returns.
    pub fn add(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
        let mut keys = read(path)?;
        if keys.len() >= SIGNING_KEYS_MAX {
            return Err(KeyError::TooMany(SIGNING_KEYS_MAX));
        }
        keys.push(Arc::new(SigningKey::from_pkcs8_der(&key.to_pkcs8_der()?)?));
        write(path, &keys)
    }

    /// Puts the key that counts first, and lets go what counted before the one before it; `succession` are the fingerprints of those that
    /// counted, in order, with the present one last. A key that is not among them is on its way, and stays.
    pub fn settle(&self, succession: &[Fingerprint]) -> Result<(), KeyError> {
        let Some((present, earlier)) = succession.split_last() else { return Ok(()) };
        if self.named(present).is_none() {
            return Ok(());
        }
        let before = earlier.iter().rev().find(|key| *key != present);
        // What was added since it was read last stays too.
        let now = read(&self.path)?;
        let place = |key: &Arc<SigningKey>| match key.public().fingerprint {
            key if key == *present => Some(0),
            key if Some(&key) == before => Some(2),
            key if succession.contains(&key) => None,
            _ => Some(1),
        };
        let mut kept: Vec<_> = now.iter().filter_map(|key| Some((place(key)?, Arc::clone(key)))).collect();
        kept.sort_by_key(|(place, _)| *place);
        let kept: Vec<_> = kept.into_iter().map(|(_, key)| key).collect();
        let is_same = kept.len() == now.len() && kept.iter().zip(&now).all(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            write(&self.path, &kept)?;
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<Arc<SigningKey>>, KeyError> {
    let text = Zeroizing::new(files::read_text(path)?);
    let mut keys = Vec::new();
    for der in PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|_| KeyError::NotPem)?;
        keys.push(Arc::new(SigningKey::from_pkcs8_der(der.secret_pkcs8_der())?));
        if keys.len() > SIGNING_KEYS_MAX {
            return Err(KeyError::TooMany(SIGNING_KEYS_MAX));
        }
    }
    if keys.is_empty() { Err(KeyError::NotPem) } else { Ok(keys) }
}

fn write(path: &Path, keys: &[Arc<SigningKey>]) -> Result<(), KeyError> {
    let mut text = Zeroizing::new(String::new());
    for key in keys {
        text.push_str(&files::private_key_to_pem(&key.to_pkcs8_der()?));
    }
    Ok(files::write_private(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprints(keys: &SigningKeys) -> Vec<Fingerprint> {
        keys.held().iter().map(|key| key.public().fingerprint).collect()
    }

    #[test]
    fn the_key_that_counts_is_found_and_one_before_it_is_kept_beside_what_is_on_its_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let made: Vec<_> = (0..4).map(|_| SigningKey::generate().unwrap()).collect();
        let of: Vec<_> = made.iter().map(|key| key.public().fingerprint).collect();
        made[0].save(&path).unwrap();
        let keys = SigningKeys::load(&path).unwrap();
        assert!(keys.named(&of[1]).is_none());
        // Another process adds it.
        SigningKeys::add(&path, &made[1]).unwrap();
        assert_eq!(keys.named(&of[1]).unwrap().public().fingerprint, of[1]);
        keys.settle(&[of[0]]).unwrap();
        assert_eq!(fingerprints(&keys), [of[0], of[1]], "it does not count yet");
        keys.settle(&[of[0], of[1]]).unwrap();
        assert_eq!(fingerprints(&keys), [of[1], of[0]]);
        SigningKeys::add(&path, &made[2]).unwrap();
        SigningKeys::add(&path, &made[3]).unwrap();
        keys.settle(&[of[0], of[1], of[2]]).unwrap();
        assert_eq!(fingerprints(&keys), [of[2], of[3], of[1]]);
        assert_eq!(fingerprints(&SigningKeys::load(&path).unwrap()), [of[2], of[3], of[1]], "so it stands in the file");
        assert_eq!(SigningKey::load(&path).unwrap().public().fingerprint, of[2], "who reads one reads the present one");
        // Where the key that counts is not here, nothing is let go.
        let lost = SigningKey::generate().unwrap().public().fingerprint;
        keys.settle(&[of[2], lost]).unwrap();
        assert_eq!(fingerprints(&keys).len(), 3);
        assert_eq!(keys.named_or_first(Some(&lost)).public().fingerprint, of[0], "the first that was read");
    }
}
