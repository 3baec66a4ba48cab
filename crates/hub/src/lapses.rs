//! Agreements that lapse: when the time of one is over, a fact says so, and those on it are told.
//!
//! It waits while the clock is not believed. What comes meanwhile is refused by the agreement's own time all the same.

use std::sync::Weak;
use std::time::Duration;

use concord_ledger::AgreementState;
use concord_model::{AgreementRef, Timestamp};

use crate::sequencer::Proposal;
use crate::services::statement::end_mailboxes_of_gone;
use crate::shared::Shared;

/// A clock that is set, or believed again, is seen after this time at the latest.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Has agreements lapse until the hub ends.
pub async fn keep_lapsing(shared: Weak<Shared>) {
    loop {
        let (mut published, seen, wait) = {
            let Some(shared) = shared.upgrade() else { return };
            let now = shared.clock.trusted_now();
            if let Some(now) = now {
                lapse_what_is_due(&shared, now).await;
            }
            let mut published = shared.sequencer.watch();
            let seen = published.borrow_and_update().ledger.clone();
            let wait = until(seen.agreements().next_lapse(), shared.clock.now());
            (published, seen, wait)
        };
        tokio::select! {
            // Nothing may wait for a lapse by now, or another agreement lapses first. A commit that changes no agreement, as most, shares
            // them with the one before.
            biased;
            changed = published.wait_for(|now| !std::ptr::eq(now.ledger.agreements(), seen.agreements())) => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn lapse_what_is_due(shared: &Shared, now: Timestamp) {
    let published = shared.published();
    let due: Vec<_> = published.ledger.agreements().due_to_lapse(now).map(|agreement| agreement.reference()).collect();
    for reference in due {
        let members = published.ledger.agreements().members(&reference.id).cloned().collect();
        match shared.sequencer.decide(Proposal::Lapse(reference.clone())).await {
            // It ended otherwise meanwhile.
            Ok(_) if !has_lapsed(shared, &reference) => {}
            Ok(_) => {
                tracing::info!(agreement = %reference.id, version = reference.version, "an agreement lapsed");
                end_mailboxes_of_gone(shared, &reference.id, members).await;
            }
            // A full disk, or the end of the hub: it is looked at again.
            Err(refusal) => {
                tracing::warn!(agreement = %reference.id, reason = %refusal.reason, "an agreement has yet to lapse")
            }
        }
    }
}

fn has_lapsed(shared: &Shared, reference: &AgreementRef) -> bool {
    let published = shared.published();
    published.ledger.agreements().version(reference).is_some_and(|one| one.state == AgreementState::Lapsed)
}

/// How long to wait for the next. What is due and has not lapsed cannot yet: the clock is not believed, or the disk is full.
fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = next.map(|next| next.as_micros().saturating_sub(now.as_micros())).filter(|left| *left > 0);
    let left = left.and_then(|left| u64::try_from(left).ok()).map(Duration::from_micros);
    left.map_or(LOOKED_AGAIN_AFTER, |left| left.min(LOOKED_AGAIN_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_lapse_yet_is_not_asked_for_without_end() {
        let at = Timestamp::from_micros;
        assert_eq!(until(Some(at(2_000_000)), at(1_500_000)), Duration::from_millis(500));
        assert_eq!(until(Some(at(90_000_000)), at(0)), LOOKED_AGAIN_AFTER);
        for now in [at(2_000_000), at(3_000_000)] {
            assert_eq!(until(Some(at(2_000_000)), now), LOOKED_AGAIN_AFTER);
        }
        assert_eq!(until(None, at(0)), LOOKED_AGAIN_AFTER);
    }
}
