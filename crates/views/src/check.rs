//! Checking the groups of a store: all of them while it opens, or one after another behind the service.

use std::{
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    CLOSE_MAX_SECONDS, OPEN_MAX_SECONDS, ViewsError,
    aside::at,
    groups::{Groups, OTHER_ROWS},
    range::RowRange,
    rows::Rows,
    views::Core,
};

/// The first row that is not of the watermark's table.
const FIRST_ROW: [u8; 1] = [1];

/// sled's rows of a range, its errors as text.
pub(crate) fn rows(
    database: &sled::Db,
    range: &RowRange,
) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), String>> {
    database.range::<&[u8], _>(range.bounds()).map(|row| row.map_err(|error| error.to_string()))
}

/// Checks one group: the rows from `from`, or from its own beginning, to its end.
pub(crate) fn check_group(
    database: &sled::Db,
    groups: &mut Groups,
    name: &[u8],
    from: Option<&[u8]>,
) -> Result<(), String> {
    let Some(mut range) = groups.range(name) else { return Ok(()) };
    if let Some(from) = from {
        range.from = from.to_vec();
    }
    groups.check(name, rows(database, &range))
}

/// Checks every row.
pub(crate) fn check_all(database: &sled::Db, groups: &mut Groups) -> Result<(), String> {
    let mut from = FIRST_ROW.to_vec();
    while check_step(database, groups, &mut from)? {}
    Ok(())
}

/// Checks the next group at or behind `from`, with the rows before it, of which there must be none; then those that came up behind the
/// walk. Moves `from`, which is empty when the walk is over; answers false when nothing is left to check.
pub(crate) fn check_step(database: &sled::Db, groups: &mut Groups, from: &mut Vec<u8>) -> Result<bool, String> {
    if from.is_empty() {
        let Some(name) = groups.any_unchecked() else {
            groups.set_all_checked();
            return Ok(false);
        };
        check_group(database, groups, &name, None)?;
        return Ok(true);
    }
    let Some((name, checked)) = groups.next(from) else {
        refuse_rows(database, from, Bound::Unbounded)?;
        from.clear();
        return Ok(true);
    };
    if checked {
        refuse_rows(database, from, Bound::Excluded(name.clone()))?;
    } else {
        check_group(database, groups, &name, Some(from))?;
    }
    match groups.range(&name).map(|range| range.to) {
        Some(Bound::Excluded(end)) => *from = end,
        _ => from.clear(),
    }
    Ok(true)
}

/// Between the groups there are no rows.
fn refuse_rows(database: &sled::Db, from: &[u8], to: Bound<Vec<u8>>) -> Result<(), String> {
    let between = RowRange { from: from.to_vec(), to };
    if matches!(&between.to, Bound::Excluded(end) if *end <= between.from) {
        return Ok(());
    }
    match rows(database, &between).next() {
        None => Ok(()),
        Some(Ok(_)) => Err(OTHER_ROWS.to_owned()),
        Some(Err(what)) => Err(what),
    }
}

/// The thread that checks what nobody has asked for yet. Dropped, it ends after the group in hand.
pub(crate) struct Check {
    stopping: Arc<AtomicBool>,
    ended: Mutex<Receiver<()>>,
}

impl Check {
    /// Begins to check; nothing for rows in memory.
    pub(crate) fn begin(core: &Arc<Core>, folder: &Path) -> Result<Option<Self>, ViewsError> {
        let Rows::Sled(_) = &core.store else { return Ok(None) };
        let stopping = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::sync_channel(1);
        let (step, steps) = mpsc::sync_channel(1);
        let (checked, stop) = (Arc::clone(core), Arc::clone(&stopping));
        let spawned = thread::Builder::new().name("views-check".to_owned()).spawn(move || {
            walk(&checked, &stop, &step);
            // Let go of before it is told: whoever waits closes the store then.
            drop(checked);
            let _nobody_waits = end.send(());
        });
        spawned.map_err(at("start a thread to check", folder))?;
        let watched = Arc::downgrade(core);
        let spawned = thread::Builder::new()
            .name("views-check-time".to_owned())
            .spawn(move || fail_if_it_hangs(&watched, &steps));
        spawned.map_err(at("start a thread to check", folder))?;
        Ok(Some(Self { stopping, ended: Mutex::new(ended) }))
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(CLOSE_MAX_SECONDS)) {
            tracing::warn!(seconds = CLOSE_MAX_SECONDS, "the check of the views did not end in time");
        }
    }
}

fn walk(core: &Core, stopping: &AtomicBool, step: &SyncSender<()>) {
    let Rows::Sled(store) = &core.store else { return };
    let (begun, mut from) = (Instant::now(), FIRST_ROW.to_vec());
    loop {
        if stopping.load(Ordering::Acquire) {
            break;
        }
        let step_begun = Instant::now();
        let outcome = {
            let mut written = core.writer();
            let outcome = store.check_step(&mut written.groups, &mut from);
            if matches!(outcome, Ok(false)) {
                core.all_checked.store(true, Ordering::Release);
            }
            outcome
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(seconds = begun.elapsed().as_secs(), "all rows of the views are checked");
                break;
            }
            // Whoever serves is told by the store itself.
            Err(error) => {
                tracing::error!(%error, "the views are damaged");
                return;
            }
        }
        let _nobody_watches = step.try_send(());
        // Half of the time, at most, the lock and the processor are the check's.
        thread::sleep(step_begun.elapsed());
    }
    if let Err(error) = store.set_checking(None) {
        tracing::warn!(%error, "the next start checks all rows of the views before it serves");
    }
}

/// sled can hang on damage, and whoever reads hangs with it: then the process has to end.
fn fail_if_it_hangs(core: &Weak<Core>, steps: &Receiver<()>) {
    loop {
        match steps.recv_timeout(Duration::from_secs(OPEN_MAX_SECONDS)) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    if let Some(core) = core.upgrade()
        && let Rows::Sled(store) = &core.store
    {
        let error = store.fail(format!("a part of its rows was not checked within {OPEN_MAX_SECONDS} seconds"));
        tracing::error!(%error, "the check of the views hangs");
    }
}
