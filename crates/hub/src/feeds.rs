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

/// Whose feed stands, and under which history that was found: it counts for no other.
pub struct FeedsShown(watch::Sender<BTreeMap<ParticipantCode, HistoryId>>);

impl Default for FeedsShown {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl FeedsShown {
    /// A participant's feed stands under this history.
    pub fn show(&self, participant: &ParticipantCode, history: HistoryId) {
        self.0.send_if_modified(|shown| shown.insert(participant.clone(), history) != Some(history));
    }

    /// Whether a participant's feed stands under this history.
    pub fn is_shown(&self, participant: &ParticipantCode, history: HistoryId) -> bool {
        self.0.borrow().get(participant) == Some(&history) || concord_faults::planted("call-it-healed-too-early")
    }

    /// Waits until a participant's feed stands under the present history, for a bounded time.
    ///
    /// Refuses with `HEALING`.
    pub async fn await_shown(
        &self,
        participant: &ParticipantCode,
        present: impl Fn() -> HistoryId,
    ) -> Result<(), Refusal> {
        if concord_faults::planted("serve-before-the-feed") {
            return Ok(());
        }
        let mut shown = self.0.subscribe();
        let stands = shown.wait_for(|shown| shown.get(participant) == Some(&present()));
        match tokio::time::timeout(Duration::from_secs(FEED_WAIT_SECONDS), stands).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(
                Reason::Healing,
                "your node has not shown where its feed stands since this hub started or began a new history: it follows its feed first",
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
        feeds.show(&code, older);
        assert!(!feeds.is_shown(&code, now));
        let refused = feeds.await_shown(&code, || now).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Healing);
        let (waited, ()) = tokio::join!(feeds.await_shown(&code, || now), async { feeds.show(&code, now) });
        assert_eq!(waited, Ok(()));
        assert!(feeds.await_shown(&ParticipantCode::parse("IRN").unwrap(), || now).await.is_err());
    }
}
