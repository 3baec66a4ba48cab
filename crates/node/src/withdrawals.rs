//! The content of what was withdrawn goes at this node too, unless its operator keeps it (`keep_withdrawn`).
//!
//! Invariant: what this state sent itself goes only once the hub has recorded the withdrawal, and has said what became of what is withdrawn: before
//! that it may still have to be handed in.

use std::collections::BTreeSet;
use std::time::Duration;

use concord_journal::Bodies;
use concord_model::{ExchangeId, ParticipantCode, Reason};
use concord_wire::receipt::{self, Outcome};
use concord_wire::stored::node::{NodeEntry, read};

use crate::context::Context;
use crate::index::{Index, IndexError, Place};

/// After a full disk.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is looked for: an exchange of an origin.
type Leaving = (ExchangeId, ParticipantCode);

/// Lets it go for as long as the process lives; what an earlier process left too.
pub(crate) async fn keep_redacting(context: Context) {
    let mut published = context.state.clone();
    let (mut through, mut waiting) = (0, BTreeSet::new());
    loop {
        published.borrow_and_update();
        let (looking, before) = (context.clone(), waiting.clone());
        let looked = concord_server::blocking(move || due(&looking, through, before)).await;
        let due = match looked {
            Ok(Ok(due)) => due,
            Ok(Err(error)) => return tracing::error!(%error, "what was withdrawn cannot be looked for"),
            Err(error) => return tracing::error!(%error, "what was withdrawn cannot be looked for"),
        };
        (through, waiting) = (due.through, due.waiting);
        if !due.bodies.is_empty() {
            concord_faults::point("node.withdrawal.due");
            if let Err(refusal) = context.writer.redact(due.bodies).await {
                tracing::warn!(reason = %refusal.reason, "the content of what was withdrawn has yet to go");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                (through, waiting) = (0, BTreeSet::new());
                continue;
            }
            concord_faults::point("node.withdrawal.redacted");
            continue;
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

struct Due {
    bodies: Vec<Bodies>,
    /// Entries up to here were looked at.
    through: u64,
    /// Own ones that have yet to be settled.
    waiting: BTreeSet<Leaving>,
}

/// What is still there of the content of what was withdrawn, and may go. Blocks.
fn due(context: &Context, through: u64, waiting: BTreeSet<Leaving>) -> Result<Due, IndexError> {
    let index = &context.index;
    let mut due = Due { bodies: Vec::new(), through, waiting: BTreeSet::new() };
    let mut looked_for = waiting;
    for (sequence, id, origin) in index.leaving_after(through)? {
        due.through = sequence;
        looked_for.insert((id, origin));
    }
    for (id, origin) in looked_for {
        if origin != context.participant {
            received(index, &id, &origin, &mut due.bodies)?;
            continue;
        }
        match own(index, &id, &origin)? {
            Own::Nowhere => {}
            Own::Waits => drop(due.waiting.insert((id, origin))),
            Own::Goes(place) => own_bodies(index, &place, &mut due.bodies)?,
        }
    }
    Ok(due)
}

/// One that came; nothing where it never did.
fn received(
    index: &Index,
    id: &ExchangeId,
    origin: &ParticipantCode,
    bodies: &mut Vec<Bodies>,
) -> Result<(), IndexError> {
    let Some(row) = index.inbox_place(id)?.filter(|row| row.about.is_withdrawn) else { return Ok(()) };
    let items = read(&index.read_one(row.sequence)?)?.into_received().ok_or(IndexError::Row("a delivery"))?;
    let item = usize::try_from(row.index).ok().and_then(|position| items.get(position));
    let count = item.map_or(0, |item| item.blob_count);
    tracing::info!(exchange = %id, %origin, "an exchange was withdrawn: its content goes");
    add(index, row.sequence, row.first_blob as u32, count, bodies)
}

/// What is to become of an own one.
enum Own {
    Nowhere,
    Waits,
    Goes(Place),
}

fn own(index: &Index, id: &ExchangeId, origin: &ParticipantCode) -> Result<Own, IndexError> {
    let (Some(place), Some(row)) = (index.exchange(id)?, index.withdrawn(id, origin)?) else {
        return Ok(Own::Nowhere);
    };
    let Some(by) = index.exchange(&row.by)? else { return Ok(Own::Nowhere) };
    let is_settled = index.receipt_of(&place)?.is_some();
    let Some(receipt) = index.receipt_of(&by)?.filter(|_| is_settled) else { return Ok(Own::Waits) };
    let recorded = receipt::parse(&receipt.statement).map_err(|_| IndexError::Row("a receipt"))?;
    let outcome = usize::try_from(by.index).ok().and_then(|position| recorded.outcomes.get(position));
    Ok(match outcome {
        // Another one was there before.
        Some(Outcome::Recorded { .. } | Outcome::Refused(Reason::ExchangeWithdrawn)) => Own::Goes(place),
        _ => Own::Nowhere,
    })
}

/// Where it stands now, and where it stood before it was packed anew.
fn own_bodies(index: &Index, place: &Place, bodies: &mut Vec<Bodies>) -> Result<(), IndexError> {
    let (mut epoch, mut number) = (place.epoch, place.number);
    loop {
        let sequence = index.own_sequence(place, epoch, number)?;
        let entry = read(&index.read_one(sequence)?)?;
        let (kept, before) = match entry {
            NodeEntry::Queued(queued) => (queued.kept, queued.packed_anew),
            NodeEntry::Found(kept, _) => (*kept, None),
            _ => return Err(IndexError::Row("a consignment")),
        };
        let is_it = |header: &bytes::Bytes| concord_wire::header::exchange_id(header) == place.id;
        if let Some(position) = kept.sealed.headers.iter().position(is_it) {
            let range = kept.blob_range(position);
            add(index, sequence, range.start as u32, range.len() as u32, bodies)?;
        }
        match before.filter(|(before, _)| *before < epoch) {
            Some(from) => (epoch, number) = from,
            None => return Ok(()),
        }
    }
}

fn add(index: &Index, sequence: u64, first: u32, count: u32, bodies: &mut Vec<Bodies>) -> Result<(), IndexError> {
    let there = index.journal().bodies(sequence)?;
    let own = there.get(first as usize..(first + count) as usize).unwrap_or_default();
    if own.iter().any(|body| !body.is_gone) {
        Bodies { sequence, first, count }.add_to(bodies);
    }
    Ok(())
}
