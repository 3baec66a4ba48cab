//! The feeds: how many things each participant was told, and who is told what.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::ParticipantCode;
use serde::{Deserialize, Serialize};

use crate::agreement::Agreements;
use crate::fact::{FeedResumed, Founding, Told};
use crate::registry::Registry;
use crate::resume::{Resume, Resumes};
use crate::statement::{DecisionContent, ForumDecision, Statement, StatementContent};

/// The number that the founding has in every feed.
pub const FOUNDING_FEED_NUMBER: u64 = 1;

/// The last number of each participant's feed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Feed {
    last: BTreeMap<ParticipantCode, u64>,
    resumes: BTreeMap<ParticipantCode, Resumes>,
    /// The entries that everybody is told: with these the feed of a participant begins that joins the registry. Shared, since it grows and
    /// hardly any commit adds to it.
    of_all: Arc<Vec<u64>>,
}

impl Feed {
    /// The number of the last thing that a participant was told; 0 before the founding.
    pub fn last(&self, participant: &ParticipantCode) -> u64 {
        self.last.get(participant).copied().unwrap_or(0)
    }

    /// All feeds.
    pub fn iter(&self) -> impl Iterator<Item = (&ParticipantCode, u64)> {
        self.last.iter().map(|(participant, last)| (participant, *last))
    }

    /// Gives each of these participants, each named once, the next number of its feed.
    pub fn tell<'a>(&self, participants: impl IntoIterator<Item = &'a ParticipantCode>) -> Vec<Told> {
        participants
            .into_iter()
            .map(|participant| Told {
                participant: participant.clone(),
                number: self.last(participant).saturating_add(1),
            })
            .collect()
    }

    /// The entries that everybody was told, in order.
    pub fn of_all(&self) -> &[u64] {
        &self.of_all
    }

    /// Takes in that everybody is told an entry.
    pub(crate) fn told_all(&mut self, sequence: u64) {
        Arc::make_mut(&mut self.of_all).push(sequence);
    }

    /// Takes in the founding, the first thing that everyone is told.
    pub fn found(&mut self, founding: &Founding) {
        for participant in &founding.participants {
            self.last.entry(participant.code.clone()).or_insert(FOUNDING_FEED_NUMBER);
        }
    }

    /// Takes in who was told.
    pub fn apply<'a>(&mut self, told: impl IntoIterator<Item = &'a Told>) {
        for told in told {
            let last = self.last.entry(told.participant.clone()).or_default();
            *last = told.number.max(*last);
        }
    }

    /// Takes in that a feed goes on after data was lost.
    pub fn resume(&mut self, resumed: &FeedResumed, sequence: u64) {
        let resumes = self.resumes.entry(resumed.participant.clone()).or_default();
        let last = resumes.apply(Resume { sequence, ..resumed.resume });
        self.last.insert(resumed.participant.clone(), last);
    }

    /// The resumptions of a participant's feed, if there were any.
    pub fn resumes(&self, participant: &ParticipantCode) -> Option<&Resumes> {
        self.resumes.get(participant)
    }

    /// The feed number that an entry recorded at `sequence` names, as it is now.
    pub fn number_now(&self, participant: &ParticipantCode, number: u64, sequence: u64) -> u64 {
        self.resumes(participant).map_or(number, |resumes| resumes.translate(number, sequence))
    }

    /// The last number of each feed, to be kept when a history ends.
    pub(crate) fn last_numbers(&self) -> BTreeMap<ParticipantCode, u64> {
        self.last.clone()
    }
}

/// Who is told of an accepted statement: those whose directory it changes, and always its own participant.
///
/// One who left an agreement before is not on it any more, and is not told of the others. What only says again what holds is its own
/// participant's matter, unless it comes back to a hub that lost data: others may have heard of nothing yet.
pub(crate) fn told_of<'a>(
    registry: &'a Registry,
    agreements: &'a Agreements,
    statement: &'a Statement,
    comes_back: bool,
) -> Vec<&'a ParticipantCode> {
    let own = &statement.participant;
    match &statement.content {
        StatementContent::Enrol(request) if !comes_back && registry.repeats(request) => vec![own],
        StatementContent::Enrol(_)
        | StatementContent::Replace(_)
        | StatementContent::RotateKey(_)
        | StatementContent::SucceedAnchor(_)
        | StatementContent::EndAnchor(_) => registry.participants().map(|participant| &participant.code).collect(),
        StatementContent::OpenEpoch(_) => vec![own],
        StatementContent::Propose { text, .. } => {
            text.parties.iter().map(|party| &party.participant).chain(&text.outgoing).collect()
        }
        StatementContent::Consent(reference) if !comes_back && agreements.repeats_consent(own, reference) => vec![own],
        StatementContent::Leave(reference) => {
            let left = agreements.left_with(reference, own, &statement.digest);
            agreements.concerned(&left).into_iter().collect()
        }
        StatementContent::Return(reference, _) if !comes_back && agreements.repeats_consent(own, reference) => {
            vec![own]
        }
        // Who was told of the leave is told of the return, also where it is only on an amendment that the leave was carried to; and one that
        // is out hears of its return, and of its word about what is over.
        StatementContent::Return(reference, leave) => {
            let mut concerned = agreements.concerned(&agreements.left_with(reference, own, leave));
            concerned.insert(own);
            concerned.into_iter().collect()
        }
        StatementContent::Decline(reference, _) => {
            let mut concerned = agreements.concerned([reference]);
            concerned.insert(own);
            concerned.into_iter().collect()
        }
        StatementContent::Consent(reference) | StatementContent::End(reference) => {
            agreements.concerned([reference]).into_iter().collect()
        }
        StatementContent::Decided(ForumDecision { content: DecisionContent::AddParticipant(added), .. }) => {
            let all = registry.participants().map(|participant| &participant.code);
            all.filter(|code| **code != added.code).chain([&added.code]).collect()
        }
        StatementContent::Hold { .. }
        | StatementContent::Release(_)
        | StatementContent::Decided(_)
        | StatementContent::SetContact(_)
        | StatementContent::Role(_) => registry.participants().map(|participant| &participant.code).collect(),
        StatementContent::Approve(_) | StatementContent::Reject(_) => vec![own],
    }
}

/// Whether everybody is told of a statement that takes effect, so that whoever joins the registry later has to be told of it too.
pub(crate) fn is_told_to_all(content: &StatementContent) -> bool {
    matches!(
        content,
        StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::RotateKey(_)
            | StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::Hold { .. }
            | StatementContent::Release(_)
            | StatementContent::Decided(_)
            | StatementContent::SetContact(_)
            | StatementContent::Role(_)
    )
}
