//! The retention, which goes on taking old bodies and segments away while everything around it dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::command::concord;
use crate::stage::Place;
use crate::words;

/// From one run to the next, each at another place.
const PAUSE: Duration = Duration::from_millis(150);

/// What it took away, by the answers of its runs.
#[derive(Default)]
struct Taken {
    exchanges: AtomicU64,
    segments: AtomicU64,
}

/// Somebody who runs it, until stopped.
pub(super) struct Keeping {
    stop: Arc<AtomicBool>,
    taken: Arc<Taken>,
    working: Option<JoinHandle<()>>,
}

impl Keeping {
    /// At these places in turns; everything that is settled is old enough.
    pub(super) fn start(places: Vec<Place>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, taken) = (Arc::clone(&stop), Arc::<Taken>::default());
        let counted = Arc::clone(&taken);
        let working = std::thread::spawn(move || {
            for place in places.iter().cycle() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                run(place, &counted);
                // Takes no signal: that something has become old is nothing that anybody says.
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, taken, working: Some(working) }
    }

    /// Whether it gave up: that is a fault, which [`stop`](Self::stop) tells.
    pub(super) fn gave_up(&self) -> bool {
        self.working.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Of how many exchanges the bodies were taken, and how many segments.
    pub(super) fn taken(&self) -> (u64, u64) {
        (self.taken.exchanges.load(Ordering::Relaxed), self.taken.segments.load(Ordering::Relaxed))
    }

    /// Ends it; a run that goes on is waited for.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(working) = self.working.take() {
            working.join().expect("every run is answered as it may be");
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(place: &Place, taken: &Taken) {
    let kind = if place.name == "hub" { "hub" } else { "node" };
    let days = words!["--days", "0", "--entries-days", "0"];
    let mut command = words![kind, "retention", "run", "--profile", place.dir.join("officer")];
    command.extend(days);
    let ran = concord(command);
    let reason = ran.reason().unwrap_or_default();
    // 4: nobody was there, or it died meanwhile. A machine that was busy for long may show a clock that nobody vouches for yet.
    let may_pass = matches!(ran.code, Some(0 | 4)) || ["QUEUE_FULL", "CLOCK_SUSPECT"].contains(&reason.as_str());
    assert!(may_pass, "the retention of {}: {ran}", place.name);
    if ran.code == Some(0) {
        let report = ran.json();
        let rows = report["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let exchanges = rows.iter().filter_map(|row| row["exchanges"].as_u64()).sum();
        taken.exchanges.fetch_add(exchanges, Ordering::Relaxed);
        let segments = report["old_segments"]["segments"].as_u64().unwrap_or_default();
        taken.segments.fetch_add(segments, Ordering::Relaxed);
    }
}
