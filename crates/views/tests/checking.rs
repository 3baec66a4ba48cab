//! Views that serve before all their rows are checked: nothing is answered from rows that nobody wrote, by none that are missing, and
//! what is damaged ends the service and is rebuilt.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use concord_journal::{Journal, MemoryJournal};
use concord_views::{Key, Opened, Reason, Views, ViewsError};
use support::{
    ENTRIES, RUNS, catch_up, journal, open, open_unchecked, projected_from_the_start, rows, wait_until_let_go,
};
use tempfile::TempDir;

const OTHER_ROWS: &str = "its rows are not those of its watermark";
/// Tenfold of what a check of so few rows takes on a busy machine.
const CHECK_MAX_SECONDS: u64 = 60;

fn made(entries: u64) -> (TempDir, PathBuf, MemoryJournal) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("views");
    let journal = journal("past", entries);
    let (views, _) = open(&folder, &journal);
    catch_up(&views, &journal);
    drop(views);
    (parent, folder, journal)
}

/// What is done to rows, and its name beside it.
type Damage = fn(&sled::Db);

/// Changes rows behind the back of the views, each page of sled intact.
fn tamper(folder: &Path, with: impl FnOnce(&sled::Db)) {
    let database = sled::open(folder).unwrap();
    with(&database);
    database.flush().unwrap();
    drop(database);
    wait_until_let_go(folder);
}

fn entry_row(sequence: u64) -> Vec<u8> {
    [&[1_u8], Key::new().number(sequence).as_ref()].concat()
}

fn wait_until_checked(views: &Views) {
    let begun = Instant::now();
    while !views.is_checked() {
        assert!(begun.elapsed() < Duration::from_secs(CHECK_MAX_SECONDS), "the check did not end");
        std::thread::yield_now();
    }
}

fn failure(views: &Views) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let failed = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(CHECK_MAX_SECONDS), views.failed()).await.unwrap()
    });
    match failed {
        ViewsError::Failed { what, .. } => what,
        other => panic!("{other}"),
    }
}

#[test]
fn a_damaged_row_is_not_answered_before_it_was_checked() {
    let damages: [(&str, Damage); 4] = [
        ("missing", |database| drop(database.remove(entry_row(1_003)).unwrap())),
        ("another value", |database| drop(database.insert(entry_row(1_003), b"older").unwrap())),
        ("two exchanged", |database| {
            let (one, other) = (entry_row(1_003), entry_row(2_004));
            let value = database.get(&one).unwrap().unwrap();
            let value = database.insert(&other, value).unwrap().unwrap();
            database.insert(&one, value).unwrap();
        }),
        // Removed by the entry after it: a page that is not the newest one has it still.
        ("there again", |database| drop(database.insert(entry_row(1_002), b"older").unwrap())),
    ];
    for (kind, damage) in damages {
        let (_parent, folder, journal) = made(3_000);
        tamper(&folder, damage);
        let (views, opened) = open_unchecked(&folder, &journal);
        assert!(matches!(opened, Opened::Resumed { .. }), "{kind}: {opened:?}");
        // Each way of asking finds it, whoever comes first.
        let sequence = if kind == "there again" { 1_002 } else { 1_003 };
        let key = Key::new().number(sequence);
        let asked = views.get(ENTRIES, key.as_ref());
        assert!(matches!(&asked, Err(ViewsError::Failed { what, .. }) if what == OTHER_ROWS), "{kind}: {asked:?}");
        assert_eq!(failure(&views), OTHER_ROWS, "{kind}");
        drop(views);
        let (views, opened) = open_unchecked(&folder, &journal);
        let Opened::Rebuilding { because: Reason::Unopenable(what), .. } = opened else { panic!("{kind}: {opened:?}") };
        assert_eq!(what, format!("failed in service: {OTHER_ROWS}"));
        catch_up(&views, &journal);
        assert_eq!(rows(&views), projected_from_the_start(&journal), "{kind}");
    }
}

#[test]
fn no_way_of_asking_answers_from_unchecked_rows() {
    type Asked = fn(&Views) -> Result<(), ViewsError>;
    let ways: [(&str, Asked); 5] = [
        ("scan", |views| views.scan(ENTRIES, Key::new().number(990).as_ref(), b"", 40).map(drop)),
        ("last at or before", |views| {
            views.last_at_or_before(ENTRIES, b"", Key::new().number(1_003).as_ref()).map(drop)
        }),
        ("of a batch", |views| views.batch().get(ENTRIES, Key::new().number(1_004).as_ref()).map(drop)),
        ("last of a batch", |views| {
            views.batch().last_at_or_before(ENTRIES, b"", Key::new().number(1_003).as_ref()).map(drop)
        }),
        ("a scan that finds nothing", |views| {
            views.scan(ENTRIES, Key::new().number(1_003).as_ref(), Key::new().number(1_003).as_ref(), 4).map(drop)
        }),
    ];
    for (way, ask) in ways {
        let (_parent, folder, journal) = made(3_000);
        tamper(&folder, |database| drop(database.remove(entry_row(1_003)).unwrap()));
        let (views, _) = open_unchecked(&folder, &journal);
        let asked = ask(&views);
        assert!(matches!(asked, Err(ViewsError::Failed { .. })), "{way}: {asked:?}");
    }
}

#[test]
fn a_damaged_row_that_nobody_asks_for_is_found_behind_the_service() {
    let damages: [(&str, Damage); 3] = [
        ("missing", |database| drop(database.remove(entry_row(2_003)).unwrap())),
        ("between the groups", |database| drop(database.insert([7_u8, 1, 2, 3], b"nobody's").unwrap())),
        ("behind the groups", |database| drop(database.insert([250_u8, 1, 2, 3], b"nobody's").unwrap())),
    ];
    for (kind, damage) in damages {
        let (_parent, folder, journal) = made(3_000);
        tamper(&folder, damage);
        let (views, _) = open_unchecked(&folder, &journal);
        assert_eq!(failure(&views), OTHER_ROWS, "{kind}");
        assert!(!views.is_checked());
        drop(views);
        let (_, opened) = open(&folder, &journal);
        assert!(matches!(opened, Opened::Rebuilding { .. }), "{kind}: {opened:?}");
    }
}

#[test]
fn sound_views_serve_at_once_go_on_while_they_are_checked_and_are_checked_in_the_end() {
    let (_parent, folder, shorter) = made(3_000);
    let longer = journal("past", 4_000);
    let (views, opened) = open_unchecked(&folder, &longer);
    assert_eq!(opened, Opened::Resumed { at: shorter.tail() });
    catch_up(&views, &longer);
    let expected = projected_from_the_start(&longer);
    assert_eq!(rows(&views), expected);
    wait_until_checked(&views);
    assert_eq!(rows(&views), expected);
    drop(views);
    let (views, opened) = open(&folder, &longer);
    assert_eq!(opened, Opened::Resumed { at: longer.tail() });
    assert!(views.is_checked());
    assert!(views.last(RUNS, b"").unwrap().is_some());
}

/// sled may take the process down with it where it reads damage; that must not happen at each start anew. One kill is no such sign.
#[test]
fn checks_that_did_not_end_three_times_in_a_row_are_done_before_the_next_service() {
    for (broken_off, is_checked_first) in [("1", false), ("2", false), ("3", true), ("", true), ("three", true)] {
        let (_parent, folder, journal) = made(1_000);
        tamper(&folder, |database| drop(database.remove(entry_row(903)).unwrap()));
        fs::write(folder.join("checking"), broken_off).unwrap();
        let (views, opened) = open_unchecked(&folder, &journal);
        match opened {
            Opened::Rebuilding { because: Reason::Unopenable(what), .. } => {
                assert_eq!((what.as_str(), is_checked_first), (OTHER_ROWS, true), "{broken_off:?}");
            }
            opened => {
                assert_eq!(
                    (opened, is_checked_first),
                    (Opened::Resumed { at: journal.tail() }, false),
                    "{broken_off:?}"
                );
                let noted: u64 = fs::read_to_string(folder.join("checking")).unwrap().parse().unwrap();
                assert_eq!(noted, 1 + broken_off.parse::<u64>().unwrap());
                assert_eq!(failure(&views), OTHER_ROWS);
            }
        }
    }
    let (_parent, folder, journal) = made(1_000);
    let (views, _) = open_unchecked(&folder, &journal);
    wait_until_checked(&views);
    drop(views);
    assert!(!folder.join("checking").exists(), "left behind by a check that ended");
    // Nor by one that the end of the process ended in order.
    let (views, _) = open_unchecked(&folder, &journal);
    drop(views);
    assert!(!folder.join("checking").exists(), "left behind by a close");
}
