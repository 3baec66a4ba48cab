//! The power goes while hub and nodes run as real processes on disks that forget what was not synced: every receipt holds.

#![cfg(target_os = "linux")]

use concord_tests::battery::{Budget, report};
use concord_tests::power::{Outage, is_missing};

/// Cuts between two judgements.
const CUTS_JUDGED_TOGETHER: u64 = 5;
/// Cuts in one forum; then a new one begins, so that reading its journals stays quick.
const CUTS_IN_FORUM_MAX: u64 = 50;

#[test]
fn whoever_loses_its_power_after_a_receipt_was_given_loses_nothing_that_the_receipt_said() {
    if let Some(why) = is_missing() {
        report(&format!("power: skipped: {why}"));
        // Whether it may mount is not for a checkout to say; anything else can be put there.
        assert!(why.is_a_right() || std::env::var_os("CI").is_none(), "CI is set, so nothing may be skipped: {why}");
        return;
    }
    let budget = Budget::slice(5, 40);
    report(&format!("power: seed {}", budget.seed));
    let (mut cuts, mut sent) = (0, 0);
    while !budget.is_over(cuts) {
        let mut outage = Outage::begin(budget.seed.wrapping_add(cuts));
        let in_forum = cuts + CUTS_IN_FORUM_MAX;
        while !budget.is_over(cuts) && cuts < in_forum {
            for _ in 0..CUTS_JUDGED_TOGETHER.min(budget.left(cuts)) {
                outage.cut();
                cuts += 1;
            }
            outage.judge();
        }
        sent += outage.sent();
    }
    budget.reached(cuts, "cuts of the power");
    report(&format!("power: {cuts} cuts, seed {}, {:?}, {sent} exchanges", budget.seed, budget.elapsed()));
}
