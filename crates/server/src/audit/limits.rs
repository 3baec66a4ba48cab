//! How many lines are written: some of each caller, some of all, and how many more there were.
//!
//! Invariant: however many refusals one caller brings about, those of others are written; however many acts one has done, those of before
//! stay for hours; and what is left out is counted in a line.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_model::ParticipantCode;
use tokio::time::Instant;

use super::line::{Actor, Event};

/// How many lines are written. More are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one caller at once.
    pub of_caller_at_once: u32,
    /// After these, one of the same caller in so long.
    pub of_caller_every_seconds: u32,
    /// Of all callers at once.
    pub at_once: u32,
    /// After these, so many in a minute.
    pub per_minute: u32,
}

/// Of refusals of who showed a name that counts.
pub const REFUSALS: Rates =
    Rates { of_caller_at_once: 32, of_caller_every_seconds: 60, at_once: 1024, per_minute: 240 };
/// Of refusals of who did not, by address.
pub const STRANGERS: Rates =
    Rates { of_caller_at_once: 32, of_caller_every_seconds: 60, at_once: 512, per_minute: 120 };
/// Of acts, which the journal has too where they changed something. At this rate it takes one caller most of a day to push out those of
/// before.
pub const ACTS: Rates = Rates { of_caller_at_once: 512, of_caller_every_seconds: 2, at_once: 2048, per_minute: 120 };
/// Callers that are told apart. Beyond them whoever was heard longest ago is forgotten, and what was left out of it is counted with all others.
pub const CALLERS_MAX: usize = 1024;

const MINUTE: Duration = Duration::from_secs(60);

/// A count that fills up again with time.
#[derive(Debug)]
struct Bucket {
    left: f64,
    most: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    fn new(most: u32, per_second: f64, at: Instant) -> Self {
        Self { left: f64::from(most), most: f64::from(most), per_second, at }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * self.per_second).min(self.most);
        self.at = now;
        let has_one = self.left >= 1.0;
        self.left -= f64::from(u8::from(has_one));
        has_one
    }
}

#[derive(Debug)]
struct OfCaller {
    bucket: Bucket,
    /// The last that was left out, and how many since they were counted last.
    left_out: Option<(Event, u64)>,
}

/// Says which lines are written.
#[derive(Debug)]
pub(super) struct Limits {
    rates: Rates,
    own: ParticipantCode,
    all: Bucket,
    callers: BTreeMap<String, OfCaller>,
    /// Left out of callers that are not told apart: they were forgotten since, or their lines found no room.
    of_others: u64,
}

impl Limits {
    pub(super) fn new(rates: Rates, own: ParticipantCode, now: Instant) -> Self {
        let per_second = f64::from(rates.per_minute) / MINUTE.as_secs_f64();
        let all = Bucket::new(rates.at_once, per_second, now);
        Self { rates, own, all, callers: BTreeMap::new(), of_others: 0 }
    }

    /// Whether this is written.
    pub(super) fn admit(&mut self, event: &Event, now: Instant) -> bool {
        let key = self.key(&event.by);
        if !self.callers.contains_key(&key) && self.callers.len() >= CALLERS_MAX {
            self.forget_one();
        }
        let (at_once, per_second) = (self.rates.of_caller_at_once, 1.0 / f64::from(self.rates.of_caller_every_seconds));
        let of_caller = self
            .callers
            .entry(key)
            .or_insert_with(|| OfCaller { bucket: Bucket::new(at_once, per_second, now), left_out: None });
        if of_caller.bucket.take(now) && self.all.take(now) {
            return true;
        }
        let before = of_caller.left_out.as_ref().map_or(0, |(_, count)| *count);
        of_caller.left_out = Some((event.clone(), before + 1));
        false
    }

    /// What was left out since it was asked last: for each caller the last of it and how many there were.
    pub(super) fn left_out(&mut self) -> Vec<(Event, u64)> {
        self.callers.values_mut().filter_map(|of_caller| of_caller.left_out.take()).collect()
    }

    /// How many were left out, since it was asked last, of callers who are not told apart.
    pub(super) const fn of_others(&mut self) -> u64 {
        std::mem::replace(&mut self.of_others, 0)
    }

    /// So many that were to be written, and were not, are counted with those who are not told apart.
    pub(super) const fn count_again(&mut self, count: u64) {
        self.of_others += count;
    }

    /// A state names its callers as it likes, so that all of a foreign one are one here; and so is the network of an IPv6 address.
    fn key(&self, by: &Actor) -> String {
        match by {
            Actor::Caller(identity) if identity.participant != self.own => identity.participant.to_string(),
            Actor::Address(address) => crate::accept::network_of(*address).to_string(),
            by => by.to_string(),
        }
    }

    fn forget_one(&mut self) {
        let oldest = self.callers.iter().min_by_key(|(_, of_caller)| of_caller.bucket.at).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest.and_then(|key| self.callers.remove(&key)) {
            self.of_others += oldest.left_out.map_or(0, |(_, count)| count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Object;
    use super::*;

    fn event(by: &str) -> Event {
        let by = by.parse().map_or_else(|_| Actor::Address(by.parse().unwrap()), Actor::Caller);
        Event { listener: "grpc", by, method: "/t.S/M", about: Object::nothing(), refused: Some("CALLER_NOT_ALLOWED") }
    }

    fn limits() -> (Limits, Instant) {
        let now = Instant::now();
        (Limits::new(REFUSALS, ParticipantCode::parse("KAZ").unwrap(), now), now)
    }

    #[tokio::test]
    async fn a_flood_of_one_is_counted_and_leaves_the_others_theirs() {
        let (mut limits, now) = limits();
        let mut written = 0;
        for number in 0..10_000 {
            // It has an anchor of its own, and so as many names as it likes.
            written += u32::from(limits.admit(&event(&format!("spiffe://irn.concord/node/n{number}")), now));
        }
        assert_eq!(written, REFUSALS.of_caller_at_once);
        assert!(limits.admit(&event("spiffe://tur.concord/node/main"), now));
        assert!(limits.admit(&event("spiffe://kaz.concord/agency/a"), now));
        let (left_out, of_others) = (limits.left_out(), limits.of_others());
        let counts: Vec<u64> = left_out.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts, of_others), (vec![10_000 - u64::from(written)], 0));
        assert!(limits.left_out().is_empty(), "each is counted once");
        let later = now + Duration::from_secs(REFUSALS.of_caller_every_seconds.into());
        assert!(limits.admit(&event("spiffe://irn.concord/node/main"), later));
        assert!(!limits.admit(&event("spiffe://irn.concord/node/main"), later));
    }

    #[tokio::test]
    async fn a_flood_from_everywhere_stays_within_what_is_written_of_all_and_nothing_is_uncounted() {
        let (mut limits, now) = limits();
        let (mut written, calls) = (0_u64, 40_000_u64);
        for number in 0..calls {
            let address = format!("2001:db8:{:x}:{:x}::1", number % 4096, number / 4096);
            written += u64::from(limits.admit(&event(&address), now));
        }
        assert_eq!(written, u64::from(REFUSALS.at_once));
        assert!(limits.callers.len() <= CALLERS_MAX);
        let (left_out, of_others) = (limits.left_out(), limits.of_others());
        let counted: u64 = left_out.iter().map(|(_, count)| count).sum();
        assert_eq!(written + counted + of_others, calls);
    }
}
