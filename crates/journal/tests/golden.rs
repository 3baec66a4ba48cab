//! The bytes of a tiny journal, so that every change of the format is a visible diff.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use concord_journal::{Blob, Draft, FileJournal, FrameMark, HistoryId, OpenOptions};
use support::{MemoryDisk, append, everything};

const NAME: &str = "00000000000000000001.segment";

fn options() -> OpenOptions {
    OpenOptions::new(1_111_111_111_000_000, HistoryId(*b"golden history 1"), FrameMark(*b"goldmark"))
}

fn drafts() -> Vec<Draft> {
    let blobs = vec![Blob::seal([7; 32], Bytes::from_static(b"a body")), Blob::seal([8; 32], Bytes::new())];
    let recorded_at = 1_222_222_222_000_000;
    vec![
        Draft { kind: 5, version: 2, recorded_at, payload: Bytes::from_static(b"a payload"), blobs },
        Draft { kind: 6, version: 1, recorded_at, payload: Bytes::new(), blobs: Vec::new() },
    ]
}

fn written() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (journal, _) = FileJournal::open(disk.clone().into_disk(), &options()).unwrap();
    append(&journal, drafts());
    disk
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn golden() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment-1.hex");
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_writer_writes_the_golden_bytes() {
    let contents = written().contents();
    assert_eq!(contents.len(), 1);
    assert_eq!(contents[0].0, NAME);
    assert_eq!(hex(&contents[0].1), golden(), "the format has changed: is that meant?");
}

#[test]
fn the_reader_reads_the_golden_bytes() {
    let digits: Vec<u8> = golden().bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let disk = MemoryDisk::new(&[(NAME.to_owned(), bytes.collect())]).into_disk();
    let (journal, opened) = FileJournal::open(disk, &options()).unwrap();
    assert_eq!((opened.created, opened.cut), (false, None));
    let entries = everything(&journal);
    assert_eq!(entries.len(), 3);
    for (entry, draft) in entries[1..].iter().zip(drafts()) {
        assert_eq!((entry.kind, entry.version, entry.recorded_at), (draft.kind, draft.version, draft.recorded_at));
        assert_eq!((&entry.payload, entry.history), (&draft.payload, options().new_history));
        assert_eq!(entry.blobs, draft.blobs.into_iter().map(Some).collect::<Vec<_>>());
    }
    assert_eq!(
        entries[1].commitments[0].to_string(),
        // printf 'concord blob v1\0' + 32 bytes of 7 + 'a body' | sha256sum
        "07d023051a457d2a8aedf9361f1dcd48c011e8e950415db74370b43474baae64"
    );
}
