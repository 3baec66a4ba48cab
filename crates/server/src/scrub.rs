//! A slow check of what stands on the disk, again and again: what is damaged is to be found before somebody needs it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::alarms::JOURNAL_DAMAGED_ALARM;
use crate::readiness::Readiness;

/// The pause after each step of a check; with steps of a MiB at most 20 MiB a second are read.
const PAUSE: Duration = Duration::from_millis(50);
/// From the end of one check to the next.
const CHECK_EVERY: Duration = Duration::from_hours(24);

/// Runs `check` until `stop`. It is called on a thread that may block, calls its argument after each step, ends when that
/// breaks it off, and says in words what it found damaged, with the place; that is raised, and cleared once a later check finds
/// nothing: the next day's, or one that begins as soon as something was `mended`.
pub async fn scrub(
    check: impl Fn(&mut dyn FnMut() -> ControlFlow<()>) -> Result<(), String> + Send + Sync + 'static,
    readiness: Readiness,
    mut mended: watch::Receiver<()>,
    stop: CancellationToken,
) {
    let check = Arc::new(check);
    loop {
        // What is mended from here on this check may have passed already.
        mended.borrow_and_update();
        let mut is_damaged = false;
        let (check, stopping) = (Arc::clone(&check), stop.clone());
        let checked = tokio::task::spawn_blocking(move || {
            check(&mut || {
                std::thread::sleep(PAUSE);
                if stopping.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        match checked.await {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => {
                metrics::counter!("concord_journal_scrubs_total").increment(1);
                readiness.clear(JOURNAL_DAMAGED_ALARM);
            }
            Ok(Err(found)) => {
                is_damaged = true;
                readiness.raise(JOURNAL_DAMAGED_ALARM, found);
            }
            Err(error) => tracing::error!(%error, "the check of the journal ended unexpectedly"),
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK_EVERY) => {}
            Ok(()) = mended.changed(), if is_damaged => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_a_check_finds_is_raised_and_a_stop_breaks_it_off() {
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        let (mend, mended) = watch::channel(());
        let is_mended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_mended);
        let check = move |_: &mut dyn FnMut() -> ControlFlow<()>| {
            if seen.load(Ordering::SeqCst) { Ok(()) } else { Err("entry 7 is damaged".to_owned()) }
        };
        let scrubbing = tokio::spawn(scrub(check, readiness.clone(), mended.clone(), stop.clone()));
        while readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            (readiness.list()[0].name, &*readiness.list()[0].message),
            ("journal-damaged", "entry 7 is damaged")
        );
        is_mended.store(true, Ordering::SeqCst);
        mend.send_replace(());
        while !readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        scrubbing.await.unwrap();

        readiness.raise(JOURNAL_DAMAGED_ALARM, "as before");
        let stop = CancellationToken::new();
        let endless = |between: &mut dyn FnMut() -> ControlFlow<()>| {
            while between().is_continue() {}
            Ok(())
        };
        let scrubbing = tokio::spawn(scrub(endless, readiness.clone(), mended, stop.clone()));
        stop.cancel();
        scrubbing.await.unwrap();
        assert!(!readiness.is_ready(), "a check that was broken off clears nothing");
    }
}
