//! Taking back: a list, signed by the anchor, in the folder that the server reads.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use concord_identity::{Anchor, AnchorFolder, FileError, MadeList, RegisterHeld, is_only_of, write_public};
use concord_model::{Identity, Timestamp};

use super::succession::short;
use super::{Holders, HoldersError, Place, make_folder};
use crate::revocation::{REVOCATION_FILE_SIZE_MAX_BYTES, REVOCATION_FILES_MAX, REVOCATION_FOLDER};

/// Who was taken back, and by which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The serial numbers that the list names for this, in hexadecimal.
    pub serials: Vec<String>,
    /// The list.
    pub list: PathBuf,
    /// What it says; none where the anchor's key is elsewhere, and a list that names all that is here was there already.
    pub made: Option<MadeList>,
    /// Where the profile went, if one was here.
    pub aside: Option<PathBuf>,
}

impl Holders {
    /// Takes back every certificate that this holder was ever given: those of the register, and the one that is here. The running server
    /// reads the list by itself.
    pub fn remove(&self, holder: &Identity, now: Timestamp, next_update_days: u32) -> Result<Removed, HoldersError> {
        let place = self.place(holder)?;
        let anchor = match self.open_anchor() {
            Err(HoldersError::AnchorKey { path, source }) => {
                return match self.put_away(holder, &place, now)? {
                    Some(removed) => Ok(removed),
                    None => Err(HoldersError::AnchorKey { path, source }),
                };
            }
            opened => opened?,
        };
        // Held until the list has its name: two at once would each write one without the other's.
        let mut held = anchor.hold()?;
        let mut serials: Vec<String> =
            anchor.issued_to(std::slice::from_ref(holder))?.into_iter().map(|one| one.serial).collect();
        // What an anchor of before issued counts until that is ended.
        for folder in self.folders_before() {
            let issued = AnchorFolder::register_in(&folder).read()?;
            let its = issued.into_iter().filter(|one| one.name == holder.to_string());
            serials.extend(its.map(|one| one.serial));
        }
        if place.certificate().exists() {
            serials.push(self.certificate_in(holder, &place)?.serial);
        }
        serials.sort_unstable();
        serials.dedup();
        if serials.is_empty() {
            return Err(HoldersError::Unknown(holder.clone()));
        }
        let these: Vec<_> = serials.iter().map(|serial| (Some(holder.clone()), serial.clone())).collect();
        let (list, made) = self.write_list(&anchor, &mut held, &these, now, next_update_days)?;
        let aside = move_aside(&place.folder, now)?;
        Ok(Removed { serials, list, made: Some(made), aside })
    }

    /// Puts the profile of whoever a list here names away, where the anchor's key is elsewhere. Nothing where none names it.
    fn put_away(&self, holder: &Identity, place: &Place, now: Timestamp) -> Result<Option<Removed>, HoldersError> {
        let Ok(facts) = self.certificate_in(holder, place) else { return Ok(None) };
        if *holder == self.server || !self.taken_back()?.has(&facts) {
            return Ok(None);
        }
        let aside = move_aside(&place.folder, now)?;
        Ok(Some(Removed { serials: vec![facts.serial], list: self.dir.join(REVOCATION_FOLDER), made: None, aside }))
    }

    /// The same list again with a later next update, where nobody is taken back.
    pub fn renew_list(&self, now: Timestamp, next_update_days: u32) -> Result<(PathBuf, MadeList), HoldersError> {
        let anchor = self.open_anchor()?;
        self.write_list(&anchor, &mut anchor.hold()?, &[], now, next_update_days)
    }

    /// The file of the anchor's list in the folder that the server reads.
    pub fn list_of(&self, anchor: &Anchor) -> Result<PathBuf, HoldersError> {
        let folder = self.dir.join(REVOCATION_FOLDER);
        let code = self.server.participant.as_str().to_ascii_lowercase();
        let path = folder.join(format!("{code}.crl"));
        // The list of an anchor that this one followed stays what it is.
        let is_of = |before: &Anchor| before != anchor && path.exists() && refuse_if_of_another(&path, before).is_ok();
        let is_taken = self.anchors_before().into_iter().chain(self.anchors()?).any(|before| is_of(&before));
        Ok(if is_taken { folder.join(format!("{code}-{}.crl", short(anchor))) } else { path })
    }

    fn write_list(
        &self,
        anchor: &AnchorFolder,
        held: &mut RegisterHeld,
        these: &[(Option<Identity>, String)],
        now: Timestamp,
        next_update_days: u32,
    ) -> Result<(PathBuf, MadeList), HoldersError> {
        let (folder, path) = (self.dir.join(REVOCATION_FOLDER), self.list_of(anchor.anchor())?);
        make_folder(&folder)?;
        refuse_if_of_another(&path, anchor.anchor())?;
        let made = anchor.revoke(held, these, &lists_in(&folder)?, now, next_update_days)?;
        write_public(&path, made.text.as_bytes())?;
        Ok((path, made))
    }
}

/// What is replaced must have nothing but lists of this anchor: all else would be lost with it.
pub fn refuse_if_of_another(path: &Path, anchor: &Anchor) -> Result<(), HoldersError> {
    let why = match read_list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(bytes) if is_only_of(&bytes, anchor) => return Ok(()),
        Ok(_) => "it has something else than lists of this anchor".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(HoldersError::List { path: path.to_owned(), why })
}

/// The files of a folder of lists, within the server's limits.
pub(super) fn lists_in(folder: &Path) -> Result<Vec<Vec<u8>>, HoldersError> {
    let failed = |path: &Path, source| FileError { action: "read", path: path.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(|source| failed(folder, source))?;
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden || !path.is_file() {
            continue;
        }
        if files.len() == REVOCATION_FILES_MAX {
            let why = format!("it has more than {REVOCATION_FILES_MAX} files");
            return Err(HoldersError::List { path: folder.to_owned(), why });
        }
        files.push(read_list(&path).map_err(|source| HoldersError::List { path, why: source.to_string() })?);
    }
    Ok(files)
}

/// Reads a file of lists within the server's limit.
pub fn read_list(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path)?.take(REVOCATION_FILE_SIZE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > REVOCATION_FILE_SIZE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {REVOCATION_FILE_SIZE_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The profile of who was removed is of no use to anybody; it is moved, so that the name is free.
fn move_aside(folder: &Path, now: Timestamp) -> Result<Option<PathBuf>, HoldersError> {
    if !folder.exists() {
        return Ok(None);
    }
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".removed-{}", now.as_micros() / 1_000_000));
    let aside = folder.with_file_name(name);
    let moved = fs::rename(folder, &aside);
    moved.map_err(|source| FileError { action: "move aside", path: folder.to_owned(), source })?;
    Ok(Some(aside))
}
