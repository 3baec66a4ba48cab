//! Real input, faults included: whatever states publish goes through whole, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use concord_tests::{Forum, body_of, concord, exchange_ids, text_of, words};

/// Beside the project, where it is present.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");

#[test]
fn every_file_of_the_real_data_goes_through_whole() {
    if !Path::new(DATA).is_dir() {
        println!("skipped: there is no {DATA}");
        return;
    }
    let mut files = Vec::new();
    collect(Path::new(DATA), &mut files);
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/all", "environmental.5", &["KAZ", "IRN", "TUR"]);
    let kaz = forum.agency("KAZ");
    let mut submit = words!["submit", "--profile", kaz.profile, "--wait", "delivered"];
    submit.extend(files.iter().map(Into::into));
    let sent = concord(submit).ok().lines();
    assert_eq!(sent.len(), files.len());
    for code in ["IRN", "TUR"] {
        let received = forum.agency(code).receive(files.len());
        assert_eq!(exchange_ids(&received), exchange_ids(&sent));
        for ((file, sent), received) in files.iter().zip(&sent).zip(&received) {
            assert!(body_of(received) == fs::read(file).unwrap(), "{} is not as it was sent", file.display());
            assert_eq!(received["digest"], sent["digest"]);
            assert_eq!(text_of(received, "title"), file.file_name().unwrap().to_string_lossy());
        }
    }
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        concord(words!["verify", dir]).ok();
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
