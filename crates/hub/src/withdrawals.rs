//! Withdrawals at the hub: where what is withdrawn stands, and that its content goes.
//!
//! The hub keeps no index by exchange id. The origin's node tells beside a consignment where in its own chains that stands which a
//! withdrawal in it is about; the hub looks there, and believes what it finds.
//!
//! Invariant: content goes only where a recorded withdrawal names it. Its number in every mailbox is filled from then on by the permit, so that
//! nobody waits for it, and what was permitted before went out.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use concord_journal::Bodies;
use concord_ledger::epoch::FIRST_EPOCH;
use concord_ledger::{Audience, Candidate, ExchangePlace, Found, Target};
use concord_model::{ChainKey, Header, Refusal};
use concord_wire::consignment::Opened;
use concord_wire::convert::parse_lane;
use concord_wire::header::{exchange_id, parse};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::receipt::{Outcome, Recorded};

use crate::projection::consignment_entry;
use crate::sequencer::{Proposal, Published};
use crate::shared::{Shared, internal};

/// Exchanges whose content goes in one effect of the journal.
const REDACTED_TOGETHER_MAX: usize = 256;
/// After a full disk.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a node tells beside a consignment of what the withdrawals in it are about.
#[derive(Debug)]
pub struct ToldOfWithdrawn {
    /// Where it stands.
    pub places: Vec<pb::WithdrawnPlace>,
    /// This hub's own receipts for what of it this hub lost, verified.
    pub receipts: Vec<Recorded>,
}

/// What the withdrawals of a consignment are about, as far as it is recorded.
pub async fn find_targets(
    shared: &Arc<Shared>,
    opened: &Opened,
    told: &Arc<ToldOfWithdrawn>,
) -> Result<BTreeMap<u32, Target>, Refusal> {
    let withdrawing: Arc<Vec<(u32, Header)>> = Arc::new(
        (0..)
            .zip(&opened.candidates)
            .filter_map(|(index, candidate)| match candidate {
                Candidate::Fit(item) if item.header.withdraws.is_some() => Some((index, item.header.clone())),
                _ => None,
            })
            .collect(),
    );
    let mut projected = shared.views.watch();
    loop {
        // Before looking, so that a row that comes meanwhile is not waited for in vain.
        projected.borrow_and_update();
        let (chain, told) = (opened.sealed.chain.clone(), Arc::clone(told));
        let withdrawing = Arc::clone(&withdrawing);
        let found = shared.blocking(move |shared| {
            let published = shared.published();
            let mut targets = BTreeMap::new();
            for (index, header) in withdrawing.iter() {
                let Some(place) = told.places.iter().find(|place| place.index == *index) else { continue };
                let Some(target) = find(shared, &published, &chain, header, (place, &told.receipts))? else {
                    return Ok(None);
                };
                targets.insert(*index, target);
            }
            Ok(Some(targets))
        });
        if let Some(targets) = found.await? {
            return Ok(targets);
        }
        projected.changed().await.map_err(|_| internal("the views are gone"))?;
    }
}

/// What stands where a withdrawal's node says; none where it is recorded and the views do not know it yet. Blocks.
fn find(
    shared: &Shared,
    published: &Published,
    chain: &ChainKey,
    withdrawal: &Header,
    (place, receipts): (&pb::WithdrawnPlace, &[Recorded]),
) -> Result<Option<Target>, Refusal> {
    let ledger = &published.ledger;
    let (epoch, number) = (place.epoch, place.number);
    let lane = parse_lane(place.lane).ok();
    // Of the origin's own chains, whatever is said.
    let chain = ChainKey { epoch, lane: lane.unwrap_or(chain.lane), ..chain.clone() };
    let target = |found| Ok(Some(Target { chain: chain.clone(), number, found }));
    let is_place = lane.is_some() && (FIRST_EPOCH..=ledger.epochs().current(&chain.origin)).contains(&epoch);
    if !is_place || number == 0 {
        return target(Found::Other);
    }
    let known = ledger.chains().get(&chain);
    if known.is_none_or(|known| known.last < number) {
        let receipt = receipts.iter().find(|receipt| receipt.chain == chain && receipt.number == number);
        return target(match receipt {
            Some(receipt) => by_receipt(receipt, withdrawal, place.target_index),
            None => Found::NotYet { queued_in: place.queued_in_history[..].try_into().ok() },
        });
    }
    let kept = known.and_then(|known| known.kept.iter().find(|kept| kept.number == number)).map(|kept| kept.sequence);
    let sequence = match kept {
        Some(sequence) => sequence,
        None => match consignment_entry(&shared.views, &chain, number).map_err(internal)? {
            Some(sequence) => sequence,
            None => return Ok(None),
        },
    };
    let (fact, kept) = shared.consignment(sequence)?;
    let index = place.target_index;
    let stands = kept.sealed.headers.get(index as usize);
    let is_meant = stands.is_some_and(|stands| speaks_of(withdrawal, stands));
    if !is_meant {
        return target(Found::Other);
    }
    target(match fact.group_of(index) {
        Some(group) => {
            let audience = Audience { agreement: group.agreement.clone(), recipients: group.recipients.clone() };
            Found::Recorded(ExchangePlace { sequence, index }, audience)
        }
        None => Found::Refused,
    })
}

/// What a receipt says of an exchange that this hub lost. It does not show the exchange; but whoever sent it, and nobody else, tells of it, and
/// those who are told are none but those to whom this hub gave what stood there.
fn by_receipt(receipt: &Recorded, withdrawal: &Header, index: u32) -> Found {
    match usize::try_from(index).ok().and_then(|index| receipt.outcomes.get(index)) {
        Some(Outcome::Recorded { agreement, audience }) if agreement.id == withdrawal.agreement.id => {
            Found::Forgotten(Audience { agreement: agreement.clone(), recipients: audience.clone() })
        }
        Some(Outcome::Refused(_)) => Found::Refused,
        _ => Found::Other,
    }
}

/// Whether a withdrawal is about this exchange, and says of it what the exchange says itself: so the same terms and rights apply to both.
fn speaks_of(withdrawal: &Header, serialised: &[u8]) -> bool {
    let is_it = withdrawal.withdraws.is_some_and(|withdraws| withdraws.exchange == exchange_id(serialised));
    let Ok(exchange) = parse(serialised) else { return false };
    is_it
        && exchange.withdraws.is_none()
        && exchange.agreement == withdrawal.agreement
        && exchange.measure == withdrawal.measure
        && exchange.handling == withdrawal.handling
        && exchange.narrowing == withdrawal.narrowing
        && exchange.agencies == withdrawal.agencies
        && exchange.exercise == withdrawal.exercise
}

/// Lets the content of what is withdrawn go, for as long as the process lives; what an earlier process left too.
pub async fn keep_redacting(shared: Weak<Shared>) {
    let mut through = 0;
    loop {
        let (mut published, done) = {
            let Some(shared) = shared.upgrade() else { return };
            let mut published = shared.sequencer.watch();
            let shown = published.borrow_and_update().ledger.sequence();
            let done = redact_after(&shared, through).await;
            (published, done.map(|()| shown))
        };
        match done {
            Ok(shown) => through = shown,
            // A full disk, or the end of the hub.
            Err(refusal) => {
                tracing::warn!(reason = %refusal.reason, "the content of what was withdrawn has yet to go");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                continue;
            }
        }
        let is_news = |now: &Arc<Published>| now.ledger.withdrawals().places_after(through).next().is_some();
        if published.wait_for(is_news).await.is_err() {
            return;
        }
    }
}

async fn redact_after(shared: &Arc<Shared>, through: u64) -> Result<(), Refusal> {
    let due = shared.blocking(move |shared| due_after(shared, through)).await?;
    for bodies in due.chunks(REDACTED_TOGETHER_MAX) {
        concord_faults::point("hub.withdrawal.due");
        let count = bodies.len() as u64;
        shared.sequencer.decide(Proposal::Redact(bodies.to_vec())).await?;
        concord_faults::point("hub.withdrawal.redacted");
        metrics::counter!("concord_exchanges_withdrawn_total").increment(count);
    }
    Ok(())
}

/// What is still there of the content of what was withdrawn. Blocks.
fn due_after(shared: &Shared, through: u64) -> Result<Vec<Bodies>, Refusal> {
    let published = shared.published();
    let mut due = Vec::new();
    for (_, ExchangePlace { sequence, index }) in published.ledger.withdrawals().places_after(through) {
        let (_, kept) = shared.consignment(sequence)?;
        let range = kept.blob_range(index as usize);
        let there = shared.journal.bodies(sequence).map_err(internal)?;
        let own = there.get(range.clone()).unwrap_or_default();
        if own.iter().all(|body| body.is_gone) {
            continue;
        }
        let (Ok(first), Ok(count)) = (u32::try_from(range.start), u32::try_from(range.len())) else { continue };
        Bodies { sequence, first, count }.add_to(&mut due);
    }
    Ok(due)
}
