//! Connections to elsewhere that can be ended all at once: whoever they lead to has to be verified anew then.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ending::{End, Ending};
use crate::sockets::Dial;

/// Ends what was dialled through it. Clones share it.
#[derive(Clone, Default)]
pub struct Cut(Arc<Mutex<CancellationToken>>);

impl Cut {
    /// The same network, with sockets that end with [`Cut::all`].
    pub fn over<D: Dial>(&self, dial: D) -> CuttableDial<D> {
        CuttableDial { dial, cut: self.clone() }
    }

    /// Ends every connection that was begun before this call; not one byte passes any of them after it. What refuses the
    /// other side from now on has to be in force before, so that none falls between.
    pub fn all(&self) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }

    fn present(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cut")
    }
}

/// A network whose connections a [`Cut`] ends.
#[derive(Debug, Clone)]
pub struct CuttableDial<D> {
    dial: D,
    cut: Cut,
}

impl<D: Dial> Dial for CuttableDial<D> {
    type Socket = CuttableSocket<D::Socket>;

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        self.dial.resolve(address).await
    }

    async fn reach(&self, address: SocketAddr) -> io::Result<Self::Socket> {
        // Taken before the handshake: one that was judged by what counted before the cut ends with it.
        let token = self.cut.present();
        let socket = self.dial.reach(address).await?;
        Ok(Ending::by(socket, CutEnd { token: token.clone(), cut: Box::pin(token.cancelled_owned()) }))
    }
}

/// A connection that a [`Cut`] ends.
pub type CuttableSocket<S> = Ending<S, CutEnd>;

/// The cut of a connection.
pub struct CutEnd {
    token: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl End for CutEnd {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.token.is_cancelled() || self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this side ended the connection"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::sockets::Tcp;

    #[tokio::test]
    async fn a_cut_ends_what_was_dialled_before_it_also_where_somebody_waits_and_nothing_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Cut::default();
        let dial = cut.over(Tcp);
        let (mut waiting, mut idle) = (dial.reach(address).await.unwrap(), dial.reach(address).await.unwrap());
        let reading = tokio::spawn(async move { waiting.read_u8().await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        cut.all();
        assert_eq!(reading.await.unwrap(), io::ErrorKind::ConnectionAborted);
        assert_eq!(idle.write_u8(1).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        let mut later = dial.reach(address).await.unwrap();
        later.write_u8(1).await.unwrap();
    }
}
