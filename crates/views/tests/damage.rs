//! Whatever happens to the files of sled, the views open or are rebuilt, and then equal a full projection.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, path::Path};

use concord_views::{Opened, Reason};
use support::{
    catch_up, catch_up_unless_failed, copy, files, journal, open, open_unchecked, projected_from_the_start, rows,
    rows_unless_failed, wait_until_let_go,
};

/// Something done to the bytes of one file; `None` deletes it.
type Damage = fn(Vec<u8>, usize) -> Option<Vec<u8>>;

/// Positions per file and kind of damage; a prime, so that they fall on all offsets within a page.
const POSITIONS: usize = 13;

const DAMAGES: [(&str, Damage); 7] = [
    ("one bit flipped", |mut bytes, position| {
        if let Some(byte) = bytes.get_mut(position) {
            *byte ^= 0x10;
        }
        Some(bytes)
    }),
    ("512 bytes of 0xFF", |mut bytes, position| {
        bytes.iter_mut().skip(position).take(512).for_each(|byte| *byte = 0xFF);
        Some(bytes)
    }),
    ("4096 bytes zeroed", |mut bytes, position| {
        bytes.iter_mut().skip(position).take(4096).for_each(|byte| *byte = 0);
        Some(bytes)
    }),
    ("zeroed from here", |mut bytes, position| {
        bytes.iter_mut().skip(position).for_each(|byte| *byte = 0);
        Some(bytes)
    }),
    ("cut here", |mut bytes, position| {
        bytes.truncate(position);
        Some(bytes)
    }),
    ("bytes moved by one", |mut bytes, position| {
        bytes.insert(position.min(bytes.len()), 0x5A);
        Some(bytes)
    }),
    ("deleted", |_, _| None),
];

#[test]
fn damage_anywhere_in_any_file_ends_in_the_rows_of_a_full_projection() {
    let parent = tempfile::tempdir().unwrap();
    let sound = parent.path().join("sound");
    let journal = journal("past", 3_000);
    {
        // Opened twice, so that there is a snapshot to damage as well.
        drop(open(&sound, &journal));
        let (views, _) = open(&sound, &journal);
        catch_up(&views, &journal);
    }
    drop(open(&sound, &journal));
    let expected = projected_from_the_start(&journal);
    let (mut rebuilt, mut found_late) = (0, 0);
    for file in files(&sound) {
        let name = file.strip_prefix(&sound).unwrap();
        let bytes = fs::read(&file).unwrap();
        for (kind, damage) in DAMAGES {
            let positions = if kind == "deleted" { 1 } else { POSITIONS };
            for step in 0..positions {
                let position = bytes.len() * step / positions;
                let case = format!("{}, {kind}, byte {position} of {}", name.display(), bytes.len());
                let folder = parent.path().join("damaged");
                copy(&sound, &folder);
                match damage(bytes.clone(), position) {
                    Some(damaged) => fs::write(folder.join(name), damaged).unwrap(),
                    None => fs::remove_file(folder.join(name)).unwrap(),
                }
                // Every other time it serves before the rows are checked: then a read fails rather than to answer others.
                let serves_at_once = step % 2 == 1;
                let (views, opened) =
                    if serves_at_once { open_unchecked(&folder, &journal) } else { open(&folder, &journal) };
                assert!(!opened.shows_lost_entries(), "{case}: a false alarm, {opened:?}");
                rebuilt += usize::from(matches!(opened, Opened::Rebuilding { .. }));
                let read = catch_up_unless_failed(&views, &journal).and_then(|()| rows_unless_failed(&views));
                drop(views);
                match read {
                    Ok(rows) => assert!(rows == expected, "{case}: other rows after {opened:?}"),
                    Err(error) => {
                        assert!(serves_at_once, "{case}: {error}");
                        found_late += 1;
                        let (views, opened) = open(&folder, &journal);
                        assert!(matches!(opened, Opened::Rebuilding { .. }), "{case}: {error}, then {opened:?}");
                        catch_up(&views, &journal);
                        assert!(rows(&views) == expected, "{case}: other rows after {error}");
                    }
                }
                remove_all(parent.path(), "damaged");
            }
        }
    }
    println!("rebuilt {rebuilt}, found after serving {found_late}");
    assert!(rebuilt > 10, "the damage was not seen: {rebuilt}");
}

#[test]
fn a_folder_marked_as_failed_or_not_ended_is_not_opened_again() {
    for (marker, text, because) in [
        ("opening", "", "the last opening did not end"),
        ("failed", "a page was lost", "failed in service: a page was lost"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("views");
        let journal = journal("past", 10);
        let (views, _) = open(&folder, &journal);
        catch_up(&views, &journal);
        drop(views);
        fs::write(folder.join(marker), text).unwrap();
        let (views, opened) = open(&folder, &journal);
        let because = Reason::Unopenable(because.to_owned());
        let moved_to = Some(parent.path().join("views.broken-1"));
        assert_eq!(opened, Opened::Rebuilding { because, moved_to });
        drop(views);
        assert_eq!(open(&folder, &journal).1, Opened::Fresh, "the marker went with the folder");
    }
}

/// A sled folder that holds other rows than the watermark says, each page of it intact.
#[test]
fn rows_that_are_not_those_of_the_watermark_are_found() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("views");
    let journal = journal("past", 10);
    let (views, _) = open(&folder, &journal);
    catch_up(&views, &journal);
    drop(views);
    {
        let database = sled::open(&folder).unwrap();
        let (key, value) = database.iter().nth(4).unwrap().unwrap();
        assert_eq!(database.remove(&key).unwrap(), Some(value));
        database.flush().unwrap();
    }
    wait_until_let_go(&folder);
    let (views, opened) = open(&folder, &journal);
    let Opened::Rebuilding { because: Reason::Unopenable(what), .. } = opened else {
        panic!("not rebuilt: {opened:?}");
    };
    assert_eq!(what, "its rows are not those of its watermark");
    catch_up(&views, &journal);
    assert_eq!(rows(&views), projected_from_the_start(&journal));
}

/// The folder, its lock and its broken predecessors.
fn remove_all(parent: &Path, start: &str) {
    for entry in fs::read_dir(parent).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with(start) {
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}
