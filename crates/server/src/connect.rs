//! The client's side of a connection: a channel that says why it did not come about.

use std::error::Error as _;
use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use concord_identity::{Caller, HandshakeRefusal, server_name};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::AsyncBufReadExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::clock::{Clock as _, SystemClock};
use crate::dialled::Dialled;
use crate::grpc::{
    CONNECTION_WINDOW_BYTES, FRAME_SIZE_MAX_BYTES, HEADER_LIST_SIZE_MAX_BYTES, KEEPALIVE_INTERVAL_SECONDS,
    KEEPALIVE_TIMEOUT_SECONDS, STREAM_WINDOW_BYTES,
};
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
    let malformed = || ConnectError::AddressMalformed { address: address.to_owned() };
    let origin = format!("https://{address}").parse::<Uri>().map_err(|_| malformed())?;
    let is_all = origin.authority().is_some_and(|authority| authority.as_str() == address);
    if !is_all || origin.port().is_none() || address.contains('@') {
        return Err(malformed());
    }
    let target = Target { dial, address: address.into(), tls: TlsConnector::from(tls), reached };
    let first = target.clone().dial_in_time().await?;
    let dialer = Dialer { target, first: Some(first) };
    let protocol = |error: tonic::transport::Error| ConnectError::Protocol {
        address: address.to_owned(),
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
    Channel::connect(dialer, endpoint).await.map_err(protocol)
}

type Io<D> = TokioIo<Dialled<TlsStream<<D as Dial>::Socket>>>;

#[derive(Clone)]
struct Target<D> {
    dial: D,
    address: Arc<str>,
    tls: TlsConnector,
    reached: Option<Reached>,
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
    async fn dial_in_time(self) -> Result<Io<D>, ConnectError> {
        let time = Duration::from_secs(CONNECT_TIMEOUT_SECONDS);
        match tokio::time::timeout(time, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address: self.address() }),
        }
    }

    async fn dial(&self) -> Result<Io<D>, ConnectError> {
        let stream = self.reach().await?;
        let refused = |refusal| ConnectError::TlsRefused { address: self.address(), refusal };
        let connected = self.tls.connect(server_name(&self.address), stream).await;
        let mut stream = connected.map_err(|error| refused(HandshakeRefusal::from_io(&error)))?;
        // In TLS 1.3 this side is done before the server has judged our certificate. Its first bytes, which it sends unasked,
        // say that it did; and before they came nothing is written, whose loss would hide the server's alert.
        let let_in = stream.fill_buf().await.map(|bytes| !bytes.is_empty());
        match let_in {
            Ok(true) => {
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let leaf = leaf.ok_or_else(|| refused(HandshakeRefusal::NoCertificate))?;
                let server = Caller::from_verified_certificate(leaf).map_err(|why| refused(why.into()))?;
                if let Some(reached) = &self.reached {
                    reached(&server);
                }
                Ok(TokioIo::new(Dialled::new(stream, server.not_after, SystemClock.now())))
            }
            Ok(false) => Err(ConnectError::Closed { address: self.address() }),
            Err(error) => Err(match HandshakeRefusal::from_io(&error) {
                HandshakeRefusal::Connection(_) => ConnectError::Closed { address: self.address() },
                refusal => refused(refusal),
            }),
        }
    }

    async fn reach(&self) -> Result<D::Socket, ConnectError> {
        let not_resolved = |source| ConnectError::NotResolved { address: self.address(), source };
        let addresses = self.dial.resolve(&self.address).await.map_err(not_resolved)?;
        let mut last = None;
        for address in addresses {
            let time = Duration::from_secs(TCP_CONNECT_TIMEOUT_SECONDS);
            match tokio::time::timeout(time, self.dial.reach(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = Some(error),
                Err(elapsed) => last = Some(elapsed.into()),
            }
        }
        Err(match last {
            Some(source) => ConnectError::NotReached { address: self.address(), source },
            None => not_resolved(io::Error::other("the name has no address")),
        })
    }

    fn address(&self) -> String {
        self.address.as_ref().to_owned()
    }
}
