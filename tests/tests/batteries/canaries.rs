//! Only the agreed, to the last byte: secrets in every exchange of a random history, looked for in everything that anybody got.

use concord_tests::battery::{Budget, report};

use crate::canaries_history::{CODES, History};
use crate::canaries_search::SORTS;

/// Exchanges of one history in a slice, and in a campaign: it goes every path once.
const IN_SLICE: u64 = 65;
const IN_CAMPAIGN: u64 = 400;

#[test]
fn no_byte_of_an_exchange_is_found_with_anybody_outside_its_audience_nor_its_content_outside_journals() {
    let budget = Budget::slice(1, 1);
    report(&format!("canaries: seed {}", budget.seed));
    let is_campaign = budget.left(0) != u64::MAX;
    let mut exchanges = 0;
    for round in 0_u64.. {
        if budget.is_over(exchanges) {
            break;
        }
        let seed = budget.seed.wrapping_add(round);
        let mut history = History::begin(seed);
        history.live(if is_campaign { IN_CAMPAIGN.min(budget.left(exchanges)) } else { IN_SLICE });
        let searched = history.search();
        let tally = &history.tally;
        exchanges += tally.recorded;
        report(&format!(
            "canaries: seed {seed}, {:?}: {} participants and the hub, {} files and answers, {} bytes, {} secrets of {} exchanges and {} \
             refused ones; {} narrowed, {} withheld, {} withdrawn, {} questions, {} numbers of mailboxes; found {} times where they may be, {} times where they may not",
            budget.elapsed(),
            searched.participants.len() - 1,
            searched.pieces,
            searched.bytes,
            history.secrets(),
            tally.recorded,
            tally.refused,
            tally.narrowed,
            tally.withheld,
            tally.withdrawn,
            tally.questions,
            tally.numbers,
            searched.allowed,
            searched.leaks.len()
        ));
        report(&format!("canaries: searched of each sort {:?}", searched.sorts));
        let shown = |all: &[String]| all.iter().take(20).cloned().collect::<Vec<_>>();
        assert!(searched.leaks.is_empty(), "{} leaks: {:#?}", searched.leaks.len(), shown(&searched.leaks));
        assert!(history.wrong.is_empty(), "{} things: {:#?}", history.wrong.len(), shown(&history.wrong));
        assert_eq!(searched.participants.len(), CODES.len() + 1);
        assert_eq!(searched.sorts.len(), SORTS.len(), "{:?}", searched.sorts);
        assert!(tally.narrowed > 0 && tally.withheld > 0 && tally.withdrawn > 1 && tally.refused > 0, "{tally:?}");
    }
    budget.reached(exchanges, "exchanges");
}
