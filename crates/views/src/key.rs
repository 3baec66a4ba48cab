//! Composite keys: built so that their byte order is the order of their components.

/// The end of a text component; smaller than any escaped byte, so that `"a"` sorts before `"a\0"`.
const TEXT_END: [u8; 2] = [0x00, 0x01];
/// A zero byte inside a text component.
const TEXT_ZERO: [u8; 2] = [0x00, 0xFF];

/// A key of one or more components, prefix-safe.
///
/// Within one table all keys must have the same shape (the same components in the same order). Then two keys are
/// equal only if all components are, they sort component by component, and the key of one participant is never a
/// prefix of another's: `Key::new().text("UN")` finds nothing of `UNX`.
///
/// ```
/// use concord_views::Key;
/// let key = Key::new().text("KAZ").number(7);
/// assert!(key.as_ref().starts_with(Key::new().text("KAZ").as_ref()));
/// assert!(!key.as_ref().starts_with(Key::new().text("KA").as_ref()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key without components: the prefix of every key of a table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text in any script, sorted by its UTF-8 bytes; ended by a terminator.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            match byte {
                0 => self.0.extend_from_slice(&TEXT_ZERO),
                _ => self.0.push(byte),
            }
        }
        self.0.extend_from_slice(&TEXT_END);
        self
    }

    /// Adds a number, sorted as a number: eight bytes, big-endian.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Adds a small number, a lane for instance: one byte.
    #[must_use]
    pub fn small(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    /// Adds bytes of a length that is the same for all keys of the table: a digest, an identifier.
    #[must_use]
    pub fn fixed<const LENGTH: usize>(mut self, bytes: &[u8; LENGTH]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Key> for Vec<u8> {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// Takes the components of a [`Key`] back out, in the order in which they were added.
///
/// Each call answers `None` where the bytes hold no such component; what was read before stays read.
#[derive(Clone, Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Reads from the start of `key`.
    #[must_use]
    pub fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// The next component, written by [`Key::text`].
    pub fn text(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut rest = self.0;
        loop {
            match rest {
                [0x00, 0x01, after @ ..] => {
                    let text = String::from_utf8(text).ok()?;
                    self.0 = after;
                    return Some(text);
                }
                [0x00, 0xFF, after @ ..] => {
                    text.push(0);
                    rest = after;
                }
                [0x00, ..] | [] => return None,
                [byte, after @ ..] => {
                    text.push(*byte);
                    rest = after;
                }
            }
        }
    }

    /// The next component, written by [`Key::number`].
    pub fn number(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// The next component, written by [`Key::small`].
    pub fn small(&mut self) -> Option<u8> {
        self.fixed().map(|[number]| number)
    }

    /// The next component, written by [`Key::fixed`] with the same length.
    pub fn fixed<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (component, rest) = self.0.split_first_chunk::<LENGTH>()?;
        self.0 = rest;
        Some(*component)
    }

    /// Whether every component has been read.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Components = (String, u64, u8, [u8; 4], String);

    fn key(components: &Components) -> Key {
        let (text, number, small, fixed, last) = components;
        Key::new().text(text).number(*number).small(*small).fixed(fixed).text(last)
    }

    /// Texts that meet the escapes often: zero bytes, the bytes next to them, and shared beginnings.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::collection::vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('ÿ'), Just('我')], 0..5)
                .prop_map(|letters| letters.into_iter().collect()),
            any::<String>(),
        ]
    }

    fn components() -> impl Strategy<Value = Components> {
        (text(), prop_oneof![0u64..4, any::<u64>()], any::<u8>(), any::<[u8; 4]>(), text())
    }

    #[test]
    fn the_bytes_of_a_key_do_not_change() {
        let key = Key::new().text("KAZ").small(2).number(258);
        assert_eq!(key.as_ref(), [b'K', b'A', b'Z', 0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_damaged_key_reads_as_nothing() {
        assert_eq!(KeyReader::new(b"KAZ").text(), None, "no terminator");
        assert_eq!(KeyReader::new(&[b'K', 0, 7]).text(), None, "no such escape");
        assert_eq!(KeyReader::new(&[0xFF, 0, 1]).text(), None, "not UTF-8");
        assert_eq!(KeyReader::new(&[0; 7]).number(), None, "too short");
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_components_do(left in components(), right in components()) {
            prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        }

        #[test]
        fn a_key_reads_back_as_its_components(components in components()) {
            let key = key(&components);
            let mut reader = KeyReader::new(key.as_ref());
            let read = (
                reader.text().unwrap(),
                reader.number().unwrap(),
                reader.small().unwrap(),
                reader.fixed().unwrap(),
                reader.text().unwrap(),
            );
            prop_assert_eq!(read, components);
            prop_assert!(reader.at_end());
        }

        #[test]
        fn no_key_of_one_participant_starts_with_the_prefix_of_another(
            one in text(), other in text(), number in any::<u64>(),
        ) {
            let prefix = Key::new().text(&one);
            let row = Key::new().text(&other).number(number);
            prop_assert_eq!(row.as_ref().starts_with(prefix.as_ref()), one == other);
        }
    }
}
