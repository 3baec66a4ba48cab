//! SIGKILL at every named point, of hub and nodes under load, again while they recover: the independent checker judges.

use std::time::{Duration, Instant};

use concord_tests::battery::{Budget, report};
use concord_tests::kills::{Killing, Tally};

/// Deaths between two judgements.
const DEATHS_JUDGED_TOGETHER: u64 = 30;
/// A run of so many deaths comes by so many points at least.
const MANY_DEATHS: u64 = 600;
const POINTS_OF_MANY_DEATHS: usize = 60;
/// Deaths in one forum; then a new one begins, so that reading its journals stays quick.
const DEATHS_IN_FORUM_MAX: u64 = 240;

#[test]
fn whoever_dies_at_any_named_point_loses_nothing_acknowledged_and_doubles_nothing() {
    let budget = Budget::slice(60, 75);
    report(&format!("kills: seed {}", budget.seed));
    let mut all = Tally::default();
    let mut sent = 0;
    for forum in 0_u64.. {
        if budget.is_over(all.deaths()) {
            break;
        }
        let mut killing = Killing::begin(budget.seed.wrapping_add(forum), std::mem::take(&mut all));
        let in_forum = killing.tally.deaths() + DEATHS_IN_FORUM_MAX;
        while !budget.is_over(killing.tally.deaths()) && killing.tally.deaths() < in_forum {
            let deaths = DEATHS_JUDGED_TOGETHER.min(budget.left(killing.tally.deaths()));
            // Between two judgements there is time for the slowest machine.
            killing.kill(deaths, Instant::now() + Duration::from_secs(60));
            killing.judge();
        }
        sent += killing.sent();
        all = killing.end();
    }
    budget.reached(all.deaths(), "deaths");
    let never = all.never();
    report(&format!(
        "kills: {} over {} points, seed {}, {:?}; {} more at no particular point, {} torn ends, {sent} exchanges; \
         the retention took bodies of {}, and {} segments",
        all.deaths(),
        all.died.len(),
        budget.seed,
        budget.elapsed(),
        all.unforeseen,
        all.torn,
        all.bodies_taken,
        all.segments_taken
    ));
    report(&format!("kills: never died at {never:?}"));
    report(&format!("kills: by point {:?}", all.died));
    report(&format!("kills: lived on at {:?}", all.missed));
    let took = all.bodies_taken > 0 && all.segments_taken > 0;
    assert!(all.deaths() < DEATHS_JUDGED_TOGETHER || took, "the retention took nothing beside {} deaths", all.deaths());
    let in_trims = all.deaths_in_trims();
    assert!(all.deaths() < MANY_DEATHS || in_trims > 0, "nobody died in a trim in {} deaths", all.deaths());
    let is_broad = all.died.len() >= POINTS_OF_MANY_DEATHS;
    assert!(all.deaths() < MANY_DEATHS || is_broad, "only {} points in {} deaths", all.died.len(), all.deaths());
}
