//! Says which agencies wait for an officer's word: of a journal that was put back or made anew.

use std::sync::Arc;

use concord_model::Name;

use crate::context::Context;

const NOTE: &str = "agencies-unconfirmed";
/// Agencies that the note names; the rest is counted.
const NAMED_MAX: usize = 16;

/// Keeps the note at what the published state says.
pub(crate) async fn keep_told(context: Context) {
    let mut published = context.state.clone();
    loop {
        let waiting = Arc::clone(published.borrow_and_update().unconfirmed());
        match waiting.is_empty() {
            true => context.readiness.clear(NOTE),
            false => context.readiness.note(NOTE, told(waiting.keys(), waiting.len())),
        }
        // Each change makes a list of its own.
        if published.wait_for(|state| *state.unconfirmed() != waiting).await.is_err() {
            return;
        }
    }
}

fn told<'a>(names: impl Iterator<Item = &'a Name>, count: usize) -> String {
    let named: Vec<&str> = names.take(NAMED_MAX).map(Name::as_str).collect();
    let more = if count > named.len() { format!(" and {} more", count - named.len()) } else { String::new() };
    format!(
        "the journal of this node was put back or made anew, so that what was taken from its agencies since, or that one was ended, may be \
         forgotten: {}{more} may send and receive nothing, and what comes for them waits, until the state's officer has looked at their \
         rights (`concord agency list`), taken away what is not theirs (`concord agency revoke`), and confirmed them (`concord agency \
         confirm NAME`, or --all)",
        named.join(", ")
    )
}
