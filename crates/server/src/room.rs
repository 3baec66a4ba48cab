//! Whether the disk of a data folder has room for more than what is under way.
//!
//! Below the reserve nothing new is taken in, so that what was taken in can go to its end: receipts, acknowledgements, cursors
//! and what the peers say all take room too.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_model::{Reason, Refusal};

use crate::alarms::DISK_FULL_ALARM;
use crate::readiness::Readiness;

/// What is kept free for what is under way, unless the configuration says otherwise.
pub const DISK_RESERVE_DEFAULT_BYTES: u64 = 64 * 1024 * 1024;
/// How often the disk is measured. What comes in between is bounded by what the disk writes in that time, and met by the journal's own
/// refusal.
pub const DISK_MEASURE_INTERVAL_MILLISECONDS: u64 = 250;
/// There is room again when so much of the reserve is free on top of it: at its very edge the alarm would come and go.
const RESERVE_PART_ON_TOP: u64 = 8;
/// An append without room is worth an alarm for so long after the last one.
const REFUSED_ALARM_SECONDS: u64 = 10;

/// Whether there is room. Clones share it; the default one always has room, until an append says otherwise.
#[derive(Clone, Default)]
pub struct DiskRoom(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reserve_bytes: u64,
    below_reserve: AtomicBool,
    /// What the last measurement found beyond the reserve; none before the first.
    beyond_reserve: Mutex<Option<u64>>,
    last_refused: Mutex<Option<Instant>>,
    readiness: Readiness,
}

impl DiskRoom {
    /// Keeps `reserve_bytes` free for what is under way, and raises `disk-full` while less is free.
    pub fn new(reserve_bytes: u64, readiness: Readiness) -> Self {
        metrics::gauge!("concord_disk_reserve_bytes").set(reserve_bytes as f64);
        Self(Arc::new(Inner { reserve_bytes, readiness, ..Inner::default() }))
    }

    /// Whether something new may be taken in; else `DISK_FULL`.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.0.below_reserve.load(Ordering::Relaxed) { Err(Self::refusal()) } else { Ok(()) }
    }

    /// Whether so much can be written at once and the reserve stays, by the last measurement; else `DISK_FULL`.
    pub fn check_for(&self, bytes: u64) -> Result<(), Refusal> {
        let beyond = *self.0.beyond_reserve.lock().unwrap_or_else(PoisonError::into_inner);
        if beyond.is_some_and(|beyond| beyond < bytes) { Err(Self::refusal()) } else { Ok(()) }
    }

    /// What is answered where there is no room. It says nothing of this machine.
    pub fn refusal() -> Refusal {
        Refusal::new(Reason::DiskFull, "the disk here has no room for more; nothing of this was kept")
    }

    /// An append was refused: the disk is full, whatever was measured.
    pub fn refused(&self) {
        metrics::counter!("concord_appends_without_room_total").increment(1);
        *self.last_refused() = Some(Instant::now());
        self.0.readiness.raise(
            DISK_FULL_ALARM,
            "the disk is full: nothing can be recorded until there is room; make some, the rest goes by itself",
        );
    }

    /// Takes what a measurement found, in bytes that may still be written.
    pub fn measured(&self, available_bytes: u64) {
        metrics::gauge!("concord_disk_available_bytes").set(available_bytes as f64);
        let reserve = self.0.reserve_bytes;
        let beyond = Some(available_bytes.saturating_sub(reserve));
        *self.0.beyond_reserve.lock().unwrap_or_else(PoisonError::into_inner) = beyond;
        let was_below = self.0.below_reserve.load(Ordering::Relaxed);
        let enough = if was_below { reserve.saturating_add(reserve / RESERVE_PART_ON_TOP) } else { reserve };
        let is_below = available_bytes < enough;
        self.0.below_reserve.store(is_below, Ordering::Relaxed);
        let refused_lately =
            self.last_refused().is_some_and(|at| at.elapsed() < Duration::from_secs(REFUSED_ALARM_SECONDS));
        if refused_lately {
            return;
        }
        if is_below {
            // Without the number that was measured: it moves, and each move would be a line in the log.
            let what = format!(
                "the disk has less than the {reserve} bytes of disk_reserve_bytes left: nothing new is taken in, what is under way goes \
                 on; make room, the rest goes by itself"
            );
            self.0.readiness.raise(DISK_FULL_ALARM, what);
        } else {
            self.0.readiness.clear(DISK_FULL_ALARM);
        }
    }

    /// Measures again and again, until its task is dropped. A disk that cannot be asked counts as one with room: appends find out.
    pub async fn watch(self, measure: impl Fn() -> io::Result<u64> + Send + Sync + 'static) {
        let measure = Arc::new(measure);
        loop {
            let measuring = Arc::clone(&measure);
            // Asking a disk may block for as long as the disk does.
            match tokio::task::spawn_blocking(move || measuring()).await {
                Ok(Ok(available_bytes)) => self.measured(available_bytes),
                Ok(Err(error)) => tracing::debug!(%error, "the disk does not say how much room it has"),
                Err(error) => tracing::error!(%error, "measuring the disk ended in a fault of this program"),
            }
            tokio::time::sleep(Duration::from_millis(DISK_MEASURE_INTERVAL_MILLISECONDS)).await;
        }
    }

    fn last_refused(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.last_refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarmed(readiness: &Readiness) -> bool {
        readiness.list().iter().any(|alarm| alarm.name == DISK_FULL_ALARM)
    }

    #[test]
    fn below_the_reserve_nothing_new_is_taken_and_it_recovers_by_itself() {
        let readiness = Readiness::new();
        let room = DiskRoom::new(800, readiness.clone());
        room.measured(800);
        assert_eq!(room.check(), Ok(()));
        assert_eq!(room.check_for(0), Ok(()));
        room.measured(850);
        assert_eq!(room.check_for(50), Ok(()));
        assert_eq!(room.check_for(51).unwrap_err().reason, Reason::DiskFull, "it would not leave the reserve");
        room.measured(799);
        assert_eq!(room.check().unwrap_err().reason, Reason::DiskFull);
        assert!(alarmed(&readiness) && !readiness.is_ready());
        // At the edge it does not come and go.
        room.measured(899);
        assert!(room.check().is_err() && alarmed(&readiness));
        room.measured(900);
        assert_eq!(room.check(), Ok(()));
        assert!(readiness.is_ready());
    }

    #[test]
    fn an_append_without_room_is_an_alarm_whatever_was_measured() {
        let readiness = Readiness::new();
        let room = DiskRoom::new(0, readiness.clone());
        room.refused();
        room.measured(u64::MAX);
        assert!(alarmed(&readiness), "a quota leaves the disk as free as it was");
        assert_eq!(room.check(), Ok(()), "the next one may fit, and only trying tells");
        *room.last_refused() = Instant::now().checked_sub(Duration::from_secs(REFUSED_ALARM_SECONDS));
        room.measured(u64::MAX);
        assert!(readiness.is_ready());
    }
}
