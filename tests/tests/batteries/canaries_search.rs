//! Looks for secrets in everything that somebody got: raw, as hex and as base64, in what files hold and in what they are called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// By so many first bytes a pattern is looked up.
const HEAD: usize = 8;
/// What names of pieces have in them, by sort; each has to come up.
pub(crate) const SORTS: [&str; 12] = [
    "/journal/",
    "/views/",
    "/snapshots/",
    "/audit/",
    "/logs/",
    "/received/",
    ".backup",
    "before-restore",
    "answer ",
    "stream ",
    "/metrics",
    "/readyz",
];
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What of an exchange is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// To everybody in logs and such; to those outside the audience everywhere.
    Title,
    /// The same.
    Body,
    /// The same.
    Caveat,
    /// To those outside the audience: that it exists.
    Id,
    /// The same: the id of what it takes back, or takes the place of.
    Before,
}

impl Kind {
    pub(crate) const CONTENT: [Self; 3] = [Self::Title, Self::Body, Self::Caveat];

    fn is_id(self) -> bool {
        matches!(self, Self::Id | Self::Before)
    }
}

/// One exchange, and who may know what of it.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    /// By its kind: content as written, the id in hex digits. One that was refused has none.
    pub(crate) words: BTreeMap<Kind, String>,
    /// The agency that handed it in.
    pub(crate) origin: String,
    /// Its origin, and those to whom it was delivered.
    pub(crate) states: BTreeSet<String>,
    /// The agencies of those states that may be told of it: `KAZ/agency`.
    pub(crate) agencies: BTreeSet<String>,
    /// Whether the hub ever had it.
    pub(crate) is_recorded: bool,
    /// Whether it was taken back: its content goes, and its id is with whatever took it back.
    pub(crate) is_withdrawn: bool,
}

/// What kind of place something stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A journal or a backup: holds content of its owner's.
    Journal,
    /// What an agency was given.
    Given,
    /// Everything else: never any content.
    Plain,
}

/// Something that somebody got.
pub(crate) struct Got {
    /// `hub` or the participant.
    pub(crate) owner: String,
    /// Which agency of it; none where it is the state's, or its officers'.
    pub(crate) agency: Option<String>,
    pub(crate) place: Place,
    /// Where it is, for whoever reads of a hit.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Got {
    /// Why this may not hold that, if it may not.
    fn forbids(&self, secret: &Secret, kind: Kind) -> Option<&'static str> {
        let is_content = !kind.is_id();
        if self.owner == "hub" {
            return match self.place {
                _ if !is_content => None,
                Place::Journal if secret.is_recorded => None,
                Place::Journal => Some("the hub kept content of what was not recorded"),
                _ => Some("content in what is no journal"),
            };
        }
        if !secret.states.contains(&self.owner) {
            return Some("outside the audience");
        }
        let is_agency_outside =
            self.agency.as_ref().is_some_and(|name| !secret.agencies.contains(&format!("{}/{name}", self.owner)));
        if is_agency_outside {
            return Some("an agency outside the audience");
        }
        (is_content && self.place == Place::Plain).then_some("content in what is no journal")
    }
}

/// What a search went through, and what it came to.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    pub(crate) pieces: usize,
    pub(crate) bytes: usize,
    pub(crate) participants: BTreeSet<String>,
    /// How many pieces of each sort: of a search of nothing there are none.
    pub(crate) sorts: BTreeMap<&'static str, usize>,
    pub(crate) allowed: usize,
    pub(crate) leaks: Vec<String>,
    /// Where each was found: secret, kind, owner, whether in a journal.
    found: BTreeSet<(usize, Kind, String, bool)>,
    /// Where the content is: to agencies.
    given: BTreeSet<(usize, Kind, String)>,
}

impl Searched {
    /// Whether this was found in the owner's journal.
    pub(crate) fn is_in_journal(&self, secret: usize, kind: Kind, owner: &str) -> bool {
        self.found.contains(&(secret, kind, owner.to_owned(), true))
    }

    /// Whether this was given to some agency of the owner's.
    pub(crate) fn is_given(&self, secret: usize, kind: Kind, owner: &str) -> bool {
        self.given.contains(&(secret, kind, owner.to_owned()))
    }
}

struct Pattern {
    bytes: Vec<u8>,
    secret: usize,
    kind: Kind,
    form: &'static str,
}

/// All secrets in all their forms.
pub(crate) struct Finder<'a> {
    secrets: &'a [Secret],
    begins: Vec<bool>,
    by_head: HashMap<[u8; HEAD], Vec<Pattern>>,
}

impl<'a> Finder<'a> {
    pub(crate) fn of(secrets: &'a [Secret]) -> Self {
        let mut finder = Self { secrets, begins: vec![false; 1 << 16], by_head: HashMap::new() };
        for (secret, one) in secrets.iter().enumerate() {
            for (kind, word) in &one.words {
                let raw = if kind.is_id() { from_hex(word) } else { word.clone().into_bytes() };
                let forms = std::iter::once(("raw", raw.clone()))
                    .chain([("hex", hex(&raw).into_bytes())])
                    .chain((0..3).map(|shift| ("base64", base64_within(&raw, shift))));
                forms.for_each(|(form, bytes)| finder.add(Pattern { bytes, secret, kind: *kind, form }));
            }
        }
        finder
    }

    fn add(&mut self, pattern: Pattern) {
        let head: [u8; HEAD] = pattern.bytes[..HEAD].try_into().unwrap();
        self.begins[usize::from(u16::from_le_bytes([head[0], head[1]]))] = true;
        self.by_head.entry(head).or_default().push(pattern);
    }

    /// Searches one piece, its name included.
    pub(crate) fn search(&self, got: &Got, into: &mut Searched) {
        into.pieces += 1;
        into.bytes += got.bytes.len();
        into.participants.insert(got.owner.clone());
        for sort in SORTS.into_iter().filter(|sort| got.name.contains(sort)) {
            *into.sorts.entry(sort).or_default() += 1;
        }
        for pattern in self.hits(&got.bytes).into_iter().chain(self.hits(got.name.as_bytes())) {
            into.found.insert((
                pattern.secret,
                pattern.kind,
                got.owner.clone(),
                got.place == Place::Journal && pattern.form == "raw" && got.name.contains("/journal/"),
            ));
            if got.place == Place::Given {
                into.given.insert((pattern.secret, pattern.kind, got.owner.clone()));
            }
            match got.forbids(&self.secrets[pattern.secret], pattern.kind) {
                None => into.allowed += 1,
                Some(why) => into.leaks.push(format!(
                    "{:?} of exchange {} ({}) as {} at {}/{} {}: {why}",
                    pattern.kind,
                    pattern.secret,
                    self.secrets[pattern.secret].words[&pattern.kind],
                    pattern.form,
                    got.owner,
                    got.agency.as_deref().unwrap_or_default(),
                    got.name
                )),
            }
        }
    }

    fn hits(&self, bytes: &[u8]) -> Vec<&Pattern> {
        let mut hits = Vec::new();
        for (at, window) in bytes.windows(HEAD).enumerate() {
            if !self.begins[usize::from(u16::from_le_bytes([window[0], window[1]]))] {
                continue;
            }
            let head: &[u8; HEAD] = window.try_into().unwrap();
            let patterns = self.by_head.get(head).into_iter().flatten();
            hits.extend(patterns.filter(|pattern| bytes[at..].starts_with(&pattern.bytes)));
        }
        hits
    }
}

/// Every file below a folder, as something that its owner got.
pub(crate) fn files(below: &Path, take: &mut impl FnMut(&Path, Vec<u8>)) {
    let entries = fs::read_dir(below).unwrap_or_else(|error| panic!("{}: {error}", below.display()));
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, take);
        } else {
            let bytes = fs::read(&path).unwrap();
            take(&path, bytes);
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// What base64 makes of these bytes wherever they stand, behind `shift` others: without the digits that its neighbours decide about.
fn base64_within(bytes: &[u8], shift: usize) -> Vec<u8> {
    let bits = |at: usize| {
        (0..6).fold(0, |digit, bit| {
            let bit = at * 6 + bit - shift * 8;
            digit << 1 | usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1)
        })
    };
    let first = (shift * 8).div_ceil(6);
    let end = (shift + bytes.len()) * 8 / 6;
    (first..end).map(|at| DIGITS[bits(at)]).collect()
}

#[test]
fn a_secret_is_found_in_every_form_at_every_place() {
    let id = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let words = BTreeMap::from([(Kind::Title, "Qzt0123456789abcdef".to_owned()), (Kind::Id, id.to_owned())]);
    let (states, agencies) = (BTreeSet::new(), BTreeSet::new());
    let secrets =
        [Secret { words, origin: "KAZ/agency".to_owned(), states, agencies, is_recorded: true, is_withdrawn: false }];
    let finder = Finder::of(&secrets);
    // Made by another implementation, behind none to two other bytes and before others.
    for text in [
        "..Qzt0123456789abcdef..",
        "x517a7430313233343536373839616263646566x",
        "UXp0MDEyMzQ1Njc4OWFiY2RlZiE=",
        "IVF6dDAxMjM0NTY3ODlhYmNkZWYh",
        "ISFRenQwMTIzNDU2Nzg5YWJjZGVmIQ==",
        &format!("x{id}x"),
    ] {
        let got = Got {
            owner: "TUR".to_owned(),
            agency: None,
            place: Place::Journal,
            name: "a file".to_owned(),
            bytes: text.into(),
        };
        let mut searched = Searched::default();
        finder.search(&got, &mut searched);
        assert_eq!(searched.leaks.len(), 1, "{text}: {searched:?}");
    }
}
