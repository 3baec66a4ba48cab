//! The streams of a call: what the caller sends, and what the call's task sends until it is cut.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// What a call's task sends. Cut, it drops what is queued and ends with the status at once: what was permitted and not yet handed
/// to the connection does not go out any more.
pub struct Responses<T> {
    queued: Queued<T>,
    cut: Option<oneshot::Receiver<Status>>,
}

type Queued<T> = Arc<Mutex<mpsc::Receiver<Result<T, Status>>>>;

/// What a caller sends, wherever it comes from.
pub type Inbound<T> = BoxStream<'static, Result<T, Status>>;

/// Cuts a response stream; dropped without a word, the stream ends after what is queued.
pub struct Cut {
    said: oneshot::Sender<Status>,
    forget: Box<dyn FnOnce() + Send>,
}

impl Cut {
    /// Lets go of what is queued, at once: a caller that gives no window never asks for it, and it would stay in memory for as long
    /// as the call does. An error: the caller is gone.
    pub fn send(self, status: Status) -> Result<(), Status> {
        (self.forget)();
        self.said.send(status)
    }
}

/// A response stream, where its task sends, and what cuts it.
pub fn responses<T: Send + 'static>(queued_max: usize) -> (mpsc::Sender<Result<T, Status>>, Cut, Responses<T>) {
    let (outbound, queued) = mpsc::channel(queued_max);
    let (said, receiver) = oneshot::channel();
    let queued = Arc::new(Mutex::new(queued));
    let unread = Arc::downgrade(&queued);
    let forget = Box::new(move || {
        if let Some(unread) = unread.upgrade() {
            forget(&unread);
        }
    });
    (outbound, Cut { said, forget }, Responses { queued, cut: Some(receiver) })
}

fn forget<T>(queued: &Queued<T>) {
    let mut queued = queued.lock().unwrap_or_else(PoisonError::into_inner);
    queued.close();
    while queued.try_recv().is_ok() {}
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(cut) = &mut self.cut
            && let Poll::Ready(said) = Pin::new(cut).poll(context)
        {
            self.cut = None;
            if let Ok(status) = said {
                forget(&self.queued);
                return Poll::Ready(Some(Err(status)));
            }
        }
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_queued_does_not_go_out_after_the_cut() {
        let (outbound, cut, mut stream) = responses::<u8>(4);
        for number in 1..=3 {
            outbound.send(Ok(number)).await.unwrap();
        }
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        cut.send(Status::aborted("cut")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "cut");
        assert!(stream.next().await.is_none());
        assert!(outbound.send(Ok(4)).await.is_err());
    }

    #[tokio::test]
    async fn what_is_queued_is_let_go_of_at_the_cut_also_where_nobody_reads() {
        let (outbound, cut, _unread) = responses(4);
        let delivery = Arc::new(());
        outbound.send(Ok(Arc::clone(&delivery))).await.unwrap();
        cut.send(Status::aborted("cut")).unwrap();
        assert_eq!(Arc::strong_count(&delivery), 1);
    }

    #[tokio::test]
    async fn a_stream_that_is_not_cut_ends_after_what_is_queued() {
        let (outbound, cut, mut stream) = responses::<u8>(4);
        outbound.send(Ok(1)).await.unwrap();
        drop((outbound, cut));
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert!(stream.next().await.is_none());
    }
}
