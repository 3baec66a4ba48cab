//! What a hub that lost data cannot have again: a list for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use concord_model::{ExchangeId, Lane, Name, ParticipantCode, Reason};
use serde::{Deserialize, Serialize};

use crate::agreement::GoesOn;
use crate::audience::Audience;
use crate::fact::{ConsignmentRecorded, NotHealed};
use crate::ledger::Ledger;

/// What is listed of one participant. Of exchanges more is only counted: the journal has each, with the consignment that shows it. What a
/// node can say at will is not taken in beyond it.
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
    /// A statement that was told to participants, by the word of the node that handed it back.
    Statement {
        /// Its officer.
        officer: Name,
        /// Its number.
        number: u64,
    },
    /// A consignment that was recorded, by the word of its node, where another one of another copy of that node is recorded now.
    Consignment {
        /// The lane of its chain.
        lane: Lane,
        /// The epoch of its chain.
        epoch: u32,
        /// Its number.
        number: u64,
    },
}

impl Display for Lost {
    /// Names no title: `exchange 5f… to IRN, RUS`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { id, recipients } => {
                let recipients: Vec<&str> = recipients.iter().map(ParticipantCode::as_str).collect();
                write!(f, "exchange {id} to {}", recipients.join(", "))
            }
            Self::Statement { officer, number } => write!(f, "statement {number} of officer {officer}"),
            Self::Consignment { lane, epoch, number } => {
                write!(f, "consignment {number} on lane {lane} in epoch {epoch}, in whose place another is recorded")
            }
        }
    }
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

impl Listed {
    fn exchange(&self, id: &ExchangeId) -> Option<&Lost> {
        let first = Lost::Exchange { id: *id, recipients: Vec::new() };
        let next = self.lost.range(first..).next().map(|(lost, _)| lost);
        next.filter(|lost| matches!(lost, Lost::Exchange { id: found, .. } if found == id))
    }
}

/// An exchange that was recorded before the hub lost data, by the hub's own receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Had {
    /// Its place in its consignment.
    pub index: u32,
    /// Its id.
    pub id: ExchangeId,
    /// Who was to receive it.
    pub audience: Audience,
}

impl Ledger {
    /// What was recorded once and is not again, with why. That nobody has the right to it any more, or that it was withdrawn, is no loss. It
    /// is one that a member that left and came back is not sent it: whether it was recorded since its return nothing shows any more.
    pub fn lost_of(&self, recorded: &ConsignmentRecorded, had: Vec<Had>) -> Vec<(Lost, Reason)> {
        let origin = &recorded.chain.origin;
        let stands = had.into_iter().filter(|had| !self.withdrawals().is_withdrawn(origin, &had.id));
        let lost = stands.filter_map(|Had { index, id, audience: Audience { agreement, recipients } }| {
            let refused = recorded.refused.iter().find(|refusal| refusal.index == index).map(|refusal| refusal.reason);
            match refused {
                Some(Reason::AudienceEmpty) | None => {
                    let given = recorded.group_of(index).map_or(&[][..], |group| &group.recipients);
                    let is_lost = |recipient: &ParticipantCode| {
                        let goes_on = self.agreements().goes_on(&agreement, recipient);
                        goes_on == GoesOn::SinceAReturn && !given.contains(recipient)
                    };
                    let recipients: Vec<_> = recipients.into_iter().filter(is_lost).collect();
                    let is_any = !recipients.is_empty();
                    is_any.then_some((Lost::Exchange { id, recipients }, Reason::MembershipChanged))
                }
                Some(reason) => Some((Lost::Exchange { id, recipients }, reason)),
            }
        });
        lost.collect()
    }
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

    /// How many participants have something on the list.
    pub fn participants(&self) -> usize {
        self.by_participant.len()
    }

    /// Whether this is to be taken in: what is listed is not, nor a statement for which there is no place.
    pub fn is_news(&self, participant: &ParticipantCode, lost: &Lost) -> bool {
        let Some(listed) = self.by_participant.get(participant) else { return true };
        let has_place = listed.lost.len() < NOT_HEALED_LISTED_MAX || matches!(lost, Lost::Exchange { .. });
        has_place && !listed.lost.contains_key(lost)
    }

    /// Takes in that a statement came back after all.
    pub fn came_back(&mut self, participant: &ParticipantCode, officer: &Name, number: u64) {
        let Some(listed) = self.by_participant.get_mut(participant) else { return };
        if listed.lost.remove(&Lost::Statement { officer: officer.clone(), number }).is_some() {
            listed.count = listed.count.saturating_sub(1);
        }
        if listed.count == 0 {
            self.by_participant.remove(participant);
        }
    }

    /// Whether an exchange is listed.
    pub fn lists_exchange(&self, participant: &ParticipantCode, id: &ExchangeId) -> bool {
        self.by_participant.get(participant).is_some_and(|listed| listed.exchange(id).is_some())
    }

    /// Takes in that an exchange was withdrawn: nobody waits for it any more.
    pub fn withdrawn(&mut self, participant: &ParticipantCode, id: &ExchangeId) {
        let Some(listed) = self.by_participant.get_mut(participant) else { return };
        if let Some(lost) = listed.exchange(id).cloned() {
            listed.lost.remove(&lost);
            listed.count = listed.count.saturating_sub(1);
        }
        if listed.count == 0 {
            self.by_participant.remove(participant);
        }
    }

    /// Whether a statement is listed.
    pub fn lists(&self, participant: &ParticipantCode, officer: &Name, number: u64) -> bool {
        let statement = Lost::Statement { officer: officer.clone(), number };
        self.by_participant.get(participant).is_some_and(|listed| listed.lost.contains_key(&statement))
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
    use concord_model::Digest;

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
        assert!(!losses.is_news(&kaz, &statement(beyond + 1)), "no place is left for it");
        let exchange = Lost::Exchange { id: ExchangeId(Digest::ZERO), recipients: Vec::new() };
        assert!(losses.is_news(&kaz, &exchange), "the journal has each");
        // What comes back is lost no more.
        let mut losses = Losses::default();
        losses.apply(&fact(0..2));
        let officer = Name::parse("officer").unwrap();
        losses.came_back(&kaz, &officer, 1);
        assert!(losses.lists(&kaz, &officer, 0) && !losses.lists(&kaz, &officer, 1));
        losses.came_back(&kaz, &officer, 0);
        assert_eq!(losses, Losses::default());
    }
}
