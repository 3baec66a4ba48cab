//! A caller's connection whose reading and writing can be ended at once from elsewhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use concord_identity::Caller;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::clock::{Clock as _, SystemClock};
use crate::connections::Registration;
use crate::sockets::Socket;

/// A TLS connection of a verified caller. Services find the [`Caller`] in the extensions of their requests.
///
/// It ends when [`crate::Connections::close`] says so, and when the caller's certificate does: nobody outlives its
/// certificate by keeping a stream open.
pub struct Connection<S> {
    // Dropped before `registration`: a connection leaves the register only after its socket is closed.
    stream: TlsStream<S>,
    caller: Caller,
    end: End,
    registration: Registration,
}

enum End {
    Awaited(Pin<Box<dyn Future<Output = &'static str> + Send>>),
    Come(&'static str),
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: TlsStream<S>, caller: Caller, registration: Registration) -> Self {
        let closing = registration.closing().clone();
        let micros_left = caller.not_after.as_micros().saturating_sub(SystemClock.now().as_micros());
        let valid_for = Duration::from_micros(u64::try_from(micros_left).unwrap_or(0));
        let end = async move {
            tokio::select! {
                () = closing.cancelled_owned() => "this server closed the connection",
                () = tokio::time::sleep(valid_for) => "the caller's certificate ended",
            }
        };
        Self { stream, caller, end: End::Awaited(Box::pin(end)), registration }
    }

    /// Who is at the other end.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// An error once the end has come. Asked on every way in and out, because a connection that waits for its peer to
    /// read polls only the way out, and must be woken there.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let End::Awaited(end) = &mut self.end {
            // The token is asked directly, too: between the cancel and the future's next poll not one byte may pass.
            match end.as_mut().poll(context) {
                Poll::Ready(why) => self.end = End::Come(why),
                Poll::Pending if self.registration.closing().is_cancelled() => {
                    self.end = End::Come("this server closed the connection");
                }
                Poll::Pending => return Ok(()),
            }
        }
        match self.end {
            End::Come(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            End::Awaited(_) => Ok(()),
        }
    }
}

impl<S: Socket> Connected for Connection<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<S: Socket> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Socket> AsyncWrite for Connection<S> {
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
