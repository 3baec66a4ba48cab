//! Says whose keys changed without its own word, so that what they sign is set aside here until an officer has compared them.

use crate::context::Context;
use crate::state::{NodeState, PinState};

const NOTE: &str = "pins-unconfirmed";

/// Keeps the note at what the published state says.
pub(crate) async fn keep_told(context: Context) {
    let mut published = context.state.clone();
    let mut told = String::new();
    loop {
        let what = waiting(&published.borrow_and_update());
        if what != told {
            match what.is_empty() {
                true => context.readiness.clear(NOTE),
                false => context.readiness.note(NOTE, what.clone()),
            }
            told = what;
        }
        // What counts changes with the feed and with an officer's word only, and both change the directory.
        let before = std::sync::Arc::clone(published.borrow().directory());
        if published.wait_for(|state| !std::sync::Arc::ptr_eq(state.directory(), &before)).await.is_err() {
            return;
        }
    }
}

fn waiting(state: &NodeState) -> String {
    let pins = state.pins();
    let waits = pins.iter().filter(|pin| pin.state == PinState::Waits);
    let lines: Vec<String> = waits
        .map(|pin| {
            let agreements: Vec<_> = pin.waiting.iter().map(ToString::to_string).collect();
            format!("of {} (under {})", pin.participant, agreements.join(", "))
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "keys changed without their owner's own word: {}. What they sign is set aside here, until an officer has compared them by telephone: \
         `concord pin list`, `concord pin confirm CODE --fingerprint \"...\"`",
        lines.join("; ")
    )
}
