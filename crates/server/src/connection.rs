//! A caller's connection whose reading and writing can be ended at once from elsewhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use concord_identity::Caller;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::clock::{Clock as _, SystemClock};
use crate::connections::Registration;
use crate::frames::{Frames, TooManyFrames};
use crate::sockets::Socket;
use crate::throttle::Throttle;

/// From the end of its handshake until a peer has begun to speak HTTP/2. A slower peer's connection is closed: behind that the
/// keepalive asks.
pub const PREFACE_TIMEOUT_SECONDS: u64 = 10;

const ENDS_LOGGED_PER_SECOND_MAX: u32 = 5;

static ENDS: Throttle = Throttle::new(ENDS_LOGGED_PER_SECOND_MAX);

/// A TLS connection of a verified caller. Services find the [`Caller`] in the extensions of their requests.
///
/// It ends when [`crate::Connections::close`] says so, and when the caller's certificate does: nobody outlives its
/// certificate by keeping a stream open. It ends also where the peer does not begin to speak, or says nothing in too many frames.
pub struct Connection<S> {
    // Dropped before `registration`: a connection leaves the register only after its socket is closed.
    stream: TlsStream<S>,
    caller: Caller,
    end: End,
    /// Until the peer has begun.
    silence: Option<Pin<Box<Sleep>>>,
    frames: Frames,
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
        let silence = Some(Box::pin(tokio::time::sleep(Duration::from_secs(PREFACE_TIMEOUT_SECONDS))));
        let frames = Frames::new(Instant::now());
        Self { stream, caller, end: End::Awaited(Box::pin(end)), silence, frames, registration }
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
                Poll::Pending => {}
            }
        }
        if matches!(self.end, End::Awaited(_))
            && let Some(silence) = &mut self.silence
            && silence.as_mut().poll(context).is_ready()
        {
            self.let_go("SILENT", "the peer did not begin to speak HTTP/2");
        }
        match self.end {
            End::Come(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            End::Awaited(_) => Ok(()),
        }
    }

    /// The peer is at fault: said in the log and counted, and not to the peer, which does not listen or does not care.
    fn let_go(&mut self, reason: &'static str, why: &'static str) {
        self.end = End::Come(why);
        metrics::counter!("concord_connections_let_go_total", "reason" => reason).increment(1);
        if let Some(left_out) = ENDS.admit(Instant::now()) {
            let caller = self.caller.identity.to_string();
            tracing::warn!(caller, reason = why, left_out, "a connection was closed");
        }
    }

    /// These bytes came.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(TooManyFrames) = self.frames.came(bytes, Instant::now()) {
            const WHY: &str = "the peer sent too many frames with nothing in them";
            self.let_go("TOO_MANY_FRAMES", WHY);
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, WHY));
        }
        if self.frames.begun() {
            self.silence = None;
        }
        Ok(())
    }

    fn went(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.frames.went(bytes);
        }
        polled
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
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = polled {
            self.came(&buffer.filled()[before..])?;
        }
        polled
    }
}

impl<S: Socket> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.went(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.went(polled)
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
