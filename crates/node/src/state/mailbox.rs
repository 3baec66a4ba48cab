//! Where one mailbox stands at its recipient.

use concord_journal::HistoryId;
use concord_model::ExchangeId;
use concord_wire::stored::node::{Received, Verdict};
use serde::{Deserialize, Serialize};

/// The mailbox of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mailbox {
    /// The hub's history in which the last number came.
    pub history: Option<HistoryId>,
    /// Everything up to and with this number is durable here.
    pub received_through: u64,
    /// The exchange that the last number stood for; none where it was a notice.
    pub last_id: Option<ExchangeId>,
    /// How many were set aside, of all time.
    pub set_aside_count: u64,
    /// How many were taken by a first agency, of all time.
    pub taken_count: u64,
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
            };
            if matches!(item.verdict, Verdict::SetAside(..)) {
                self.set_aside_count += 1;
            }
        }
    }
}
