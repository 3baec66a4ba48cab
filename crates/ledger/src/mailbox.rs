//! The mailboxes: how far each is numbered, delivered and taken. Their content is derived from the journal, not kept here.

use std::collections::BTreeMap;

use concord_model::{Lane, ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::command::Acknowledge;
use crate::fact::{MailAcknowledged, MailboxResumed, MailboxRun};
use crate::resume::{Resume, Resumes};

/// All mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mailboxes {
    by_recipient: BTreeMap<ParticipantCode, [Mailbox; Lane::ALL.len()]>,
    resumes: BTreeMap<(ParticipantCode, Lane), Resumes>,
}

/// Where one recipient's mailbox of one lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mailbox {
    /// The number of its last delivery; 0 before the first.
    pub last: u64,
    /// Everything up to and with this number is durable at the recipient's node.
    pub delivered_through: u64,
    /// How many were acknowledged by a first agency.
    pub taken_count: u64,
}

impl Mailbox {
    /// The number that the next delivery gets.
    pub fn next(self) -> u64 {
        self.last.saturating_add(1)
    }
}

impl Mailboxes {
    /// Whether an acknowledgement moves something, or why it is refused.
    pub fn check(&self, acknowledge: &Acknowledge) -> Result<bool, Refusal> {
        let mailbox = self.get(&acknowledge.recipient, acknowledge.lane);
        let (through, taken) = (acknowledge.delivered_through, acknowledge.taken_count);
        if through > mailbox.last {
            return Err(Refusal::new(
                Reason::HistoryUnknown,
                format!(
                    "{} has its {} mailbox up to {through}, which here ends at {}",
                    acknowledge.recipient, acknowledge.lane, mailbox.last
                ),
            ));
        }
        if acknowledge.delivered_before != mailbox.delivered_through || acknowledge.taken_before != mailbox.taken_count
        {
            return Err(Refusal::new(
                Reason::Internal,
                "the mailbox moved since the senders' notices were assembled: assemble them again",
            ));
        }
        // Of each number two words at most follow its delivery: how it ended where it was set aside, and that it was taken.
        let words_max = through.saturating_mul(2);
        if through < acknowledge.delivered_before || taken < acknowledge.taken_before || taken > words_max {
            return Err(Refusal::new(
                Reason::ArgumentInvalid,
                "an acknowledgement goes back, or takes more than was delivered",
            ));
        }
        Ok(through > mailbox.delivered_through || taken > mailbox.taken_count)
    }

    /// Takes in the numbers that a recorded consignment gave out.
    pub fn record(&mut self, runs: &[MailboxRun], lane: Lane) {
        for run in runs.iter().filter(|run| run.count > 0) {
            let last = run.first.saturating_add(u64::from(run.count - 1));
            self.change(&run.recipient, lane, |mailbox| mailbox.last = mailbox.last.max(last));
        }
    }

    /// Takes in an acknowledgement.
    pub fn acknowledge(&mut self, acknowledged: &MailAcknowledged) {
        self.change(&acknowledged.recipient, acknowledged.lane, |mailbox| {
            mailbox.delivered_through = acknowledged.delivered_through;
            mailbox.taken_count = acknowledged.taken_count;
        });
    }

    /// Takes in that a mailbox goes on after data was lost: what is not known to be delivered is posted again behind `at`, and
    /// nothing before it is waited for any more.
    pub fn resume(&mut self, resumed: &MailboxResumed, sequence: u64) {
        let key = (resumed.recipient.clone(), resumed.lane);
        let last = self.resumes.entry(key).or_default().apply(Resume { sequence, ..resumed.resume });
        self.change(&resumed.recipient, resumed.lane, |mailbox| {
            mailbox.last = last;
            mailbox.delivered_through = resumed.resume.at;
        });
    }

    /// The resumptions of a mailbox, if there were any.
    pub fn resumes(&self, recipient: &ParticipantCode, lane: Lane) -> Option<&Resumes> {
        self.resumes.get(&(recipient.clone(), lane))
    }

    /// One mailbox; an empty one if nothing was ever delivered to it.
    pub fn get(&self, recipient: &ParticipantCode, lane: Lane) -> Mailbox {
        self.by_recipient.get(recipient).and_then(|mailboxes| mailboxes.get(lane.slot())).copied().unwrap_or_default()
    }

    /// All mailboxes of participants that ever got a delivery.
    pub fn iter(&self) -> impl Iterator<Item = (&ParticipantCode, Lane, Mailbox)> {
        self.by_recipient.iter().flat_map(|(recipient, mailboxes)| {
            Lane::ALL.into_iter().zip(mailboxes).map(move |(lane, mailbox)| (recipient, lane, *mailbox))
        })
    }

    /// The last number of each mailbox, to be kept when a history ends.
    pub(crate) fn last_numbers(&self) -> BTreeMap<(ParticipantCode, Lane), u64> {
        self.iter().map(|(recipient, lane, mailbox)| ((recipient.clone(), lane), mailbox.last)).collect()
    }

    fn change(&mut self, recipient: &ParticipantCode, lane: Lane, change: impl FnOnce(&mut Mailbox)) {
        // Not `entry`: it would copy the code for each recipient of each consignment.
        if let Some(mailboxes) = self.by_recipient.get_mut(recipient) {
            change(&mut mailboxes[lane.slot()]);
        } else {
            let mut mailboxes = [Mailbox::default(); Lane::ALL.len()];
            change(&mut mailboxes[lane.slot()]);
            self.by_recipient.insert(recipient.clone(), mailboxes);
        }
    }
}
