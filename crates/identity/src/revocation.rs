//! What issuers have taken back: revocation lists, each counted only under the participant whose anchor stands behind it.
//!
//! A list names certificates by issuer and serial number, which is unique among what one issuer made. Participants may
//! give their authorities the same names, so that a list is looked up only for chains of the participant under whose
//! anchor it was verified: nobody can take back what another state issued.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use concord_model::{ParticipantCode, Timestamp};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList as Parsed;

use crate::anchors::AnchorTable;
use crate::certificate::parse;
use crate::moment;

pub(crate) const PEM_BEGIN: &[u8] = b"-----BEGIN";
const PEM_END: &[u8] = b"-----END ";
const LIST_BLOCK: &str = "X509 CRL";
const CERTIFICATE_BLOCK: &str = "CERTIFICATE";
const NAME_SHOWN_MAX_CHARS: usize = 80;

/// What lists name the certificates of one chain by. They are taken from the chain of a handshake, and last as long as its
/// connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainNumbers {
    participant: ParticipantCode,
    numbers: Vec<Number>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    issuer: Vec<u8>,
    serial: Vec<u8>,
}

impl ChainNumbers {
    /// Of a chain that was verified for this participant. What was sent beside it counts too: who shows a certificate that
    /// was taken back is refused, whether the chain needs it or not.
    pub fn of<'a>(participant: &ParticipantCode, chain: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Self {
        let number = |der: &'a CertificateDer<'a>| {
            let certificate = EndEntityCert::try_from(der).ok()?;
            Some(Number { issuer: certificate.issuer().to_vec(), serial: certificate.serial().to_vec() })
        };
        Self { participant: participant.clone(), numbers: chain.into_iter().filter_map(number).collect() }
    }
}

/// One file as its owner put it down: lists, and the certificates of authorities below an anchor that signed lists. Nothing
/// in it is verified yet.
#[derive(Debug, Clone)]
pub struct RevocationFile {
    lists: Vec<List>,
    authorities: Vec<CertificateDer<'static>>,
    /// Those of other files that its lists are by.
    beside: Vec<CertificateDer<'static>>,
}

#[derive(Debug, Clone)]
struct List {
    list: Arc<CertRevocationList<'static>>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    issuer: String,
    this_update: Timestamp,
    next_update: Timestamp,
}

impl RevocationFile {
    /// Whether it has one list alone.
    pub fn is_one_list(&self) -> bool {
        self.lists.len() == 1
    }

    /// Reads PEM with blocks `X509 CRL` and `CERTIFICATE`, or one list or certificate in DER. Says in words what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (mut lists, mut authorities) = (Vec::new(), Vec::new());
        if bytes.trim_ascii_start().starts_with(PEM_BEGIN) {
            for block in whole_blocks(bytes)? {
                match block.tag() {
                    LIST_BLOCK => lists.push(List::parse(block.contents())?),
                    CERTIFICATE_BLOCK => authorities.push(authority(block.contents())?),
                    // A key that was put here by mistake is named by its kind and nothing else.
                    _ => return Err("it has a block that is neither a list nor a certificate".to_owned()),
                }
            }
        } else {
            match List::parse(bytes) {
                Ok(list) => lists.push(list),
                Err(why) => authorities.push(authority(bytes).map_err(|_| why)?),
            }
        }
        if lists.is_empty() && authorities.is_empty() {
            return Err("it has neither a list nor a certificate".to_owned());
        }
        Ok(Self { lists, authorities, beside: Vec::new() })
    }

    /// The same file with the authorities in these others that its lists are by, so that it goes on to count where one of the others
    /// is gone.
    #[must_use]
    pub fn beside(&self, others: &[&Self]) -> Self {
        let mut beside = Vec::new();
        for der in others.iter().flat_map(|other| &other.authorities) {
            let Ok(certificate) = EndEntityCert::try_from(der) else { continue };
            let is_issuer = self.lists.iter().any(|list| list.list.issuer() == certificate.subject());
            if is_issuer && !self.authorities.contains(der) && !beside.contains(der) {
                beside.push(der.clone());
            }
        }
        Self { lists: self.lists.clone(), authorities: self.authorities.clone(), beside }
    }

    /// The issuers of its lists, and when each list is to be followed by the next one.
    pub fn lists(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.lists.iter().map(|list| (list.issuer.as_str(), list.next_update))
    }
}

/// The blocks of a PEM text, if all that it begins are there to their ends: a file that was written in part says less than its
/// owner meant, and what its next block names would be let in again.
pub(crate) fn whole_blocks(text: &[u8]) -> Result<Vec<pem::Pem>, String> {
    // The library's own words may repeat a line of it, and a key may stand there by mistake.
    let blocks = pem::parse_many(text).map_err(|_| "the PEM text is damaged; write it anew".to_owned())?;
    let begun = text.windows(PEM_BEGIN.len()).filter(|window| *window == PEM_BEGIN).count();
    if begun != blocks.len() {
        return Err(format!("it is not whole: of {begun} blocks that it begins {} end", blocks.len()));
    }
    // Even the word that begins the next block may be there in part.
    let last_line = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    if !last_line.starts_with(PEM_END) {
        return Err("it is not whole: it goes on behind its last block".to_owned());
    }
    Ok(blocks)
}

impl List {
    fn parse(der: &[u8]) -> Result<Self, String> {
        // The library that looks certificates up decides what a list is; the other one only says where its parts are.
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| format!("it is no usable list: {error}"))?;
        let (_, parsed) = Parsed::from_der(der).map_err(|error| format!("it is no list: {error}"))?;
        let next_update = parsed.next_update().ok_or("it does not say when the next list comes")?;
        Ok(Self {
            list: Arc::new(list.into()),
            signed: parsed.tbs_cert_list.as_ref().to_vec(),
            signature: parsed.signature_value.as_ref().to_vec(),
            issuer: parsed.issuer().to_string().chars().take(NAME_SHOWN_MAX_CHARS).collect(),
            this_update: moment::from_seconds(parsed.last_update().timestamp()),
            next_update: moment::from_seconds(next_update.timestamp()),
        })
    }
}

fn authority(der: &[u8]) -> Result<CertificateDer<'static>, String> {
    parse(der).map_err(|error| format!("it is neither a list nor a certificate: {error}"))?;
    Ok(CertificateDer::from(der.to_vec()))
}

/// The lists that count, by the participant whose certificates they are about, and whose have lapsed.
#[derive(Default, Clone)]
pub struct Revocations {
    lists: BTreeMap<ParticipantCode, Vec<Counted>>,
    lapsed: BTreeSet<Lapsed>,
}

/// Whose newest list has lapsed: a participant, and its issuer as the lists name it.
type Lapsed = (ParticipantCode, Vec<u8>);

#[derive(Clone)]
struct Counted {
    list: Arc<CertRevocationList<'static>>,
    issuer: String,
    this_update: Timestamp,
    next_update: Timestamp,
}

/// Why lists let a certificate not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// One of them names it.
    Revoked,
    /// The newest list of its issuer is too old to say that it does not.
    Lapsed,
}

/// The newest list of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerLists {
    /// Whose certificates it is about.
    pub participant: ParticipantCode,
    /// The issuer, in words.
    pub issuer: String,
    /// When it was put out.
    pub this_update: Timestamp,
    /// When it is to be followed by the next one.
    pub next_update: Timestamp,
}

impl Revocations {
    /// Takes from each file what verifies under one of these anchors, or under an authority that one of them issued and
    /// whose certificate is in one of the files or was beside it. For each file, in order: whether all of it does, and if not, why; then
    /// nothing of it counts.
    pub fn verified(files: &[&RevocationFile], anchors: &AnchorTable) -> (Self, Vec<Result<(), String>>) {
        let anchors: Vec<Issuer<'_>> = anchors
            .iter()
            .flat_map(|(participant, anchors)| anchors.iter().map(move |anchor| (participant, anchor.der())))
            .filter_map(|(participant, der)| Issuer::read(participant, der))
            .collect();
        let mut issuers = anchors.clone();
        let authorities = files.iter().flat_map(|file| file.authorities.iter().chain(&file.beside));
        issuers.extend(authorities.flat_map(|der| Issuer::below(&anchors, der)));

        let mut counted = Self::default();
        let judged = files.iter().map(|file| {
            let unknown = |der: &&CertificateDer<'_>| Issuer::below(&anchors, der).is_empty();
            if file.authorities.iter().any(|der| unknown(&der)) {
                return Err("its certificate is of no authority that an anchor known here issued".to_owned());
            }
            let found: Vec<_> = file.lists.iter().map(|list| list.issuers(&issuers)).collect::<Result<_, _>>()?;
            for (list, participants) in file.lists.iter().zip(found) {
                for participant in participants {
                    let List { list, issuer, this_update, next_update, .. } = list;
                    let (list, issuer) = (Arc::clone(list), issuer.clone());
                    let one = Counted { list, issuer, this_update: *this_update, next_update: *next_update };
                    counted.lists.entry(participant.clone()).or_default().push(one);
                }
            }
            Ok(())
        });
        let judged = judged.collect();
        (counted, judged)
    }

    /// Whether one of the lists of its participant names a certificate of this chain.
    pub fn name(&self, chain: &ChainNumbers) -> bool {
        let lists = self.lists.get(&chain.participant).map_or([].as_slice(), Vec::as_slice);
        lists.iter().any(|Counted { list, .. }| {
            let mut of_issuer = chain.numbers.iter().filter(|number| number.issuer == list.issuer());
            of_issuer.any(|number| !matches!(list.find_serial(&number.serial), Ok(None)))
        })
    }

    /// Whether a certificate of this chain does not count, and why not.
    pub fn refuse(&self, chain: &ChainNumbers) -> Option<Unfit> {
        if self.name(chain) {
            return Some(Unfit::Revoked);
        }
        let lapsed = |number: &Number| self.lapsed.contains(&(chain.participant.clone(), number.issuer.clone()));
        (!self.lapsed.is_empty() && chain.numbers.iter().any(lapsed)).then_some(Unfit::Lapsed)
    }

    /// The newest list of each issuer, under each participant.
    pub fn newest(&self) -> Vec<IssuerLists> {
        let newest = |((participant, _), one): (Lapsed, &Counted)| {
            let Counted { issuer, this_update, next_update, .. } = one.clone();
            IssuerLists { participant, issuer, this_update, next_update }
        };
        self.newest_of_each().into_iter().map(newest).collect()
    }

    /// The same lists, where those have lapsed that were to be followed before this moment; and whether they are others than now.
    ///
    /// An issuer has lapsed by its *newest* list: an older one beside it does no harm.
    pub fn lapsed_before(&self, before: Timestamp) -> (Self, bool) {
        let newest = self.newest_of_each().into_iter();
        let lapsed: BTreeSet<Lapsed> =
            newest.filter(|(_, one)| one.next_update < before).map(|(issuer, _)| issuer).collect();
        let is_other = lapsed != self.lapsed;
        (Self { lists: self.lists.clone(), lapsed }, is_other)
    }

    fn newest_of_each(&self) -> BTreeMap<Lapsed, &Counted> {
        let mut newest: BTreeMap<Lapsed, &Counted> = BTreeMap::new();
        for (participant, lists) in &self.lists {
            for one in lists {
                let known = newest.entry((participant.clone(), one.list.issuer().to_vec())).or_insert(one);
                if known.next_update < one.next_update {
                    *known = one;
                }
            }
        }
        newest
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.lists.iter().map(|(participant, lists)| (participant, lists.len()))).finish()
    }
}

impl List {
    /// Whose lists this one is among.
    fn issuers<'a>(&self, issuers: &[Issuer<'a>]) -> Result<Vec<&'a ParticipantCode>, String> {
        let mut named = issuers.iter().filter(|issuer| issuer.certificate.subject() == self.list.issuer()).peekable();
        if named.peek().is_none() {
            let name = &self.issuer;
            return Err(format!(
                "nobody known here is its issuer '{name}'; an authority below an anchor needs its certificate beside the list"
            ));
        }
        let mut signed = named.filter(|issuer| issuer.signed(&self.signed, &self.signature)).peekable();
        if signed.peek().is_none() {
            return Err(format!("its signature is not of '{}', as it is known here", self.issuer));
        }
        let participants: Vec<_> =
            signed.filter(|issuer| issuer.may_sign_lists).map(|issuer| issuer.participant).collect();
        if participants.is_empty() {
            return Err(format!("the key usage of '{}' does not include cRLSign", self.issuer));
        }
        Ok(participants)
    }
}

/// Who may have signed a list.
#[derive(Clone)]
struct Issuer<'a> {
    participant: &'a ParticipantCode,
    certificate: Arc<EndEntityCert<'a>>,
    may_sign_lists: bool,
}

impl<'a> Issuer<'a> {
    fn read(participant: &'a ParticipantCode, der: &'a CertificateDer<'a>) -> Option<Self> {
        let parsed = parse(der).ok()?;
        // A certificate without key usage may be used for anything, as in path verification.
        let may_sign_lists = parsed.key_usage().ok()?.is_none_or(|usage| usage.value.crl_sign());
        Some(Self { participant, certificate: Arc::new(EndEntityCert::try_from(der).ok()?), may_sign_lists })
    }

    /// The authority of this certificate, under each participant whose anchor issued it.
    fn below(anchors: &[Issuer<'a>], der: &'a CertificateDer<'a>) -> Vec<Self> {
        let (Ok(parsed), Ok(certificate)) = (parse(der), EndEntityCert::try_from(der)) else { return Vec::new() };
        let is_authority = matches!(parsed.basic_constraints(), Ok(Some(basic)) if basic.value.ca);
        let (signed, signature) = (parsed.tbs_certificate.as_ref(), parsed.signature_value.as_ref());
        let issued = anchors.iter().filter(|anchor| {
            is_authority && anchor.certificate.subject() == certificate.issuer() && anchor.signed(signed, signature)
        });
        issued.filter_map(|anchor| Self::read(anchor.participant, der)).collect()
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        // Each asks first whether the key is one of its kind.
        let algorithms = default_provider().signature_verification_algorithms;
        algorithms.all.iter().any(|algorithm| self.certificate.verify_signature(*algorithm, message, signature).is_ok())
    }
}
