//! The nodes' open streams: the newest of a kind wins; leaving ends them, and so does another run of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use concord_ledger::hold::held;
use concord_model::{Lane, Name, ParticipantCode, Reason, Refusal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::feed::history_began;
use crate::fencing::NodeRun;

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
    /// Giving a node back what it lost.
    Fetch(Lane),
}

impl Purpose {
    /// Whether a technical hold keeps its participant from it.
    pub fn waits_while_held(&self) -> bool {
        matches!(self, Self::Consign(_) | Self::Mailbox(_))
    }
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

/// All streams whose tasks have not ended.
///
/// Invariant: a stream is in here until its task has ended, also where a newer one took its place: whoever waits for streams to end
/// waits for those too.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next_id: u64,
    by_id: BTreeMap<u64, OpenStream>,
}

struct OpenStream {
    key: StreamKey,
    /// The run of the node that opened it.
    run: [u8; 16],
    stop: CancellationToken,
    // Why it ends, where it is not because a newer one came.
    why: Arc<OnceLock<Refusal>>,
    // Closes when the stream's task has ended.
    ended: watch::Receiver<()>,
}

/// One open stream; dropping it says that its task has ended.
pub struct StreamGuard {
    streams: Streams,
    id: u64,
    stop: CancellationToken,
    why: Arc<OnceLock<Refusal>>,
    _ended: watch::Sender<()>,
}

impl Streams {
    /// Registers a stream of a run; an older one of the same key is told to end. `is_served` is asked at a moment that is either
    /// before [`Self::end_others`] of a newer run, which ends this stream then, or after it.
    ///
    /// Refuses as `is_served` does, and touches nothing then.
    pub fn open(
        &self,
        key: StreamKey,
        run: [u8; 16],
        is_served: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<StreamGuard, Refusal> {
        let mut open = self.lock();
        is_served()?;
        let (stop, why) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        let (ended_sender, ended) = watch::channel(());
        open.by_id.values().filter(|older| older.key == key).for_each(|older| older.stop.cancel());
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, OpenStream { key, run, stop: stop.clone(), why: Arc::clone(&why), ended });
        drop(open);
        Ok(StreamGuard { streams: self.clone(), id, stop, why, _ended: ended_sender })
    }

    /// Ends all streams, since a new history began: every position is compared again.
    pub fn end_all(&self) {
        self.lock().by_id.values().for_each(|stream| stream.end(history_began()));
    }

    /// Ends the feeds of these: each shows anew where it stands, and hands back what it has.
    pub fn end_feeds(&self, participants: &BTreeSet<ParticipantCode>) {
        let what = "keys count now for which what you handed back did not: connect again, and hand it back once more";
        let why = Refusal::new(Reason::Healing, what);
        let is_meant =
            |key: &StreamKey| matches!(key.purpose, Purpose::Feed) && participants.contains(&key.participant);
        let open = self.lock();
        open.by_id.values().filter(|stream| is_meant(&stream.key)).for_each(|stream| stream.end(why.clone()));
    }

    /// Ends the mailbox streams of a participant and waits until their tasks have ended: after that nothing more is permitted to it by
    /// a decision that was taken before. Its feed goes on.
    pub async fn end_mailboxes(&self, participant: &ParticipantCode) {
        let why = Refusal::new(
            Reason::MembershipChanged,
            "your state is on an agreement no more: what you may have has changed",
        );
        let is_mailbox = |key: &StreamKey| matches!(key.purpose, Purpose::Mailbox(_));
        let ending = self.lock().end(&why, |stream| stream.key.participant == *participant && is_mailbox(&stream.key));
        all_ended(ending).await;
    }

    /// Ends the streams by which a held participant receives and consigns, and waits until their tasks have ended. Its feed goes on.
    pub async fn end_held(&self, participant: &ParticipantCode) {
        let why = held(participant);
        let is_kept = |key: &StreamKey| key.purpose.waits_while_held();
        let ending = self.lock().end(&why, |stream| stream.key.participant == *participant && is_kept(&stream.key));
        all_ended(ending).await;
    }

    /// Ends the streams by which a participant hands in consignments of a lane: it comes again, and is welcomed with what is to be said.
    pub fn end_consigning(&self, participant: &ParticipantCode, lane: Lane, why: &Refusal) {
        let is_it = |key: &StreamKey| key.participant == *participant && key.purpose == Purpose::Consign(lane);
        // Nobody waits for their end: what they do until then is as good as before.
        let _ending = self.lock().end(why, |stream| is_it(&stream.key));
    }

    /// Ends all streams of a participant's other runs and waits until their tasks have ended: after that nothing goes to another copy
    /// of its node. `is_served` is asked at a moment when no run that comes to be served later has opened a stream.
    ///
    /// Refuses as `is_served` does, and touches nothing then.
    pub async fn end_others(
        &self,
        than: &NodeRun,
        is_served: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let what = format!("another run of {}'s node came to be served", than.participant);
        let why = Refusal::new(Reason::NodeSuperseded, what);
        let ending = {
            let open = self.lock();
            is_served()?;
            open.end(&why, |stream| stream.key.participant == than.participant && stream.run != than.run)
        };
        all_ended(ending).await;
        Ok(())
    }

    /// Ends all streams of a participant whose node has new keys, except those of the run that is served by now, and waits until their
    /// tasks have ended: after that nothing goes to the node that had the old keys. `served` is asked as in [`Self::end_others`].
    pub async fn end_replaced(&self, participant: &ParticipantCode, served: impl FnOnce() -> Option<[u8; 16]>) {
        let what = format!("a node of {participant} with new keys was enrolled in the place of this one");
        let why = Refusal::new(Reason::NodeSuperseded, what);
        let ending = {
            let open = self.lock();
            let served = served();
            open.end(&why, |stream| stream.key.participant == *participant && Some(stream.run) != served)
        };
        all_ended(ending).await;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Tells these to end, and gives what tells when their tasks have.
    fn end(&self, why: &Refusal, which: impl Fn(&OpenStream) -> bool) -> Vec<watch::Receiver<()>> {
        let which = self.by_id.values().filter(|stream| which(stream));
        which.inspect(|stream| stream.end(why.clone())).map(|stream| stream.ended.clone()).collect()
    }
}

async fn all_ended(ending: Vec<watch::Receiver<()>>) {
    for mut ended in ending {
        // An error is the signal: the sender is gone with its task.
        while ended.changed().await.is_ok() {}
    }
}

impl OpenStream {
    /// The first reason stays.
    fn end(&self, why: Refusal) {
        let _first = self.why.set(why);
        self.stop.cancel();
    }
}

impl StreamGuard {
    /// Resolves when the stream is to end: a newer one took its place, its participant left, or another run of its node is served.
    pub async fn replaced(&self) -> Refusal {
        self.stop.cancelled().await;
        self.why.get().cloned().unwrap_or_else(|| {
            Refusal::new(Reason::StreamReplaced, "a newer stream of this node took the place of this one")
        })
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.streams.lock().by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const RUN: [u8; 16] = [1; 16];

    fn code(code: &str) -> ParticipantCode {
        ParticipantCode::parse(code).unwrap()
    }

    fn open(streams: &Streams, of: &str, purpose: Purpose, run: [u8; 16]) -> StreamGuard {
        let key = StreamKey { participant: code(of), node: Name::parse("main").unwrap(), purpose };
        streams.open(key, run, || Ok(())).unwrap()
    }

    /// A stream's task: it ends when it is told to, and says why.
    fn task(guard: StreamGuard) -> tokio::task::JoinHandle<Reason> {
        tokio::spawn(async move { guard.replaced().await.reason })
    }

    #[tokio::test]
    async fn the_newest_stream_wins_and_the_older_does_not_unregister_it() {
        let streams = Streams::default();
        let older = open(&streams, "KAZ", Purpose::Feed, RUN);
        let newer = open(&streams, "KAZ", Purpose::Feed, RUN);
        assert_eq!(older.replaced().await.reason, Reason::StreamReplaced);
        drop(older);
        let newest = open(&streams, "KAZ", Purpose::Feed, RUN);
        newer.replaced().await;
        assert!(!newest.stop.is_cancelled());
    }

    #[tokio::test]
    async fn leaving_waits_until_every_mailbox_stream_has_ended_and_spares_the_rest() {
        let streams = Streams::default();
        let feed = open(&streams, "KAZ", Purpose::Feed, RUN);
        let other = open(&streams, "IRN", Purpose::Mailbox(Lane::Routine), RUN);
        // Told to end by the newer one, and not at its end yet.
        let replaced = open(&streams, "KAZ", Purpose::Mailbox(Lane::Routine), RUN);
        let mailbox = task(open(&streams, "KAZ", Purpose::Mailbox(Lane::Routine), RUN));
        let kaz = code("KAZ");
        let mut left = std::pin::pin!(streams.end_mailboxes(&kaz));
        assert!((&mut left).now_or_never().is_none());
        // Its guard is dropped before the leave is through, so the task is at its end.
        assert_eq!(mailbox.await.unwrap(), Reason::MembershipChanged);
        assert!((&mut left).now_or_never().is_none(), "a stream that was replaced before may still send");
        drop(replaced);
        left.await;
        assert!(!feed.stop.is_cancelled() && !other.stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_run_that_comes_to_be_served_waits_until_all_streams_of_the_others_have_ended() {
        let streams = Streams::default();
        let newer = NodeRun { participant: code("KAZ"), run: [2; 16] };
        let lanes = Lane::ALL.into_iter().flat_map(|lane| [Purpose::Consign(lane), Purpose::Mailbox(lane)]);
        let purposes: Vec<Purpose> = lanes.chain([Purpose::Feed, Purpose::HandBack]).collect();
        let others: Vec<_> = purposes.iter().map(|purpose| task(open(&streams, "KAZ", purpose.clone(), RUN))).collect();
        let slow = open(&streams, "KAZ", Purpose::Fetch(Lane::Routine), RUN);
        let spared = open(&streams, "IRN", Purpose::Feed, RUN);
        let mut ended = std::pin::pin!(streams.end_others(&newer, || Ok(())));
        assert!((&mut ended).now_or_never().is_none());
        for other in others {
            assert_eq!(other.await.unwrap(), Reason::NodeSuperseded);
        }
        assert!((&mut ended).now_or_never().is_none(), "one of them has not ended yet");
        drop(slow);
        ended.await.unwrap();
        // Its own are there before it is shown, and are not ended by its coming again.
        let own = open(&streams, "KAZ", Purpose::HandBack, newer.run);
        streams.end_others(&newer, || Ok(())).await.unwrap();
        assert!(!own.stop.is_cancelled() && !spared.stop.is_cancelled());
        // One that was judged before and comes to open its stream now touches nothing.
        let key =
            StreamKey { participant: code("KAZ"), node: Name::parse("main").unwrap(), purpose: Purpose::HandBack };
        let late = streams.open(key, RUN, || Err(Refusal::new(Reason::NodeSuperseded, "")));
        assert!(late.is_err() && !own.stop.is_cancelled());
        // Nor does an older run that was on its way to end the others when this one came to be served.
        let older = NodeRun { participant: code("KAZ"), run: RUN };
        let late = streams.end_others(&older, || Err(Refusal::new(Reason::NodeSuperseded, ""))).await;
        assert!(late.is_err() && !own.stop.is_cancelled());
    }

    #[tokio::test]
    async fn new_keys_end_every_stream_but_those_of_the_run_that_has_them() {
        let streams = Streams::default();
        let of_old =
            [Purpose::Feed, Purpose::Fetch(Lane::Flash)].map(|purpose| task(open(&streams, "KAZ", purpose, RUN)));
        let of_new = open(&streams, "KAZ", Purpose::Mailbox(Lane::Flash), [2; 16]);
        let of_other = open(&streams, "IRN", Purpose::Feed, RUN);
        streams.end_replaced(&code("KAZ"), || Some([2; 16])).await;
        for ended in of_old {
            assert_eq!(ended.await.unwrap(), Reason::NodeSuperseded);
        }
        assert!(!of_new.stop.is_cancelled() && !of_other.stop.is_cancelled());
    }
}
