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

/// What a stream waits for its participant's feed. After it the caller hears `HEALING`, and connects again.
pub const FEED_WAIT_SECONDS: u64 = 5;

/// The run of a node's process; empty of a node that does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run(pub Vec<u8>);

/// Whose feed stands, of which run of its node, and under which history that was found: it counts for no other.
pub struct FeedsShown(watch::Sender<BTreeMap<ParticipantCode, (HistoryId, Run)>>);

impl Default for FeedsShown {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl FeedsShown {
    /// A participant's feed stands under this history.
    pub fn show(&self, participant: &ParticipantCode, history: HistoryId, run: Run) {
        self.0.send_if_modified(|shown| {
            let stands = (history, run);
            shown.insert(participant.clone(), stands.clone()).is_none_or(|before| before != stands)
        });
    }

    /// Whether a participant's feed stands under this history.
    pub fn is_shown(&self, participant: &ParticipantCode, history: HistoryId) -> bool {
        self.0.borrow().get(participant).is_some_and(|(shown, _)| *shown == history)
            || concord_faults::planted("call-it-healed-too-early")
    }

    /// Waits until a participant's feed stands under the present history, for a bounded time; of this run of its node, where one is
    /// named.
    ///
    /// Refuses with `HEALING`.
    pub async fn await_shown(
        &self,
        participant: &ParticipantCode,
        run: Option<&Run>,
        present: impl Fn() -> HistoryId,
    ) -> Result<(), Refusal> {
        if concord_faults::planted("serve-before-the-feed") {
            return Ok(());
        }
        let mut shown = self.0.subscribe();
        let is_it = |(history, of): &(HistoryId, Run)| *history == present() && run.is_none_or(|run| run == of);
        let stands = shown.wait_for(|shown| shown.get(participant).is_some_and(is_it));
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
        let (feeds, code) = (FeedsShown::default(), ParticipantCode::parse("KAZ").unwrap());
        let [older, now] = [HistoryId([1; 16]), HistoryId([2; 16])];
        feeds.show(&code, older, Run::default());
        assert!(!feeds.is_shown(&code, now));
        let refused = feeds.await_shown(&code, None, || now).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Healing);
        let (waited, ()) =
            tokio::join!(feeds.await_shown(&code, None, || now), async { feeds.show(&code, now, Run(vec![1])) });
        assert_eq!(waited, Ok(()));
        // Nor does that of another copy of the node.
        assert!(feeds.await_shown(&code, Some(&Run(vec![2])), || now).await.is_err());
        assert_eq!(feeds.await_shown(&code, Some(&Run(vec![1])), || now).await, Ok(()));
        assert!(feeds.await_shown(&ParticipantCode::parse("IRN").unwrap(), None, || now).await.is_err());
    }
}
