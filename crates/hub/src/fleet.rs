//! How each node is, for the secretariat's status: its own last word, beside what the hub sees of it.
//!
//! Kept in memory only: what a node says of itself is no fact, and a hub that was started since hears it again within seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_identity::Caller;
use concord_model::{Lane, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::ClockOffset;
use concord_wire::convert::{optional_timestamp, parse_lane, refuse};
use concord_wire::proto::feed::v1::ReportRequest;

/// What one node may name of each, alarms and notes.
const NAMES_MAX: usize = 64;
const NAME_LENGTH_MAX_BYTES: usize = 64;
const VERSION_LENGTH_MAX_BYTES: usize = 64;

/// The last word of each participant's node; bounded by the registry, since only enrolled nodes are heard.
#[derive(Default)]
pub struct Fleet(Mutex<BTreeMap<ParticipantCode, Heard>>);

/// What the hub last heard of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// When.
    pub at: Timestamp,
    /// The end of the certificate that it showed.
    pub certificate_not_after: Timestamp,
    /// What it says of itself, where it did.
    pub word: Option<Word>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Of its program.
    pub version: String,
    /// How far its clock was ahead of the hub's when its word came, in seconds.
    pub clock_ahead_seconds: Option<f64>,
    /// The names of its alarms.
    pub alarms: Vec<String>,
    /// The names of its notes.
    pub notes: Vec<String>,
    /// Exchanges that wait there for a receipt, by lane.
    pub waiting: BTreeMap<Lane, u64>,
}

impl Word {
    /// As a node sends it. Refuses with `ARGUMENT_INVALID` what is over its limits, or no name.
    pub fn read(request: &ReportRequest, now: Timestamp) -> Result<Self, Refusal> {
        let sent_at = optional_timestamp(request.sent_at.as_ref());
        let ahead = |sent: Timestamp| ClockOffset::between(sent, now).seconds();
        let mut waiting = BTreeMap::new();
        for one in &request.waiting {
            waiting.insert(parse_lane(one.lane).map_err(refuse(Reason::ArgumentInvalid))?, one.exchanges);
        }
        Ok(Self {
            version: word(&request.version, VERSION_LENGTH_MAX_BYTES)?,
            clock_ahead_seconds: sent_at.map(ahead),
            alarms: names(&request.alarms)?,
            notes: names(&request.notes)?,
            waiting,
        })
    }
}

impl Fleet {
    /// A node was heard, and may have said how it is.
    pub fn heard(&self, caller: &Caller, at: Timestamp, word: Option<Word>) {
        let mut all = self.all();
        let known = all.remove(&caller.identity.participant).and_then(|known| known.word);
        let heard = Heard { at, certificate_not_after: caller.not_after, word: word.or(known) };
        all.insert(caller.identity.participant.clone(), heard);
    }

    /// What was heard last of a participant's node, if anything was.
    pub fn of(&self, participant: &ParticipantCode) -> Option<Heard> {
        self.all().get(participant).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ParticipantCode, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(names: &[String]) -> Result<Vec<String>, Refusal> {
    if names.len() > NAMES_MAX {
        let what = format!("a node names at most {NAMES_MAX} alarms, and as many notes");
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    names.iter().map(|name| word(name, NAME_LENGTH_MAX_BYTES)).collect()
}

/// It is shown to operators of the secretariat: nothing but a plain word.
fn word(text: &str, length_max: usize) -> Result<String, Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
    if text.is_empty() || text.len() > length_max || !text.bytes().all(is_plain) {
        let what =
            format!("names and versions are words of at most {length_max} ASCII letters, digits, '-', '.' and '+'");
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use concord_wire::convert::{lane, timestamp};
    use concord_wire::proto::feed::v1::LaneWaiting;

    use super::*;

    fn request() -> ReportRequest {
        ReportRequest {
            version: "0.1.0".to_owned(),
            sent_at: Some(timestamp(Timestamp::from_micros(12_500_000))),
            alarms: vec!["disk-full".to_owned()],
            waiting: vec![LaneWaiting { lane: lane(Lane::Flash).into(), exchanges: 3 }],
            ..ReportRequest::default()
        }
    }

    #[test]
    fn a_word_says_how_far_its_clock_is_ahead_and_what_waits() {
        let word = Word::read(&request(), Timestamp::from_micros(2_500_000)).unwrap();
        assert_eq!((word.clock_ahead_seconds, word.waiting[&Lane::Flash]), (Some(10.0), 3));
        let silent = ReportRequest { sent_at: None, ..request() };
        assert_eq!(Word::read(&silent, Timestamp::from_micros(0)).unwrap().clock_ahead_seconds, None);
    }

    #[test]
    fn what_is_no_plain_word_or_too_much_is_refused() {
        let now = Timestamp::from_micros(0);
        let refused = |request: ReportRequest| Word::read(&request, now).unwrap_err().reason;
        for name in ["", "a b", "a\u{1b}[2J", "и", &"a".repeat(NAME_LENGTH_MAX_BYTES + 1)] {
            assert_eq!(refused(ReportRequest { notes: vec![name.to_owned()], ..request() }), Reason::ArgumentInvalid);
            assert_eq!(refused(ReportRequest { version: name.to_owned(), ..request() }), Reason::ArgumentInvalid);
        }
        let many = vec!["a".to_owned(); NAMES_MAX + 1];
        assert_eq!(refused(ReportRequest { alarms: many, ..request() }), Reason::ArgumentInvalid);
        let no_lane = vec![LaneWaiting { lane: 77, exchanges: 1 }];
        assert_eq!(refused(ReportRequest { waiting: no_lane, ..request() }), Reason::ArgumentInvalid);
    }
}
