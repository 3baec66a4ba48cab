//! Keeping a link up: again and again, never all at once, and never for what cannot get better.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::future::BoxFuture;

use super::LinkEnd;
use crate::context::Context;

/// The first wait after a link was lost, in milliseconds.
const RETRY_FIRST_MILLISECONDS: u64 = 200;
/// The longest wait between two attempts to reach the hub.
pub(crate) const RETRY_MAX_SECONDS: u64 = 10;
/// Between two attempts where the hub refuses: a person has to do something meanwhile.
pub(crate) const REFUSED_RETRY_SECONDS: u64 = 30;

/// So many attempts that came to nothing, one after another, while the feed stands, are an alarm.
pub(crate) const FAILURES_ALARM_MIN: u32 = 5;

/// The hub has no room for more; cleared by its next receipt.
pub(crate) const HUB_FULL_NOTE: &str = "hub-full";

/// This participant is held.
const HELD_NOTE: &str = "held";

/// What one attempt came to.
pub(crate) struct Attempt {
    pub(crate) end: LinkEnd,
    /// The link stood: the next loss is a new one.
    pub(crate) stood: bool,
}

/// Runs `attempt` until the node ends. `alarm` stands while the hub refuses, and for good where the link is stopped.
pub(crate) async fn keep_up<'a>(
    context: &'a Context,
    alarm: &'static str,
    mut attempt: impl FnMut() -> BoxFuture<'a, Attempt> + Send,
) {
    let mut waits = backoff();
    let mut failures = 0_u32;
    loop {
        let Attempt { end, stood } = tokio::select! {
            // The end first: it comes once, and an attempt would otherwise go on as long as its link stands.
            biased;
            () = context.shutdown.requested() => return,
            ended = attempt() => ended,
        };
        // A link that only came to stand to hear of a full disk has come no further than the one before.
        if stood && !matches!(end, LinkEnd::HubFull(_) | LinkEnd::OwnFull(_)) {
            waits = backoff();
            failures = 0;
        }
        let wait = match end {
            LinkEnd::Lost(why) => {
                tracing::debug!(link = alarm, why, "a link to the hub was lost");
                context.contact.lost_for(&why);
                failures = failures.saturating_add(1);
                // Without the feed it is the hub that is away, which has an alarm of its own.
                if failures >= FAILURES_ALARM_MIN && context.contact.is_connected() {
                    let what = format!("the hub is there, but this link does not come to stand: {why}");
                    context.readiness.raise(alarm, what);
                }
                waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS))
            }
            LinkEnd::HubFull(refusal) => {
                context
                    .readiness
                    .note(HUB_FULL_NOTE, format!("what this node hands in waits here: {}", refusal.message));
                waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS))
            }
            LinkEnd::OwnFull(refusal) => {
                tracing::debug!(link = alarm, %refusal, "this node's disk has no room for what comes over a link");
                waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS))
            }
            LinkEnd::Held(refusal) => {
                context.readiness.note(HELD_NOTE, refusal.to_string());
                released(context, waits.next().unwrap_or(Duration::from_secs(RETRY_MAX_SECONDS))).await;
                if !is_held(context) {
                    context.readiness.clear(HELD_NOTE);
                    waits = backoff();
                }
                continue;
            }
            LinkEnd::Refused(refusal) => {
                context.heard_refusal(&refusal);
                context.readiness.raise(alarm, refusal.to_string());
                Duration::from_secs(REFUSED_RETRY_SECONDS)
            }
            LinkEnd::Stopped(why) => {
                context.readiness.raise(alarm, why);
                return;
            }
        };
        context.keep_fence().await;
        tokio::select! {
            biased;
            () = context.shutdown.requested() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether the feed has told of a hold on this participant that stands.
fn is_held(context: &Context) -> bool {
    context.now_state().directory().registry.holds().is_held(&context.participant)
}

/// Waits until the feed tells that a hold is lifted; where it has yet to tell of the hold, for so long; and not beyond the end.
async fn released(context: &Context, wait: Duration) {
    let mut state = context.state.clone();
    let told = async {
        let own = &context.participant;
        if !is_held(context) {
            tokio::time::sleep(wait).await;
        }
        // The writer outlives every link.
        let _ended = state.wait_for(|state| !state.directory().registry.holds().is_held(own)).await;
    };
    tokio::select! {
        biased;
        () = context.shutdown.requested() => {}
        () = told => {}
        // What the feed missed, the hub says again.
        () = tokio::time::sleep(Duration::from_secs(REFUSED_RETRY_SECONDS)) => {}
    }
}

/// Ever longer, with chance in it.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    // Without randomness from the system all nodes wait alike, which is worse for the hub and still right.
    let seed = concord_server::fresh().map_or(0, u64::from_le_bytes);
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(RETRY_FIRST_MILLISECONDS))
        .with_max_delay(Duration::from_secs(RETRY_MAX_SECONDS))
        .with_jitter()
        .with_jitter_seed(seed)
        .without_max_times()
        .build()
}
