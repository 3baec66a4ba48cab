//! Who is connected, since when; and ending what a participant has open, at once and for certain.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_identity::{Caller, ChainNumbers, Unfit};
use concord_model::{Identity, ParticipantCode, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock as _, SystemClock};

/// Connections past their handshake, of all callers. One more is closed at once; the peer sees an ended connection and
/// its calls fail with UNAVAILABLE.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections of one caller: a node needs four, a program of an agency a few. One more is closed at once, as above, so
/// that nobody can use up what is there for all.
pub const CONNECTIONS_PER_CALLER_MAX: usize = 32;
/// Connections of all callers of one participant, which gives itself as many names as it likes. One more is closed at once,
/// as above. The participant that runs the server has no such limit: all agencies of a node are its own.
pub const CONNECTIONS_PER_PARTICIPANT_MAX: usize = 64;

/// Why a caller that is who it says got no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionsFull {
    /// All together have too many.
    #[error("{CONNECTIONS_MAX} connections are open, the most that this server serves")]
    OfAll,
    /// This one has too many.
    #[error(
        "{identity} has {CONNECTIONS_PER_CALLER_MAX} connections open, the most for one caller; does it forget to close them?"
    )]
    OfCaller {
        /// Who.
        identity: Identity,
    },
    /// All of this participant together have too many.
    #[error(
        "the callers of {participant} have {CONNECTIONS_PER_PARTICIPANT_MAX} connections open, the most for one participant; do they forget to close them?"
    )]
    OfParticipant {
        /// Whose.
        participant: ParticipantCode,
    },
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedCaller {
    /// Who it is.
    pub identity: Identity,
    /// From where.
    pub peer: SocketAddr,
    /// Since when.
    pub since: Timestamp,
    /// When the certificate ends that it showed.
    pub not_after: Timestamp,
}

/// The register of open connections. Clones share it.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    /// Shows how many there are.
    gauge: &'static str,
    open: Mutex<Open>,
    /// Told of every end.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Open {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Open {
    fn count_where(&self, which: impl Fn(&Identity) -> bool) -> usize {
        self.entries.values().filter(|entry| which(&entry.caller.identity)).count()
    }
}

struct Entry {
    caller: ConnectedCaller,
    /// What a revocation list would name its certificates by.
    chain: ChainNumbers,
    closing: CancellationToken,
}

impl Entry {
    /// In the log, once; and whether this was the time.
    fn tell_closed(&self, reason: &'static str) -> bool {
        let is_first = !self.closing.is_cancelled();
        if is_first {
            let (identity, peer) = (&self.caller.identity, self.caller.peer);
            tracing::warn!(%identity, %peer, reason, "a connection is closed");
        }
        is_first
    }
}

impl Connections {
    /// Nobody is connected.
    pub fn new() -> Self {
        Self::shown_as("concord_connections")
    }

    /// The same, counted under a name of its own: two registers that set one gauge would each hide the other.
    pub(crate) fn shown_as(gauge: &'static str) -> Self {
        let ended = watch::Sender::new(());
        Self(Arc::new(Inner { gauge, open: Mutex::default(), ended }))
    }

    /// Everybody who is connected, the oldest connection first.
    pub fn list(&self) -> Vec<ConnectedCaller> {
        self.open().entries.values().map(|entry| entry.caller.clone()).collect()
    }

    /// Closes what a participant has open. When this returns no byte will be read or written any more by what was open
    /// at the call; the returned future ends when its sockets are closed, too.
    ///
    /// It keeps nobody out: whatever refuses the participant from now on must be in force before this is called.
    pub fn close(&self, participant: &ParticipantCode) -> impl Future<Output = ()> + Send + use<> {
        self.close_where(&|entry| entry.caller.identity.participant == *participant)
    }

    /// Closes what rests on a certificate that lists let count no more, in the same way.
    pub fn close_unfit(
        &self,
        unfit: &dyn Fn(&ChainNumbers) -> Option<Unfit>,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.close_where(&|entry| {
            let Some(unfit) = unfit(&entry.chain).filter(|_| !concord_faults::planted("keep-what-is-connected")) else {
                return false;
            };
            let why = match unfit {
                Unfit::Revoked => "its certificate is on a revocation list",
                Unfit::Lapsed => "the newest revocation list of its issuer has lapsed",
            };
            if entry.tell_closed(why) {
                metrics::counter!("concord_connections_revoked_total").increment(1);
            }
            true
        })
    }

    /// Closes what rests on a certificate that has ended by then, in the same way. Each connection ends by itself with its certificate,
    /// by the time that passed since its handshake; the machine may have slept meanwhile.
    pub fn close_ended(&self, now: Timestamp) -> impl Future<Output = ()> + Send + use<> {
        self.close_where(&|entry| {
            let has_ended = entry.caller.not_after < now;
            if has_ended && entry.tell_closed("its certificate has ended") {
                metrics::counter!("concord_connections_expired_total").increment(1);
            }
            has_ended
        })
    }

    /// Closes everything that is open, in the same way.
    pub fn close_all(&self) -> impl Future<Output = ()> + Send + use<> {
        self.close_where(&|_| true)
    }

    fn close_where(&self, which: &dyn Fn(&Entry) -> bool) -> impl Future<Output = ()> + Send + use<> {
        // Subscribed before looking, so that no end falls between.
        let mut ended = self.0.ended.subscribe();
        let closed: Vec<u64> = self
            .open()
            .entries
            .iter()
            .filter(|(_, entry)| which(entry))
            .map(|(id, entry)| {
                entry.closing.cancel();
                *id
            })
            .collect();
        let connections = self.clone();
        async move {
            let some_open = || closed.iter().any(|id| connections.open().entries.contains_key(id));
            while some_open() {
                if ended.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// A place for the caller, if there is one. `own` is who runs the server.
    pub(crate) fn register(
        &self,
        caller: &Caller,
        chain: ChainNumbers,
        peer: SocketAddr,
        own: &ParticipantCode,
    ) -> Result<Registration, ConnectionsFull> {
        let mut open = self.open();
        if open.entries.len() >= CONNECTIONS_MAX {
            return Err(ConnectionsFull::OfAll);
        }
        let identity = &caller.identity;
        if open.count_where(|other| other == identity) >= CONNECTIONS_PER_CALLER_MAX {
            return Err(ConnectionsFull::OfCaller { identity: identity.clone() });
        }
        let participant = &identity.participant;
        if participant != own
            && open.count_where(|other| other.participant == *participant) >= CONNECTIONS_PER_PARTICIPANT_MAX
        {
            return Err(ConnectionsFull::OfParticipant { participant: participant.clone() });
        }
        let id = open.next;
        open.next += 1;
        let closing = CancellationToken::new();
        let not_after = caller.not_after;
        let caller = ConnectedCaller { identity: identity.clone(), peer, since: SystemClock.now(), not_after };
        open.entries.insert(id, Entry { caller, chain, closing: closing.clone() });
        self.count(&open);
        Ok(Registration { id, closing, connections: self.clone() })
    }

    fn count(&self, open: &Open) {
        metrics::gauge!(self.0.gauge).set(open.entries.len() as f64);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// A connection's place in the register: it stands there until this is dropped.
pub(crate) struct Registration {
    id: u64,
    closing: CancellationToken,
    connections: Connections,
}

impl Registration {
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.entries.remove(&self.id);
        self.connections.count(&open);
        drop(open);
        self.connections.0.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use concord_model::{Digest, Fingerprint};

    use super::*;

    fn caller(identity: &str) -> Caller {
        Caller {
            identity: identity.parse().unwrap(),
            certificate_fingerprint: Fingerprint(Digest([0; 32])),
            not_after: Timestamp::from_micros(i64::MAX),
        }
    }

    fn register(
        connections: &Connections,
        caller: &Caller,
        own: &ParticipantCode,
    ) -> Result<Registration, ConnectionsFull> {
        let chain = ChainNumbers::of(&caller.identity.participant, []);
        connections.register(caller, chain, "127.0.0.1:1".parse().unwrap(), own)
    }

    fn kaz() -> ParticipantCode {
        ParticipantCode::parse("KAZ").unwrap()
    }

    #[test]
    fn one_participant_cannot_take_the_places_of_others_by_many_names() {
        let connections = Connections::new();
        let own = ParticipantCode::secretariat();
        let node = |code: &str, number: usize| {
            register(&connections, &caller(&format!("spiffe://{code}.concord/node/n{number}")), &own)
        };
        let mut kept: Vec<_> =
            (0..CONNECTIONS_PER_PARTICIPANT_MAX).map(|number| node("kaz", number).unwrap()).collect();
        let refused = node("kaz", 9_999).err();
        assert_eq!(refused, Some(ConnectionsFull::OfParticipant { participant: kaz() }));
        kept.push(node("uzb", 0).unwrap());
        kept.extend((0..=CONNECTIONS_PER_PARTICIPANT_MAX).map(|number| node("sec", number).unwrap()));
        kept.remove(0);
        assert!(node("kaz", 9_999).is_ok());
    }

    #[test]
    fn one_caller_cannot_take_the_places_of_others_and_all_together_have_a_limit() {
        let connections = Connections::new();
        let mut kept = Vec::new();
        let callers = CONNECTIONS_MAX / CONNECTIONS_PER_CALLER_MAX;
        for number in 0..callers {
            let caller = caller(&format!("spiffe://kaz.concord/agency/a{number}"));
            for _ in 0..CONNECTIONS_PER_CALLER_MAX {
                kept.push(register(&connections, &caller, &kaz()).unwrap());
            }
            let refused = register(&connections, &caller, &kaz()).err();
            let full = number + 1 == callers;
            let identity = caller.identity.clone();
            let expected = if full { ConnectionsFull::OfAll } else { ConnectionsFull::OfCaller { identity } };
            assert_eq!(refused, Some(expected));
        }
        kept.pop();
        assert!(register(&connections, &caller("spiffe://kaz.concord/agency/late"), &kaz()).is_ok());
    }

    #[test]
    fn what_rests_on_a_certificate_that_has_ended_is_closed_and_nothing_else_is() {
        let connections = Connections::new();
        let until =
            |micros| Caller { not_after: Timestamp::from_micros(micros), ..caller("spiffe://kaz.concord/node/main") };
        let [old, new] = [7, 9].map(|micros| register(&connections, &until(micros), &kaz()).unwrap());
        drop(connections.close_ended(Timestamp::from_micros(7)));
        assert!(!old.closing().is_cancelled(), "its last moment is within");
        drop(connections.close_ended(Timestamp::from_micros(8)));
        assert!(old.closing().is_cancelled() && !new.closing().is_cancelled());
    }

    #[tokio::test]
    async fn a_close_ends_when_the_last_connection_of_that_participant_is_gone() {
        let connections = Connections::new();
        let kaz_main = register(&connections, &caller("spiffe://kaz.concord/node/main"), &kaz()).unwrap();
        let uzb_main = register(&connections, &caller("spiffe://uzb.concord/node/main"), &kaz()).unwrap();

        let closed = connections.close(&kaz());
        assert!(kaz_main.closing().is_cancelled(), "it is closed before the future is polled");
        assert!(!uzb_main.closing().is_cancelled());
        let mut closed = std::pin::pin!(closed);
        assert!(futures::poll!(closed.as_mut()).is_pending());
        drop(kaz_main);
        closed.await;
        assert_eq!(connections.list().len(), 1);
    }
}
