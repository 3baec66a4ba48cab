//! Making revocation lists: signed by an anchor that is ours, and never with less than those before them named.

use std::collections::BTreeMap;

use concord_model::Timestamp;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::crypto::aws_lc_rs::default_provider;
use webpki::EndEntityCert;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList as Parsed;

use crate::anchor::Anchor;
use crate::facts::{serial_from_hex, serial_to_hex};
use crate::issue::{AnchorKeys, IssueError, SECONDS_PER_DAY};
use crate::moment::{from_seconds, plus_seconds, to_date_time};
use crate::revocation::{PEM_BEGIN, whole_blocks};

/// How long a list says that it holds, unless it is said otherwise, in days: until its next one.
pub const LIST_LIFETIME_DAYS: u32 = 365;

/// Serial numbers in hexadecimal, and when each was taken back.
pub type Revoked = BTreeMap<String, Timestamp>;

/// What the lists in these files, PEM or DER, name that this anchor signed. Files that are none, and lists of others, are passed over:
/// they count, or do not, beside the one that is written.
pub fn revoked_in<'a>(files: impl IntoIterator<Item = &'a [u8]>, anchor: &Anchor) -> Revoked {
    let mut all = Revoked::new();
    for block in files.into_iter().flat_map(blocks) {
        let Ok((_, list)) = Parsed::from_der(&block) else { continue };
        if is_signed_by(&list, anchor) {
            let at = |seconds| from_seconds(seconds);
            let named = list.iter_revoked_certificates();
            all.extend(named.map(|one| (serial_to_hex(one.raw_serial()), at(one.revocation_date.timestamp()))));
        }
    }
    all
}

/// Whether a file may be replaced by a list of this anchor without anything being lost: all in it are such lists, to their ends.
pub fn is_only_of(file: &[u8], anchor: &Anchor) -> bool {
    let is_pem = file.trim_ascii_start().starts_with(PEM_BEGIN);
    (!is_pem || whole_blocks(file).is_ok())
        && blocks(file).iter().all(|block| {
            Parsed::from_der(block).is_ok_and(|(rest, list)| rest.is_empty() && is_signed_by(&list, anchor))
        })
}

fn blocks(file: &[u8]) -> Vec<Vec<u8>> {
    match pem::parse_many(file) {
        Ok(blocks) if !blocks.is_empty() => blocks.into_iter().map(pem::Pem::into_contents).collect(),
        _ => vec![file.to_vec()],
    }
}

fn is_signed_by(list: &Parsed<'_>, anchor: &Anchor) -> bool {
    let Ok(issuer) = EndEntityCert::try_from(anchor.der()) else { return false };
    let (signed, signature) = (list.tbs_cert_list.as_ref(), list.signature_value.as_ref());
    let algorithms = default_provider().signature_verification_algorithms;
    algorithms.all.iter().any(|algorithm| issuer.verify_signature(*algorithm, signed, signature).is_ok())
}

impl AnchorKeys {
    /// A list of these, in PEM, which the next one follows after so many days.
    pub fn revocation_list(
        &self,
        revoked: &Revoked,
        now: Timestamp,
        days: u32,
    ) -> Result<(String, Timestamp), IssueError> {
        let next = plus_seconds(now, i64::from(days) * SECONDS_PER_DAY);
        let entry = |(serial, at): (&String, &Timestamp)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial_from_hex(serial).ok_or(IssueError::Validity)?),
                revocation_time: to_date_time(*at).ok_or(IssueError::Validity)?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: to_date_time(now).ok_or(IssueError::Validity)?,
            next_update: to_date_time(next).ok_or(IssueError::Validity)?,
            // Grows with time, as numbers of lists have to.
            crl_number: SerialNumber::from(now.as_micros().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, IssueError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok((self.sign_list(list)?, next))
    }
}
