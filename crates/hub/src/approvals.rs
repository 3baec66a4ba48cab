//! What waits for officers' signatures is told, since nothing else calls the one who is to look.

use std::sync::Arc;
use std::time::Duration;

use concord_server::{Clock, Readiness};
use tokio::sync::watch;

use crate::sequencer::Published;

const WAITING_NOTE: &str = "approvals-waiting";
/// What is over by its time is seen after this at the latest.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Notes how many statements wait, until the sequencer ends.
pub(crate) async fn keep_told(
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    mut published: watch::Receiver<Arc<Published>>,
) {
    let mut told = 0;
    loop {
        let now = clock.now();
        let waiting =
            published.borrow_and_update().ledger.approvals().iter().filter(|(_, one)| now < one.lapses_at()).count();
        if waiting != told {
            match waiting {
                0 => readiness.clear(WAITING_NOTE),
                _ => readiness.note(
                    WAITING_NOTE,
                    format!(
                        "for signatures of other officers of the secretariat wait: {waiting} (`concord approval list`)"
                    ),
                ),
            }
            told = waiting;
        }
        tokio::select! {
            // What was decided is looked at before what only time brings.
            biased;
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(LOOKED_AGAIN_AFTER), if waiting > 0 => {}
        }
    }
}
