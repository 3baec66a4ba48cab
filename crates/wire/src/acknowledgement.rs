//! A recipient's signed word about its mailbox.

use bytes::Bytes;
use concord_journal::HistoryId;
use concord_model::limits::CONSIGNMENT_EXCHANGES_MAX;
use concord_model::{AsideEnd, Digest, Fingerprint, Lane, Name, ParticipantCode, Reason, Refusal, SetAsideReason};
use prost::Message as _;

use crate::agreement::in_domain;
use crate::convert::{decode_canonical, digest_bytes, lane, parse_lane, refuse};
use crate::proto::exchange::v1 as pb;

const ACKNOWLEDGEMENT_DOMAIN: &str = "concord acknowledgement v1";
/// Numbers that one acknowledgement lists at most, in each of its lists. A node says the rest in the next one.
pub const ACKNOWLEDGEMENT_NUMBERS_MAX: usize = CONSIGNMENT_EXCHANGES_MAX;

/// What a recipient says about one of its mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The hub.
    pub hub: Name,
    /// The hub's history.
    pub history: HistoryId,
    /// Whose mailbox.
    pub recipient: ParticipantCode,
    /// Its node.
    pub node: Name,
    /// The lane.
    pub lane: Lane,
    /// Durable up to and with this number.
    pub delivered_through: u64,
    /// What could not be verified, ascending.
    pub set_aside: Vec<(u64, SetAsideReason)>,
    /// What came as a notice only, ascending.
    pub withheld: Vec<u64>,
    /// How many first acknowledgements were told before.
    pub taken_before: u64,
    /// The ones since, in their order; among them, by their place here, what came to an end that had been set aside.
    pub taken: Vec<u64>,
    /// Those places, ascending.
    pub ended: Vec<(u32, AsideEnd)>,
}

impl Said {
    /// How it ended with what had been set aside, where that is what is told in this place of `taken`.
    pub fn ended_at(&self, place: usize) -> Option<AsideEnd> {
        let found = self.ended.binary_search_by_key(&place, |(place, _)| *place as usize).ok()?;
        self.ended.get(found).map(|(_, end)| *end)
    }
}

/// Serialises and signs it.
pub fn sign(said: &Said, key: Fingerprint, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> pb::Acknowledgement {
    let set_aside = said.set_aside.iter();
    let statement: Bytes = pb::AcknowledgementStatement {
        hub: said.hub.to_string(),
        history: Bytes::copy_from_slice(said.history.as_bytes()),
        recipient: said.recipient.to_string(),
        node: said.node.to_string(),
        lane: lane(said.lane).into(),
        delivered_through: said.delivered_through,
        set_aside: set_aside
            .map(|(number, reason)| pb::SetAside { number: *number, reason: reason.to_string() })
            .collect(),
        withheld: said.withheld.clone(),
        taken_before: said.taken_before,
        taken: said.taken.clone(),
        ended: said
            .ended
            .iter()
            .map(|(place, end)| pb::EndOfAside { place: *place, end: end_of_aside(*end).into() })
            .collect(),
    }
    .encode_to_vec()
    .into();
    let signature = Bytes::copy_from_slice(&sign(&in_domain(ACKNOWLEDGEMENT_DOMAIN, &statement)));
    pb::Acknowledgement { statement, key_id: digest_bytes(&key.0), signature }
}

/// Reads it and checks its signature with `verify`, which gets key, message and signature.
///
/// Refuses with what `verify` says, or `CURSOR_INVALID` where it says something impossible.
pub fn verify(
    message: &pb::Acknowledgement,
    verify: impl FnOnce(&Fingerprint, &[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Said, Refusal> {
    let reason = Reason::CursorInvalid;
    let wrong = refuse(reason);
    let key = Fingerprint(Digest::from_slice(&message.key_id).map_err(&wrong)?);
    verify(&key, &in_domain(ACKNOWLEDGEMENT_DOMAIN, &message.statement), &message.signature)?;

    let what = "acknowledgement";
    let statement: pb::AcknowledgementStatement = decode_canonical(reason, reason, what, &message.statement)?;
    let history = <[u8; 16]>::try_from(&statement.history[..])
        .map_err(|_| Refusal::new(reason, "the acknowledgement names no history"))?;
    let lists = [statement.set_aside.len(), statement.withheld.len(), statement.taken.len()];
    if lists.iter().any(|length| *length > ACKNOWLEDGEMENT_NUMBERS_MAX) {
        let limit = format!("an acknowledgement lists at most {ACKNOWLEDGEMENT_NUMBERS_MAX} numbers");
        return Err(Refusal::new(reason, limit));
    }
    let ended = parse_ended(&statement)?;
    refuse_the_impossible(&statement, &ended)?;
    let set_aside = statement.set_aside.iter().map(|aside| {
        // A reason of a newer node: set aside it is, whatever the words.
        let known = SetAsideReason::from_code(&aside.reason).unwrap_or(SetAsideReason::SignatureInvalid);
        (aside.number, known)
    });
    Ok(Said {
        hub: Name::parse(&statement.hub).map_err(&wrong)?,
        history: HistoryId(history),
        recipient: ParticipantCode::parse(&statement.recipient).map_err(&wrong)?,
        node: Name::parse(&statement.node).map_err(&wrong)?,
        lane: parse_lane(statement.lane).map_err(&wrong)?,
        delivered_through: statement.delivered_through,
        set_aside: set_aside.collect(),
        withheld: statement.withheld,
        taken_before: statement.taken_before,
        taken: statement.taken,
        ended,
    })
}

const fn end_of_aside(end: AsideEnd) -> pb::AsideEnd {
    match end {
        AsideEnd::Holds => pb::AsideEnd::Holds,
        AsideEnd::Discarded => pb::AsideEnd::Discarded,
    }
}

/// Each place of the taken at most once, with an end that is one.
fn parse_ended(statement: &pb::AcknowledgementStatement) -> Result<Vec<(u32, AsideEnd)>, Refusal> {
    let impossible =
        |what: &str| Refusal::new(Reason::CursorInvalid, format!("the acknowledgement is impossible: {what}"));
    if !statement.ended.is_sorted_by(|one, next| one.place < next.place) {
        return Err(impossible("places of what ended ascend"));
    }
    let read = statement.ended.iter().map(|message| {
        let end = match message.end() {
            pb::AsideEnd::Holds => AsideEnd::Holds,
            pb::AsideEnd::Discarded => AsideEnd::Discarded,
            pb::AsideEnd::Unspecified => return Err(impossible("it does not say how something ended")),
        };
        match (message.place as usize) < statement.taken.len() {
            true => Ok((message.place, end)),
            false => Err(impossible("it names a place of the taken that is none")),
        }
    });
    read.collect()
}

/// Numbers are of what was delivered, each once in its list, and nothing is both set aside and withheld.
fn refuse_the_impossible(statement: &pb::AcknowledgementStatement, ended: &[(u32, AsideEnd)]) -> Result<(), Refusal> {
    let impossible =
        |what: &str| Err(Refusal::new(Reason::CursorInvalid, format!("the acknowledgement is impossible: {what}")));
    let set_aside: Vec<u64> = statement.set_aside.iter().map(|aside| aside.number).collect();
    let delivered = |number: &u64| (1..=statement.delivered_through).contains(number);
    if !set_aside.iter().chain(&statement.withheld).chain(&statement.taken).all(delivered) {
        return impossible("it lists a number that is not delivered");
    }
    let ascends = |numbers: &[u64]| numbers.is_sorted_by(|one, next| one < next);
    if !ascends(&set_aside) || !ascends(&statement.withheld) {
        return impossible("set aside and withheld numbers ascend");
    }
    if set_aside.iter().any(|number| statement.withheld.binary_search(number).is_ok()) {
        return impossible("a number is both set aside and withheld");
    }
    // What had been set aside ends once, and may be taken behind that.
    let ends = |place: usize| ended.binary_search_by_key(&place, |(place, _)| *place as usize).is_ok();
    for of_ends in [false, true] {
        let numbers = statement.taken.iter().enumerate().filter(|(place, _)| ends(*place) == of_ends);
        let mut numbers: Vec<u64> = numbers.map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        if !ascends(&numbers) {
            return impossible("a number is taken twice");
        }
    }
    Ok(())
}
