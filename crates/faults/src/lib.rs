//! Places where a test may end the process, operations that it may let fail, and mistakes that it may switch on. Builds without
//! debug assertions, which is every release, have none of it: [`point`] does nothing there, [`failure`] is never one and [`planted`]
//! is always false.
//!
//! * `CONCORD_CRASH_AT=sequencer.appended:3` ends the process with SIGKILL when it passes that point for the third time.
//! * `CONCORD_FAIL_AT=journal.sync:3` lets that operation fail from its third time on, as a disk that has begun to fail does.
//! * `CONCORD_PLANTED=skip-sync` makes the one place that asks for this mistake make it, so that the batteries can show that
//!   they would find it.
//! * `CONCORD_CLOCK_OFFSET_SECONDS=7200` shows the process the machine's clock two hours ahead, in handshakes too.
//!
//! **What it must not know:** what stands at a point. It names places and counts passes, no more.

mod failures;
mod mistakes;
mod points;

use std::io;

pub use failures::FAILURES;
pub use mistakes::MISTAKES;
pub use points::POINTS;

/// Names the point that ends the process, and at which pass: `NAME` or `NAME:COUNT`.
pub const CRASH_VARIABLE: &str = "CONCORD_CRASH_AT";
/// Names the operation that fails, and from which time on: `NAME` or `NAME:COUNT`.
pub const FAIL_VARIABLE: &str = "CONCORD_FAIL_AT";
/// Names the mistake that is switched on.
pub const PLANTED_VARIABLE: &str = "CONCORD_PLANTED";
/// How far the machine's clock is shown from where it is, in seconds.
pub const CLOCK_OFFSET_VARIABLE: &str = "CONCORD_CLOCK_OFFSET_SECONDS";

/// Ends the process by SIGKILL if this point is the one that was asked for, and this pass the one.
///
/// The name is one of [`POINTS`].
#[inline]
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// The error that this operation is to end with instead of being done, if it is the one that was asked for and its time has come.
///
/// The name is one of [`FAILURES`].
#[inline]
pub fn failure(name: &'static str) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return armed::fail(name);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        Ok(())
    }
}

/// Whether this mistake is to be made. The name is one of [`MISTAKES`].
#[inline]
#[must_use]
pub fn planted(name: &'static str) -> bool {
    #[cfg(debug_assertions)]
    return armed::is_planted(name);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        false
    }
}

/// How far the machine's clock is to be shown from where it is, in microseconds.
#[inline]
#[must_use]
pub fn clock_offset_micros() -> i64 {
    #[cfg(debug_assertions)]
    return armed::clock_offset_micros();
    #[cfg(not(debug_assertions))]
    0
}

#[cfg(debug_assertions)]
mod armed {
    use std::io;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{CLOCK_OFFSET_VARIABLE, CRASH_VARIABLE, FAIL_VARIABLE, FAILURES, MISTAKES, PLANTED_VARIABLE, POINTS};

    /// A name, and how many passes of it are left until its turn.
    struct Armed {
        name: String,
        passes_left: AtomicU64,
    }

    impl Armed {
        fn by(variable: &str, listed: &[&str]) -> Option<Self> {
            let wanted = std::env::var(variable).ok()?;
            let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
            let count = count.parse::<u64>().unwrap_or_else(|_| panic!("{variable}={wanted}: not NAME:COUNT"));
            assert!(listed.contains(&name), "{variable} names {name}, which is none of its list");
            Some(Self { name: name.to_owned(), passes_left: AtomicU64::new(count.max(1)) })
        }

        /// How many passes are left behind this one.
        fn pass(&self) -> u64 {
            let less = |left: u64| Some(left.saturating_sub(1));
            let before = self.passes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            before.unwrap_or_else(|left| left).saturating_sub(1)
        }
    }

    static CRASH: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::by(CRASH_VARIABLE, POINTS));
    static FAIL: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::by(FAIL_VARIABLE, FAILURES));

    static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| {
        let wanted = std::env::var(PLANTED_VARIABLE).ok()?;
        assert!(MISTAKES.contains(&wanted.as_str()), "{PLANTED_VARIABLE} names {wanted}, which is no planted mistake");
        Some(wanted)
    });

    static CLOCK_OFFSET_MICROS: LazyLock<i64> = LazyLock::new(|| match std::env::var(CLOCK_OFFSET_VARIABLE) {
        Ok(text) => match text.parse::<i64>() {
            Ok(seconds) => seconds.saturating_mul(1_000_000),
            Err(_) => panic!("{CLOCK_OFFSET_VARIABLE}={text}: not a number of seconds"),
        },
        Err(_) => 0,
    });

    pub(super) fn clock_offset_micros() -> i64 {
        *CLOCK_OFFSET_MICROS
    }

    pub(super) fn pass(name: &'static str) {
        debug_assert!(POINTS.contains(&name), "the crash point {name} is not listed");
        let Some(crash) = CRASH.as_ref().filter(|crash| crash.name == name) else {
            return;
        };
        if crash.pass() == 0 {
            // Not an abort: nothing may run after it, as when a machine loses power.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    pub(super) fn fail(name: &'static str) -> io::Result<()> {
        debug_assert!(FAILURES.contains(&name), "the operation {name} is not listed");
        match FAIL.as_ref().filter(|fail| fail.name == name) {
            Some(fail) if fail.pass() == 0 => Err(io::Error::other("a test lets it fail")),
            _ => Ok(()),
        }
    }

    pub(super) fn is_planted(name: &'static str) -> bool {
        debug_assert!(MISTAKES.contains(&name), "the planted mistake {name} is not listed");
        PLANTED.as_deref() == Some(name)
    }
}
