//! What happened, line by line: hashed whole, its end kept for whoever looks into a failure. Lines name parties, kinds and numbers,
//! never keys or ids, which differ from run to run.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const LINES_KEPT: usize = 100;

pub(crate) struct Trace {
    began: Instant,
    told: Mutex<Told>,
}

struct Told {
    hash: u64,
    lines: u64,
    last: VecDeque<String>,
    aloud: bool,
}

impl Trace {
    /// Begins now; `CONCORD_SIMULATION_TRACE=1` prints each line.
    pub(crate) fn new() -> Self {
        let aloud = std::env::var_os("CONCORD_SIMULATION_TRACE").is_some();
        let told = Told { hash: 0xcbf2_9ce4_8422_2325, lines: 0, last: VecDeque::with_capacity(LINES_KEPT + 1), aloud };
        Self { began: Instant::now(), told: Mutex::new(told) }
    }

    pub(crate) fn line(&self, what: fmt::Arguments<'_>) {
        self.line_at(self.began.elapsed(), what);
    }

    /// The same, where tokio's time is not the simulation's.
    pub(crate) fn line_at(&self, at: Duration, what: fmt::Arguments<'_>) {
        let at = at.as_millis();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line =
            if told.last.len() >= LINES_KEPT { told.last.pop_front().unwrap_or_default() } else { String::new() };
        line.clear();
        let _infallible = write!(line, "{at:>8} {what}");
        for byte in line.as_bytes() {
            told.hash = (told.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        told.lines += 1;
        if told.aloud {
            println!("{line}");
        }
        told.last.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    pub(crate) fn end(&self) -> String {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.last.iter().map(|line| format!("  {line}\n")).collect()
    }
}
