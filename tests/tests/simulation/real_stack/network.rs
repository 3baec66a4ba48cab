//! turmoil's network at the seam of sockets, and what stands in for the rest of a machine on one of its hosts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use concord_model::Timestamp;
use concord_server::simulation::Machine;
use concord_server::{Clock, Dial, Listener};
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use turmoil::net::{TcpListener, TcpStream};

use crate::chance::Chance;
use crate::clock::BEGIN;

/// A listener of the host on which it was made.
pub(super) struct Listening(TcpListener);

impl Listening {
    pub(super) async fn on(port: u16) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(("0.0.0.0", port)).await?))
    }
}

impl Listener for Listening {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// Dials from the host on which it is asked to.
#[derive(Clone, Copy)]
pub(super) struct Simulated;

impl Dial for Simulated {
    type Socket = TcpStream;

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| io::Error::other("no port"))?;
        let port = port.parse().map_err(io::Error::other)?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }

    async fn reach(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// All hosts run on one thread: work that blocks is done at once, detached work belongs to the host that is at its turn and ends with it.
pub(super) struct HostThread(pub(super) Chance);

impl Machine for HostThread {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn detach(&mut self, work: BoxFuture<'static, ()>) {
        // A host that is just ending takes nothing up.
        if let Ok(host) = Handle::try_current() {
            host.spawn(work);
        }
    }
}

/// The wall clock of all hosts: the simulation's time, whatever became of a host's own runtime.
#[derive(Default)]
pub(super) struct StackClock(AtomicU64);

impl StackClock {
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, elapsed: Duration) {
        self.0.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for StackClock {
    fn now(&self) -> Timestamp {
        let since = i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(BEGIN.as_micros().saturating_add(since))
    }
}
