//! Ending in order: SIGTERM or SIGINT asks, [`crate::GrpcServer`] drains, the process goes on to close its journal.

use std::io;

use concord_model::{Reason, Refusal};
use concord_wire::status::to_status;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What streams and calls have to end by themselves. What is open after it is closed.
pub const DRAIN_TIMEOUT_SECONDS: u64 = 15;

/// The end of this process, step by step. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    streams_end: CancellationToken,
    at_once: CancellationToken,
}

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end on the first SIGTERM or SIGINT, and for no more waiting on the second.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            for times in 1..=2 {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if times == 1 {
                    tracing::info!(signal = name, "ending; a second signal ends without waiting for open streams");
                    shutdown.request();
                } else {
                    tracing::warn!(signal = name, "closing what is open at once");
                    shutdown.at_once.cancel();
                }
            }
        });
        Ok(())
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Ends when the end is asked for. For tasks that call others: they begin nothing new.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.requested.clone().cancelled_owned()
    }

    /// Ends when streams are to end, each with [`Shutdown::status`]: after health says NOT_SERVING and no new connection is
    /// accepted. For services with streams.
    pub fn streams_end(&self) -> impl Future<Output = ()> + Send + use<> {
        self.streams_end.clone().cancelled_owned()
    }

    /// What a stream ends with: UNAVAILABLE, SHUTTING_DOWN.
    pub fn status() -> Status {
        to_status(&Refusal::new(Reason::ShuttingDown, "this server is ending"))
    }

    pub(crate) fn end_streams(&self) {
        self.streams_end.cancel();
    }

    pub(crate) fn at_once(&self) -> impl Future<Output = ()> + Send + use<> {
        self.at_once.clone().cancelled_owned()
    }
}
