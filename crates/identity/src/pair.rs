//! A certificate file and the key file beside it, replaced while somebody reads them.
//!
//! Invariant: at every moment the key of the certificate that stands there is among those in the key file. So the new key goes in first,
//! beside the old one; then the certificate changes, by a rename; then the old key goes. A reader takes the key that is the leaf's, and
//! reads both again where it looked just between. A key whose certificate has yet to come waits in the same file.
//!
//! A block of a key file that stays, stays byte for byte: it may be of a kind that only its maker knows how to write.

use std::path::Path;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::certificate::parse;
use crate::files::{self, FileError};
use crate::leaf_key::{LeafKey, LeafPublicKey};
use crate::revocation::PEM_BEGIN;
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
/// goes where there are too many, never the key of the certificate that is there. Durable when it returns.
pub fn add_key(certificates: &Path, path: &Path, key: &LeafKey) -> Result<(), KeyError> {
    let before = match files::read_text(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Zeroizing::new(String::new()),
        Err(error) => return Err(error.into()),
    };
    let read = PrivateKeyDer::pem_slice_iter(before.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut too_many = (read.map_err(|_| KeyError::NotPem)?.len() + 1).saturating_sub(KEYS_MAX);
    let leaf = files::read_text(certificates).ok().and_then(|text| files::certificates_from_pem(&text).ok());
    let leaf = leaf.and_then(|chain| chain.into_iter().next());
    let mut all = Zeroizing::new(String::with_capacity(before.len() + KEY_TEXT_MAX_BYTES));
    for block in blocks_of(&before) {
        let waits = key_in(block).is_some_and(|key| !leaf.as_ref().is_some_and(|leaf| is_key_of(&key, leaf)));
        if waits && too_many > 0 {
            too_many -= 1;
            continue;
        }
        push_block(&mut all, block);
    }
    push_block(&mut all, &files::private_key_to_pem(&key.to_pkcs8_der()?));
    Ok(files::write_private(path, all.as_bytes())?)
}

/// More than one of our own keys takes: the text of secrets is not copied about by growing.
const KEY_TEXT_MAX_BYTES: usize = 1024;

/// A text of PEM cut before each of its blocks; what stands between two goes with the one before it.
fn blocks_of(text: &str) -> Vec<&str> {
    let begins = text.match_indices(str::from_utf8(PEM_BEGIN).unwrap_or_default()).map(|(at, _)| at).skip(1);
    let ends: Vec<usize> = begins.chain([text.len()]).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).filter_map(|(start, end)| text.get(start..*end)).filter(|block| !block.is_empty()).collect()
}

fn key_in(block: &str) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(block.as_bytes()).ok()
}

fn push_block(text: &mut String, block: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(block);
}

/// Puts a chain, leaf first, in place of the one there, whose leaf's key is in the key file already. The key of the replaced leaf goes, and
/// those that waited before it; those that wait for a later certificate stay. Durable when it returns; a crash in the midst leaves a pair
/// that loads.
pub fn replace_pair(certificates: &Path, key: &Path, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let content = |why: &str| TlsError::Content { file: key.display().to_string(), why: why.to_owned() };
    let leaf = chain.first().ok_or_else(|| content("no certificate was given for it"))?;
    if !read_keys(key)?.iter().any(|key| is_key_of(key, leaf)) {
        return Err(content("it does not have the certificate's key"));
    }
    let replaced = files::read_text(certificates).ok().and_then(|text| files::certificates_from_pem(&text).ok());
    let replaced = replaced.and_then(|chain| chain.into_iter().next());
    write_public(certificates, chain)?;
    let text = Zeroizing::new(files::read_text(key)?);
    let blocks = blocks_of(&text);
    let place_of = |leaf: &CertificateDer<'_>| {
        blocks.iter().position(|block| key_in(block).is_some_and(|key| is_key_of(&key, leaf)))
    };
    let (own, replaced) = (place_of(leaf), replaced.as_ref().and_then(place_of));
    let (Some(own), Some(replaced)) = (own, replaced) else { return Ok(()) };
    // The certificate's goes first: what stands before it is known to be older, also behind a crash.
    let stays = |place: &usize| *place != own && (*place > replaced || key_in(blocks[*place]).is_none());
    let mut kept = Zeroizing::new(String::with_capacity(text.len() + blocks.len()));
    for place in std::iter::once(own).chain((0..blocks.len()).filter(stays)) {
        push_block(&mut kept, blocks[place]);
    }
    if *kept == *text {
        return Ok(());
    }
    Ok(files::write_private(key, kept.as_bytes())?)
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
        add_key(&certificate, &key, &new_key).unwrap();
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
        let why = add_key(&certificate, &key, &new_key).unwrap_err().to_string();
        assert!(!why.contains("c2VjcmV0"), "{why}");
    }

    #[test]
    fn keys_that_stay_are_kept_byte_for_byte_and_those_that_wait_are_not_lost_when_another_is_replaced() {
        let now = Timestamp::from_micros(1_795_521_600_000_000);
        let anchor = AnchorKeys::create(&ParticipantCode::parse("KAZ").unwrap(), now).unwrap();
        let identity: Identity = "spiffe://kaz.concord/node/main".parse().unwrap();
        let leaf_of =
            |key: &LeafPublicKey| anchor.issue(&CertificateRequest::leaf(&identity, key.clone(), now)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        // SEC1, as other tools write it, behind parameters and words that they put there: what PKCS#8 has within.
        let foreign = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let pkcs8 = foreign.to_pkcs8_der().unwrap();
        let within = pkcs8.windows(5).position(|bytes| bytes == [0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() - 2;
        let length = usize::from(pkcs8[within + 1]) + 2;
        let sec1 = pem::Pem::new("EC PRIVATE KEY", &pkcs8[within..within + length]);
        let parameters = pem::Pem::new("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07".as_slice());
        let sec1 = format!("words\n{}{}", pem::encode(&parameters), pem::encode(&sec1));
        fs::write(&key, sec1.trim_end()).unwrap();
        let old = leaf_of(&foreign.public());
        write_public(&certificate, std::slice::from_ref(&old)).unwrap();
        let made: Vec<LeafKey> = (0..3).map(|_| LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap()).collect();
        for new in &made {
            add_key(&certificate, &key, new).unwrap();
        }
        let (chain, found) = load(&certificate, &key).unwrap();
        assert!(is_key_of(&found, &chain[0]), "the certificate's key is what it was");
        assert!(files::read_text(&key).unwrap().starts_with(sec1.trim_end()), "byte for byte");
        // The second one's certificate comes first: the third, whose request is out, waits on.
        replace_pair(&certificate, &key, &[leaf_of(&made[1].public())]).unwrap();
        let left = keys_in(&key).unwrap();
        assert_eq!(left, [made[1].public(), made[0].public(), made[2].public()]);
        assert!(!files::read_text(&key).unwrap().contains("BEGIN EC PRIVATE KEY"), "the replaced one went");
        replace_pair(&certificate, &key, &[leaf_of(&made[1].public())]).unwrap();
        assert_eq!(keys_in(&key).unwrap().len(), 3, "the same key again replaces none");
        // Where too many wait the first of them goes, and never the certificate's.
        for _ in 0..KEYS_MAX + 2 {
            add_key(&certificate, &key, &LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap()).unwrap();
        }
        let left = keys_in(&key).unwrap();
        assert_eq!(left.len(), KEYS_MAX);
        assert!(left.contains(&made[1].public()) && !left.contains(&made[2].public()));
        load(&certificate, &key).map(|(chain, key)| assert!(is_key_of(&key, &chain[0]))).unwrap();
    }
}
