//! How long the certificates last that a server knows: its own, those of its participant's people and agencies, and those of its peers as they
//! were last seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_identity::{Caller, rfc3339};
use concord_model::{Identity, ParticipantCode, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1 as pb;

use crate::alarms::CERTIFICATE_ENDS_NOTE;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::holders::Holders;
use crate::readiness::Readiness;
use crate::tasks::blocking;

/// From so many days before its end on a certificate is told of, and again at each further step.
pub const CERTIFICATE_STEPS_DAYS: [u32; 4] = [60, 30, 14, 7];
/// How often it is looked whether a step has come.
pub const EXPIRY_CHECK_MILLISECONDS: u64 = 1000;
/// How often it is looked who has which certificate of the server's participant: profiles and registers are read whole.
const ISSUED_CHECK_SECONDS: u64 = 60;
/// Of so many people and agencies it is told, of those whose certificates end first.
const ISSUED_TOLD_MAX: usize = 1000;

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
    /// Of one of the server's own people, or an agency.
    Issued,
}

impl What {
    /// The server's own, without which it serves nobody.
    const fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnAnchor)
    }
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

    /// The people and agencies of the server's participant, each with the end of the certificate that it goes by, in the place of those before:
    /// who was removed is told of no more.
    fn issued(&self, mut all: Vec<(Identity, Timestamp)>) {
        all.sort_by_key(|(_, not_after)| *not_after);
        all.truncate(ISSUED_TOLD_MAX);
        let name = |holder: &Identity| format!("{}/{}", holder.role, holder.name);
        let names: BTreeSet<String> = all.iter().map(|(holder, _)| name(holder)).collect();
        self.known().retain(|known_as, known| {
            let stays = known.what != What::Issued || names.contains(known_as);
            if !stays {
                // A gauge cannot be taken back; no number is before no time.
                metrics::gauge!("concord_certificate_expires_timestamp_seconds", "certificate" => known_as.clone())
                    .set(f64::NAN);
            }
            stays
        });
        for (holder, not_after) in all {
            let known = Known { holder: holder.to_string(), not_after, what: What::Issued };
            self.set(name(&holder), known);
        }
    }

    /// Looks again and again who has which certificate, until its task is dropped. Of whom `is_ended` says so is not admitted any more.
    pub async fn keep_issued(self, holders: Holders, is_ended: impl Fn(&Identity) -> bool + Send) {
        let mut told = String::new();
        loop {
            let looking = holders.clone();
            match blocking(move || looking.ends()).await {
                Ok(Ok(mut all)) => {
                    all.retain(|(holder, _)| !is_ended(holder));
                    self.issued(all);
                    told.clear();
                }
                Ok(Err(error)) => {
                    let why = error.to_string();
                    if why != told {
                        tracing::warn!(%error, "who has which certificate cannot be read: of those that are soon to end nobody is told meanwhile");
                        told = why;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "it is looked no more who has which certificate");
                    return;
                }
            }
            tokio::time::sleep(Duration::from_secs(ISSUED_CHECK_SECONDS)).await;
        }
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
        // What this server serves with comes first: many others must not hide it.
        near.sort_by_key(|(step, known)| (!known.what.is_own(), *step, known.not_after));
        let told: Vec<_> = near.iter().take(TOLD_MAX).map(|(step, known)| known.in_words(*step)).collect();
        let more = near.len() - told.len();
        let more = if more == 0 { String::new() } else { format!(". And {more} more, which `concord status` has") };
        let words = told.join(". ") + &more;
        if near.is_empty() {
            readiness.clear(CERTIFICATE_ENDS_NOTE);
        } else if near.iter().any(|(step, known)| step.is_last() && known.what.is_own()) {
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
            What::Issued => format!("the certificate of {holder}"),
        };
        let when = match step {
            Step::Ended => format!("ended {at}"),
            Step::Days(days) => format!("ends within {days} days, {at}"),
        };
        let what_to_do = match self.what {
            What::Own => {
                "`concord node renew`, or `hub renew`, makes it anew, and it is shown without a restart; so is one put into tls/ with its key"
                    .to_owned()
            }
            What::OwnAnchor => {
                "`concord anchor next` brings the next one, certificates are made anew under it (`node renew --all`, or `hub renew --all`), and \
                 `anchor end` ends this one"
                    .to_owned()
            }
            What::Peers => "tell those who run it, only they can renew it".to_owned(),
            What::Issued => of_issued(&self.holder),
        };
        format!("{whose} {when}: {what_to_do}")
    }
}

/// What is done about a certificate of one of the server's people, or of an agency.
fn of_issued(holder: &str) -> String {
    let Ok(Identity { role, name, .. }) = holder.parse::<Identity>() else { return "renew it".to_owned() };
    format!(
        "`concord {role} renew {name}` makes it anew, and whoever has the profile elsewhere puts it there; `{role} remove {name}` ends it"
    )
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
    fn an_agencys_certificate_is_told_of_with_the_command_that_renews_it_until_that_is_done_and_never_stops_the_service()
     {
        let (certificates, readiness) = (Certificates::new(), Readiness::new());
        let customs: Identity = "spiffe://kaz.concord/agency/customs".parse().unwrap();
        certificates.issued(vec![(customs.clone(), at(0, 0))]);
        assert_eq!(told(&certificates, &readiness, at(61, 0)), None);
        for days in [60, 30, 14, 7] {
            let (words, stops) = told(&certificates, &readiness, at(days, 0)).unwrap();
            assert!(words.contains(&format!("within {days} days")) && !stops, "{words}");
            assert!(words.contains("`concord agency renew customs`"), "{words}");
        }
        let (words, stops) = told(&certificates, &readiness, at(-400, 0)).unwrap();
        assert!(words.contains("ended ") && !stops, "{words}");
        // Many of them do not hide what the server itself serves with.
        let many = (0..20).map(|number| (format!("spiffe://kaz.concord/agency/a{number}").parse().unwrap(), at(1, 0)));
        certificates.issued(many.chain([(customs.clone(), at(0, 0))]).collect());
        certificates.own(&"spiffe://kaz.concord/node/main".parse().unwrap(), at(0, 0));
        let (words, stops) = told(&certificates, &readiness, at(7, 0)).unwrap();
        assert!(words.contains("this server's own certificate") && words.contains("more") && stops, "{words}");
        certificates.own(&"spiffe://kaz.concord/node/main".parse().unwrap(), at(-365, 0));
        certificates.issued(vec![(customs, at(-365, 0))]);
        assert_eq!(told(&certificates, &readiness, at(0, 1)), None, "renewed");
        assert_eq!(certificates.list().len(), 2, "who is not there any more is not listed");
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
        assert!(words.contains("`concord anchor next`"), "{words}");
        assert!(words.contains("own anchor, of KAZ") && words.contains("spiffe://uzb") && stops, "{words}");
    }
}
