//! The folder of revocation lists: read before a port opens and again whenever a file in it changes.
//!
//! What a list names is refused in every handshake from then on, and what is open with it ends. A folder that is not there, or
//! has no list of an issuer, takes nothing back. A file that cannot be read or does not verify changes nothing: what it said before
//! counts on, as long as this process runs, some file of its name stands there and the same anchor is trusted; also where the
//! certificate of the authority that signed it, in another file, is gone. *Invariant: what the alarm says to count on does.*
//!
//! A list grows old: some days after the next one was due, what its issuer issued is refused, since nobody here knows any more what it
//! took back. *Invariant: a list lapses by time that passed on a clock that was believed, or on the monotonic one, never by a jump of
//! the machine's clock* (`Clock::now`), so that a wrong clock shuts nobody out; and a newer file ends it, without any call.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use concord_identity::{AnchorTable, Anchors, IssuerLists, RevocationFile, Revocations, rfc3339};
use rustix::fs::OFlags;

use crate::alarms::{REVOCATION_INVALID_ALARM, REVOCATION_OUTDATED_ALARM, REVOCATION_PAST_NOTE};
use crate::clock::Clock;
use crate::connections::Connections;
use crate::cut::Cut;
use crate::hangup::Hangup;
use crate::lapsing::{Lapsing, Stage};
use crate::readiness::Readiness;
use crate::stamp::Stamp;
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

const FOLDER_MODE: u32 = 0o700;
const NO_FILE: &str = "it is no file";
const COUNTS_ON: &str = "what it said before counts on";
const NOTHING_COUNTS: &str = "nothing of it counts";

/// The anchors that the participants have or had.
type Past = Box<dyn Fn() -> AnchorTable + Send>;

/// What stands in the folder, and what of it counts.
pub struct RevocationFolder {
    path: PathBuf,
    anchors: Vec<Anchors>,
    readiness: Readiness,
    lapsing: Lapsing,
    clock: Arc<dyn Clock>,
    files: BTreeMap<String, Known>,
    /// What the folder itself could not be read for.
    unreadable: Option<String>,
    /// The tables that the files were judged under.
    judged_under: Vec<Arc<AnchorTable>>,
    counted: Arc<Revocations>,
    past: Option<Past>,
}

struct Known {
    found: Found,
    read: Result<RevocationFile, Unread>,
    /// Why it does not count as it stands there.
    problem: Option<String>,
    /// What verified last under this name, with the authorities that it verified by.
    good: Option<RevocationFile>,
    /// Whether that still verifies under the anchors: then it is what counts.
    counts: bool,
    /// It would count under an anchor of before.
    is_past: bool,
}

/// What stands under a name, following links.
#[derive(Clone, PartialEq, Eq)]
enum Found {
    File(Stamp),
    /// Nothing that is read: why.
    Other(String),
}

/// Why a file says nothing.
enum Unread {
    /// It may be read the next time.
    Failed(String),
    Invalid(String),
}

impl Unread {
    fn why(&self) -> &str {
        match self {
            Self::Failed(why) | Self::Invalid(why) => why,
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

impl RevocationFolder {
    /// Reads the folder, and lets what verifies under these anchors count for all of them. Blocks.
    pub fn open(
        folder: &Path,
        anchors: Vec<Anchors>,
        readiness: Readiness,
        lapsing: Lapsing,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut opened = Self {
            path: folder.join(REVOCATION_FOLDER),
            anchors,
            readiness,
            lapsing,
            clock,
            files: BTreeMap::new(),
            unreadable: None,
            judged_under: Vec::new(),
            counted: Arc::default(),
            past: None,
        };
        // Whoever has a list to put in has no time to look for where; a folder of before has none yet.
        if let Err(error) = make(&opened.path) {
            tracing::debug!(%error, "the folder of revocation lists could not be made");
        }
        opened.look(false);
        opened
    }

    /// Lets it tell lists of anchors that were ended or replaced from those that nobody can make anything of: under such an anchor nobody is
    /// let in, so that nothing hangs on its lists, and they are no alarm.
    #[must_use]
    pub fn knowing_past(mut self, past: impl Fn() -> AnchorTable + Send + 'static) -> Self {
        self.past = Some(Box::new(past));
        self
    }

    /// Looks at the folder again and again and at each SIGHUP, until its task is dropped, and ends what rests on something that was taken back:
    /// of `connections` those whose certificates do not count; what was dialled through `dialled` whenever another list counts, so
    /// that it is verified anew.
    pub async fn watch(mut self, connections: Vec<Connections>, dialled: Option<Cut>, mut hangup: Hangup) {
        loop {
            let is_asked = hangup.within(Duration::from_millis(REVOCATION_CHECK_MILLISECONDS)).await;
            let looked = blocking(move || {
                let is_changed = self.look(is_asked);
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
                drop(connections.close_unfit(&|chain| self.counted.refuse(chain)));
            }
        }
    }

    /// Whether something in the folder, one of the anchors, or what has lapsed, is another than before. Reads what did not change too
    /// where `is_asked`.
    fn look(&mut self, is_asked: bool) -> bool {
        let read = self.read(is_asked);
        let is_read = matches!(read, Ok(true));
        self.unreadable = read.err().map(|error| format!("the folder cannot be read ({error})"));
        let tables: Vec<_> = self.anchors.iter().map(Anchors::table).collect();
        let same_tables = tables.len() == self.judged_under.len()
            && tables.iter().zip(&self.judged_under).all(|(now, before)| Arc::ptr_eq(now, before));
        let is_changed = is_read || !same_tables;
        if is_changed {
            self.judge(&tables);
            self.judged_under = tables;
        }
        let is_changed = self.lapse() || is_changed;
        self.settle_past();
        self.tell();
        is_changed
    }

    /// Which of those that do not count would under an anchor of before. Asked each time, since these may change a moment after the anchors.
    fn settle_past(&mut self) {
        let is_open = |known: &Known| known.problem.is_some() && !known.counts;
        let Some(past) = self.past.as_ref().filter(|_| self.files.values().any(is_open)) else { return };
        let past = past();
        for known in self.files.values_mut() {
            // Beside a list of a present anchor's, one of a past anchor's keeps that from counting: no file to be removed.
            let verifies = |file: &RevocationFile| {
                file.is_one_list() && matches!(Revocations::verified(&[file], &past).1.as_slice(), [Ok(())])
            };
            known.is_past = is_open(known) && known.read.as_ref().is_ok_and(verifies);
        }
    }

    /// Lets count what is to count now. Whether something lapsed, or has lapsed no more.
    fn lapse(&mut self) -> bool {
        let (counted, is_other) = self.aged(&self.counted);
        if is_other {
            self.count(counted);
        }
        is_other
    }

    /// The same lists as they stand now, and whether that is otherwise than before.
    fn aged(&self, counted: &Revocations) -> (Revocations, bool) {
        if concord_faults::planted("let-a-lapsed-list-count-on") {
            return (counted.clone(), false);
        }
        counted.lapsed_before(self.lapsing.lapsed_before(self.clock.now()))
    }

    fn count(&mut self, counted: Revocations) {
        self.counted = Arc::new(counted);
        for anchors in &self.anchors {
            anchors.replace_revocations(Arc::clone(&self.counted));
        }
    }

    /// Reads what changed. Whether anything did.
    fn read(&mut self, is_asked: bool) -> io::Result<bool> {
        let found = self.list()?;
        let before = self.files.len();
        self.files.retain(|name, _| found.contains_key(name));
        let mut is_changed = self.files.len() != before;
        for (name, found) in found {
            let before = self.files.get(&name);
            let is_same = before.is_some_and(|known| known.found == found);
            let has_failed = before.is_some_and(|known| matches!(known.read, Err(Unread::Failed(_))));
            if is_same && !has_failed && !is_asked {
                continue;
            }
            let read = match &found {
                Found::File(_) => read_file(&self.path.join(&name)),
                Found::Other(why) => Err(Unread::Invalid(why.clone())),
            };
            if is_same && matches!(read, Err(Unread::Failed(_))) {
                continue;
            }
            if let Ok(file) = &read {
                for (issuer, next_update) in file.lists() {
                    let next_update = rfc3339(next_update);
                    tracing::info!(file = name, issuer, next_update, "a revocation list was read");
                }
            }
            let good = self.files.remove(&name).and_then(|known| known.good);
            let good = good.filter(|_| !concord_faults::planted("forget-the-last-good-list"));
            self.files.insert(name, Known { found, read, problem: None, good, counts: false, is_past: false });
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// What is there by name. Hidden ones are passed over: whoever writes a file first and renames it then leaves them for a moment.
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            // A link that leads nowhere is no folder that is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&self.path).is_err() => {
                return Ok(BTreeMap::new());
            }
            Err(error) => return Err(error),
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            if all.len() == REVOCATION_FILES_MAX {
                return Err(io::Error::other(format!("it has more than {REVOCATION_FILES_MAX} files")));
            }
            all.extend(Found::at(&entry.path()).map(|found| (name, found)));
        }
        Ok(all)
    }

    fn judge(&mut self, tables: &[Arc<AnchorTable>]) {
        let mut anchors = AnchorTable::new();
        for (participant, trusted) in tables.iter().flat_map(|table| table.iter()) {
            anchors.entry(participant.clone()).or_default().extend(trusted.iter().cloned());
        }
        // Authorities in a file that cannot be read now are those that were in it.
        let standing = self.files.values().filter_map(|known| known.read.as_ref().ok().or(known.good.as_ref()));
        let standing: Vec<&RevocationFile> = standing.collect();
        let read = self.files.values().filter_map(|known| known.read.as_ref().ok());
        let read: Vec<RevocationFile> = read.map(|file| file.beside(&standing)).collect();
        let judged = Revocations::verified(&read.iter().collect::<Vec<_>>(), &anchors).1;
        let mut judged = read.into_iter().zip(judged);
        for known in self.files.values_mut() {
            // What does not verify now is kept as well: its issuer may be enrolled later.
            known.problem = match &known.read {
                Ok(_) => match judged.next() {
                    Some((_, Err(why))) => Some(why),
                    Some((file, Ok(()))) => {
                        known.good = Some(file);
                        None
                    }
                    None => None,
                },
                Err(unread) => Some(unread.why().to_owned()),
            };
        }
        let good: Vec<&RevocationFile> = self.files.values().filter_map(|known| known.good.as_ref()).collect();
        let (counted, judged) = Revocations::verified(&good, &anchors);
        let mut judged = judged.into_iter();
        for known in self.files.values_mut() {
            known.counts = known.good.is_some() && judged.next().is_some_and(|judged| judged.is_ok());
        }
        // Not for a moment without what has lapsed.
        let counted = self.aged(&counted).0;
        self.count(counted);
    }

    fn tell(&self) {
        let problem = |(name, known): (&String, &Known)| {
            let why = known.problem.as_ref().filter(|_| !known.is_past)?;
            Some(format!("{name}: {why}; {}", if known.counts { COUNTS_ON } else { NOTHING_COUNTS }))
        };
        let counts_on = self.files.values().any(|known| known.counts);
        let unreadable = self.unreadable.as_ref();
        let unreadable = unreadable.map(|why| format!("{why}; {}", if counts_on { COUNTS_ON } else { NOTHING_COUNTS }));
        let problems: Vec<String> = unreadable.into_iter().chain(self.files.iter().filter_map(problem)).collect();
        self.set(REVOCATION_INVALID_ALARM, &problems, Readiness::raise);
        let past = |(name, known): (&String, &Known)| {
            let is_past = known.problem.is_some() && known.is_past;
            is_past.then(|| {
                format!(
                    "{name}: it is a list of an anchor that does not count any more, under which nobody is let in: remove it from {REVOCATION_FOLDER}/"
                )
            })
        };
        let past: Vec<String> = self.files.iter().filter_map(past).collect();
        self.set(REVOCATION_PAST_NOTE, &past, Readiness::note);

        let now = self.clock.now();
        let mut old: Vec<_> = self.counted.newest().into_iter().collect();
        old.retain(|list| self.lapsing.stage(list, now).is_some());
        // The worst first: what follows may be cut.
        old.sort_by_key(|list| list.next_update);
        let told: Vec<String> =
            old.iter().filter_map(|list| Some(self.in_words(list, self.lapsing.stage(list, now)?))).collect();
        self.set(REVOCATION_OUTDATED_ALARM, &told, Readiness::raise);
    }

    fn in_words(&self, list: &IssuerLists, stage: Stage) -> String {
        let holds = |known: &Known| {
            let good = known.good.as_ref().filter(|_| known.counts);
            good.is_some_and(|file| file.lists().any(|found| found == (&list.issuer, list.next_update)))
        };
        let file = self.files.iter().find(|(_, known)| holds(known)).map_or("-", |(name, _)| name);
        let (participant, issuer) = (&list.participant, &list.issuer);
        let (next, until) = (rfc3339(list.next_update), rfc3339(self.lapsing.counts_until(list.next_update)));
        let what = match stage {
            Stage::Due => format!("is to be followed by the next one by {next}, counts until {until}"),
            Stage::Overdue => format!("was to be followed by the next one by {next}, and counts until {until}"),
            Stage::Lapsed => format!("counted until {until}, and all that it issued for {participant} is refused"),
        };
        format!(
            "{file}: this list of '{issuer}' ({participant}) {what}; put the issuer's next list into {REVOCATION_FOLDER}/ of this machine, \
             it counts within a second and needs no call to this server; `concord node renew --list`, or `hub renew`, makes it where the anchor's key is in this folder"
        )
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

impl Found {
    /// Absent if it went meanwhile.
    fn at(path: &Path) -> Option<Self> {
        Some(match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Self::File(Stamp::of(&metadata)),
            Ok(_) => Self::Other(NO_FILE.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::symlink_metadata(path).ok()?;
                Self::Other("it is a link to nothing".to_owned())
            }
            Err(error) => Self::Other(format!("it cannot be read: {error}")),
        })
    }
}

/// Reads a file, and nothing else: a pipe or a device that took its place meanwhile is neither waited for nor read.
fn read_file(path: &Path) -> Result<RevocationFile, Unread> {
    let failed = |error: io::Error| Unread::Failed(format!("it cannot be read: {error}"));
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Unread::Failed(NO_FILE.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(REVOCATION_FILE_SIZE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > REVOCATION_FILE_SIZE_MAX_BYTES {
        return Err(Unread::Invalid(format!("it is larger than {REVOCATION_FILE_SIZE_MAX_BYTES} bytes")));
    }
    RevocationFile::parse(&bytes).map_err(Unread::Invalid)
}
