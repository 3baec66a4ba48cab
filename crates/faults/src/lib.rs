//! Places where a test may end the process, and mistakes that a test may switch on. Builds without debug assertions, which is
//! every release, have none of it: [`point`] does nothing there and [`planted`] is always false.
//!
//! * `CONCORD_CRASH_AT=sequencer.appended:3` ends the process with SIGKILL when it passes that point for the third time.
//! * `CONCORD_PLANTED=skip-sync` makes the one place that asks for this mistake make it, so that the batteries can show that
//!   they would find it.
//!
//! **What it must not know:** what stands at a point. It names places and counts passes, no more.

mod mistakes;
mod points;

pub use mistakes::MISTAKES;
pub use points::POINTS;

/// Names the point that ends the process, and at which pass: `NAME` or `NAME:COUNT`.
pub const CRASH_VARIABLE: &str = "CONCORD_CRASH_AT";
/// Names the mistake that is switched on.
pub const PLANTED_VARIABLE: &str = "CONCORD_PLANTED";

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

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{CRASH_VARIABLE, MISTAKES, PLANTED_VARIABLE, POINTS};

    struct Crash {
        name: String,
        passes_left: AtomicU64,
    }

    static CRASH: LazyLock<Option<Crash>> = LazyLock::new(|| {
        let wanted = std::env::var(CRASH_VARIABLE).ok()?;
        let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        let count = count.parse::<u64>().unwrap_or_else(|_| panic!("{CRASH_VARIABLE}={wanted}: not NAME:COUNT"));
        assert!(POINTS.contains(&name), "{CRASH_VARIABLE} names {name}, which is no crash point");
        Some(Crash { name: name.to_owned(), passes_left: AtomicU64::new(count.max(1)) })
    });

    static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| {
        let wanted = std::env::var(PLANTED_VARIABLE).ok()?;
        assert!(MISTAKES.contains(&wanted.as_str()), "{PLANTED_VARIABLE} names {wanted}, which is no planted mistake");
        Some(wanted)
    });

    pub(super) fn pass(name: &'static str) {
        debug_assert!(POINTS.contains(&name), "the crash point {name} is not listed");
        let Some(crash) = CRASH.as_ref().filter(|crash| crash.name == name) else {
            return;
        };
        if crash.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Not an abort: nothing may run after it, as when a machine loses power.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    pub(super) fn is_planted(name: &'static str) -> bool {
        debug_assert!(MISTAKES.contains(&name), "the planted mistake {name} is not listed");
        PLANTED.as_deref() == Some(name)
    }
}
