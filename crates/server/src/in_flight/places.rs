//! Who has how many calls open, and how many bytes they brought.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_model::{Identity, ParticipantCode, Reason, Refusal};

use super::{
    BYTES_IN_FLIGHT_PER_CALLER_MAX, BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX, CALLS_IN_FLIGHT_PER_CALLER_MAX,
    CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX,
};

/// The calls of everybody. Who has none is not in it, so it is no larger than the calls that are open.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    own: ParticipantCode,
    calls: Arc<Mutex<Calls>>,
}

pub(super) type Calls = BTreeMap<ParticipantCode, BTreeMap<Identity, Share>>;

/// What one caller has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) calls: usize,
    pub(super) bytes: usize,
}

impl InFlight {
    /// Nothing is in flight. `own` is who runs the server.
    pub(super) fn new(own: ParticipantCode) -> Self {
        Self { own, calls: Arc::default() }
    }

    pub(super) fn take(&self, identity: &Identity) -> Result<Arc<Place>, Refusal> {
        let mut calls = self.calls();
        let of_participant = calls.get(&identity.participant);
        let of_caller = of_participant.and_then(|callers| callers.get(identity)).copied().unwrap_or_default();
        if of_caller.calls >= CALLS_IN_FLIGHT_PER_CALLER_MAX {
            return Err(full(identity, CALLS_IN_FLIGHT_PER_CALLER_MAX, "one caller"));
        }
        let of_all: usize = of_participant.map_or(0, |callers| callers.values().map(|share| share.calls).sum());
        if identity.participant != self.own && of_all >= CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX {
            return Err(full(&identity.participant, CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX, "one participant"));
        }
        calls.entry(identity.participant.clone()).or_default().entry(identity.clone()).or_default().calls += 1;
        Ok(Arc::new(Place { identity: identity.clone(), in_flight: self.clone(), bytes: Mutex::new(0) }))
    }

    /// So many bytes more, if there is room for them.
    fn hold(&self, identity: &Identity, bytes: usize) -> Result<(), Refusal> {
        let mut calls = self.calls();
        let callers = calls.entry(identity.participant.clone()).or_default();
        let of_all: usize = callers.values().map(|share| share.bytes).sum();
        let share = callers.entry(identity.clone()).or_default();
        if share.bytes + bytes > BYTES_IN_FLIGHT_PER_CALLER_MAX {
            return Err(too_much(identity, BYTES_IN_FLIGHT_PER_CALLER_MAX, "one caller"));
        }
        if identity.participant != self.own && of_all + bytes > BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX {
            return Err(too_much(&identity.participant, BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX, "one participant"));
        }
        share.bytes += bytes;
        Ok(())
    }

    fn let_go(&self, identity: &Identity, bytes: usize) {
        let mut calls = self.calls();
        let share = calls.get_mut(&identity.participant).and_then(|callers| callers.get_mut(identity));
        if let Some(share) = share {
            share.bytes = share.bytes.saturating_sub(bytes);
        }
    }

    fn give_back(&self, identity: &Identity, bytes: usize) {
        let mut calls = self.calls();
        let Some(callers) = calls.get_mut(&identity.participant) else { return };
        match callers.get_mut(identity) {
            Some(share) if share.calls > 1 => {
                share.calls -= 1;
                share.bytes = share.bytes.saturating_sub(bytes);
            }
            _ => drop(callers.remove(identity)),
        }
        if callers.is_empty() {
            calls.remove(&identity.participant);
        }
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(whose: &dyn std::fmt::Display, most: usize, of: &str) -> Refusal {
    Refusal::new(
        Reason::QueueFull,
        format!("{whose} has {most} calls open, the most for {of}; end some that are not needed"),
    )
}

fn too_much(whose: &dyn std::fmt::Display, most: usize, of: &str) -> Refusal {
    let mebibytes = most / 1024 / 1024;
    Refusal::new(
        Reason::QueueFull,
        format!(
            "the calls of {whose} have brought messages of {mebibytes} MiB that are not answered, the most for {of}"
        ),
    )
}

/// A call's place: taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    identity: Identity,
    in_flight: InFlight,
    /// Of the message that the call brings or brought last.
    bytes: Mutex<usize>,
}

impl Place {
    pub(super) fn hold(&self, bytes: usize) -> Result<(), Refusal> {
        let mut held = self.held();
        self.in_flight.hold(&self.identity, bytes)?;
        *held += bytes;
        Ok(())
    }

    pub(super) fn let_go(&self) {
        self.in_flight.let_go(&self.identity, std::mem::take(&mut *self.held()));
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.held();
        self.in_flight.give_back(&self.identity, bytes);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn in_flight() -> InFlight {
        InFlight::new(ParticipantCode::secretariat())
    }

    pub(in super::super) fn take(in_flight: &InFlight, identity: &str) -> Result<Arc<Place>, Reason> {
        in_flight.take(&identity.parse().unwrap()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn many_names_of_one_participant_share_one_limit_and_others_keep_theirs() {
        let in_flight = in_flight();
        let kaz = |number: usize| take(&in_flight, &format!("spiffe://kaz.concord/node/n{number}"));
        let mut taken: Vec<_> = (0..CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX).map(|number| kaz(number).unwrap()).collect();
        assert_eq!(kaz(9_999).err(), Some(Reason::QueueFull));
        assert!(take(&in_flight, "spiffe://uzb.concord/node/main").is_ok());

        taken.pop();
        taken.push(kaz(9_999).unwrap());
        assert_eq!(kaz(0).err(), Some(Reason::QueueFull));
        drop(taken);
        assert!(in_flight.calls().is_empty(), "nothing is remembered of who has no calls");
    }

    #[test]
    fn the_servers_own_callers_are_limited_one_by_one_and_not_together() {
        let in_flight = in_flight();
        let mut taken = Vec::new();
        for number in 0..2 * CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX / CALLS_IN_FLIGHT_PER_CALLER_MAX {
            let officer = format!("spiffe://sec.concord/officer/o{number}");
            taken.extend((0..CALLS_IN_FLIGHT_PER_CALLER_MAX).map(|_| take(&in_flight, &officer).unwrap()));
            assert_eq!(take(&in_flight, &officer).err(), Some(Reason::QueueFull));
        }
    }
}
