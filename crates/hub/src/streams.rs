//! The nodes' open streams: the newest of a kind wins, and leaving ends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use concord_model::{Lane, Name, ParticipantCode, Reason, Refusal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::feed::history_began;

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Handing consignments in.
    Consign(Lane),
    /// Delivering a mailbox.
    Mailbox(Lane),
    /// Telling the feed.
    Feed,
    /// Handing back what this hub lost.
    HandBack,
}

/// Whose stream it is, and what for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamKey {
    /// The participant.
    pub participant: ParticipantCode,
    /// Its node.
    pub node: Name,
    /// What for.
    pub purpose: Purpose,
}

/// All open streams.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<StreamKey, Open>>>);

struct Open {
    generation: u64,
    stop: CancellationToken,
    // Why it ends, where it is not because a newer one came.
    why: Arc<OnceLock<Refusal>>,
    // Closes when the stream's task has ended.
    ended: watch::Receiver<()>,
}

/// One open stream; dropping it says that its task has ended.
pub struct StreamGuard {
    streams: Streams,
    key: StreamKey,
    generation: u64,
    stop: CancellationToken,
    why: Arc<OnceLock<Refusal>>,
    _ended: watch::Sender<()>,
}

impl Streams {
    /// Registers a stream; an older one of the same key is told to end.
    pub fn open(&self, key: StreamKey) -> StreamGuard {
        let stop = CancellationToken::new();
        let (ended_sender, ended) = watch::channel(());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let older = all.remove(&key);
        let generation = older.as_ref().map_or(0, |older| older.generation + 1);
        if let Some(older) = older {
            older.stop.cancel();
        }
        let why = Arc::new(OnceLock::new());
        all.insert(key.clone(), Open { generation, stop: stop.clone(), why: Arc::clone(&why), ended });
        drop(all);
        StreamGuard { streams: self.clone(), key, generation, stop, why, _ended: ended_sender }
    }

    /// Ends all streams, since a new history began: every position is compared again.
    pub fn end_all(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for open in all.values() {
            open.end(history_began());
        }
    }

    /// Ends the mailbox streams of a participant and waits until their tasks have ended: after that nothing more is permitted to it by
    /// a decision that was taken before. Its feed goes on.
    pub async fn end_mailboxes(&self, participant: &ParticipantCode) {
        let ending: Vec<watch::Receiver<()>> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let of_participant = all
                .iter()
                .filter(|(key, _)| key.participant == *participant && matches!(key.purpose, Purpose::Mailbox(_)));
            of_participant
                .map(|(_, open)| {
                    open.end(Refusal::new(
                        Reason::MembershipChanged,
                        "your state left an agreement: what you may have has changed",
                    ));
                    open.ended.clone()
                })
                .collect()
        };
        for mut ended in ending {
            // An error is the signal: the sender is gone with its task.
            while ended.changed().await.is_ok() {}
        }
    }
}

impl Open {
    /// The first reason stays.
    fn end(&self, why: Refusal) {
        let _first = self.why.set(why);
        self.stop.cancel();
    }
}

impl StreamGuard {
    /// Resolves when the stream is to end: a newer one took its place, or its participant left.
    pub async fn replaced(&self) -> Refusal {
        self.stop.cancelled().await;
        self.why.get().cloned().unwrap_or_else(|| {
            Refusal::new(Reason::StreamReplaced, "a newer stream of this node took the place of this one")
        })
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut all = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.key).is_some_and(|open| open.generation == self.generation) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: &str, purpose: Purpose) -> StreamKey {
        StreamKey { participant: ParticipantCode::parse(code).unwrap(), node: Name::parse("main").unwrap(), purpose }
    }

    #[tokio::test]
    async fn the_newest_stream_wins_and_the_older_does_not_unregister_it() {
        let streams = Streams::default();
        let older = streams.open(key("KAZ", Purpose::Feed));
        let newer = streams.open(key("KAZ", Purpose::Feed));
        assert_eq!(older.replaced().await.reason, Reason::StreamReplaced);
        drop(older);
        let newest = streams.open(key("KAZ", Purpose::Feed));
        newer.replaced().await;
        assert!(!newest.stop.is_cancelled());
    }

    #[tokio::test]
    async fn leaving_waits_until_every_mailbox_stream_has_ended_and_spares_the_rest() {
        let streams = Streams::default();
        let feed = streams.open(key("KAZ", Purpose::Feed));
        let other = streams.open(key("IRN", Purpose::Mailbox(Lane::Routine)));
        let mailbox = streams.open(key("KAZ", Purpose::Mailbox(Lane::Routine)));
        let task = tokio::spawn(async move {
            let why = mailbox.replaced().await;
            drop(mailbox);
            why.reason
        });
        streams.end_mailboxes(&ParticipantCode::parse("KAZ").unwrap()).await;
        // Its guard was dropped before `end_mailboxes` resolved, so the task is at its end.
        assert_eq!(task.await.unwrap(), Reason::MembershipChanged);
        assert!(!feed.stop.is_cancelled() && !other.stop.is_cancelled());
    }
}
