//! What must be true of what was withdrawn: who got notice, who has it still, and who may do without.

use concord_ledger::Ledger;
use concord_model::{ExchangeId, ParticipantCode, Reason};

use super::{AtHub, Received, Recorded, has_left};
use crate::forum::AGENCIES;
use crate::log::Log;

/// Whether the hub took an exchange's withdrawal in.
pub(super) fn is_withdrawn(hub: &AtHub, log: &Log, id: &ExchangeId) -> bool {
    log.withdrawn.get(id).is_some_and(|by| hub.exchanges[by].refused.is_none())
}

/// A notice goes to exactly those for whom what it withdraws was recorded; it is refused only where that was. Where the hub may have forgotten
/// that, it goes to nobody but whom the sender meant.
pub(super) fn judge_notice(hub: &AtHub, log: &Log, by: &ExchangeId, notice: &Recorded, meant: &[ParticipantCode]) {
    let Some(id) = notice.withdraws else { return };
    let place = &notice.place;
    assert_eq!(log.withdrawn.get(&id), Some(by), "I1: {place:?} withdraws {id}, which nobody was answered");
    let exchange = &hub.exchanges[&id];
    assert_eq!(exchange.place.0.origin, place.0.origin, "I2: {place:?} withdraws what another sent");
    assert_eq!(notice.body, None, "I1: the withdrawal {place:?} has a body");
    let was_there = exchange.entry < notice.entry;
    match notice.refused {
        // What a hub forgot comes again in any order, and as its receipts say.
        _ if log.hub_put_back => {}
        None if was_there => {
            assert_eq!(exchange.refused, None, "I8: {place:?} withdraws what was refused");
            assert_eq!(notice.audience, exchange.audience, "I2: {place:?} goes to others than what it withdraws");
        }
        None => {
            assert!(notice.audience.is_empty(), "I2: {place:?} came first, and goes to {:?}", notice.audience);
            assert_eq!(exchange.refused, Some(Reason::ExchangeWithdrawn), "I2: {id} came after its withdrawal");
        }
        Some(reason) => {
            assert_eq!(reason, Reason::ExchangeUnknown, "I8: {place:?} was refused, and nothing here explains it");
            assert!(was_there && exchange.refused.is_some(), "I8: {place:?} was refused, but {id} stands");
        }
    }
    let stranger = notice.audience.iter().find(|code| !exchange.audience.contains(code));
    assert!(stranger.is_none() || log.hub_put_back, "I2: {stranger:?} is told that {id} was withdrawn");
    let stranger = notice.audience.iter().find(|code| !meant.contains(code));
    assert_eq!(stranger, None, "I2: one whom its sender did not mean is told that {id} was withdrawn");
}

/// Whether a node took an exchange in after the notice that it is withdrawn.
pub(super) fn came_behind(log: &Log, journal: &Received, id: &ExchangeId) -> bool {
    let entry = |id| Some(journal.numbers[journal.accepted.get(id)?].0);
    let notice = log.withdrawn.get(id).and_then(entry);
    notice.zip(entry(id)).is_some_and(|(notice, exchange)| notice < exchange)
}

/// Whoever has what was withdrawn has the notice, and gives what came behind that to no agency.
pub(super) fn judge_holder(
    hub: &AtHub,
    ledger: &Ledger,
    log: &Log,
    (state, code): (usize, &ParticipantCode),
    journal: &Received,
) {
    for (id, by) in log.withdrawn.iter().filter(|(id, _)| is_withdrawn(hub, log, id)) {
        let holds = journal.accepted.contains_key(id) && !journal.accepted.contains_key(by);
        let Recorded { place, audience, .. } = &hub.exchanges[id];
        // A hub that forgot that it went to one who left since records it again without that one, and so the notice too; and where no
        // receipt says to whom it went, the withdrawal of an origin that left since reaches nobody.
        let left = |code| has_left(ledger, &hub.exchanges[id], code);
        let is_forgotten = log.hub_put_back && (left(code) || left(&place.0.origin)) && !audience.contains(code);
        assert!(
            !holds || is_forgotten,
            "{code} has {place:?}, and no notice that it was withdrawn by {:?}",
            hub.exchanges[by].place
        );
    }
    for id in log.withdrawn.keys().filter(|id| came_behind(log, journal, id)) {
        let given = (0..AGENCIES.len()).filter_map(|agency| log.given.get(&(state, agency)));
        let is_given = given.into_iter().any(|given| given.exchanges.contains_key(id));
        assert!(!is_given, "I2: {code} had notice that {id} was withdrawn before it came, and gave it to an agency");
    }
    // Said to be refused, and so not withdrawn: a hub that was put back may have taken it in since.
    let refused = |id: &&ExchangeId| hub.exchanges[*id].refused.is_some();
    let stands = log.not_current.iter().find(|id| !refused(id));
    assert!(stands.is_none() || log.hub_put_back, "{stands:?} stands, and its withdrawal was refused by its node");
}
