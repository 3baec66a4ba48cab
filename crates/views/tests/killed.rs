//! A process killed while sled writes: the views open or are rebuilt, and equal a full projection.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use concord_journal::Journal;
use concord_views::Views;
use support::{Sums, VERSION, catch_up, journal, open, projected_from_the_start, rows};

/// Set for the child, with the folder of the views.
const CHILD_FOLDER: &str = "CONCORD_VIEWS_TEST_CHILD_FOLDER";
const TEST: &str = "views_of_a_killed_process_open_or_are_rebuilt";
const ENTRIES: u64 = 40_000;
/// Entries of one batch.
const STEP: usize = 256;
const ROUNDS: u64 = 10;

#[test]
fn views_of_a_killed_process_open_or_are_rebuilt() {
    let journal = journal("past", ENTRIES);
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        return write_until_killed(Path::new(&folder), &journal);
    }
    let expected = projected_from_the_start(&journal);
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("views");
    let mut killed_while_writing = 0;
    for round in 0..ROUNDS {
        // Later in each round; every other time once more, while the next process opens what the first one left.
        let mut applied = kill_after(1 + 15 * round, &folder);
        if round % 2 == 1 {
            applied = kill_after(1, &folder).max(applied);
        }
        killed_while_writing += usize::from(0 < applied && applied < ENTRIES);
        let (views, opened) = open(&folder, &journal);
        assert!(!opened.shows_lost_entries(), "round {round}: {opened:?}");
        catch_up(&views, &journal);
        assert!(rows(&views) == expected, "round {round}: other rows after {opened:?}");
        drop(views);
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(killed_while_writing > 0, "every child had finished: the test kills too late");
}

/// Starts this test as a child, waits for its lines, kills it; answers the last sequence it told.
fn kill_after(signals: u64, folder: &Path) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = lines.map(Result::unwrap).filter_map(|line| line.strip_prefix("applied ")?.parse().ok());
    let mut applied = 0;
    for _ in 0..signals {
        let Some(sequence) = told.next() else { break };
        applied = sequence;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    applied
}

fn write_until_killed(folder: &Path, journal: &impl Journal) {
    let tell = |sequence: u64| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "\napplied {sequence}").unwrap();
        stdout.flush().unwrap();
    };
    tell(0);
    let (views, _) = Views::open(folder, VERSION, journal).unwrap();
    // In many small steps, as behind a service, so that a kill falls among batches.
    let applied = views.watermark().map_or(0, |at| at.sequence);
    let steps = (applied + 1..=ENTRIES).step_by(STEP).map(|from| (from - 1 + STEP as u64).min(ENTRIES));
    for up_to in steps {
        let up_to = journal.entry(up_to).unwrap().tail();
        views.catch_up(journal, &mut Sums { version: VERSION }, up_to, tell).unwrap();
    }
}
