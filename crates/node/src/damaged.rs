//! Deliveries whose content is damaged on this node's disk while an agency waits for it: the hub is asked for them again.
//!
//! Invariant: nothing is put in the place of a damaged body but what has the commitment that stands in the entry; and an agency is given
//! what follows in its lane only once the content is back, or the hub has said that it does not give it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_model::{Digest, ExchangeId, Lane};
use concord_server::{BODY_DAMAGED_ALARM, NOT_HEALED_NOTE, Readiness};
use tokio::sync::watch;

/// Deliveries of one lane that are asked for at once.
const ASKED_MAX: usize = 256;

/// What is wanted from the hub, and what it has no more.
#[derive(Default)]
pub struct Damaged {
    known: Mutex<Known>,
    wanted: watch::Sender<()>,
    settled: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// By lane and the number under which it stands here: the number under which the hub knows it; none while a hub that lost data has yet
    /// to give it once more.
    wanted: BTreeMap<(Lane, u64), Option<u64>>,
    /// By lane and the number here: what the hub gives no more. The next process asks again.
    gone: BTreeSet<(Lane, u64)>,
}

impl Damaged {
    /// Wants a delivery again, under the number by which the hub knows it, if it does.
    pub fn want(&self, readiness: &Readiness, lane: Lane, number: u64, asked: Option<u64>) {
        if self.known().wanted.insert((lane, number), asked) != Some(asked) {
            tracing::error!(%lane, number, "content of a delivery is damaged here: the hub is asked for it");
            self.tell(readiness);
            self.wanted.send_replace(());
        }
    }

    /// Whether the hub is, or is to be, asked for the content of this delivery.
    pub fn is_wanted(&self, lane: Lane, number: u64) -> bool {
        self.known().wanted.contains_key(&(lane, number))
    }

    /// Numbers to ask the hub for.
    pub fn asked(&self, lane: Lane) -> BTreeSet<u64> {
        let known = self.known();
        known.wanted.range((lane, 0)..=(lane, u64::MAX)).filter_map(|(_, asked)| *asked).take(ASKED_MAX).collect()
    }

    /// The number here of what was asked for.
    pub fn number(&self, lane: Lane, asked: u64) -> Option<u64> {
        let known = self.known();
        let mut wanted = known.wanted.range((lane, 0)..=(lane, u64::MAX));
        wanted.find(|(_, of)| **of == Some(asked)).map(|((_, number), _)| *number)
    }

    /// Tells whenever something more is wanted.
    pub fn watch_wanted(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// Tells whenever something is back, or gone for good.
    pub fn watch_settled(&self) -> watch::Receiver<()> {
        self.settled.subscribe()
    }

    /// Whether the hub gives the content of a number no more.
    pub fn is_gone(&self, lane: Lane, number: u64) -> bool {
        self.known().gone.contains(&(lane, number))
    }

    /// What was asked for is back in its place.
    pub fn settle(&self, readiness: &Readiness, lane: Lane, number: u64) {
        self.known().wanted.remove(&(lane, number));
        self.tell(readiness);
        self.settled.send_replace(());
    }

    /// The hub gives the content of a number no more: it is listed, and agencies pass it.
    pub fn list_gone(&self, readiness: &Readiness, lane: Lane, number: u64, exchange_id: &[u8; 32]) {
        let id = ExchangeId(Digest(*exchange_id));
        let is_new = {
            let mut known = self.known();
            known.wanted.remove(&(lane, number));
            known.gone.insert((lane, number))
        };
        if is_new {
            tracing::error!(exchange = %id, %lane, number, "content that is damaged here is gone at the hub too");
            let what = format!(
                "exchange {id} (number {number} of mailbox {lane}): its content is damaged here, and the hub gives it no more; agencies that \
                 have yet to get it do not get it"
            );
            readiness.note_also(NOT_HEALED_NOTE, &what);
        }
        self.tell(readiness);
        self.settled.send_replace(());
    }

    /// The hub has other numbers for a lane now: whoever waits reads again, and asks under those.
    pub fn forget_asked(&self, readiness: &Readiness, lane: Lane) {
        self.known().wanted.retain(|(of, _), _| *of != lane);
        self.tell(readiness);
        self.settled.send_replace(());
    }

    /// Mail came in a lane: what the hub did not know may be among it, under a later number.
    pub fn mail_came(&self, readiness: &Readiness, lane: Lane) {
        let waits = self.known().wanted.iter().any(|((of, _), asked)| *of == lane && asked.is_none());
        if waits {
            self.forget_asked(readiness, lane);
        }
    }

    fn tell(&self, readiness: &Readiness) {
        let known = self.known();
        if known.wanted.is_empty() {
            readiness.clear(BODY_DAMAGED_ALARM);
            return;
        }
        let what = format!(
            "content of {} deliveries is damaged on this node's disk, and agencies wait for it: the hub is asked for it again. Look after \
             the disk; if this stays, put the journal back from a backup (`concord node restore`)",
            known.wanted.len()
        );
        readiness.raise(BODY_DAMAGED_ALARM, what);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
