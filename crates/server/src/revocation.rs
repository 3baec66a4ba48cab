//! The folder of revocation lists: read before a port opens and again whenever a file in it changes.
//!
//! What a list names is refused in every handshake from then on, and what is open with it ends. A folder that is not there, or
//! has no list of an issuer, takes nothing back. A file that does not verify changes nothing: what it said before counts on, as
//! long as this process runs and the same issuer is trusted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use concord_identity::{AnchorTable, Anchors, RevocationFile, Revocations};
use concord_model::Timestamp;

use crate::alarms::{REVOCATION_INVALID_ALARM, REVOCATION_OUTDATED_NOTE};
use crate::clock::{Clock as _, SystemClock};
use crate::connections::Connections;
use crate::cut::Cut;
use crate::readiness::Readiness;
use crate::tasks::blocking;

/// The folder of revocation lists in the folder of a hub or node.
pub const REVOCATION_FOLDER: &str = "revocation";
/// How often the folder is looked at. What a new list names has ended soon after.
pub const REVOCATION_CHECK_MILLISECONDS: u64 = 1000;
/// Files in the folder. With more, none of a changed folder is taken: `revocation-invalid`.
pub const REVOCATION_FILES_MAX: usize = 256;
/// One file. A larger one is not read: `revocation-invalid`.
pub const REVOCATION_FILE_SIZE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Files that an alarm names; the log of the next change names others.
const FILES_TOLD_MAX: usize = 8;

/// What stands in the folder, and what of it counts.
pub struct RevocationFolder {
    path: PathBuf,
    anchors: Vec<Anchors>,
    readiness: Readiness,
    files: BTreeMap<String, Known>,
    /// What the folder itself could not be read for.
    unreadable: Option<String>,
    /// The tables that the files were judged under.
    judged_under: Vec<Arc<AnchorTable>>,
    counted: Arc<Revocations>,
}

struct Known {
    stamp: Stamp,
    read: Result<RevocationFile, String>,
    /// Why it does not count as it stands there.
    problem: Option<String>,
    /// What verified last under this name: that is what counts.
    good: Option<RevocationFile>,
}

/// Differs when a file was written, or another put in its place.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl RevocationFolder {
    /// Reads the folder, and lets what verifies under these anchors count for all of them. Blocks.
    pub fn open(folder: &Path, anchors: Vec<Anchors>, readiness: Readiness) -> Self {
        let mut opened = Self {
            path: folder.join(REVOCATION_FOLDER),
            anchors,
            readiness,
            files: BTreeMap::new(),
            unreadable: None,
            judged_under: Vec::new(),
            counted: Arc::default(),
        };
        opened.look();
        opened
    }

    /// Looks at the folder again and again, until its task is dropped, and ends what rests on something that was taken back:
    /// of `connections` those whose certificates are named; what was dialled through `dialled` whenever another list counts, so
    /// that it is verified anew.
    pub async fn watch(mut self, connections: Vec<Connections>, dialled: Option<Cut>) {
        loop {
            tokio::time::sleep(Duration::from_millis(REVOCATION_CHECK_MILLISECONDS)).await;
            let looked = blocking(move || {
                let is_changed = self.look();
                (self, is_changed)
            });
            let is_changed;
            (self, is_changed) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the folder of revocation lists is looked at no more");
                    return;
                }
            };
            let is_cut = is_changed && !concord_faults::planted("keep-what-was-dialled");
            if let Some(dialled) = dialled.as_ref().filter(|_| is_cut) {
                dialled.all();
            }
            // Each time: a handshake that was judged before the change may have ended after it.
            for connections in &connections {
                drop(connections.close_revoked(&|chain| self.counted.name(chain)));
            }
        }
    }

    /// Whether something in the folder, or one of the anchors, is another than before.
    fn look(&mut self) -> bool {
        let read = self.read();
        let is_read = matches!(read, Ok(true));
        self.unreadable =
            read.err().map(|error| format!("the folder cannot be read ({error}); what it said before counts on"));
        let tables: Vec<_> = self.anchors.iter().map(Anchors::table).collect();
        let same_tables = tables.len() == self.judged_under.len()
            && tables.iter().zip(&self.judged_under).all(|(now, before)| Arc::ptr_eq(now, before));
        let is_changed = is_read || !same_tables;
        if is_changed {
            self.judge(&tables);
            self.judged_under = tables;
        }
        self.tell();
        is_changed
    }

    /// Reads what changed. Whether anything did.
    fn read(&mut self) -> io::Result<bool> {
        let found = self.list()?;
        let before = self.files.len();
        self.files.retain(|name, _| found.contains_key(name));
        let mut is_changed = self.files.len() != before;
        for (name, stamp) in found {
            let good = match self.files.get_mut(&name) {
                Some(known) if known.stamp == stamp => continue,
                Some(known) => known.good.take().filter(|_| !concord_faults::planted("forget-the-last-good-list")),
                None => None,
            };
            let read = read_file(&self.path.join(&name));
            self.files.insert(name, Known { stamp, read, problem: None, good });
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// The files by name. Hidden ones are passed over: whoever writes a file first and renames it then leaves them for a moment.
    fn list(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                continue;
            }
            if found.len() == REVOCATION_FILES_MAX {
                return Err(io::Error::other(format!("it has more than {REVOCATION_FILES_MAX} files")));
            }
            found.insert(name, Stamp::of(&metadata));
        }
        Ok(found)
    }

    fn judge(&mut self, tables: &[Arc<AnchorTable>]) {
        let mut anchors = AnchorTable::new();
        for (participant, trusted) in tables.iter().flat_map(|table| table.iter()) {
            anchors.entry(participant.clone()).or_default().extend(trusted.iter().cloned());
        }
        let read: Vec<&RevocationFile> = self.files.values().filter_map(|known| known.read.as_ref().ok()).collect();
        let mut judged = Revocations::verified(&read, &anchors).1.into_iter();
        for known in self.files.values_mut() {
            // What does not verify now is kept as well: its issuer may be enrolled later.
            known.problem = match &known.read {
                Ok(file) => match judged.next() {
                    Some(Err(why)) => Some(why),
                    Some(Ok(())) | None => {
                        known.good = Some(file.clone());
                        None
                    }
                },
                Err(why) => Some(why.clone()),
            };
        }
        let good: Vec<&RevocationFile> = self.files.values().filter_map(|known| known.good.as_ref()).collect();
        self.counted = Arc::new(Revocations::verified(&good, &anchors).0);
        for anchors in &self.anchors {
            anchors.replace_revocations(Arc::clone(&self.counted));
        }
    }

    fn tell(&self) {
        let problem = |(name, known): (&String, &Known)| {
            let why = known.problem.as_ref()?;
            let rest = if known.good.is_some() { "what it said before counts on" } else { "nothing of it counts" };
            Some(format!("{name}: {why}; {rest}"))
        };
        let problems: Vec<String> =
            self.unreadable.iter().cloned().chain(self.files.iter().filter_map(problem)).collect();
        self.set(REVOCATION_INVALID_ALARM, &problems, Readiness::raise);

        let now = SystemClock.now();
        let outdated = |(name, known): (&String, &Known)| {
            known.good.as_ref()?.next_update().filter(|next: &Timestamp| *next <= now)?;
            Some(format!(
                "{name}: its issuer was to put out another list before now; it counts on, ask for the next one"
            ))
        };
        self.set(
            REVOCATION_OUTDATED_NOTE,
            &self.files.iter().filter_map(outdated).collect::<Vec<_>>(),
            Readiness::note,
        );
    }

    fn set(&self, name: &'static str, told: &[String], raise: impl Fn(&Readiness, &'static str, String)) {
        let (first, more) = told.split_at(told.len().min(FILES_TOLD_MAX));
        match (first, more.len()) {
            ([], _) => self.readiness.clear(name),
            (first, 0) => raise(&self.readiness, name, first.join(". ")),
            (first, more) => raise(&self.readiness, name, format!("{}. And {more} more files", first.join(". "))),
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read_file(path: &Path) -> Result<RevocationFile, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(REVOCATION_FILE_SIZE_MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() as u64 > REVOCATION_FILE_SIZE_MAX_BYTES {
        return Err(format!("it is larger than {REVOCATION_FILE_SIZE_MAX_BYTES} bytes"));
    }
    RevocationFile::parse(&bytes)
}
