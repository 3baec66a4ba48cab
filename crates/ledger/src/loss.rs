//! What a hub that lost data cannot have again: a list for people.

use std::collections::BTreeMap;

use concord_model::{ExchangeId, Name, ParticipantCode, Reason};
use serde::{Deserialize, Serialize};

use crate::fact::NotHealed;

/// What is listed of one participant. More is only counted; the journal has each fact.
pub const NOT_HEALED_LISTED_MAX: usize = 1_000;

/// Something that this hub had and cannot have again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lost {
    /// An exchange that was recorded.
    Exchange {
        /// Its id.
        id: ExchangeId,
        /// Who was to receive it.
        recipients: Vec<ParticipantCode>,
    },
    /// A statement that was told to participants.
    Statement {
        /// Its officer.
        officer: Name,
        /// Its number.
        number: u64,
    },
}

/// Everything that cannot be healed, by the participant whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    by_participant: BTreeMap<ParticipantCode, Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Listed {
    lost: BTreeMap<Lost, Reason>,
    count: u64,
}

impl Losses {
    /// How much there is.
    pub fn count(&self) -> u64 {
        self.by_participant.values().map(|listed| listed.count).sum()
    }

    /// What is listed, with its participant and why it cannot be had.
    pub fn listed(&self) -> impl Iterator<Item = (&ParticipantCode, &Lost, Reason)> {
        let each = |(participant, listed)| listed_of(participant, listed);
        self.by_participant.iter().flat_map(each)
    }

    /// Whether this would be news: what is listed is not, nor what there is no room for.
    pub fn is_news(&self, participant: &ParticipantCode, lost: &Lost) -> bool {
        self.by_participant
            .get(participant)
            .is_none_or(|listed| listed.lost.len() < NOT_HEALED_LISTED_MAX && !listed.lost.contains_key(lost))
    }

    /// Takes in what cannot be healed.
    pub fn apply(&mut self, fact: &NotHealed) {
        let listed = self.by_participant.entry(fact.participant.clone()).or_default();
        for (lost, reason) in &fact.lost {
            if listed.lost.contains_key(lost) {
                continue;
            }
            listed.count = listed.count.saturating_add(1);
            if listed.lost.len() < NOT_HEALED_LISTED_MAX {
                listed.lost.insert(lost.clone(), *reason);
            }
        }
    }
}

fn listed_of<'a>(
    participant: &'a ParticipantCode,
    listed: &'a Listed,
) -> impl Iterator<Item = (&'a ParticipantCode, &'a Lost, Reason)> {
    listed.lost.iter().map(move |(lost, reason)| (participant, lost, *reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_healed_is_listed_once_and_beyond_the_limit_counted() {
        let (mut losses, kaz) = (Losses::default(), ParticipantCode::parse("KAZ").unwrap());
        let statement = |number| Lost::Statement { officer: Name::parse("officer").unwrap(), number };
        let fact = |numbers: std::ops::Range<u64>| NotHealed {
            participant: kaz.clone(),
            lost: numbers.map(|number| (statement(number), Reason::StatementOutOfOrder)).collect(),
        };
        losses.apply(&fact(0..3));
        losses.apply(&fact(2..4));
        assert_eq!((losses.count(), losses.listed().count()), (4, 4));
        assert!(!losses.is_news(&kaz, &statement(3)) && losses.is_news(&kaz, &statement(4)));
        let beyond = NOT_HEALED_LISTED_MAX as u64 + 10;
        losses.apply(&fact(0..beyond));
        assert_eq!((losses.count(), losses.listed().count()), (beyond, NOT_HEALED_LISTED_MAX));
        assert!(!losses.is_news(&kaz, &statement(beyond + 1)), "no room is left for it");
    }
}
