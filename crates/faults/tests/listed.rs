//! Lists and sources agree: a point that no source passes would be a test that cannot fail.

#![allow(clippy::unwrap_used, reason = "sources that cannot be read fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_faults::{FAILURES, MISTAKES, POINTS};

fn sources(folder: &Path, found: &mut Vec<String>) {
    for item in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = item.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// How often each name is given to this function in the sources of the other crates.
fn uses_of(function: &str) -> BTreeMap<String, usize> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut texts = Vec::new();
    for item in fs::read_dir(crates).unwrap().map(Result::unwrap) {
        let source = item.path().join("src");
        if item.file_name() != "faults" && source.is_dir() {
            sources(&source, &mut texts);
        }
    }
    let mut uses = BTreeMap::new();
    let opening = format!("concord_faults::{function}(\"");
    for text in &texts {
        for (at, _) in text.match_indices(&opening) {
            let name = text[at + opening.len()..].split('"').next().unwrap();
            *uses.entry(name.to_owned()).or_default() += 1;
        }
    }
    uses
}

#[test]
fn every_listed_crash_point_stands_in_exactly_one_place_and_no_other_does() {
    let uses = uses_of("point");
    let listed: BTreeMap<String, usize> = POINTS.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(uses, listed);
}

#[test]
fn every_listed_failure_stands_in_exactly_one_place_and_no_other_does() {
    let uses = uses_of("failure");
    let listed: BTreeMap<String, usize> = FAILURES.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(uses, listed);
}

#[test]
fn every_listed_mistake_is_asked_for_and_no_other_is() {
    let uses: Vec<String> = uses_of("planted").into_keys().collect();
    let mut listed: Vec<String> = MISTAKES.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    assert_eq!(uses, listed);
}
