//! Cursors: what an agency is given with each exchange, and acknowledges by.
//!
//! A cursor has the number of the exchange in its state's mailbox, and by the numbers one agency could count what its state received for
//! the others. So it is sealed under a key that only this node has, for one agency: whoever changes a byte, or brings another
//! agency's, hears `CURSOR_INVALID`, and learns nothing of what there is.
//!
//! Invariant: a cursor acknowledges only what was given by the journal as it was restored last. Behind a restore entries and rights are
//! others under the same numbers: a cursor of before would acknowledge what was never given, and hears `CURSOR_OUTDATED`.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_journal::HistoryId;
use concord_model::{Lane, Name, Reason, Refusal};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::context::Context;

/// Signed to nobody: the signature, which is always the same and leaves the process never, is the secret of the cursors' key. No message
/// that is signed for somebody begins so.
const SECRET_OF: &[u8] = b"concord agencies' cursors, version 2";
const TAG_SIZE_BYTES: usize = 16;
/// Of the history in which the journal was restored last: a part that tells it from any other. Zeros where it never was.
const SINCE_SIZE_BYTES: usize = 8;
const PLAIN_SIZE_BYTES: usize = 1 + 8 + 8 + SINCE_SIZE_BYTES;
/// In the byte of the lane.
const ONE: u8 = 0x80;

/// What an acknowledgement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Everything of a lane up to this number that was given under the agency's rights as that entry of the journal left them.
    Through {
        /// The lane.
        lane: Lane,
        /// The number in its mailbox.
        number: u64,
        /// The entry.
        rights_at: u64,
    },
    /// One exchange behind the agency's cursor.
    One {
        /// The lane.
        lane: Lane,
        /// The number in its mailbox.
        number: u64,
    },
}

impl Cursor {
    /// The lane and the number in its mailbox.
    pub const fn place(&self) -> (Lane, u64) {
        match self {
            Self::Through { lane, number, .. } | Self::One { lane, number } => (*lane, *number),
        }
    }

    fn to_plain(self, since: [u8; SINCE_SIZE_BYTES]) -> [u8; PLAIN_SIZE_BYTES] {
        let (lane, number) = self.place();
        let (kind, rights_at) = match self {
            Self::Through { rights_at, .. } => (0, rights_at),
            Self::One { .. } => (ONE, 0),
        };
        let mut plain = [0; PLAIN_SIZE_BYTES];
        plain[0] = lane.slot() as u8 | kind;
        plain[1..9].copy_from_slice(&number.to_be_bytes());
        plain[9..17].copy_from_slice(&rights_at.to_be_bytes());
        plain[17..].copy_from_slice(&since);
        plain
    }

    fn from_plain(plain: &[u8; PLAIN_SIZE_BYTES]) -> Option<Self> {
        let lane = Lane::ALL.get(usize::from(plain[0] & !ONE)).copied()?;
        let number = u64::from_be_bytes(plain[1..9].try_into().ok()?);
        let rights_at = u64::from_be_bytes(plain[9..17].try_into().ok()?);
        Some(if plain[0] & ONE == 0 { Self::Through { lane, number, rights_at } } else { Self::One { lane, number } })
    }
}

/// Seals and opens the cursors of one agency.
pub struct Cursors {
    keyed: Hmac<Sha256>,
    /// By the keys that counted before: what an agency was given under them it may still acknowledge.
    earlier: Vec<Hmac<Sha256>>,
    since: [u8; SINCE_SIZE_BYTES],
}

impl Cursors {
    /// Of one agency of the node with this key, whose journal was restored last in this history, if it was.
    pub fn of(key: &SigningKey, agency: &Name, restored_in: Option<HistoryId>) -> Self {
        let since = restored_in.and_then(|history| history.as_bytes().first_chunk().copied()).unwrap_or_default();
        Self { keyed: keyed(key, agency), earlier: Vec::new(), since }
    }

    pub(super) fn new(context: &Context, agency: &Name) -> Self {
        let (present, held) = (context.key(), context.keys.held());
        let is_earlier = |key: &&Arc<SigningKey>| key.public().fingerprint != present.public().fingerprint;
        let earlier = held.iter().filter(is_earlier).map(|key| keyed(key, agency)).collect();
        Self { earlier, ..Self::of(&present, agency, context.state.borrow().line().restored_in) }
    }

    pub(super) fn seal(&self, cursor: Cursor) -> Bytes {
        let plain = cursor.to_plain(self.since);
        let tag = tag(&self.keyed, &plain);
        let sealed = tag.into_iter().chain(masked(&self.keyed, &tag, &plain));
        sealed.collect()
    }

    /// Refuses with `CURSOR_INVALID` and `CURSOR_OUTDATED`.
    pub fn open(&self, bytes: &[u8]) -> Result<Cursor, Refusal> {
        let opened = bytes.split_first_chunk::<TAG_SIZE_BYTES>().and_then(|(opening, sealed)| {
            let sealed = sealed.try_into().ok()?;
            std::iter::once(&self.keyed).chain(&self.earlier).find_map(|keyed| {
                let plain = masked(keyed, opening, sealed);
                let cursor = Cursor::from_plain(&plain).filter(|_| tag(keyed, &plain) == *opening);
                cursor.map(|cursor| (cursor, plain[17..] == self.since))
            })
        });
        match opened {
            Some((cursor, is_of_now)) if is_of_now || concord_faults::planted("take-cursors-of-before") => Ok(cursor),
            Some(_) => {
                let what = "the journal of this node was put back or made anew since this cursor was given";
                Err(Refusal::new(Reason::CursorOutdated, what))
            }
            None => Err(Refusal::new(Reason::CursorInvalid, "these bytes are no cursor that this agency was given")),
        }
    }
}

fn keyed(key: &SigningKey, agency: &Name) -> Hmac<Sha256> {
    let node = Sha256::digest(key.sign(SECRET_OF));
    hmac(&hmac(&node).chain_update(agency.as_str()).finalize().into_bytes())
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn tag(keyed: &Hmac<Sha256>, plain: &[u8; PLAIN_SIZE_BYTES]) -> [u8; TAG_SIZE_BYTES] {
    derive(keyed, b"tag", plain)
}

fn masked(keyed: &Hmac<Sha256>, tag: &[u8; TAG_SIZE_BYTES], bytes: &[u8; PLAIN_SIZE_BYTES]) -> [u8; PLAIN_SIZE_BYTES] {
    let mask: [u8; PLAIN_SIZE_BYTES] = derive(keyed, b"mask", tag);
    std::array::from_fn(|at| bytes[at] ^ mask[at])
}

fn derive<const LENGTH: usize>(keyed: &Hmac<Sha256>, label: &[u8], bytes: &[u8]) -> [u8; LENGTH] {
    let whole = keyed.clone().chain_update(label).chain_update(bytes).finalize().into_bytes();
    std::array::from_fn(|at| whole[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_cursor_reads_what_it_was_made_of_and_nothing_else_is_one() {
        let key = SigningKey::generate().unwrap();
        let cursors = Cursors::of(&key, &name("cert"), None);
        for lane in Lane::ALL {
            for number in [0, 1, u64::MAX] {
                for cursor in [Cursor::Through { lane, number, rights_at: 7 }, Cursor::One { lane, number }] {
                    let sealed = cursors.seal(cursor);
                    assert_eq!(cursors.open(&sealed), Ok(cursor));
                    assert_eq!(Cursors::of(&key, &name("cert"), None).seal(cursor), sealed, "the same after a restart");
                    let others = [
                        Cursors::of(&key, &name("police"), None),
                        Cursors::of(&SigningKey::generate().unwrap(), &name("cert"), None),
                    ];
                    for other in others {
                        assert_eq!(other.open(&sealed).unwrap_err().reason, Reason::CursorInvalid);
                    }
                    for at in 0..sealed.len() {
                        let mut changed = sealed.to_vec();
                        changed[at] ^= 1;
                        assert_eq!(cursors.open(&changed).unwrap_err().reason, Reason::CursorInvalid);
                    }
                }
            }
        }
        for wrong in [&[][..], &[0; 33], &[0; 40], &[0; 42]] {
            assert_eq!(cursors.open(wrong).unwrap_err().reason, Reason::CursorInvalid);
        }
    }

    #[test]
    fn a_cursor_given_under_the_key_before_is_taken_while_that_is_kept() {
        let [before, present] = [(); 2].map(|()| SigningKey::generate().unwrap());
        let cursor = Cursor::Through { lane: Lane::Flash, number: 3, rights_at: 7 };
        let given = Cursors::of(&before, &name("cert"), None).seal(cursor);
        let without = Cursors::of(&present, &name("cert"), None);
        assert_eq!(without.open(&given).unwrap_err().reason, Reason::CursorInvalid);
        let both = |agency| Cursors {
            earlier: vec![keyed(&before, &name(agency))],
            ..Cursors::of(&present, &name(agency), None)
        };
        assert_eq!(both("cert").open(&given), Ok(cursor));
        assert_eq!(both("police").open(&given).unwrap_err().reason, Reason::CursorInvalid);
        assert_eq!(without.open(&both("cert").seal(cursor)), Ok(cursor), "new ones are the present key's");
    }

    #[test]
    fn a_cursor_of_before_a_restore_is_told_from_one_that_never_was() {
        let key = SigningKey::generate().unwrap();
        let of = |restored_in| Cursors::of(&key, &name("cert"), restored_in);
        let [never, once, twice] = [None, Some(HistoryId([1; 16])), Some(HistoryId([2; 16]))].map(of);
        for cursor in [
            Cursor::Through { lane: Lane::Flash, number: 3, rights_at: 7 },
            Cursor::One { lane: Lane::Flash, number: 3 },
        ] {
            for (given, now) in [(&never, &once), (&once, &twice), (&once, &never)] {
                assert_eq!(now.open(&given.seal(cursor)).unwrap_err().reason, Reason::CursorOutdated);
                assert_eq!(now.open(&now.seal(cursor)), Ok(cursor));
            }
        }
    }

    #[test]
    fn neighbouring_numbers_have_nothing_in_common_that_could_be_seen() {
        let cursors = Cursors::of(&SigningKey::generate().unwrap(), &name("cert"), None);
        let seal = |number| cursors.seal(Cursor::Through { lane: Lane::Flash, number, rights_at: 1 });
        let (one, two) = (seal(1), seal(2));
        let same = one.iter().zip(&two).filter(|(a, b)| a == b).count();
        assert!(same < one.len() / 2, "{same} bytes of {} are the same", one.len());
    }
}
