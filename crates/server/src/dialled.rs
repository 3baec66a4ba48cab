//! A connection to elsewhere that ends with the certificate which the other side showed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use concord_model::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Nobody outlives its certificate by keeping a connection open, a server as little as a caller ([`crate::Connection`]).
pub struct Dialled<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
}

impl<S> Dialled<S> {
    /// Over a connection that was verified now.
    pub(crate) fn new(stream: S, not_after: Timestamp, now: Timestamp) -> Self {
        let left = not_after.as_micros().saturating_sub(now.as_micros());
        Self { stream, end: Box::pin(sleep(Duration::from_micros(u64::try_from(left).unwrap_or(0)))) }
    }

    /// The connection below.
    pub(crate) fn inner(&self) -> &S {
        &self.stream
    }

    /// Asked on every way in and out, as whoever waits has to be woken there.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let has_ended = self.end.is_elapsed() || self.end.as_mut().poll(context).is_ready();
        if has_ended && !concord_faults::planted("outlive-the-servers-certificate") {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server's certificate ended"));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Dialled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dialled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
