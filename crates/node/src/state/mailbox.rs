//! Where one mailbox stands at its recipient.

use std::sync::Arc;

use concord_journal::HistoryId;
use concord_model::ExchangeId;
use concord_wire::stored::node::{MailboxResumed, Received, Verdict};
use serde::{Deserialize, Serialize};

/// The mailbox of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mailbox {
    /// The hub's history in which the last number came.
    pub history: Option<HistoryId>,
    /// Everything up to and with this number is durable here.
    pub received_through: u64,
    /// The exchange that the last number stood for; none where it was a notice.
    pub last_id: Option<ExchangeId>,
    /// Of a restored node: up to here it had acknowledged before. What it lacks of that comes again under the same numbers.
    pub acknowledged_through: u64,
    /// How many were set aside, of all time.
    pub set_aside_count: u64,
    /// Of how many of these an end was said here, of all time.
    pub set_aside_ended_count: u64,
    /// How many were taken by a first agency, or came to an end that had been set aside, and are told to the hub, of all time.
    pub taken_count: u64,
    /// Numbers after the first, up to the second of each pair: the hub lost data, and they mean nothing to it any more.
    holes: Arc<Vec<(u64, u64)>>,
}

impl Mailbox {
    pub(super) fn received(&mut self, history: HistoryId, items: &[Received]) {
        self.history = Some(history);
        for item in items {
            self.received_through = item.number();
            self.last_id = match &item.verdict {
                Verdict::Accepted(delivery) | Verdict::SetAside(delivery, _) => {
                    Some(concord_wire::header::exchange_id(&delivery.header))
                }
                Verdict::Withheld(_) => None,
                Verdict::Repeated(repeated) => {
                    // It was not told while its number meant nothing to the hub.
                    self.taken_count += u64::from(repeated.taken);
                    Some(repeated.id)
                }
            };
            if matches!(item.verdict, Verdict::SetAside(..)) {
                self.set_aside_count += 1;
            }
        }
    }

    pub(super) fn resumed(&mut self, resumed: &MailboxResumed) {
        self.history = Some(HistoryId(resumed.history));
        self.received_through = resumed.at;
        self.last_id = None;
        self.taken_count = resumed.taken_count + resumed.taken.len() as u64;
        if resumed.common < resumed.at {
            Arc::make_mut(&mut self.holes).push((resumed.common, resumed.at));
        }
    }

    /// How many pairs of numbers mean nothing to the hub any more.
    pub fn holes_count(&self) -> usize {
        self.holes.len()
    }

    /// Whether a number means something to the hub.
    pub fn is_known_to_hub(&self, number: u64) -> bool {
        !self.holes.iter().any(|(common, at)| (common + 1..=*at).contains(&number))
    }
}
