//! The seam of sockets: where connections come from, and where they go. Everything above it, TLS first, is the same on this machine's
//! network and on one that a simulation brings.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

const TCP_KEEPALIVE_SECONDS: u64 = 30;
const TCP_KEEPALIVE_INTERVAL_SECONDS: u64 = 10;

/// One connection, before TLS.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for S {}

/// Where connections come from. It is closed when it is dropped.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Socket: Socket;

    /// The next connection, and who it is from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// Where connections go.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A connection.
    type Socket: Socket;

    /// The addresses behind `host:port`, the best first.
    fn resolve(&self, address: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// A connection to one of them.
    fn reach(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// The network of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Listener for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // The peer was gone before its turn.
        configure(&stream).map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
        Ok((stream, peer))
    }
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(TCP_KEEPALIVE_SECONDS))
        .with_interval(Duration::from_secs(TCP_KEEPALIVE_INTERVAL_SECONDS));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Dial for Tcp {
    type Socket = TcpStream;

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(address).await?.collect())
    }

    async fn reach(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
