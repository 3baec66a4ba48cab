//! The accept loop: TLS handshakes beside each other, within limits, none of which a stranger can use up.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use concord_identity::{Caller, CertificateRefusal, ChainNumbers, HandshakeRefusal};
use concord_model::ParticipantCode;
use futures::Stream;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;

use crate::audit::{Actor, Audit, Event, Object};
use crate::connection::Connection;
use crate::connections::{Connections, ConnectionsFull};
use crate::sockets::{Listener, Socket};
use crate::throttle::Throttle;

/// From the accepted socket to the end of its TLS handshake. A slower peer's connection is closed.
pub const HANDSHAKE_TIMEOUT_SECONDS: u64 = 10;
/// Handshakes under way. With one more, the oldest of the address that has most under way gives way and is closed: an
/// honest one needs milliseconds, so it is the idle ones that go.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 256;
/// Connections past their handshake that the server has not taken over yet. Further ones wait for what is left of their
/// handshake's time and are then closed.
pub const ACCEPTED_WAITING_MAX: usize = 64;
/// Lines about refused handshakes in the log. The next line says how many were left out.
pub const REFUSALS_LOGGED_PER_SECOND_MAX: u32 = 5;

const ACCEPT_BACKOFF_MILLISECONDS: u64 = 100;

static REFUSALS: Throttle = Throttle::new(REFUSALS_LOGGED_PER_SECOND_MAX);

/// Verified connections. The listener is closed when this is dropped.
pub struct Incoming<S>(mpsc::Receiver<Connection<S>>);

impl<S> Stream for Incoming<S> {
    type Item = io::Result<Connection<S>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

/// Accepts connections and lets through whom `tls` verifies. Every one is in `connections` while it is open. `own` is who
/// runs the server.
pub fn accept<L: Listener>(
    listener: L,
    tls: Arc<ServerConfig>,
    connections: Connections,
    own: ParticipantCode,
    door: Door,
) -> Incoming<L::Socket> {
    let (verified, incoming) = mpsc::channel(ACCEPTED_WAITING_MAX);
    let gate = Arc::new(Gate { tls: TlsAcceptor::from(tls), connections, own, verified, door });
    tokio::spawn(gate.watch(listener));
    Incoming(incoming)
}

/// Where connections come in, by name, and who notes those that are refused.
#[derive(Clone)]
pub struct Door {
    /// Notes them.
    pub audit: Audit,
    /// `grpc` or `admin`.
    pub name: &'static str,
}

struct Gate<S> {
    door: Door,
    tls: TlsAcceptor,
    connections: Connections,
    own: ParticipantCode,
    verified: mpsc::Sender<Connection<S>>,
}

impl<S: Socket> Gate<S> {
    async fn watch(self: Arc<Self>, listener: impl Listener<Socket = S>) {
        let mut handshakes = Handshakes::default();
        loop {
            let (stream, peer) = tokio::select! {
                () = self.verified.closed() => return,
                accepted = accept_one(&listener) => accepted,
            };
            handshakes.begin(peer.ip(), Arc::clone(&self).admit(stream, peer));
        }
    }

    async fn admit(self: Arc<Self>, stream: S, peer: SocketAddr) {
        let until = tokio::time::Instant::now() + Duration::from_secs(HANDSHAKE_TIMEOUT_SECONDS);
        let admitted = match timeout_at(until, self.handshake(stream, peer)).await {
            Ok(Ok(connection)) => {
                timeout_at(until, self.hand_over(connection)).await.map_err(|_| Refused::NotTakenOver)
            }
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Refused::TooSlow),
        };
        if let Err(refused) = admitted {
            refused.report(peer);
            refused.note(&self.door, peer);
        }
    }

    async fn handshake(&self, stream: S, peer: SocketAddr) -> Result<Connection<S>, Refused> {
        let stream = self.tls.accept(stream).await.map_err(|error| HandshakeRefusal::from_io(&error))?;
        let (_, tls) = stream.get_ref();
        let chain = tls.peer_certificates().unwrap_or_default();
        let leaf = chain.first().ok_or(HandshakeRefusal::NoCertificate)?;
        let caller = Caller::from_verified_certificate(leaf).map_err(HandshakeRefusal::Certificate)?;
        let numbers = ChainNumbers::of(&caller.identity.participant, chain);
        let registration = self.connections.register(&caller, numbers, peer, &self.own)?;
        Ok(Connection::new(stream, caller, registration))
    }

    async fn hand_over(&self, connection: Connection<S>) {
        // A failed send means that the server is ending: the connection is dropped and so closed.
        drop(self.verified.send(connection).await);
    }
}

/// The next connection. An error of the machine, such as no more file descriptors, is waited out and never ends the loop.
pub(crate) async fn accept_one<L: Listener>(listener: &L) -> (L::Socket, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_peer(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted")
            }
            Err(error) => {
                metrics::counter!("concord_accept_errors_total").increment(1);
                if let Some(left_out) = REFUSALS.admit(Instant::now()) {
                    tracing::error!(%error, left_out, "connections cannot be accepted now; trying again");
                }
                tokio::time::sleep(Duration::from_millis(ACCEPT_BACKOFF_MILLISECONDS)).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake did not end within {HANDSHAKE_TIMEOUT_SECONDS} s")]
    TooSlow,
    #[error("{ACCEPTED_WAITING_MAX} connections before it waited for this server to take them over, for too long")]
    NotTakenOver,
    #[error(transparent)]
    Handshake(#[from] HandshakeRefusal),
    #[error(transparent)]
    Full(#[from] ConnectionsFull),
}

impl Refused {
    /// For the log of this side only: the peer gets an alert that is the same for all, or a closed connection.
    fn report(&self, peer: SocketAddr) {
        metrics::counter!("concord_handshakes_refused_total", "reason" => self.code()).increment(1);
        if let Some(left_out) = REFUSALS.admit(Instant::now()) {
            tracing::warn!(%peer, reason = %self, left_out, "a connection was refused");
        }
    }

    /// Who it is where the handshake showed it under an anchor that counts; else from where. A peer that went away was not refused.
    fn note(&self, door: &Door, peer: SocketAddr) {
        let by = match self {
            Self::Handshake(HandshakeRefusal::Connection(_)) => return,
            Self::Handshake(HandshakeRefusal::Certificate(CertificateRefusal::NotAdmitted { identity }))
            | Self::Full(ConnectionsFull::OfCaller { identity }) => Actor::Caller(identity.clone()),
            _ => Actor::Address(peer.ip()),
        };
        let (about, refused) = (Object::nothing(), Some(self.code()));
        door.audit.note(Event { listener: door.name, by, method: "handshake", about, refused });
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::TooSlow => "HANDSHAKE_TIMEOUT",
            Self::NotTakenOver => "ACCEPTED_FULL",
            Self::Handshake(HandshakeRefusal::Certificate(CertificateRefusal::NotAdmitted { .. })) => "NOT_ADMITTED",
            Self::Handshake(refusal) => refusal.code(),
            Self::Full(_) => "CONNECTIONS_FULL",
        }
    }
}

/// The handshakes under way, the oldest first. Dropping it ends them.
#[derive(Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    order: VecDeque<(IpAddr, AbortHandle)>,
}

impl Handshakes {
    fn begin(&mut self, address: IpAddr, handshake: impl Future<Output = ()> + Send + 'static) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a handshake ended in a fault of this program");
            }
        }
        self.order.retain(|(_, task)| !task.is_finished());
        if self.order.len() >= HANDSHAKES_AT_ONCE_MAX {
            self.give_way();
        }
        self.order.push_back((network_of(address), self.tasks.spawn(handshake)));
    }

    fn give_way(&mut self) {
        let mut under_way: HashMap<IpAddr, usize> = HashMap::new();
        for (address, _) in &self.order {
            *under_way.entry(*address).or_default() += 1;
        }
        let most = under_way.values().copied().max().unwrap_or_default();
        let oldest = self.order.iter().position(|(address, _)| under_way.get(address) == Some(&most));
        if let Some((_, task)) = oldest.and_then(|index| self.order.remove(index)) {
            task.abort();
            metrics::counter!("concord_handshakes_refused_total", "reason" => "HANDSHAKES_FULL").increment(1);
        }
    }
}

/// Who has one IPv6 address usually has the 2^64 of its network.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(handshakes: &Handshakes, address: IpAddr) -> usize {
        handshakes.order.iter().filter(|(found, _)| *found == address).count()
    }

    #[tokio::test]
    async fn the_address_with_most_handshakes_gives_way_first() {
        let flood: IpAddr = "192.0.2.1".parse().unwrap();
        let honest: IpAddr = "192.0.2.2".parse().unwrap();
        let mut handshakes = Handshakes::default();
        handshakes.begin(honest, std::future::pending());
        for _ in 0..2 * HANDSHAKES_AT_ONCE_MAX {
            handshakes.begin(flood, std::future::pending());
        }
        assert_eq!(under_way(&handshakes, honest), 1);
        assert_eq!(under_way(&handshakes, flood), HANDSHAKES_AT_ONCE_MAX - 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
