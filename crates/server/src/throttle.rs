//! Keeps strangers from filling the log: at most so many lines a second, and then how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// Says which lines may be logged.
#[derive(Debug)]
pub struct Throttle {
    lines_per_second_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window_began: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Throttle {
    /// So many lines may be logged in a second.
    pub const fn new(lines_per_second_max: u32) -> Self {
        let state = State { window_began: None, logged: 0, left_out: 0 };
        Self { lines_per_second_max, state: Mutex::new(state) }
    }

    /// Whether a line may be logged now, and if so, how many were left out since the last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window_began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            state.window_began = Some(now);
            state.logged = 0;
        }
        if state.logged >= self.lines_per_second_max {
            state.left_out += 1;
            return None;
        }
        state.logged += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_counted_and_the_next_second_says_how_many() {
        let throttle = Throttle::new(2);
        let start = Instant::now();
        let admitted: Vec<_> = (0..5).map(|_| throttle.admit(start)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        assert_eq!(throttle.admit(start + WINDOW), Some(3));
        assert_eq!(throttle.admit(start + WINDOW), Some(0));
        assert_eq!(throttle.admit(start + WINDOW), None);
    }
}
