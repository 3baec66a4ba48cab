//! Quotas: how much one participant, or one agency, may bring in a second, so that nobody's flood is at the cost of the others.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use concord_model::{Lane, Reason, Refusal};
use serde::Deserialize;
use tokio::time::Instant;

/// What was not brought in so many seconds may be brought at once.
pub const QUOTA_SAVED_SECONDS: u64 = 2;
/// The highest figure that a configuration may name.
pub const QUOTA_MAX: u64 = 1 << 40;

/// The `[quotas]` of a configuration: what one participant may bring to the hub, one agency to its node. One that brings more hears
/// RESOURCE_EXHAUSTED, `QUOTA_EXCEEDED` and RetryInfo; nothing of what it brought before is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Exchanges of the lanes priority and routine in a second.
    pub exchanges_per_second: u64,
    /// Their bytes in a second.
    pub bytes_per_second: u64,
    /// Exchanges of lane flash in a second: they are counted by themselves, so that no other lane uses them up.
    pub flash_exchanges_per_second: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { exchanges_per_second: 1_000, bytes_per_second: 32 * 1024 * 1024, flash_exchanges_per_second: 100 }
    }
}

impl Quotas {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        let figures = [
            ("exchanges_per_second", self.exchanges_per_second),
            ("bytes_per_second", self.bytes_per_second),
            ("flash_exchanges_per_second", self.flash_exchanges_per_second),
        ];
        match figures.into_iter().find(|(_, figure)| !(1..=QUOTA_MAX).contains(figure)) {
            Some((name, figure)) => Err(format!("quotas.{name} = {figure} is not between 1 and {QUOTA_MAX}")),
            None => Ok(self),
        }
    }

    /// The section as `init` writes it; `whose` are those who have a quota each.
    pub fn to_toml(self, whose: &str) -> String {
        let Self { exchanges_per_second, bytes_per_second, flash_exchanges_per_second } = self;
        format!(
            "
# What each {whose} may bring in a second; what it did not bring in {QUOTA_SAVED_SECONDS} s may come at once. More is refused with
# QUOTA_EXCEEDED and comes again by itself, or is for its program to send again.
[quotas]
# Exchanges on the lanes priority and routine, and their bytes.
exchanges_per_second = {exchanges_per_second}
bytes_per_second = {bytes_per_second}
# Exchanges on lane flash, which are not counted with the others.
flash_exchanges_per_second = {flash_exchanges_per_second}
"
        )
    }
}

/// What each of them has left. One entry for each that ever brought something.
#[derive(Debug)]
pub struct Shares<K> {
    quotas: Quotas,
    left: Mutex<BTreeMap<K, Share>>,
}

#[derive(Debug)]
struct Share {
    exchanges: Bucket,
    bytes: Bucket,
    flash: Bucket,
}

impl<K: Ord + Clone + Display> Shares<K> {
    /// Everybody has the whole of it.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas, left: Mutex::default() }
    }

    /// Takes this out of the share of `whose`. A share that is not used up gives any amount, and owes it then: what is larger than a
    /// share must come through too.
    ///
    /// Refuses with `QUOTA_EXCEEDED`, and takes nothing then.
    pub fn take(&self, whose: &K, lane: Lane, exchanges: u64, bytes: u64) -> Result<(), Refusal> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let share = left.entry(whose.clone()).or_insert_with(|| Share {
            exchanges: Bucket::full(self.quotas.exchanges_per_second, now),
            bytes: Bucket::full(self.quotas.bytes_per_second, now),
            flash: Bucket::full(self.quotas.flash_exchanges_per_second, now),
        });
        let takes = match lane {
            Lane::Flash => vec![(&mut share.flash, exchanges, "exchanges on lane flash")],
            Lane::Priority | Lane::Routine => {
                vec![(&mut share.exchanges, exchanges, "exchanges"), (&mut share.bytes, bytes, "bytes")]
            }
        };
        let mut takes = takes;
        for (bucket, _, what) in &mut takes {
            bucket.fill(now);
            if bucket.left <= 0 {
                metrics::counter!("concord_quota_refusals_total").increment(1);
                let most = bucket.per_second;
                let words = format!("{whose} has brought its share for now, {most} {what} in a second");
                return Err(Refusal::new(Reason::QuotaExceeded, words));
            }
        }
        for (bucket, amount, _) in takes {
            bucket.left = bucket.left.saturating_sub_unsigned(amount);
        }
        Ok(())
    }
}

/// Fills up with time, to as much as there is in a few seconds.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    left: i64,
    filled_at: Instant,
}

impl Bucket {
    fn full(per_second: u64, now: Instant) -> Self {
        Self { per_second, left: Self::most(per_second), filled_at: now }
    }

    fn most(per_second: u64) -> i64 {
        i64::try_from(per_second.saturating_mul(QUOTA_SAVED_SECONDS)).unwrap_or(i64::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let came = passed.as_micros() * u128::from(self.per_second) / 1_000_000;
        if came == 0 {
            return;
        }
        let came = u64::try_from(came).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add_unsigned(came).min(Self::most(self.per_second));
        // What is left of the time over whole ones counts the next time.
        let used = u128::from(came) * 1_000_000 / u128::from(self.per_second);
        let used = Duration::from_micros(u64::try_from(used).unwrap_or(u64::MAX));
        self.filled_at = self.filled_at.checked_add(used).map_or(now, |at| at.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas { exchanges_per_second: 10, bytes_per_second: 1000, flash_exchanges_per_second: 2 };

    fn reason(taken: Result<(), Refusal>) -> Option<Reason> {
        taken.err().map(|refusal| refusal.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_used_up_its_share_waits_and_the_others_and_flash_do_not() {
        let shares = Shares::new(QUOTAS);
        let take = |whose: &'static str, lane| reason(shares.take(&whose, lane, 1, 1));
        let taken = (0..100).take_while(|_| take("KAZ", Lane::Routine).is_none()).count();
        assert_eq!(taken, 20);
        assert_eq!(take("KAZ", Lane::Priority), Some(Reason::QuotaExceeded));
        assert_eq!(take("IRN", Lane::Routine), None);
        let flash = (0..100).take_while(|_| take("KAZ", Lane::Flash).is_none()).count();
        assert_eq!(flash, 4);
        tokio::time::advance(Duration::from_millis(350)).await;
        let later = (0..100).take_while(|_| take("KAZ", Lane::Routine).is_none()).count();
        assert_eq!(later, 3);
        // The half of one that had come counts.
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(take("KAZ", Lane::Routine), None);
        tokio::time::advance(Duration::from_secs(1000)).await;
        let saved = (0..100).take_while(|_| take("KAZ", Lane::Routine).is_none()).count();
        assert_eq!(saved, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_a_share_comes_through_and_is_owed() {
        let shares = Shares::new(QUOTAS);
        assert_eq!(reason(shares.take(&"KAZ", Lane::Routine, 1, 12_000)), None);
        for seconds in 0..10 {
            assert_eq!(reason(shares.take(&"KAZ", Lane::Routine, 1, 1)), Some(Reason::QuotaExceeded), "{seconds}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reason(shares.take(&"KAZ", Lane::Routine, 1, 1)), None);
    }

    #[test]
    fn nothing_and_too_much_are_no_quota() {
        assert!(QUOTAS.checked().is_ok() && Quotas::default().checked().is_ok());
        let nothing = Quotas { bytes_per_second: 0, ..QUOTAS };
        assert!(nothing.checked().unwrap_err().contains("bytes_per_second"));
        assert!(Quotas { exchanges_per_second: QUOTA_MAX + 1, ..QUOTAS }.checked().is_err());
    }
}
