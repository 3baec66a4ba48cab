//! Content that is damaged on this hub's disk while somebody waits for it: its origin is asked for it again.
//!
//! Invariant: nothing is put in the place of a damaged body but what has the commitment that stands in the entry; and a recipient that may
//! have it is told that it does not get it only once its origin has said that it does not have it any more either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_journal::{Blob, MendError, ReadError};
use concord_model::{ChainKey, Reason, Refusal};
use concord_server::BODY_DAMAGED_ALARM;
use concord_wire::consignment::{self, Opened};
use concord_wire::header::exchange_id;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::stored::hub::HubEntry;
use tokio::sync::watch;

use crate::consign::named_head;
use crate::shared::{Shared, internal};

/// Consignments that one welcome names; when those came the next one names more.
const NAMED_MAX: usize = 256;

/// What is wanted from its origin, and what nobody has any more.
#[derive(Default)]
pub struct Damaged {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// The entry of each consignment that is wanted.
    wanted: BTreeMap<Place, u64>,
    /// By entry and index: exchanges that their origin has no more. The next process asks again.
    gone: BTreeSet<(u64, u32)>,
}

/// The chain and the number of a consignment.
type Place = (ChainKey, u64);

/// Whether both are of one node's lane, in whatever epoch.
fn is_same_lane(one: &ChainKey, other: &ChainKey) -> bool {
    ChainKey { epoch: other.epoch, ..one.clone() } == *other
}

impl Damaged {
    /// Tells whenever something came again, or turned out to be gone.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether the origin said that it does not have the content of this exchange any more.
    pub fn is_gone(&self, sequence: u64, index: u32) -> bool {
        self.known().gone.contains(&(sequence, index))
    }

    /// Wants a consignment again: its origin's stream of that lane ends, so that the next welcome names it.
    pub fn want(&self, shared: &Shared, chain: &ChainKey, number: u64, sequence: u64) {
        let is_new = self.known().wanted.insert((chain.clone(), number), sequence).is_none();
        if is_new {
            let lane = chain.lane;
            tracing::error!(sequence, origin = %chain.origin, %lane, number, "a body is damaged here: its origin is asked for it");
            self.tell(shared);
            shared.streams.end_consigning(&chain.origin, lane, &wanted_again());
        }
    }

    /// What a node is asked to hand in again of a lane.
    pub fn named_to(&self, chain: &ChainKey) -> Vec<pb::ConsignmentPlace> {
        let known = self.known();
        let own = known.wanted.keys().filter(|(of, _)| is_same_lane(of, chain)).take(NAMED_MAX);
        own.map(|(of, number)| pb::ConsignmentPlace { epoch: of.epoch, number: *number }).collect()
    }

    fn wanted(&self, place: &Place) -> Option<u64> {
        self.known().wanted.get(place).copied()
    }

    fn came(&self, shared: &Shared, place: &Place, gone: impl IntoIterator<Item = (u64, u32)>) {
        let left = {
            let mut known = self.known();
            known.wanted.remove(place);
            known.gone.extend(gone);
            known.wanted.keys().filter(|(of, _)| is_same_lane(of, &place.0)).count()
        };
        self.tell(shared);
        self.changed.send_replace(());
        if left >= NAMED_MAX {
            // Some of them the last welcome did not name.
            shared.streams.end_consigning(&place.0.origin, place.0.lane, &wanted_again());
        }
    }

    fn tell(&self, shared: &Shared) {
        let known = self.known();
        let origins: BTreeSet<&str> = known.wanted.keys().map(|(of, _)| of.origin.as_str()).collect();
        if origins.is_empty() {
            shared.readiness.clear(BODY_DAMAGED_ALARM);
            return;
        }
        let asked = origins.into_iter().collect::<Vec<_>>().join(", ");
        let what = format!(
            "content of {} consignments is damaged on this hub's disk, and recipients wait for it: the nodes of {asked} are asked for it \
             again. Look after the disk",
            known.wanted.len()
        );
        shared.readiness.raise(BODY_DAMAGED_ALARM, what);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted_again() -> Refusal {
    Refusal::new(Reason::Healing, "content of what you handed in is damaged here: it is wanted again")
}

/// What a consignment that came again is good for.
struct Repair {
    place: Place,
    sequence: u64,
    /// By index among the entry's bodies.
    bodies: Vec<(usize, Blob)>,
    /// Exchanges that came without their content.
    gone: Vec<u32>,
}

/// Takes a consignment that a node hands in again, and puts what is damaged of it back in its place.
///
/// Refuses as [`consignment::open`] does, and with `CONSIGNMENT_MALFORMED` where it is not what was recorded under that number.
pub async fn take_again(shared: &Arc<Shared>, chain: &ChainKey, message: pb::Consignment) -> Result<(), Refusal> {
    let chain = chain.clone();
    let Some(repair) = shared.blocking(move |shared| repair(shared, &chain, message)).await? else { return Ok(()) };
    let Repair { place, sequence, bodies, gone } = repair;
    concord_faults::point("hub.mend.found");
    for (index, body) in bodies {
        match shared.journal.mend(sequence, index, body).await {
            Ok(()) => metrics::counter!("concord_bodies_mended_total").increment(1),
            // The retention took it meanwhile: whoever waits finds that out.
            Err(MendError::NoPlace(ReadError::Redacted { .. })) => {}
            Err(error) => {
                // It stays wanted: whoever waits for it must not ask in a circle, and the next stream brings it again.
                tracing::error!(sequence, index, %error, "what came again could not be put in its place");
                return Ok(());
            }
        }
    }
    shared.damaged.came(shared, &place, gone.into_iter().map(|index| (sequence, index)));
    concord_faults::point("hub.mend.done");
    Ok(())
}

/// None where it is not wanted any more. Blocks.
fn repair(shared: &Shared, chain: &ChainKey, message: pb::Consignment) -> Result<Option<Repair>, Refusal> {
    // It takes no share of its participant's: so what nobody wants is not verified.
    if named_place(&message, chain).is_some_and(|place| shared.damaged.wanted(&place).is_none()) {
        return Ok(None);
    }
    let Opened { sealed, blobs, .. } = consignment::open(message, &chain.origin, |key, message, signature| {
        shared.verify_enrolled(&chain.origin, key, message, signature)
    })?;
    if !is_same_lane(&sealed.chain, chain) {
        return Err(Refusal::new(Reason::ChainMismatch, "the consignment is of another chain than the stream's hello"));
    }
    let place = (sealed.chain.clone(), sealed.number);
    let Some(sequence) = shared.damaged.wanted(&place) else { return Ok(None) };
    // Told on the log: nothing of it can be mended, and what is new does not wait for it.
    let Ok(entry) = shared.entry(sequence) else { return Ok(None) };
    let HubEntry::Consignment(_, kept) = concord_wire::stored::hub::read(&entry).map_err(internal)? else {
        return Err(internal("a damaged body is of no consignment"));
    };
    if kept.sealed.digest != sealed.digest {
        let other = format!("consignment {} came again as another one than was recorded", sealed.number);
        return Err(Refusal::new(Reason::ConsignmentMalformed, other));
    }
    let (mut bodies, mut gone) = (Vec::new(), Vec::new());
    for ((index, header), came) in (0_u32..).zip(&kept.sealed.headers).zip(blobs) {
        let range = kept.blob_range(index as usize);
        let is_whole = came.len() == range.len();
        let mut came = came.into_iter();
        for position in range {
            let body = came.next();
            match shared.journal.blob(sequence, position) {
                Err(error) if error.is_damage() => {}
                _ => continue,
            }
            if let Some(body) = body.filter(|_| is_whole) {
                bodies.push((position, body));
            } else if gone.last() != Some(&index) {
                let id = exchange_id(header);
                tracing::error!(sequence, exchange = %id, "its content is damaged here, and its origin has it no more");
                gone.push(index);
            }
        }
    }
    Ok(Some(Repair { place, sequence, bodies, gone }))
}

/// The place that a consignment names, before anything of it is verified.
fn named_place(message: &pb::Consignment, chain: &ChainKey) -> Option<Place> {
    let head = named_head(message)?;
    Some((consignment::parse_chain_key(chain.origin.clone(), head.chain.as_ref()?).ok()?, head.number))
}
