//! Whether a certificate that another authority made does for what it was requested for: everything that is missing, in words.

use concord_model::{Identity, ParticipantCode, Role, Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::anchor::Anchor;
use crate::certificate::parse;
use crate::chain::{CERTIFICATE_SIZE_MAX_BYTES, Purpose, verify_chain};
use crate::leaf_key::{LeafKeyKind, LeafPublicKey};
use crate::moment::{from_seconds, rfc3339, to_unix_time};

const NAME_SHOWN_MAX_CHARS: usize = 120;

/// Whether a certificate is that of an authority, and no leaf.
pub fn is_authority(der: &CertificateDer<'_>) -> bool {
    let certificate = parse(der).ok();
    certificate.is_some_and(|one| matches!(one.basic_constraints(), Ok(Some(basic)) if basic.value.ca))
}

/// The key that a certificate speaks for.
pub fn key_of(der: &CertificateDer<'_>) -> Result<LeafPublicKey, String> {
    let certificate = parse(der).map_err(|error| format!("it cannot be read: {error}"))?;
    LeafPublicKey::from_spki(certificate.public_key().raw).map_err(|error| error.to_string())
}

/// Why this certificate is not one that peers accept for this holder under this anchor; nothing if it is.
pub fn unfit_for(der: &CertificateDer<'_>, holder: &Identity, anchor: &Anchor, now: Timestamp) -> Vec<String> {
    let certificate = match parse(der) {
        Ok(certificate) => certificate,
        Err(error) => return vec![format!("it cannot be read: {error}")],
    };
    let mut missing = Vec::new();
    if der.len() > CERTIFICATE_SIZE_MAX_BYTES {
        missing.push(format!("it is larger than {CERTIFICATE_SIZE_MAX_BYTES} bytes"));
    }
    missing.extend(name(&certificate, holder));
    missing.extend(usages(&certificate, holder.role));
    let validity = certificate.validity();
    let [begin, end] = [validity.not_before, validity.not_after].map(|at| from_seconds(at.timestamp()));
    if end < now {
        missing.push(format!("it ended on {}", rfc3339(end)));
    }
    if begin > now {
        missing.push(format!("it is not valid before {}; compare the clocks", rfc3339(begin)));
    }
    let kind = LeafPublicKey::from_spki(certificate.public_key().raw).ok().and_then(|key| key.own_kind());
    if holder.role == Role::Officer && kind != Some(LeafKeyKind::Ed25519) {
        missing.push("its key is not Ed25519, with which officers sign".to_owned());
    }
    missing.extend(issuer(&certificate, anchor));
    if missing.is_empty() {
        missing.extend(verified(der, holder, anchor, now));
    }
    missing
}

fn name(certificate: &X509Certificate<'_>, holder: &Identity) -> Option<String> {
    let needed = format!("it needs exactly one, URI:{holder}, as subject alternative name");
    let names = match certificate.subject_alternative_name() {
        Ok(names) => names.map_or([].as_slice(), |names| names.value.general_names.as_slice()),
        Err(error) => return Some(format!("its names cannot be read ({error}); {needed}")),
    };
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(name) = name { Some(*name) } else { None }).collect();
    match uris.as_slice() {
        [] => Some(format!("it has no URI name; {needed}")),
        [uri] if *uri == holder.to_string() => None,
        [uri] => Some(format!("its URI name is {}; {needed}", shown(uri))),
        several => Some(format!("it has {} URI names; {needed}", several.len())),
    }
}

fn usages(certificate: &X509Certificate<'_>, role: Role) -> Vec<String> {
    let mut missing = Vec::new();
    let extended = certificate.extended_key_usage().ok().flatten();
    if !extended.as_ref().is_some_and(|usage| usage.value.client_auth) {
        missing.push("its extended key usage lacks clientAuth".to_owned());
    }
    let is_server = matches!(role, Role::Hub | Role::Node);
    if is_server && !extended.as_ref().is_some_and(|usage| usage.value.server_auth) {
        missing.push("its extended key usage lacks serverAuth".to_owned());
    }
    let signs = certificate.key_usage().map(|usage| usage.is_none_or(|usage| usage.value.digital_signature()));
    if !signs.unwrap_or(false) {
        missing.push("its key usage lacks digitalSignature".to_owned());
    }
    missing
}

fn issuer(certificate: &X509Certificate<'_>, anchor: &Anchor) -> Option<String> {
    let authority = parse(anchor.der()).ok()?;
    if certificate.issuer().as_raw() == authority.subject().as_raw() {
        return None;
    }
    let [issuer, authority] = [certificate.issuer(), authority.subject()].map(|name| shown(&name.to_string()));
    Some(format!(
        "it was issued by '{issuer}', and the anchor is '{authority}': the anchor has to be the CA that signs by itself, so give that \
         one's certificate"
    ))
}

fn verified(der: &CertificateDer<'_>, holder: &Identity, anchor: &Anchor, now: Timestamp) -> Option<String> {
    let anchors = |code: &ParticipantCode| if *code == holder.participant { vec![anchor.clone()] } else { Vec::new() };
    let is_server = matches!(holder.role, Role::Hub | Role::Node);
    let purposes = [Purpose::Client, Purpose::Server].into_iter().take(if is_server { 2 } else { 1 });
    let mut found = purposes.map(|purpose| verify_chain(der, &[], anchors, purpose, to_unix_time(now)));
    let refusal = found.find_map(Result::err)?;
    Some(format!("it does not verify under the anchor: {refusal}"))
}

fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(NAME_SHOWN_MAX_CHARS).collect()
}
