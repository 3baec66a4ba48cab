//! Telling the hub how this node is, for the secretariat's status: names of alarms and counts, never what an alarm says, and no content.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use concord_model::Lane;
use concord_wire::convert::{self, timestamp};
use concord_wire::proto::feed::v1::{LaneWaiting, ReportRequest};

use crate::context::Context;
use crate::link::HubLink;

/// From one word to the next. A hub that was started since has the newest within that.
const REPORT_SECONDS: u64 = 10;

/// Says it again and again while the feed stands. Runs until its task is dropped.
pub(crate) async fn keep_telling(context: Context, link: Arc<dyn HubLink>) {
    loop {
        context.contact.until_connected().await;
        // Nothing rests on it: whatever is wrong with the link, those that matter raise.
        match link.report(word(&context)).await {
            Ok(_) => context.contact.heard(context.clock.now()),
            Err(end) => tracing::debug!(?end, "the hub did not take this node's word for how it is"),
        }
        tokio::time::sleep(Duration::from_secs(REPORT_SECONDS)).await;
    }
}

fn word(context: &Context) -> ReportRequest {
    let state = context.now_state();
    let (alarms, notes): (Vec<_>, Vec<_>) = context.readiness.list().into_iter().partition(|alarm| alarm.stops);
    let waiting = |lane: Lane| {
        let exchanges = state.unrecorded_exchanges(lane);
        (exchanges > 0).then(|| LaneWaiting { lane: convert::lane(lane).into(), exchanges })
    };
    ReportRequest {
        run: Bytes::copy_from_slice(&context.run),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sent_at: Some(timestamp(context.clock.shown())),
        alarms: alarms.into_iter().map(|alarm| alarm.name.to_owned()).collect(),
        notes: notes.into_iter().map(|note| note.name.to_owned()).collect(),
        waiting: Lane::ALL.into_iter().filter_map(waiting).collect(),
    }
}
