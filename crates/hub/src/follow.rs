//! Keeps the views behind the sequencer: a commit that is durable and published becomes rows.

use std::sync::Arc;

use concord_journal::{Journal, Tail};
use concord_views::Views;
use tokio::sync::watch;

use crate::error::HubError;
use crate::projection::{HubProjection, project_fact};
use crate::sequencer::{Published, Recent};

/// Follows what is published until the sequencer is gone: from the facts at hand, or from the journal where they do not follow.
pub async fn follow(
    views: Views,
    journal: Arc<dyn Journal>,
    mut published: watch::Receiver<Arc<Published>>,
    recent: Recent,
) -> Result<(), HubError> {
    loop {
        let tail = published.borrow_and_update().tail;
        let (behind, journal, recent) = (views.clone(), Arc::clone(&journal), recent.clone());
        let projected = concord_server::blocking(move || project(&behind, journal.as_ref(), &recent, tail));
        projected.await.map_err(|error| HubError::Task(error.to_string()))??;
        tokio::select! {
            biased;
            // Also where nothing is recorded any more: nothing may be served from views that are found to be damaged.
            failed = views.failed() => return Err(failed.into()),
            changed = published.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// Projects what was published up to this tail; blocks.
fn project(views: &Views, journal: &dyn Journal, recent: &Recent, tail: Tail) -> Result<(), HubError> {
    for durable in recent.take_through(tail.sequence) {
        let projected = views.watermark().map_or(0, |watermark| watermark.sequence);
        if durable.facts.first().is_none_or(|(sequence, _)| *sequence != projected + 1) {
            break;
        }
        let mut batch = views.batch();
        for (sequence, fact) in &durable.facts {
            project_fact(*sequence, fact, &mut batch)?;
        }
        concord_faults::point("hub.views.before");
        views.apply(batch, durable.tail)?;
        concord_faults::point("hub.views.applied");
    }
    views.catch_up(journal, &mut HubProjection, tail, |_| {})?;
    Ok(())
}
