//! SHA-256 digests, each kind a type of its own so that one cannot stand in for another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::ParseError;

/// Thirty-two bytes of SHA-256, shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest that stands before the first of a chain.
    pub const ZERO: Self = Self([0; 32]);

    /// Takes exactly 32 bytes, as they come from the wire.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
        let bytes = bytes.try_into().map_err(|_| {
            ParseError::new("digest", format!("{} bytes", bytes.len()), "a SHA-256 digest has 32 bytes")
        })?;
        Ok(Self(bytes))
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("digest", text, "expected 64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, for encoding.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

digest_type! {
    /// Names an exchange: the digest of its serialised header.
    ExchangeId
}
digest_type! {
    /// What the next consignment of a chain names as its previous one: the digest of what the origin signed.
    ConsignmentDigest
}
digest_type! {
    /// The digest of a certificate or of a public key (its SubjectPublicKeyInfo), as people compare it.
    Fingerprint
}

impl Fingerprint {
    /// Reads 64 hexadecimal digits of any case, with blanks or colons between them as people write them.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
        let wrong = || ParseError::new("fingerprint", text, "eight groups of eight hexadecimal digits");
        Digest::from_hex(&digits.to_ascii_lowercase()).map(Self).map_err(|_| wrong())
    }

    /// Eight groups of eight digits, to be read aloud: `3f9a12bc 77e04d1e …`.
    pub fn grouped(&self) -> String {
        let hex = self.to_string();
        let groups: Vec<&str> = (0..8).map(|group| &hex[group * 8..group * 8 + 8]).collect();
        groups.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_shows() {
        let digest = Digest(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(Digest::from_hex(&digest.to_string()), Ok(digest));
        assert!(Digest::from_hex("é").is_err());
        assert!(Digest::from_hex(&"g".repeat(64)).is_err());
        assert!(Digest::from_slice(&[0; 31]).is_err());
    }

    #[test]
    fn a_fingerprint_is_shown_in_eight_groups() {
        let shown = Fingerprint(Digest([0xab; 32])).grouped();
        assert_eq!(shown.split(' ').map(str::len).collect::<Vec<_>>(), [8; 8]);
        let colons = shown.to_uppercase().replace(' ', ":");
        for written in [&shown, &shown.to_uppercase(), &shown.replace(' ', ""), &colons] {
            assert_eq!(Fingerprint::parse(written), Ok(Fingerprint(Digest([0xab; 32]))));
        }
        assert!(Fingerprint::parse(&shown[1..]).is_err());
    }
}
