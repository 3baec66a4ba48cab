//! The register of an anchor: what it issued and what it took back, a line of JSON each, beside its certificate.
//!
//! Invariant: a certificate stands here, durable, before anybody is handed it. So whoever is removed is removed with all that it has.
//! A line is appended under a lock; a torn last line is of a certificate that nobody was handed. Whoever takes back holds the lock until
//! its list has its name: a list is made of all that the register has, so two at once must not each make one without the other's.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use concord_model::{Digest, Fingerprint, Identity, Timestamp};
use serde::{Deserialize, Serialize};

use crate::facts::CertificateFacts;
use crate::files::FileError;
use crate::leaf_key::LeafPublicKey;
use crate::moment::rfc3339;

/// A register. A larger file is refused: something else was put there.
pub const REGISTER_SIZE_MAX_BYTES: u64 = 64 * 1024 * 1024;

const FILE_MODE: u32 = 0o600;

/// One certificate that the anchor issued, as the register has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The URI name; empty of one that was taken back by its number, and that nobody knows whose it was.
    pub name: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// First moment, RFC 3339.
    pub not_before: String,
    /// Last moment, RFC 3339.
    pub not_after: String,
    /// SHA-256 of its key.
    pub key: String,
    /// The key itself, SubjectPublicKeyInfo in hexadecimal: its holder, whose profile is elsewhere, gets the next certificate for it. A
    /// register of an older version has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// When it was taken back, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl Registered {
    /// Its first and its last moment, if they are known.
    pub fn validity(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (moment(&self.not_before), moment(&self.not_after))
    }

    /// When it was taken back, if it was.
    pub fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked.as_deref().and_then(moment)
    }

    /// Its key, if that is known.
    pub fn public_key(&self) -> Option<LeafPublicKey> {
        let der = from_hex(self.public_key.as_deref()?)?;
        // What a line says of it twice has to be the same.
        LeafPublicKey::from_spki(&der).ok().filter(|key| Some(key.fingerprint()) == self.key_fingerprint())
    }

    /// Over its key, if that is known.
    pub fn key_fingerprint(&self) -> Option<Fingerprint> {
        Digest::from_hex(&self.key).ok().map(Fingerprint)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp::from_micros(at.as_microsecond()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Issued(Registered),
    Revoked { name: String, serial: String, at: String },
}

/// The register of one anchor.
#[derive(Debug, Clone)]
pub struct Register(PathBuf);

/// The register, held against all others who would write in it, until this is dropped.
#[derive(Debug)]
pub struct RegisterHeld(File);

impl Register {
    /// The register in this file, which need not be there yet.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Notes a certificate. Durable when it returns.
    pub(crate) fn issued(&self, facts: &CertificateFacts) -> Result<(), FileError> {
        self.append(
            &mut self.hold()?,
            &[Line::Issued(Registered {
                name: facts.identity.to_string(),
                serial: facts.serial.clone(),
                not_before: rfc3339(facts.not_before),
                not_after: rfc3339(facts.not_after),
                key: facts.key_fingerprint().map(|key| key.to_string()).unwrap_or_default(),
                public_key: facts.key.as_ref().map(|key| to_hex(&key.to_spki())),
                revoked: None,
            })],
        )
    }

    /// Notes that these certificates, by name, if that is known, and serial number, are taken back. Durable when it returns.
    pub(crate) fn revoked<'a>(
        &self,
        held: &mut RegisterHeld,
        these: impl IntoIterator<Item = (Option<&'a Identity>, &'a str)>,
        now: Timestamp,
    ) -> Result<(), FileError> {
        let line = |(name, serial): (Option<&Identity>, &str)| Line::Revoked {
            name: name.map(ToString::to_string).unwrap_or_default(),
            serial: serial.to_owned(),
            at: rfc3339(now),
        };
        self.append(held, &these.into_iter().map(line).collect::<Vec<_>>())
    }

    /// Waits until nobody else writes in it, and lets nobody.
    pub(crate) fn hold(&self) -> Result<RegisterHeld, FileError> {
        let hold = || -> io::Result<RegisterHeld> {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&self.0)?;
            file.lock()?;
            Ok(RegisterHeld(file))
        };
        hold().map_err(|source| self.failed("write", source))
    }

    /// Everything in it, in the order in which it was issued.
    pub fn read(&self) -> Result<Vec<Registered>, FileError> {
        let text = match File::open(&self.0) {
            Ok(mut file) => whole_lines(&mut file).map_err(|source| self.failed("read", source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(self.failed("read", source)),
        };
        let (mut all, mut places) = (Vec::<Registered>::new(), BTreeMap::new());
        for (number, line) in text.lines().enumerate() {
            let damaged = |error| {
                let why = format!(
                    "line {}: {error}; put the line right from a copy, or take it out: what is on a list beside stays taken back",
                    number + 1
                );
                self.failed("read", io::Error::other(why))
            };
            match serde_json::from_str(line).map_err(damaged)? {
                Line::Issued(one) => {
                    places.insert(one.serial.clone(), all.len());
                    all.push(one);
                }
                Line::Revoked { name, serial, at } => match places.get(&serial) {
                    Some(place) => {
                        if let Some(one) = all.get_mut(*place) {
                            one.revoked.get_or_insert(at);
                        }
                    }
                    // Issued before there was a register.
                    None => {
                        places.insert(serial.clone(), all.len());
                        let (not_before, not_after, key) = Default::default();
                        let (public_key, revoked) = (None, Some(at));
                        all.push(Registered { name, serial, not_before, not_after, key, public_key, revoked });
                    }
                },
            }
        }
        Ok(all)
    }

    fn append(&self, RegisterHeld(file): &mut RegisterHeld, lines: &[Line]) -> Result<(), FileError> {
        let mut append = || {
            file.seek(SeekFrom::Start(0))?;
            let whole = whole_lines(file)?.len() as u64;
            file.set_len(whole)?;
            file.seek(SeekFrom::End(0))?;
            let mut text = String::new();
            for line in lines {
                text.push_str(&serde_json::to_string(line)?);
                text.push('\n');
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        append().map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> FileError {
        FileError { action, path: self.0.clone(), source }
    }
}

/// The file without a last line that has no end.
fn whole_lines(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    let read = file.take(REGISTER_SIZE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > REGISTER_SIZE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {REGISTER_SIZE_MAX_BYTES} bytes")));
    }
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_nobodys_and_the_next_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path().join("issued.jsonl"));
        assert_eq!(register.read().unwrap(), []);
        let name: Identity = "spiffe://kaz.concord/officer/first".parse().unwrap();
        register.revoked(&mut register.hold().unwrap(), [(Some(&name), "0a")], Timestamp::from_micros(0)).unwrap();
        let mut file = OpenOptions::new().append(true).open(folder.path().join("issued.jsonl")).unwrap();
        file.write_all(b"{\"issued\":{\"name\":\"spi").unwrap();
        assert_eq!(register.read().unwrap().len(), 1);
        register.revoked(&mut register.hold().unwrap(), [(Some(&name), "0b")], Timestamp::from_micros(0)).unwrap();
        let read = register.read().unwrap();
        assert_eq!(read.iter().map(|one| one.serial.as_str()).collect::<Vec<_>>(), ["0a", "0b"]);
        assert!(read.iter().all(|one| one.revoked.as_deref() == Some("1970-01-01T00:00:00Z")));
        // A line in the midst that is none is damage, and said by its number.
        std::fs::write(folder.path().join("issued.jsonl"), "x\n{}\n").unwrap();
        assert!(register.read().unwrap_err().to_string().contains("line 1"), "{:?}", register.read());
    }
}
