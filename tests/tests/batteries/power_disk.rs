//! The disk of the power cuts forgets what a real one may forget, and nothing else.

use std::ffi::OsString;

use concord_tests::battery::Chance;
use concord_tests::power::{Kind, Platter, ROOT};

fn name(text: &str) -> OsString {
    OsString::from(text)
}

/// A root folder in which a file `old` with synced content `old` stands.
fn platter() -> (Platter, u64) {
    let mut platter = Platter::empty();
    let old = platter.create(ROOT, &name("old"), 0o600, false).unwrap();
    platter.file(old).unwrap().write(0, b"old");
    platter.sync(old).unwrap();
    platter.sync(ROOT).unwrap();
    (platter, old)
}

fn content(platter: &Platter, number: u64) -> Vec<u8> {
    match &platter.node(number).unwrap().kind {
        Kind::File(file) => file.now.clone(),
        Kind::Folder(_) => panic!("a folder"),
    }
}

#[test]
fn what_was_synced_survives_every_cut() {
    let (mut platter, old) = platter();
    platter.file(old).unwrap().write(3, &[7; 5_000]);
    platter.create(ROOT, &name("new"), 0o600, false).unwrap();
    for seed in 0..200 {
        let left = platter.cut(&mut Chance::of(seed));
        assert_eq!(left.look_up(ROOT, &name("old")), Some(old));
        assert!(content(&left, old).starts_with(b"old"), "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_is_sometimes_there_sometimes_torn_and_sometimes_gone() {
    let (mut platter, old) = platter();
    platter.file(old).unwrap().write(3, &[7; 5_000]);
    let new = platter.create(ROOT, &name("new"), 0o600, false).unwrap();
    platter.file(new).unwrap().write(0, b"new");
    platter.sync(new).unwrap();
    let cuts: Vec<Platter> = (0..200).map(|seed| platter.cut(&mut Chance::of(seed))).collect();
    let lengths: Vec<usize> = cuts.iter().map(|left| content(left, old).len()).collect();
    assert!(lengths.contains(&3) && lengths.contains(&5_003));
    let torn = |left: &&Platter| content(left, old).iter().skip(3).any(|byte| *byte == 0);
    assert!(cuts.iter().any(|left| torn(&left)), "no sector was lost before one that was kept");
    // A file that was synced itself is gone all the same where its name was not.
    let named = cuts.iter().filter(|left| left.look_up(ROOT, &name("new")).is_some()).count();
    assert!((1..200).contains(&named), "{named} of 200");
}

#[test]
fn a_rename_within_a_folder_is_there_whole_or_not_at_all() {
    let (mut platter, old) = platter();
    let temporary = platter.create(ROOT, &name("temporary"), 0o600, false).unwrap();
    platter.sync(ROOT).unwrap();
    platter.rename((ROOT, &name("temporary")), (ROOT, &name("old"))).unwrap();
    let mut seen = [0, 0];
    for seed in 0..100 {
        let left = platter.cut(&mut Chance::of(seed));
        match (left.look_up(ROOT, &name("old")), left.look_up(ROOT, &name("temporary"))) {
            (Some(number), Some(other)) if number == old && other == temporary => seen[0] += 1,
            (Some(number), None) if number == temporary => seen[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
