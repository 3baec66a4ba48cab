//! Feed first: whose feed position was shown, and stands, in this process under the present history.
//!
//! Invariant: a hub serves a participant's mailboxes, chains and statements only after that participant's node has shown where its
//! feed stands and has handed back what this hub had forgotten. So a hub that forgot a *leave* delivers nothing to the one who left,
//! and refuses nothing for want of an agreement that it forgot.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_journal::HistoryId;
use concord_model::{ParticipantCode, Reason, Refusal};
use tokio::sync::watch;

use crate::fencing::NodeRun;

/// What a stream waits for its participant's feed. After it the caller hears `HEALING`, and connects again.
pub const FEED_WAIT_SECONDS: u64 = 5;

/// Whose feed stands, of which run of its node, and under which history that was found: it counts for no other.
pub struct FeedsShown(watch::Sender<BTreeMap<ParticipantCode, (HistoryId, [u8; 16])>>);

impl Default for FeedsShown {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl FeedsShown {
    /// The feed of this run of a node stands under this history, if the run is still served: one that came to be served meanwhile
    /// is not hidden again.
    ///
    /// Refuses as `is_served` does.
    pub fn show(
        &self,
        of: &NodeRun,
        history: HistoryId,
        is_served: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut served = Ok(());
        self.0.send_if_modified(|shown| {
            served = is_served();
            let stands = (history, of.run);
            served.is_ok() && shown.insert(of.participant.clone(), stands).is_none_or(|before| before != stands)
        });
        served
    }

    /// Whether a participant's feed stands under this history.
    pub fn is_shown(&self, participant: &ParticipantCode, history: HistoryId) -> bool {
        self.0.borrow().get(participant).is_some_and(|(shown, _)| *shown == history)
            || concord_faults::planted("call-it-healed-too-early")
    }

    /// Waits until the feed of this run of a node stands under the present history, for a bounded time.
    ///
    /// Refuses with `HEALING`.
    pub async fn await_shown(&self, of: &NodeRun, present: impl Fn() -> HistoryId) -> Result<(), Refusal> {
        if concord_faults::planted("serve-before-the-feed") {
            return Ok(());
        }
        let mut shown = self.0.subscribe();
        let is_it = |(history, run): &(HistoryId, [u8; 16])| *history == present() && *run == of.run;
        let stands = shown.wait_for(|shown| shown.get(&of.participant).is_some_and(is_it));
        match tokio::time::timeout(Duration::from_secs(FEED_WAIT_SECONDS), stands).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(
                Reason::Healing,
                "your node has not shown where its feed stands since it or this hub started or began a new history: it follows its feed first",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_stood_under_another_history_does_not_count() {
        let run = |code: &str, run| NodeRun { participant: ParticipantCode::parse(code).unwrap(), run: [run; 16] };
        let (feeds, kaz) = (FeedsShown::default(), run("KAZ", 1));
        let [older, now] = [HistoryId([1; 16]), HistoryId([2; 16])];
        feeds.show(&kaz, older, || Ok(())).unwrap();
        assert!(!feeds.is_shown(&kaz.participant, now));
        let refused = feeds.await_shown(&kaz, || now).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Healing);
        let (waited, shown) = tokio::join!(feeds.await_shown(&kaz, || now), async { feeds.show(&kaz, now, || Ok(())) });
        assert_eq!((waited, shown), (Ok(()), Ok(())));
        // Nor does that of another copy of the node.
        assert!(feeds.await_shown(&run("KAZ", 2), || now).await.is_err());
        assert_eq!(feeds.await_shown(&kaz, || now).await, Ok(()));
        assert!(feeds.await_shown(&run("IRN", 1), || now).await.is_err());
        // One that was judged before another came to be served does not take its place when it comes to show itself.
        let late = feeds.show(&run("KAZ", 2), now, || Err(Refusal::new(Reason::NodeSuperseded, "")));
        assert_eq!(late.unwrap_err().reason, Reason::NodeSuperseded);
        assert_eq!(feeds.await_shown(&kaz, || now).await, Ok(()));
    }
}
