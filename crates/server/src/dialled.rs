//! A connection to elsewhere that ends with the certificate which the other side showed.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use concord_model::Timestamp;
use tokio::time::{Sleep, sleep};

use crate::ending::{End, Ending};

/// Nobody outlives its certificate by keeping a connection open, a server as little as a caller ([`crate::Connection`]).
pub type Dialled<S> = Ending<S, CertificateEnd>;

/// The last moment of the server's certificate.
pub struct CertificateEnd(Pin<Box<Sleep>>);

impl<S> Dialled<S> {
    /// Over a connection that was verified now.
    pub(crate) fn new(stream: S, not_after: Timestamp, now: Timestamp) -> Self {
        let left = not_after.as_micros().saturating_sub(now.as_micros());
        let end = sleep(Duration::from_micros(u64::try_from(left).unwrap_or(0)));
        Self::by(stream, CertificateEnd(Box::pin(end)))
    }
}

impl End for CertificateEnd {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let has_ended = self.0.is_elapsed() || self.0.as_mut().poll(context).is_ready();
        if has_ended && !concord_faults::planted("outlive-the-servers-certificate") {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server's certificate ended"));
        }
        Ok(())
    }
}
