//! A server's own certificate, key and anchors: read before a port opens, and again whenever a file changes or SIGHUP comes.
//!
//! New connections, in and out, show the new certificate at once; open ones stay, until the one that they began with ends.
//! *Invariant: what is shown has verified as a whole*: all files are read, then judged together, and taken together or not at all.
//! Key and chain are two files, so that one of them is the old one for a moment: what does not go together is tried again before an alarm.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_identity::{
    Anchor, AnchorError, Anchors, CertificateRefusal, Credentials, FileError, OwnError, TlsError, check_own, read_text,
    rfc3339,
};
use concord_model::Identity;

use crate::alarms::CERTIFICATE_INVALID_ALARM;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::expiry::Certificates;
use crate::hangup::Hangup;
use crate::readiness::Readiness;
use crate::stamp::Stamp;
use crate::tasks::blocking;

/// How often the files are looked at.
pub const CERTIFICATE_CHECK_MILLISECONDS: u64 = 1000;
/// So long files may not go together before that is an alarm: whoever renews writes one after the other.
pub const CERTIFICATE_PATIENCE_SECONDS: u64 = 2;

/// Where the files stand, and whose they are.
#[derive(Debug, Clone)]
pub struct OwnFiles {
    /// Who this server is; a certificate of another name is not taken.
    pub identity: Identity,
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
    /// Its own anchors, where a file says which these are; else the table of those that are trusted does.
    pub anchors: Option<PathBuf>,
}

/// What the files say, and what of it is shown.
pub struct OwnCertificates {
    files: OwnFiles,
    credentials: Credentials,
    trusted: Anchors,
    certificates: Certificates,
    readiness: Readiness,
    clock: Arc<dyn Clock>,
    seen: Option<Seen>,
    /// Since when what stands there is not taken.
    refused_since: Option<Instant>,
}

/// What was judged: files as they stood, and the anchors that were trusted.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    anchors: Vec<Anchor>,
}

/// Why what stands there is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{path}: {source}", path = .path.display())]
    Anchor { path: PathBuf, source: AnchorError },
    #[error("{path}: {source}", path = .path.display())]
    Own { path: PathBuf, source: OwnError },
}

impl OwnCertificates {
    /// Over what the process began with. `trusted` is the table by which this server knows others; its own row is replaced where a file
    /// says what stands in it. `certificates` hears how long they last. Blocks.
    pub fn open(
        files: OwnFiles,
        credentials: Credentials,
        trusted: Anchors,
        certificates: Certificates,
        readiness: Readiness,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (seen, refused_since) = (None, None);
        let mut opened = Self { files, credentials, trusted, certificates, readiness, clock, seen, refused_since };
        opened.look(Instant::now(), false);
        opened.note_own();
        opened
    }

    /// Looks at the files again and again and at each SIGHUP, until its task is dropped. Where an anchor is trusted no more all of
    /// `connections` end, so that whoever comes back is judged by what counts now.
    pub async fn watch(mut self, connections: Vec<Connections>, mut hangup: Hangup) {
        loop {
            let is_asked = hangup.within(Duration::from_millis(CERTIFICATE_CHECK_MILLISECONDS)).await;
            let looked = blocking(move || {
                let is_less = self.look(Instant::now(), is_asked);
                (self, is_less)
            });
            let is_less;
            (self, is_less) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "this server's own certificate is looked at no more");
                    return;
                }
            };
            let now = self.clock.trusted_now();
            for connections in &connections {
                if is_less {
                    drop(connections.close_all());
                }
                if let Some(now) = now {
                    drop(connections.close_ended(now));
                }
            }
        }
    }

    /// Takes what stands there if it is new and goes together. Whether an anchor is trusted no more.
    fn look(&mut self, at: Instant, is_asked: bool) -> bool {
        let seen = self.see();
        // What was refused is judged again each time: it may be valid from a moment on that comes.
        if self.seen.as_ref() == Some(&seen) && self.refused_since.is_none() && !is_asked {
            return false;
        }
        match self.read() {
            Ok((found, anchors)) => {
                // As they stood before they were read: what changed meanwhile is looked at the next time.
                self.seen = Some(seen);
                self.refused_since = None;
                self.readiness.clear(CERTIFICATE_INVALID_ALARM);
                self.take(&found, anchors, is_asked)
            }
            Err(why) => {
                let since = *self.refused_since.get_or_insert(at);
                self.seen = Some(seen);
                if at.saturating_duration_since(since) >= Duration::from_secs(CERTIFICATE_PATIENCE_SECONDS) {
                    self.readiness.raise(CERTIFICATE_INVALID_ALARM, self.in_words(&why));
                }
                false
            }
        }
    }

    fn see(&self) -> Seen {
        let OwnFiles { certificate, key, anchors, identity } = &self.files;
        let paths = [Some(certificate), Some(key), anchors.as_ref()].into_iter().flatten();
        let stamps = paths.map(|path| std::fs::metadata(path).ok().as_ref().map(Stamp::of)).collect();
        Seen { stamps, anchors: self.trusted.get(&identity.participant) }
    }

    fn read(&self) -> Result<(Credentials, Vec<Anchor>), NotTaken> {
        let OwnFiles { certificate, key, anchors, identity } = &self.files;
        let found = Credentials::load(certificate, key)?;
        let anchors = match anchors {
            Some(path) => Anchor::several_from_pem(&read_text(path)?)
                .map_err(|source| NotTaken::Anchor { path: path.clone(), source })?,
            None => self.trusted.get(&identity.participant),
        };
        match check_own(&found, &anchors, identity, self.clock.shown()) {
            Ok(_) => {}
            // The one that is shown already: that it has ended is told by `certificate-ends`, and there is no better one.
            Err(OwnError::Refused(CertificateRefusal::Expired { .. })) if found.chain() == self.credentials.chain() => {
            }
            Err(_) if concord_faults::planted("take-any-certificate") => {}
            Err(source) => return Err(NotTaken::Own { path: certificate.clone(), source }),
        }
        Ok((found, anchors))
    }

    fn take(&mut self, found: &Credentials, anchors: Vec<Anchor>, is_asked: bool) -> bool {
        let participant = &self.files.identity.participant;
        let before = self.trusted.get(participant);
        let is_less = self.files.anchors.is_some() && before.iter().any(|anchor| !anchors.contains(anchor));
        // Where no file says it the table is its owner's, who may be replacing it just now.
        if self.files.anchors.is_some() && before != anchors {
            let fingerprints: Vec<_> = anchors.iter().map(|anchor| anchor.fingerprint().to_string()).collect();
            tracing::info!(fingerprints = fingerprints.join(", "), "this server's own anchors were replaced");
            let mut table = BTreeMap::clone(&self.trusted.table());
            table.insert(participant.clone(), anchors);
            self.trusted.replace(table);
            self.seen.iter_mut().for_each(|seen| seen.anchors = self.trusted.get(participant));
        }
        let is_other = found.chain() != self.credentials.chain();
        // Also where the chain is the same: the key may be written in another form.
        self.credentials.renew(found);
        if let Ok(caller) = found.caller().as_ref().map_err(ToString::to_string)
            && (is_other || is_asked)
        {
            let (fingerprint, not_after) = (caller.certificate_fingerprint, rfc3339(caller.not_after));
            let what = if is_other { "renewed" } else { "read again, and is the same" };
            tracing::info!(%fingerprint, not_after, "this server's own certificate was {what}");
        }
        self.note_own();
        is_less
    }

    fn note_own(&self) {
        if let Ok(caller) = self.credentials.caller() {
            self.certificates.own(&caller.identity, caller.not_after);
        }
        // The one that lasts longest is the one that is rolled over to.
        let anchors = self.trusted.get(&self.files.identity.participant);
        if let Some(anchor) = anchors.iter().max_by_key(|anchor| anchor.not_after()) {
            self.certificates.own_anchor(&self.files.identity.participant, anchor.not_after());
        }
    }

    fn in_words(&self, why: &NotTaken) -> String {
        let until = self.credentials.caller().map_or_else(|_| "-".to_owned(), |caller| rfc3339(caller.not_after));
        let OwnFiles { certificate, key, .. } = &self.files;
        format!(
            "{why}; what was shown before is shown on, and ends {until}. `concord node renew`, or `hub renew`, makes it anew; or put a certificate for {} and \
             its key into {} and {}: they are read within a second",
            self.files.identity,
            certificate.display(),
            key.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use concord_identity::{AnchorKeys, CertificateRequest, LeafKey, LeafKeyKind, certificates_to_pem, write_public};
    use concord_model::{ParticipantCode, Timestamp};

    use super::*;
    use crate::clock::SystemClock;

    const NODE: &str = "spiffe://kaz.concord/node/main";

    struct Place {
        folder: tempfile::TempDir,
        keys: AnchorKeys,
        readiness: Readiness,
        credentials: Credentials,
        trusted: Anchors,
        begun: Instant,
    }

    fn kaz() -> ParticipantCode {
        ParticipantCode::parse("KAZ").unwrap()
    }

    fn leaf(keys: &AnchorKeys, identity: &str, not_after: Option<Timestamp>) -> (Vec<u8>, LeafKey) {
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let mut request = CertificateRequest::leaf(&identity.parse().unwrap(), key.public(), SystemClock.now());
        request.not_after = not_after.unwrap_or(request.not_after);
        (keys.issue(&request).unwrap().to_vec(), key)
    }

    impl Place {
        fn new() -> (Self, OwnCertificates) {
            let folder = tempfile::tempdir().unwrap();
            let keys = AnchorKeys::create(&kaz(), SystemClock.now()).unwrap();
            let (der, key) = leaf(&keys, NODE, None);
            put(folder.path(), Some(&der), Some(&key));
            write_public(&folder.path().join("anchor.pem"), keys.anchor().to_pem().as_bytes()).unwrap();
            let files = OwnFiles {
                identity: NODE.parse().unwrap(),
                certificate: folder.path().join("certificate.pem"),
                key: folder.path().join("key.pem"),
                anchors: Some(folder.path().join("anchor.pem")),
            };
            let credentials = Credentials::load(&files.certificate, &files.key).unwrap();
            let (readiness, trusted) = (Readiness::new(), Anchors::pinned(kaz(), keys.anchor().clone()));
            let (shown, told, begun) = (credentials.clone(), readiness.clone(), Instant::now());
            let clock = Arc::new(SystemClock);
            let own = OwnCertificates::open(files, shown, trusted.clone(), Certificates::new(), told, clock);
            (Self { folder, keys, readiness, credentials, trusted, begun }, own)
        }

        fn put(&self, der: Option<&[u8]>, key: Option<&LeafKey>) {
            put(self.folder.path(), der, key);
        }

        fn shown(&self) -> Vec<u8> {
            self.credentials.check_pair().unwrap();
            self.credentials.chain()[0].to_vec()
        }

        /// Looks, so many seconds after the beginning; the alarm, if it stands then.
        fn look(&self, own: &mut OwnCertificates, seconds: u64) -> Option<String> {
            own.look(self.begun + Duration::from_secs(seconds), false);
            self.readiness.list().into_iter().next().map(|alarm| alarm.message)
        }
    }

    fn put(folder: &Path, der: Option<&[u8]>, key: Option<&LeafKey>) {
        if let Some(key) = key {
            key.save(&folder.join("key.pem")).unwrap();
        }
        if let Some(der) = der {
            let pem = certificates_to_pem(&[der.into()]);
            write_public(&folder.join("certificate.pem"), pem.as_bytes()).unwrap();
        }
    }

    #[test]
    fn half_of_a_pair_is_never_shown_and_is_no_alarm_for_as_long_as_it_takes_to_write_the_other_half() {
        let (place, mut own) = Place::new();
        let before = place.shown();
        let (der, key) = leaf(&place.keys, NODE, None);
        place.put(None, Some(&key));
        assert_eq!(place.look(&mut own, 10), None);
        assert_eq!(place.look(&mut own, 11), None);
        assert_eq!(place.shown(), before);
        place.put(Some(&der), None);
        assert_eq!(place.look(&mut own, 12), None);
        assert_eq!(place.shown(), der);

        // One that stays so is told, goes on to show the old pair, and goes when it is put right.
        let (other, other_key) = leaf(&place.keys, NODE, None);
        place.put(Some(&other), None);
        assert_eq!(place.look(&mut own, 20), None);
        let told = place.look(&mut own, 20 + CERTIFICATE_PATIENCE_SECONDS).unwrap();
        assert!(told.contains("belong together") && told.contains("certificate.pem"), "{told}");
        assert_eq!(place.shown(), der);
        place.put(None, Some(&other_key));
        assert_eq!(place.look(&mut own, 30), None);
        assert_eq!(place.shown(), other);
    }

    #[test]
    fn what_peers_would_refuse_is_not_taken() {
        let (place, mut own) = Place::new();
        let before = place.shown();
        let stranger = AnchorKeys::create(&kaz(), SystemClock.now()).unwrap();
        let past = Timestamp::from_micros(SystemClock.now().as_micros() - 60_000_000);
        for (at, (der, key), words) in [
            (100, leaf(&place.keys, "spiffe://kaz.concord/node/two", None), "is of spiffe://kaz.concord/node/two"),
            (200, leaf(&place.keys, NODE, Some(past)), "expired"),
            (300, leaf(&stranger, NODE, None), "no anchor known here"),
            (
                400,
                leaf(&place.keys, "spiffe://kaz.concord/agency/main", None),
                "is of spiffe://kaz.concord/agency/main",
            ),
        ] {
            place.put(Some(&der), Some(&key));
            place.look(&mut own, at);
            let told = place.look(&mut own, at + CERTIFICATE_PATIENCE_SECONDS).unwrap();
            assert!(told.contains(words), "{told}");
            assert_eq!(place.shown(), before, "{words}");
        }
        std::fs::write(place.folder.path().join("certificate.pem"), "no certificate").unwrap();
        let told = place.look(&mut own, 500).unwrap();
        assert!(told.contains("no certificate") && told.contains("certificate.pem"), "{told}");
        std::fs::remove_file(place.folder.path().join("certificate.pem")).unwrap();
        assert!(place.look(&mut own, 510).unwrap().contains("cannot read"));
        assert_eq!(place.shown(), before);
        let (der, key) = leaf(&place.keys, NODE, None);
        place.put(Some(&der), Some(&key));
        assert_eq!(place.look(&mut own, 520), None);
        assert_eq!(place.shown(), der);
    }

    #[test]
    fn an_anchor_is_added_beside_the_old_one_and_only_taking_one_away_ends_what_is_open() {
        let (place, mut own) = Place::new();
        let new = AnchorKeys::create(&kaz(), SystemClock.now()).unwrap();
        let write = |text: String| write_public(&place.folder.path().join("anchor.pem"), text.as_bytes()).unwrap();
        let look = |own: &mut OwnCertificates, seconds| own.look(place.begun + Duration::from_secs(seconds), false);
        write(place.keys.anchor().to_pem() + &new.anchor().to_pem());
        assert!(!look(&mut own, 1));
        assert_eq!(place.trusted.get(&kaz()), [place.keys.anchor().clone(), new.anchor().clone()]);
        // Not the new one alone while the leaf is of the old one.
        write(new.anchor().to_pem());
        assert!(!look(&mut own, 2));
        assert_eq!(place.trusted.get(&kaz()).len(), 2);
        let (der, key) = leaf(&new, NODE, None);
        place.put(Some(&der), Some(&key));
        assert!(look(&mut own, 3));
        assert_eq!(place.trusted.get(&kaz()), [new.anchor().clone()]);
        assert_eq!(place.shown(), der);
        assert!(!look(&mut own, 4));
    }

    #[test]
    fn one_that_has_ended_and_is_shown_already_is_told_of_elsewhere() {
        let (place, own) = Place::new();
        let soon = Timestamp::from_micros(SystemClock.now().as_micros() - 1_000_000);
        let (der, key) = leaf(&place.keys, NODE, Some(soon));
        place.put(Some(&der), Some(&key));
        let (files, clock) = (own.files, Arc::new(SystemClock));
        let credentials = Credentials::load(&files.certificate, &files.key).unwrap();
        let (trusted, readiness) = (place.trusted.clone(), place.readiness.clone());
        let mut own = OwnCertificates::open(files, credentials, trusted, Certificates::new(), readiness, clock);
        own.look(place.begun + Duration::from_secs(10), true);
        assert_eq!(place.look(&mut own, 20), None);
    }
}
