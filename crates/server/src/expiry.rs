//! How long the certificates last that a server knows: its own, and those of its peers as they were last seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_identity::{Caller, rfc3339};
use concord_model::{Identity, ParticipantCode, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1 as pb;

use crate::alarms::CERTIFICATE_ENDS_NOTE;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::readiness::Readiness;

/// From so many days before its end on a certificate is told of, and again at each further step.
pub const CERTIFICATE_STEPS_DAYS: [u32; 4] = [60, 30, 14, 7];
/// How often it is looked whether a step has come.
pub const EXPIRY_CHECK_MILLISECONDS: u64 = 1000;

const OWN: &str = "own";
const OWN_ANCHOR: &str = "own-anchor";
const TOLD_MAX: usize = 8;
const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// The certificates that a server knows, by a name that stays when they are renewed. Clones share them.
#[derive(Clone, Default)]
pub struct Certificates(Arc<Mutex<BTreeMap<String, Known>>>);

#[derive(Clone)]
struct Known {
    /// Whose it is.
    holder: String,
    not_after: Timestamp,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Own,
    OwnAnchor,
    Peers,
}

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Ended,
    Days(u32),
}

impl Step {
    fn of(not_after: Timestamp, now: Timestamp) -> Option<Self> {
        let left = not_after.as_micros().saturating_sub(now.as_micros());
        if left < 0 {
            return Some(Self::Ended);
        }
        let reached = |days: &u32| left <= i64::from(*days) * MICROS_PER_DAY;
        CERTIFICATE_STEPS_DAYS.into_iter().filter(reached).min().map(Self::Days)
    }

    const fn is_last(self) -> bool {
        match self {
            Self::Ended => true,
            Self::Days(days) => days <= CERTIFICATE_STEPS_DAYS[CERTIFICATE_STEPS_DAYS.len() - 1],
        }
    }
}

impl Certificates {
    /// Knows none yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn own(&self, identity: &Identity, not_after: Timestamp) {
        self.set(OWN.to_owned(), Known { holder: identity.to_string(), not_after, what: What::Own });
    }

    pub(crate) fn own_anchor(&self, participant: &ParticipantCode, not_after: Timestamp) {
        self.set(OWN_ANCHOR.to_owned(), Known { holder: participant.to_string(), not_after, what: What::OwnAnchor });
    }

    /// A peer showed this one.
    pub fn saw(&self, peer: &Caller) {
        self.peer(&peer.identity, peer.not_after);
    }

    fn peer(&self, identity: &Identity, not_after: Timestamp) {
        let known = Known { holder: identity.to_string(), not_after, what: What::Peers };
        self.set(format!("{}/{}", identity.participant, identity.role), known);
    }

    /// For status: all of them.
    pub fn list(&self) -> Vec<pb::CertificateStatus> {
        let told = |(name, known): (&String, &Known)| pb::CertificateStatus {
            name: name.clone(),
            holder: known.holder.clone(),
            not_after: Some(timestamp(known.not_after)),
        };
        self.known().iter().map(told).collect()
    }

    /// When this server's own one ends.
    pub fn own_not_after(&self) -> Option<Timestamp> {
        self.known().get(OWN).map(|known| known.not_after)
    }

    /// Tells of each step that comes, until its task is dropped. Of who is connected the peers are known by `is_peer`: one of each
    /// participant and role, so that nobody fills status and metrics with names that it gives itself.
    pub async fn watch(
        self,
        connections: Connections,
        is_peer: impl Fn(&Identity) -> bool + Send,
        readiness: Readiness,
        clock: Arc<dyn Clock>,
    ) {
        loop {
            // The newest connection last: it has the newest certificate.
            for one in connections.list().into_iter().filter(|one| is_peer(&one.identity)) {
                self.peer(&one.identity, one.not_after);
            }
            self.tell(&readiness, clock.shown());
            tokio::time::sleep(Duration::from_millis(EXPIRY_CHECK_MILLISECONDS)).await;
        }
    }

    fn set(&self, name: String, known: Known) {
        let seconds = known.not_after.as_micros() as f64 / 1e6;
        metrics::gauge!("concord_certificate_expires_timestamp_seconds", "certificate" => name.clone()).set(seconds);
        self.known().insert(name, known);
    }

    /// Where the words change a step has come: that is logged, and nothing between.
    ///
    /// An alarm only for its own: no other party's certificate makes this server not ready.
    fn tell(&self, readiness: &Readiness, now: Timestamp) {
        let known: Vec<Known> = self.known().values().cloned().collect();
        let mut near: Vec<_> =
            known.iter().filter_map(|known| Some((Step::of(known.not_after, now)?, known))).collect();
        near.sort_by_key(|(step, known)| (*step, known.not_after));
        let told: Vec<_> = near.iter().take(TOLD_MAX).map(|(step, known)| known.in_words(*step)).collect();
        let more = near.len() - told.len();
        let more = if more == 0 { String::new() } else { format!(". And {more} more, which `concord status` has") };
        let words = told.join(". ") + &more;
        if near.is_empty() {
            readiness.clear(CERTIFICATE_ENDS_NOTE);
        } else if near.iter().any(|(step, known)| step.is_last() && known.what != What::Peers) {
            readiness.raise(CERTIFICATE_ENDS_NOTE, words);
        } else {
            readiness.note(CERTIFICATE_ENDS_NOTE, words);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn in_words(&self, step: Step) -> String {
        let (holder, at) = (&self.holder, rfc3339(self.not_after));
        let whose = match self.what {
            What::Own => format!("this server's own certificate, of {holder},"),
            What::OwnAnchor => format!("this server's own anchor, of {holder},"),
            What::Peers => format!("the certificate of {holder}, as last seen,"),
        };
        let when = match step {
            Step::Ended => format!("ended {at}"),
            Step::Days(days) => format!("ends within {days} days, {at}"),
        };
        let what_to_do = match self.what {
            What::Own => {
                "`concord node renew`, or `hub renew`, makes it anew, and it is shown without a restart; so is one put into tls/ with its key"
            }
            What::OwnAnchor => "make a new anchor and roll over to it",
            What::Peers => "tell those who run it, only they can renew it",
        };
        format!("{whose} {when}: {what_to_do}")
    }
}

#[cfg(test)]
mod tests {
    use concord_model::{Digest, Fingerprint};

    use super::*;

    const END: i64 = 20_000 * MICROS_PER_DAY;

    fn at(days_left: i64, seconds: i64) -> Timestamp {
        Timestamp::from_micros(END - days_left * MICROS_PER_DAY + seconds * 1_000_000)
    }

    /// The words, and whether they stop the service.
    fn told(certificates: &Certificates, readiness: &Readiness, now: Timestamp) -> Option<(String, bool)> {
        certificates.tell(readiness, now);
        readiness.list().into_iter().next().map(|alarm| (alarm.message, alarm.stops))
    }

    #[test]
    fn each_step_is_told_once_from_its_first_moment_and_its_own_last_one_is_an_alarm() {
        let (certificates, readiness) = (Certificates::new(), Readiness::new());
        certificates.own(&"spiffe://kaz.concord/node/main".parse().unwrap(), at(0, 0));
        assert_eq!(told(&certificates, &readiness, at(60, -1)), None);
        let mut before = String::new();
        for (days, stops) in [(60, false), (30, false), (14, false), (7, true)] {
            let (words, is_stopping) = told(&certificates, &readiness, at(days, 0)).unwrap();
            assert!(words.contains(&format!("within {days} days")), "{words}");
            assert_eq!(is_stopping, stops, "{words}");
            assert_ne!(words, before);
            // The same words until the next step: nothing is logged between.
            assert_eq!(told(&certificates, &readiness, at(days, 86_400)), Some((words.clone(), stops)));
            before = words;
        }
        assert!(told(&certificates, &readiness, at(0, 0)).unwrap().0.contains("within 7 days"), "its last moment");
        let (words, stops) = told(&certificates, &readiness, at(0, 1)).unwrap();
        assert!(words.contains("ended ") && stops, "{words}");
        certificates.own(&"spiffe://kaz.concord/node/main".parse().unwrap(), at(-365, 0));
        assert_eq!(told(&certificates, &readiness, at(0, 1)), None);
    }

    #[test]
    fn a_peers_certificate_never_makes_this_server_not_ready() {
        let (certificates, readiness) = (Certificates::new(), Readiness::new());
        certificates.saw(&Caller {
            identity: "spiffe://uzb.concord/node/main".parse().unwrap(),
            certificate_fingerprint: Fingerprint(Digest([0; 32])),
            not_after: at(0, 0),
        });
        let (words, stops) = told(&certificates, &readiness, at(-1, 0)).unwrap();
        assert!(words.contains("spiffe://uzb.concord/node/main") && words.contains("ended ") && !stops, "{words}");
        certificates.own_anchor(&ParticipantCode::parse("KAZ").unwrap(), at(0, 0));
        let (words, stops) = told(&certificates, &readiness, at(7, 0)).unwrap();
        assert!(words.contains("own anchor, of KAZ") && words.contains("spiffe://uzb") && stops, "{words}");
    }
}
