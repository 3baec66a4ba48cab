//! A backup is the journal up to one tail, byte for byte; whatever is changed in it is found; and it takes its place whole or not.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use concord_backup::{
    Backup, BackupError, Owner, Source, StandingError, lay_public_files, put_in_place, refuse_if_holds,
    refuse_if_interrupted, send, stage,
};
use concord_identity::SigningKey;
use concord_journal::{Blob, Draft, FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions, Trim, verify};
use concord_model::{Name, ParticipantCode, Timestamp};
use futures::executor::block_on;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

struct Place {
    folder: tempfile::TempDir,
    journal: FileJournal,
    key: SigningKey,
}

impl Place {
    /// A journal of several small segments, and two public files.
    fn new(entries: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = OpenOptions::new(1, HistoryId([7; 16]), FrameMark([8; 8]));
        options.segment_size_max_bytes = 2048;
        let (journal, _) = FileJournal::open_folder(&folder.path().join("journal"), &options).unwrap();
        fs::write(folder.path().join("hub.toml"), "settings").unwrap();
        fs::create_dir(folder.path().join("tls")).unwrap();
        fs::write(folder.path().join("tls/certificate.pem"), "certificate").unwrap();
        fs::write(folder.path().join("tls/key.pem"), "the-private-key").unwrap();
        let place = Self { folder, journal, key: SigningKey::generate().unwrap() };
        (0..entries).for_each(|number| place.append(number));
        place
    }

    fn append(&self, number: u8) {
        let blobs = vec![Blob::seal([number; 32], Bytes::from(vec![number; 700]))];
        let draft = Draft { kind: 1, version: 1, recorded_at: 5, payload: Bytes::from(vec![number; 40]), blobs };
        block_on(self.journal.append(self.journal.tail(), vec![draft])).unwrap();
    }

    fn source(&self) -> Source {
        Source {
            folder: self.folder.path().to_owned(),
            owner: Owner::Hub,
            participant: ParticipantCode::secretariat(),
            name: Name::parse("main").unwrap(),
            public_files: &["hub.toml", "tls/certificate.pem", "absent.json"],
        }
    }

    fn backup(&self) -> PathBuf {
        let mut bytes = Vec::new();
        let mut emit = |chunk: Bytes| {
            bytes.extend_from_slice(&chunk);
            Ok(())
        };
        send(&self.source(), &self.journal.extent(), &self.key, NOW, &mut emit).unwrap();
        let path = self.folder.path().join("a.backup");
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn check(path: &Path) -> Result<u64, BackupError> {
    Ok(Backup::open(path)?.check()?.journal.entries)
}

#[test]
fn a_backup_holds_the_journal_up_to_its_tail_and_never_a_key() {
    let place = Place::new(9);
    let extent = place.journal.extent();
    assert!(extent.files.len() > 3, "{extent:?}");
    let path = place.backup();
    place.append(99);
    let backup = Backup::open(&path).unwrap();
    assert_eq!(backup.check().unwrap().journal.tail, Some(extent.tail));
    assert_eq!((backup.manifest().owner, backup.manifest().taken_at()), (Owner::Hub, NOW));
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"the-private-key"));
    assert!(Backup::is_one(&path) && !Backup::is_one(&place.folder.path().join("hub.toml")));
}

#[test]
fn every_extent_of_a_journal_that_grows_meanwhile_is_a_whole_journal() {
    let place = Place::new(1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..60).for_each(|number| place.append(number)));
        let mut last = 0;
        while !writer.is_finished() {
            let path = place.backup();
            let tail = Backup::open(&path).unwrap().check().unwrap().journal.tail.unwrap();
            assert!(tail.sequence >= last);
            last = tail.sequence;
        }
    });
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_backup_is_found() {
    let place = Place::new(3);
    let path = place.backup();
    let whole = fs::read(&path).unwrap();
    let damaged = place.folder.path().join("damaged.backup");
    // Every byte of what is not the journal's content, and every 13th of that; a prime, so that all bits have their turn.
    let manifest_end = whole.windows(2).position(|window| window == b"]}").unwrap() + 2;
    let trailer = whole.len() - 400;
    for at in (0..whole.len()).filter(|at| *at < manifest_end || *at >= trailer || at % 13 == 0) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&damaged, &bytes).unwrap();
        assert!(check(&damaged).is_err(), "byte {at} of {}", whole.len());
    }
    for length in (0..whole.len()).step_by(11).chain([whole.len() - 1]) {
        fs::write(&damaged, &whole[..length]).unwrap();
        let error = check(&damaged).unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. } | BackupError::NotABackup { .. }), "{length}: {error}");
    }
    fs::write(&damaged, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(check(&damaged), Err(BackupError::Damaged { .. })));
    fs::write(&damaged, &whole).unwrap();
    assert_eq!(check(&damaged).unwrap(), 4);
}

#[test]
fn a_manifest_that_leads_out_of_the_folder_is_refused() {
    let place = Place::new(1);
    let whole = fs::read(place.backup()).unwrap();
    let name = b"tls/certificate.pem";
    let at = whole.windows(name.len()).position(|window| window == name).unwrap();
    let mut bytes = whole.clone();
    bytes[at..at + name.len()].copy_from_slice(b"../certificate.pemm");
    let path = place.folder.path().join("evil.backup");
    fs::write(&path, bytes).unwrap();
    let error = Backup::open(&path).unwrap_err();
    assert!(error.to_string().contains("can be in no backup"), "{error}");
}

#[test]
fn another_version_of_the_format_is_named() {
    let place = Place::new(1);
    let path = place.backup();
    let mut bytes = fs::read(&path).unwrap();
    bytes[16] = 9;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Backup::open(&path), Err(BackupError::OtherFormat { found: 9, .. })));
}

#[test]
fn a_segment_that_goes_away_meanwhile_is_a_conflict_and_no_backup() {
    let place = Place::new(9);
    let extent = place.journal.extent();
    fs::remove_file(place.folder.path().join("journal").join(&extent.files[1].0)).unwrap();
    let made = send(&place.source(), &extent, &place.key, NOW, &mut |_| Ok(()));
    assert!(matches!(made, Err(BackupError::Changed { .. })), "{made:?}");
}

#[test]
fn a_restored_journal_takes_its_place_and_the_old_one_is_moved_aside_whole() {
    let place = Place::new(5);
    let path = place.backup();
    let backup = Backup::open(&path).unwrap();
    let checked = backup.check().unwrap();
    let target = tempfile::tempdir().unwrap();
    for folder in ["journal", "views"] {
        fs::create_dir(target.path().join(folder)).unwrap();
        fs::write(target.path().join(folder).join("old"), folder).unwrap();
    }
    fs::write(target.path().join("hub.toml"), "its own settings").unwrap();
    lay_public_files(&backup, &checked, target.path()).unwrap();
    // An attempt that ended in the middle is begun again from nothing.
    drop(stage(&backup, &checked, target.path()).unwrap());
    assert!(matches!(refuse_if_interrupted(target.path()), Err(StandingError::Interrupted { .. })));
    let staged = stage(&backup, &checked, target.path()).unwrap();
    let aside = put_in_place(target.path(), staged, "1").unwrap().unwrap();
    assert!(refuse_if_interrupted(target.path()).is_ok());
    for folder in ["journal", "views"] {
        assert_eq!(fs::read_to_string(aside.join(folder).join("old")).unwrap(), folder);
    }
    assert!(!target.path().join("views").exists());
    assert_eq!(fs::read_to_string(target.path().join("hub.toml")).unwrap(), "its own settings");
    assert_eq!(fs::read_to_string(target.path().join("tls/certificate.pem")).unwrap(), "certificate");
    let disk = concord_journal::RealDisk::open(target.path().join("journal")).unwrap();
    assert_eq!(verify(std::sync::Arc::new(disk)).unwrap().tail, checked.journal.tail);
    // A second one the same second has a place of its own.
    let staged = stage(&backup, &checked, target.path()).unwrap();
    assert_ne!(put_in_place(target.path(), staged, "1").unwrap().unwrap(), aside);
}

#[test]
fn only_a_journal_that_was_lost_is_made_anew() {
    let nothing = tempfile::tempdir().unwrap();
    assert!(refuse_if_holds(nothing.path()).is_ok());
    // What was made in the place of a lost one and has nothing in it yet.
    let begun = Place::new(0);
    assert!(refuse_if_holds(begun.folder.path()).is_ok());

    let place = Place::new(9);
    assert!(matches!(refuse_if_holds(place.folder.path()), Err(StandingError::Holds { .. })));
    let journal = &place.journal;
    let first_kept = journal.trim_point(journal.tail().sequence).unwrap();
    let prepared = journal.prepare_trim(Trim { first_kept, state: "state".into(), kept: Vec::new() }).unwrap();
    block_on(journal.trim(journal.tail(), 6, prepared)).unwrap();
    assert!(matches!(refuse_if_holds(place.folder.path()), Err(StandingError::Holds { .. })), "trimmed is not lost");

    let place = Place::new(9);
    let (segment, _) = place.journal.extent().files.remove(0);
    let path = place.folder.path().join("journal").join(segment);
    let mut bytes = fs::read(&path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&path, bytes).unwrap();
    assert!(refuse_if_holds(place.folder.path()).is_ok(), "damaged is lost");
}

#[test]
fn who_finds_no_journal_is_told_the_commands_of_its_own() {
    let told = |owner| StandingError::Absent { owner, path: "/srv/journal".into() }.to_string();
    let (hub, node) = (told(Owner::Hub), told(Owner::Node));
    for command in ["concord hub init", "concord hub restore", "concord hub refound"] {
        assert!(hub.contains(command), "{hub}");
    }
    for command in ["concord node init", "concord node restore", "concord node rebuild"] {
        assert!(node.contains(command), "{node}");
    }
}
