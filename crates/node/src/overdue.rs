//! What waits for too long at a node: for the hub, for an agency that takes it, or for one that may have it.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_model::{Lane, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::header::is_exercise;

use crate::context::Context;
use crate::index::IndexError;
use crate::services::{SET_ASIDE_NOTE, aside, uncollected_with_exercises};

/// How often it is looked.
const LOOK_SECONDS: u64 = 10;
const OVERDUE_NOTE: &str = "overdue";
const UNCOLLECTED_NOTE: &str = "uncollected";

/// Notes what is overdue, and what nobody may have. Runs until its task is dropped.
pub(crate) async fn keep_noted(context: Context) {
    // A start has enough to read without it.
    let period = Duration::from_secs(LOOK_SECONDS);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let looking = context.clone();
        match concord_server::blocking(move || look(&looking)).await {
            Ok(Ok(waits)) => note(&context, &waits),
            Ok(Err(error)) => tracing::warn!(%error, "what is overdue could not be looked up"),
            Err(error) => tracing::warn!(%error, "what is overdue could not be looked up"),
        }
    }
}

/// What was found, in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waits {
    overdue: Vec<String>,
    uncollected: Vec<String>,
    /// How many wait for a word, by reason.
    set_aside: BTreeMap<String, u64>,
}

fn look(context: &Context) -> Result<Waits, IndexError> {
    let (state, now) = (context.now_state(), context.clock.now());
    let mut waits = Waits::default();
    for lane in Lane::ALL {
        let oldest = oldest_unrecorded(context, lane)?;
        let is_overdue = |(since, _): &(Timestamp, bool)| context.overdue.is(lane, *since, now);
        if let Some((since, is_exercise)) = oldest.filter(is_overdue) {
            let exchanges = state.unrecorded_exchanges(lane);
            let what = if is_exercise { "EXERCISE: " } else { "" };
            waits.overdue.push(format!(
                "{what}{exchanges} exchanges of lane {lane} wait here for the hub, since {}",
                timestamp(since)
            ));
        }
        let untaken = oldest_untaken(context, lane)?;
        if let Some((since, is_exercise)) = untaken.filter(is_overdue) {
            let what = if is_exercise { "EXERCISE: " } else { "" };
            waits
                .overdue
                .push(format!("{what}what came on lane {lane} at {} was taken by no agency", timestamp(since)));
        }
        let (nobodys, exercises) = uncollected_with_exercises(context, &state, lane)?;
        metrics::gauge!("concord_uncollected_deliveries", "lane" => lane.as_str()).set(nobodys as f64);
        for (reason, count) in aside::waiting(&context.index, lane)? {
            *waits.set_aside.entry(reason).or_default() += count;
        }
        if nobodys > 0 {
            let of_these = if exercises > 0 { format!(" (EXERCISE: {exercises})") } else { String::new() };
            waits.uncollected.push(format!("{nobodys} of lane {lane}{of_these}"));
        }
    }
    Ok(waits)
}

/// When the first consignment of a lane was queued that has no receipt, and whether all in it are exercises.
fn oldest_unrecorded(context: &Context, lane: Lane) -> Result<Option<(Timestamp, bool)>, IndexError> {
    let state = context.now_state();
    if state.unrecorded_exchanges(lane) == 0 {
        return Ok(None);
    }
    let chain = state.chain(lane);
    // Rows follow the journal: what is not there yet was queued just now.
    let Some(sequence) = context.index.consignment(lane, chain.epoch, chain.settled_through() + 1)? else {
        return Ok(None);
    };
    let since = Timestamp::from_micros(context.index.journal().head(sequence)?.recorded_at);
    let kept = context.index.own_consignment(sequence)?;
    Ok(Some((since, kept.sealed.headers.iter().all(|header| is_exercise(header)))))
}

/// When the first delivery of a lane came that no agency has taken, and whether it is an exercise.
fn oldest_untaken(context: &Context, lane: Lane) -> Result<Option<(Timestamp, bool)>, IndexError> {
    let state = context.now_state();
    // What had been set aside came when it was accepted, whatever its number.
    let is_late = |number: u64| state.late_one(lane, number).is_some();
    let mut untaken = context.index.untaken(lane, 0, u64::MAX)?.into_iter().map(|(number, _)| number);
    let row = match untaken.find(|number| !is_late(*number)) {
        Some(number) => context.index.inbox(lane, number, 1)?.into_iter().next().filter(|(found, _)| *found == number),
        None => None,
    };
    let late = state.late().range((lane, 0)..=(lane, u64::MAX)).map(|(_, late)| late);
    let late = late.filter(|late| late.taken_by.is_empty()).map(|late| (late.at, late.about.exercise));
    Ok(late.chain(row.map(|(_, row)| (Timestamp::from_micros(row.delivered_at), row.about.exercise))).min())
}

fn note(context: &Context, waits: &Waits) {
    let Waits { overdue, uncollected, set_aside } = waits;
    let told = |name: &'static str, message: Option<String>| match message {
        Some(message) => context.readiness.note(name, message),
        None => context.readiness.clear(name),
    };
    told(OVERDUE_NOTE, (!overdue.is_empty()).then(|| overdue.join("; ")));
    let nobodys = uncollected.join(", ");
    let what =
        format!("no agency may have {nobodys}: grant one the right to it (`concord agency grant`), and it goes there");
    told(UNCOLLECTED_NOTE, (!uncollected.is_empty()).then_some(what));
    told(SET_ASIDE_NOTE, aside::note(set_aside));
}
