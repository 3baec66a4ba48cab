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
pub const CERTIFICATE_PATIENCE_SECONDS: u64 = 3;

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
        let is_less = before.iter().any(|anchor| !anchors.contains(anchor));
        if before != anchors {
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
            "{why}; what was shown before is shown on, and ends {until}. Put a certificate for {} and its key into {} and {}: they are read \
             within a second",
            self.files.identity,
            certificate.display(),
            key.display()
        )
    }
}
