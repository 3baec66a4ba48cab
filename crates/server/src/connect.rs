//! The client's side of a connection: a channel that says why it did not come about.

use std::error::Error as _;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use concord_identity::{
    Caller, CertificateRefusal, HandshakeRefusal, judging_at, own_leaf, rfc3339, server_name, validity,
};
use concord_model::Timestamp;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::AsyncBufReadExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

use crate::clock::{Clock as _, SystemClock};
use crate::clock_offset::ClockOffset;
use crate::dialled::Dialled;
use crate::grpc::{
    CONNECTION_WINDOW_BYTES, FRAME_SIZE_MAX_BYTES, HEADER_LIST_SIZE_MAX_BYTES, KEEPALIVE_INTERVAL_SECONDS,
    KEEPALIVE_TIMEOUT_SECONDS, STREAM_WINDOW_BYTES,
};
use crate::proxy::{PROXY_ANSWER_TIMEOUT_SECONDS, Proxy, ProxyRefusal, tunnel};
use crate::sockets::{Dial, Tcp};

/// From the name to a server that let us in. After it: [`ConnectError::TimedOut`].
pub const CONNECT_TIMEOUT_SECONDS: u64 = 10;

/// One of the addresses behind a name; the next one is tried after it.
const TCP_CONNECT_TIMEOUT_SECONDS: u64 = 4;
const CALLS_WAITING_MAX: usize = 64;
const USER_AGENT: &str = concat!("concord/", env!("CARGO_PKG_VERSION"));

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not `host:port`.
    #[error("'{address}' is not an address; give host:port, such as hub.example.org:7443")]
    AddressMalformed {
        /// What was given.
        address: String,
    },
    /// The name leads nowhere.
    #[error("the name in {address} cannot be resolved: {source}; check the address and this machine's DNS")]
    NotResolved {
        /// Which address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Nobody listens, or a network in between says no.
    #[error("{address} does not take the connection: {source}; is the server running, and is the port right?")]
    NotReached {
        /// Which address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The proxy is no way there.
    #[error("no way to {address} through the proxy {proxy}: {why}")]
    Proxy {
        /// Which address.
        address: String,
        /// `host:port` of the proxy.
        proxy: String,
        /// Why not.
        why: ProxyRefusal,
    },
    /// By this machine's clock a certificate of the other side does not hold, and that clock is wrong, or the other side's.
    #[error(
        "this machine's clock is {offset} that of {address}, so that the certificates do not hold by it: set the clock of this \
         machine (or, if it is right, have the other one set)"
    )]
    ClockWrong {
        /// Which address.
        address: String,
        /// By how much.
        offset: ClockOffset,
    },
    /// The other side refused, and the own certificate does not hold by this machine's clock.
    #[error(
        "{address} refused the connection: this side's own certificate is valid from {} to {}, and this machine's clock shows {}: \
         renew the certificate, or set the clock", rfc3339(*not_before), rfc3339(*not_after), rfc3339(*now)
    )]
    OwnCertificateOver {
        /// Which address.
        address: String,
        /// Its first moment.
        not_before: Timestamp,
        /// Its last moment.
        not_after: Timestamp,
        /// This machine's clock.
        now: Timestamp,
    },
    /// One of the two sides did not accept the other.
    #[error("no secure connection to {address}: {refusal}")]
    TlsRefused {
        /// Which address.
        address: String,
        /// Which side, and why.
        refusal: HandshakeRefusal,
    },
    /// Accepted, then closed.
    #[error("{address} ended the connection at once; it may have all the connections that it serves: try again later")]
    Closed {
        /// Which address.
        address: String,
    },
    /// No answer.
    #[error(
        "{address} did not answer within {CONNECT_TIMEOUT_SECONDS} s; is the address right, and does a firewall let it pass?"
    )]
    TimedOut {
        /// Which address.
        address: String,
    },
    /// Another protocol.
    #[error("{address} does not speak HTTP/2: {why}; is this a Concord server?")]
    Protocol {
        /// Which address.
        address: String,
        /// What the library said.
        why: String,
    },
}

/// Connects to `host:port` and returns when the server has let us in. Each call makes a TCP connection of its own.
///
/// A channel that loses its connection makes a new one at the next call, which fails with UNAVAILABLE if that fails.
pub async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Channel, ConnectError> {
    connect_over(Tcp, address, tls, None).await
}

/// Hears whom each connection led to, and until when its certificate lasts.
pub type Reached = Arc<dyn Fn(&Caller) + Send + Sync>;

/// The same over a given network. Each connection ends with the certificate that the server showed.
pub async fn connect_over(
    dial: impl Dial,
    address: &str,
    tls: Arc<ClientConfig>,
    reached: Option<Reached>,
) -> Result<Channel, ConnectError> {
    connect_through(dial, None, address, tls, reached).await
}

/// The same through a proxy, where there is one. A certificate that does not hold by this machine's clock is looked into: whether the
/// clock is wrong.
pub async fn connect_through(
    dial: impl Dial,
    proxy: Option<Arc<Proxy>>,
    address: &str,
    tls: Arc<ClientConfig>,
    reached: Option<Reached>,
) -> Result<Channel, ConnectError> {
    let target = Target { reached, ..Target::new(dial, proxy, address, tls)? };
    match target.clone().dial_in_time().await {
        Ok(first) => target.channel(first).await,
        Err(ConnectError::TlsRefused { address, refusal }) => Err(target.looked_into(address, refusal).await),
        Err(error) => Err(error),
    }
}

/// How far this machine's clock is from that of the server at `host:port`, whose certificates are judged as of `moment` instead of by
/// this machine's clock; none where it does not let us in or says no time. For what is said to a person, and no decision.
pub async fn clock_offset_at(
    proxy: Option<Arc<Proxy>>,
    address: &str,
    tls: &ClientConfig,
    moment: Timestamp,
) -> Option<ClockOffset> {
    let target = Target::new(Tcp, proxy, address, judging_at(tls, moment)).ok()?;
    let target = Target { judged_at: Some(moment), ..target };
    target.clock_offset().await
}

/// What a server's answer says of its clock, beside this machine's: HTTP's `date`, in whole seconds.
pub fn offset_by_date(date: Option<&[u8]>) -> Option<ClockOffset> {
    let date = httpdate::parse_http_date(std::str::from_utf8(date?).ok()?).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let peer = Timestamp::from_micros(i64::try_from(since.as_micros()).ok()?);
    Some(ClockOffset::between(SystemClock.now(), peer))
}

pub(crate) type Io<D> = TokioIo<Dialled<TlsStream<<D as Dial>::Socket>>>;

/// A server, and the way to it; each step of a connection by itself.
#[derive(Clone)]
pub(crate) struct Target<D> {
    dial: D,
    proxy: Option<Arc<Proxy>>,
    address: Arc<str>,
    tls: Arc<ClientConfig>,
    reached: Option<Reached>,
    /// As of when certificates are judged, where that is not now.
    judged_at: Option<Timestamp>,
}

/// Hands out the connection that was made first, and makes new ones after it.
struct Dialer<D: Dial> {
    target: Target<D>,
    first: Option<Io<D>>,
}

impl<D: Dial> Service<Uri> for Dialer<D> {
    type Response = Io<D>;
    type Error = tonic::ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Io<D>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        if let Some(first) = self.first.take() {
            return Box::pin(ready(Ok(first)));
        }
        let dialed = self.target.clone().dial_in_time();
        // In tonic's own type, which becomes UNAVAILABLE.
        Box::pin(async move { dialed.await.map_err(|error| tonic::ConnectError(Box::new(error))) })
    }
}

impl<D: Dial> Target<D> {
    pub(crate) fn new(
        dial: D,
        proxy: Option<Arc<Proxy>>,
        address: &str,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, ConnectError> {
        let target = Self { dial, proxy, address: address.into(), tls, reached: None, judged_at: None };
        target.origin().map(|_| target)
    }

    fn origin(&self) -> Result<Uri, ConnectError> {
        let malformed = || ConnectError::AddressMalformed { address: self.address() };
        let origin = format!("https://{}", self.address).parse::<Uri>().map_err(|_| malformed())?;
        let is_all = origin.authority().is_some_and(|authority| authority.as_str() == &*self.address);
        if !is_all || origin.port().is_none() || self.address.contains('@') {
            return Err(malformed());
        }
        Ok(origin)
    }

    /// A channel over a connection that stands.
    pub(crate) async fn channel(self, first: Io<D>) -> Result<Channel, ConnectError> {
        let (address, origin) = (self.address(), self.origin()?);
        let protocol = |error: tonic::transport::Error| ConnectError::Protocol {
            address: address.clone(),
            why: error.source().unwrap_or(&error).to_string(),
        };
        let endpoint = Endpoint::from(origin)
            .user_agent(USER_AGENT)
            .map_err(protocol)?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_SIZE_MAX_BYTES)
            .http2_max_header_list_size(HEADER_LIST_SIZE_MAX_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS))
            .keep_alive_timeout(Duration::from_secs(KEEPALIVE_TIMEOUT_SECONDS))
            .keep_alive_while_idle(true)
            .buffer_size(CALLS_WAITING_MAX);
        Channel::connect(Dialer { target: self, first: Some(first) }, endpoint).await.map_err(protocol)
    }

    /// Why TLS was refused, where that may be a matter of the clock.
    async fn looked_into(&self, address: String, refusal: HandshakeRefusal) -> ConnectError {
        let moment = match &refusal {
            HandshakeRefusal::Certificate(CertificateRefusal::Expired { not_after, .. }) => {
                seconds_from(*not_after, -1)
            }
            HandshakeRefusal::Certificate(CertificateRefusal::NotYetValid { not_before, .. }) => {
                seconds_from(*not_before, 1)
            }
            HandshakeRefusal::RefusedByPeer(_) => {
                let own = own_leaf(&self.tls).and_then(|leaf| validity(&leaf).ok());
                let now = SystemClock.now();
                return match own.filter(|(from, to)| now < *from || *to < now) {
                    Some((not_before, not_after)) => {
                        ConnectError::OwnCertificateOver { address, not_before, not_after, now }
                    }
                    None => ConnectError::TlsRefused { address, refusal },
                };
            }
            _ => return ConnectError::TlsRefused { address, refusal },
        };
        let judging = Self { tls: judging_at(&self.tls, moment), judged_at: Some(moment), ..self.clone() };
        match judging.clock_offset().await.filter(|offset| offset.is_wrong()) {
            Some(offset) => ConnectError::ClockWrong { address, offset },
            None => ConnectError::TlsRefused { address, refusal },
        }
    }

    /// Asks the server for anything, and reads its time from the answer.
    async fn clock_offset(&self) -> Option<ClockOffset> {
        let asked = async {
            let first = self.clone().dial_in_time().await.ok()?;
            let channel = self.clone().channel(first).await.ok()?;
            answered_at(channel).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(CONNECT_TIMEOUT_SECONDS), asked).await.ok()??.offset
    }

    async fn dial_in_time(self) -> Result<Io<D>, ConnectError> {
        let time = Duration::from_secs(CONNECT_TIMEOUT_SECONDS);
        match tokio::time::timeout(time, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address: self.address() }),
        }
    }

    async fn dial(&self) -> Result<Io<D>, ConnectError> {
        let addresses = self.resolve().await?;
        let mut socket = self.reach(addresses).await?;
        self.tunnel(&mut socket).await?;
        self.secure(socket).await
    }

    /// TLS over a connection that leads to the server; returns when the server has let us in.
    pub(crate) async fn secure(&self, socket: D::Socket) -> Result<Io<D>, ConnectError> {
        let refused = |refusal| ConnectError::TlsRefused { address: self.address(), refusal };
        let connected = TlsConnector::from(Arc::clone(&self.tls)).connect(server_name(&self.address), socket).await;
        let mut stream = connected.map_err(|error| refused(HandshakeRefusal::from_io(&error)))?;
        // In TLS 1.3 this side is done before the server has judged our certificate. Its first bytes, which it sends unasked,
        // say that it did; and before they came nothing is written, whose loss would hide the server's alert.
        let let_in = stream.fill_buf().await.map(|bytes| !bytes.is_empty());
        match let_in {
            Ok(true) => {
                let key_exchange = key_exchange(&stream);
                tracing::debug!(address = &*self.address, key_exchange, "TLS to a server stands");
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let leaf = leaf.ok_or_else(|| refused(HandshakeRefusal::NoCertificate))?;
                let server = Caller::from_verified_certificate(leaf).map_err(|why| refused(why.into()))?;
                if let Some(reached) = &self.reached {
                    reached(&server);
                }
                Ok(TokioIo::new(Dialled::new(
                    stream,
                    server.not_after,
                    self.judged_at.unwrap_or_else(|| SystemClock.now()),
                )))
            }
            Ok(false) => Err(ConnectError::Closed { address: self.address() }),
            Err(error) => Err(match HandshakeRefusal::from_io(&error) {
                HandshakeRefusal::Connection(_) => ConnectError::Closed { address: self.address() },
                refusal => refused(refusal),
            }),
        }
    }

    /// The addresses behind the server's name, or behind the proxy's: then the server's is the proxy's matter.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let first = self.first_hop();
        let resolved = self.dial.resolve(first).await.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::other("the name has no address")),
            false => Ok(addresses),
        });
        resolved.map_err(|source| match &self.proxy {
            None => ConnectError::NotResolved { address: self.address(), source },
            Some(proxy) => self.by_proxy(proxy, ProxyRefusal::NotResolved(source)),
        })
    }

    /// A connection to one of them.
    pub(crate) async fn reach(&self, addresses: Vec<SocketAddr>) -> Result<D::Socket, ConnectError> {
        let mut last = io::Error::other("the name has no address");
        for address in addresses {
            let time = Duration::from_secs(TCP_CONNECT_TIMEOUT_SECONDS);
            match tokio::time::timeout(time, self.dial.reach(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(match &self.proxy {
            None => ConnectError::NotReached { address: self.address(), source: last },
            Some(proxy) => self.by_proxy(proxy, ProxyRefusal::NotReached(last)),
        })
    }

    /// Through the proxy to the server, where there is a proxy.
    pub(crate) async fn tunnel(&self, socket: &mut D::Socket) -> Result<(), ConnectError> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let time = Duration::from_secs(PROXY_ANSWER_TIMEOUT_SECONDS);
        let asked = tokio::time::timeout(time, tunnel(socket, proxy, &self.address)).await;
        asked.unwrap_or(Err(ProxyRefusal::Silent)).map_err(|why| self.by_proxy(proxy, why))
    }

    /// `host:port` that this machine connects to.
    pub(crate) fn first_hop(&self) -> &str {
        self.proxy.as_ref().map_or(&self.address, |proxy| proxy.address())
    }

    fn by_proxy(&self, proxy: &Proxy, why: ProxyRefusal) -> ConnectError {
        ConnectError::Proxy { address: self.address(), proxy: proxy.address().to_owned(), why }
    }

    fn address(&self) -> String {
        self.address.as_ref().to_owned()
    }
}

/// An answer of a server that was asked how it is.
pub(crate) struct Answered {
    /// How far this machine's clock is from its, if it says its time.
    pub(crate) offset: Option<ClockOffset>,
    /// How long the answer took.
    pub(crate) took: Duration,
}

/// Asks a server how it is. A refusal is an answer, too.
pub(crate) async fn answered_at(channel: Channel) -> Result<Answered, tonic::Status> {
    let begun = Instant::now();
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(CONNECT_TIMEOUT_SECONDS));
    let answer = HealthClient::new(channel).check(request).await?;
    let date = answer.metadata().get("date").map(|date| date.as_encoded_bytes());
    Ok(Answered { offset: offset_by_date(date), took: begun.elapsed() })
}

/// The name of the key exchange that a connection was made with.
pub(crate) fn key_exchange<S>(stream: &TlsStream<S>) -> &'static str {
    let group = stream.get_ref().1.negotiated_key_exchange_group();
    group.and_then(|group| group.name().as_str()).unwrap_or("unknown")
}

fn seconds_from(moment: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(moment.as_micros().saturating_add(seconds.saturating_mul(1_000_000)))
}
