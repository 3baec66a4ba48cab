//! The bytes of one snapshot file.
//!
//! Magic, layout (2 bytes), form (name, version), program, tail (history 16, sequence 8, digest 32), length of the state (8),
//! state, SHA-256 over all before it. Numbers are little-endian; texts begin with their length in one byte.

use concord_journal::{Digest, HistoryId, Tail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// The largest snapshot that is written or read. A larger state has none, and every start folds the journal.
pub const SNAPSHOT_SIZE_MAX_BYTES: u64 = 256 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"CONCSNAP";
const LAYOUT: u16 = 1;
const CHECKSUM_SIZE_BYTES: usize = 32;
/// A snapshot of another program is ignored: what it means by an entry may differ.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What a state is, and how it is written. With another name or version, a snapshot is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Whose state: `hub` or `node`.
    pub name: &'static str,
    /// Raised whenever the state's fields change, or what applying an entry makes of them.
    pub version: u32,
}

/// Why a file's content is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Another program, or another version of the state, wrote it: no fault.
    #[error("it was written by another version of the program")]
    OtherVersion,
    /// Its bytes are not those that were written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The state does not decode, though the bytes are those that were written.
    #[error("its state cannot be read: {0}")]
    State(String),
}

/// The whole file; `None` if the state cannot be written within the limit.
pub(crate) fn encode<S: Serialize>(form: Form, state: &S, tail: Tail) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&LAYOUT.to_le_bytes());
    write_text(&mut bytes, form.name);
    bytes.extend_from_slice(&form.version.to_le_bytes());
    write_text(&mut bytes, PROGRAM);
    bytes.extend_from_slice(&tail.history.0);
    bytes.extend_from_slice(&tail.sequence.to_le_bytes());
    bytes.extend_from_slice(&tail.digest.0);
    let state = postcard::to_stdvec(state).map_err(|error| error.to_string())?;
    bytes.extend_from_slice(&(state.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&state);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    if bytes.len() as u64 > SNAPSHOT_SIZE_MAX_BYTES {
        return Err(format!("it takes {} bytes, more than {SNAPSHOT_SIZE_MAX_BYTES}", bytes.len()));
    }
    Ok(bytes)
}

/// Reads exactly what [`encode`] wrote for this form.
pub(crate) fn decode<S: DeserializeOwned>(form: Form, bytes: &[u8]) -> Result<(S, Tail), Unusable> {
    let short = Unusable::Damaged("it is too short");
    let checked = bytes.len().checked_sub(CHECKSUM_SIZE_BYTES).ok_or_else(|| short.clone())?;
    let (checked, checksum) = bytes.split_at_checked(checked).ok_or_else(|| short.clone())?;
    // The sum before all else: a damaged version must not pass for another program's.
    if Sha256::digest(checked)[..] != *checksum {
        return Err(Unusable::Damaged("its checksum does not hold"));
    }
    let mut rest = checked;
    let (magic, layout) = (take::<8>(&mut rest), take::<2>(&mut rest));
    if magic.as_ref() != Some(MAGIC) || layout.map(u16::from_le_bytes) != Some(LAYOUT) {
        return Err(Unusable::OtherVersion);
    }
    let name = take_text(&mut rest).ok_or_else(|| short.clone())?;
    let version = take::<4>(&mut rest).map(u32::from_le_bytes).ok_or_else(|| short.clone())?;
    let program = take_text(&mut rest).ok_or_else(|| short.clone())?;
    if (name, version, program) != (form.name.as_bytes(), form.version, PROGRAM.as_bytes()) {
        return Err(Unusable::OtherVersion);
    }
    let mut tail = || {
        let history = HistoryId(take::<16>(&mut rest)?);
        let sequence = u64::from_le_bytes(take::<8>(&mut rest)?);
        let digest = Digest(take::<32>(&mut rest)?);
        let length = u64::from_le_bytes(take::<8>(&mut rest)?);
        Some((Tail { history, sequence, digest }, length))
    };
    let (tail, length) = tail().ok_or(short)?;
    if length != rest.len() as u64 {
        return Err(Unusable::Damaged("its length does not hold"));
    }
    let (state, left) = postcard::take_from_bytes(rest).map_err(|error| Unusable::State(error.to_string()))?;
    if !left.is_empty() {
        return Err(Unusable::State(format!("{} bytes are left over", left.len())));
    }
    Ok((state, tail))
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    // Names and versions are far below; a longer one would only make the snapshot another program's.
    let text = text.as_bytes().get(..usize::from(u8::MAX)).unwrap_or(text.as_bytes());
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text);
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, left) = rest.split_first_chunk::<LENGTH>()?;
    *rest = left;
    Some(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [length] = take::<1>(rest)?;
    let (text, left) = rest.split_at_checked(length.into())?;
    *rest = left;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { name: "hub", version: 3 };
    const TAIL: Tail = Tail { history: HistoryId([1; 16]), sequence: 258, digest: Digest([2; 32]) };

    #[test]
    fn a_snapshot_reads_back_and_no_bit_of_it_may_change() {
        let state = vec!["KAZ".to_owned(), "IRN".to_owned()];
        let bytes = encode(FORM, &state, TAIL).unwrap();
        assert_eq!(decode::<Vec<String>>(FORM, &bytes), Ok((state, TAIL)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode::<Vec<String>>(FORM, &damaged), Err(Unusable::Damaged(_))), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode::<Vec<String>>(FORM, &bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_snapshot_of_another_form_is_ignored() {
        let bytes = encode(FORM, &7_u64, TAIL).unwrap();
        for other in [Form { version: 4, ..FORM }, Form { name: "node", ..FORM }] {
            assert_eq!(decode::<u64>(other, &bytes), Err(Unusable::OtherVersion));
        }
        assert!(matches!(decode::<u8>(FORM, &encode(FORM, &(7_u8, 8_u8), TAIL).unwrap()), Err(Unusable::State(_))));
    }
}
