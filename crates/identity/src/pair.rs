//! A certificate file and the key file beside it, replaced while somebody reads them.
//!
//! Invariant: at every moment the key of the certificate that stands there is among those in the key file. So the new key goes in first,
//! beside the old one; then the certificate changes, by a rename; then the old key goes. A reader takes the key that is the leaf's, and
//! reads both again where it looked just between. A key whose certificate has yet to come waits in the same file.

use std::path::Path;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::certificate::parse;
use crate::files::{self, FileError};
use crate::leaf_key::{LeafKey, LeafPublicKey};
use crate::signing::KeyError;
use crate::tls::TlsError;

/// A change is between a reader's two looks at most once, unless somebody changes the files without a pause.
const LOOKS_MAX: usize = 3;
/// The one of the certificate, and those whose certificates have yet to come.
const KEYS_MAX: usize = 8;

/// Reads a chain, leaf first, and the leaf's key. Where none is the leaf's, the first one: whoever uses it is told then.
pub(crate) fn load(
    certificates: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let content = |path: &Path, why: String| TlsError::Content { file: path.display().to_string(), why };
    let mut looks = 0;
    loop {
        looks += 1;
        let text = files::read_text(certificates)?;
        let chain = files::certificates_from_pem(&text).map_err(|why| content(certificates, why))?;
        let keys = read_keys(key)?;
        let of_leaf = keys.iter().position(|key| chain.first().is_some_and(|leaf| is_key_of(key, leaf)));
        if of_leaf.is_some() || looks == LOOKS_MAX {
            let found = keys.into_iter().nth(of_leaf.unwrap_or(0));
            return Ok((
                chain,
                found.ok_or_else(|| content(key, "no private key in PEM can be read in it".to_owned()))?,
            ));
        }
    }
}

fn read_keys(path: &Path) -> Result<Vec<PrivateKeyDer<'static>>, TlsError> {
    let content = |why: String| TlsError::Content { file: path.display().to_string(), why };
    let text = Zeroizing::new(files::read_text(path)?);
    let keys = PrivateKeyDer::pem_slice_iter(text.as_bytes()).take(KEYS_MAX).collect::<Result<Vec<_>, _>>();
    // The library's own words may repeat a line of it.
    let keys = keys.unwrap_or_default();
    if keys.is_empty() {
        return Err(content("no private key in PEM can be read in it".to_owned()));
    }
    Ok(keys)
}

fn is_key_of(key: &PrivateKeyDer<'_>, leaf: &CertificateDer<'_>) -> bool {
    let public = any_supported_type(key).ok().and_then(|key| key.public_key().map(|public| public.as_ref().to_vec()));
    let certified = parse(leaf).ok().map(|leaf| leaf.public_key().raw.to_vec());
    public.is_some() && public == certified
}

/// The key of this leaf in a file of keys, to sign with.
pub fn load_key_of(path: &Path, leaf: &CertificateDer<'_>) -> Result<LeafKey, KeyError> {
    let text = Zeroizing::new(files::read_text(path)?);
    let keys = PrivateKeyDer::pem_slice_iter(text.as_bytes()).take(KEYS_MAX).filter_map(Result::ok);
    match keys.into_iter().find(|key| is_key_of(key, leaf)) {
        Some(key) => LeafKey::from_pkcs8_der(key.secret_der()),
        None => LeafKey::from_pkcs8_pem(&text),
    }
}

/// The public halves of the keys in a file of keys, those of our own kinds.
pub fn keys_in(path: &Path) -> Result<Vec<LeafPublicKey>, TlsError> {
    let keys = read_keys(path)?.into_iter().filter_map(|key| LeafKey::from_pkcs8_der(key.secret_der()).ok());
    Ok(keys.map(|key| key.public()).collect())
}

/// Puts a key whose certificate has yet to come into a file of keys, behind those that are there; of those that waited longest the first
/// goes where there are too many. Durable when it returns.
pub fn add_key(path: &Path, key: &LeafKey) -> Result<(), KeyError> {
    let before = match files::read_text(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Zeroizing::new(String::new()),
        Err(error) => return Err(error.into()),
    };
    let keys = PrivateKeyDer::pem_slice_iter(before.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut keys: Vec<_> =
        keys.map_err(|_| KeyError::NotPem)?.into_iter().map(|key| to_pem(key.secret_der())).collect();
    if keys.len() >= KEYS_MAX {
        // The first is the certificate's.
        keys.drain(1..=keys.len() - KEYS_MAX + 1);
    }
    keys.push(files::private_key_to_pem(&key.to_pkcs8_der()?));
    let all = Zeroizing::new(keys.iter().map(|key| key.as_str()).collect::<String>());
    Ok(files::write_private(path, all.as_bytes())?)
}

fn to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    files::private_key_to_pem(pkcs8)
}

/// Puts a chain, leaf first, in place of the one there, whose leaf's key is in the key file already, and lets the other keys of that file
/// go. Durable when it returns; a crash in the midst leaves a pair that loads.
pub fn replace_pair(certificates: &Path, key: &Path, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let content = |why: &str| TlsError::Content { file: key.display().to_string(), why: why.to_owned() };
    let leaf = chain.first().ok_or_else(|| content("no certificate was given for it"))?;
    let keys = read_keys(key)?;
    let own = keys.iter().find(|key| is_key_of(key, leaf));
    let own = own.ok_or_else(|| content("it does not have the certificate's key"))?;
    write_public(certificates, chain)?;
    if keys.len() > 1 {
        files::write_private(key, to_pem(own.secret_der()).as_bytes())?;
    }
    Ok(())
}

fn write_public(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), FileError> {
    files::write_public(path, files::certificates_to_pem(chain).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use concord_model::{Identity, ParticipantCode, Timestamp};

    use super::*;
    use crate::issue::{AnchorKeys, CertificateRequest};
    use crate::leaf_key::LeafKeyKind;

    #[test]
    fn whatever_a_reader_or_a_crash_finds_in_the_midst_of_a_change_belongs_together() {
        let now = Timestamp::from_micros(1_795_521_600_000_000);
        let anchor = AnchorKeys::create(&ParticipantCode::parse("KAZ").unwrap(), now).unwrap();
        let identity: Identity = "spiffe://kaz.concord/node/main".parse().unwrap();
        let [(old_key, old), (new_key, new)] = [(); 2].map(|()| {
            let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
            let leaf = anchor.issue(&CertificateRequest::leaf(&identity, key.public(), now)).unwrap();
            (key, leaf)
        });
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        old_key.save(&key).unwrap();
        write_public(&certificate, std::slice::from_ref(&old)).unwrap();
        let found = |expected: &CertificateDer<'_>| {
            let (chain, key) = load(&certificate, &key).unwrap();
            assert!(chain.first() == Some(expected) && is_key_of(&key, expected));
        };
        found(&old);
        assert!(replace_pair(&certificate, &key, std::slice::from_ref(&new)).is_err(), "its key is not there yet");
        found(&old);
        add_key(&key, &new_key).unwrap();
        found(&old);
        // A crash behind the rename: both keys are there.
        write_public(&certificate, std::slice::from_ref(&new)).unwrap();
        found(&new);
        replace_pair(&certificate, &key, std::slice::from_ref(&new)).unwrap();
        found(&new);
        assert_eq!(files::read_text(&key).unwrap().matches("BEGIN").count(), 1, "the old key went");
        assert_eq!(load_key_of(&key, &new).unwrap().public(), new_key.public());
        // Of several that are there in part, nothing is repeated in words.
        let whole = files::read_text(&key).unwrap();
        fs::write(&key, format!("{whole}-----BEGIN PRIVATE KEY-----c2VjcmV0\n")).unwrap();
        let why = load(&certificate, &key).unwrap_err().to_string();
        assert!(why.contains("key.pem is not usable") && !why.contains("c2VjcmV0"), "{why}");
        let why = add_key(&key, &new_key).unwrap_err().to_string();
        assert!(!why.contains("c2VjcmV0"), "{why}");
    }
}
