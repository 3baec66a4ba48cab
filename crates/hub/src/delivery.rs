//! Delivering one mailbox: reads where the recipient left off, asks for the permit again, sends.
//!
//! Invariant: no byte of an exchange is handed to a recipient's stream but through a permit given for this recipient and this entry on
//! the newest published ledger.

use std::sync::Arc;

use concord_journal::HistoryId;
use concord_ledger::{AudienceGroup, ConsignmentRecorded, Mail, Permit};
use concord_model::{Lane, ParticipantCode, Refusal, Timestamp, WithheldReason};
use concord_wire::consignment::blob_to_bytes;
use concord_wire::delivery;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::HubEntry;
use concord_wire::tree::Tree;
use tokio::sync::mpsc;

use crate::feed::history_began;
use crate::projection::{Run, run_with};
use crate::shared::{Shared, internal};

/// Deliveries permitted and not yet handed to the connection. The stream's own flow control does the rest.
pub const DELIVERIES_PERMITTED_MAX: usize = 1;

/// What a delivery stream carries.
pub type Outbound = mpsc::Sender<Result<pb::ReceiveResponse, tonic::Status>>;

/// Writes one recipient's mailbox stream. Deliveries pass only with a permit.
pub struct MailboxWriter {
    recipient: ParticipantCode,
    outbound: Outbound,
}

/// The recipient's stream is gone.
pub struct StreamGone;

impl MailboxWriter {
    /// Writes to this recipient only.
    pub fn new(recipient: ParticipantCode, outbound: Outbound) -> Self {
        Self { recipient, outbound }
    }

    /// Sends what the permit allows. A permit of another recipient or entry sends nothing.
    pub async fn deliver(&self, permit: Permit, recorded: u64, delivery: pb::Delivery) -> Result<(), StreamGone> {
        if permit.recipient() != &self.recipient || permit.recorded() != recorded {
            tracing::error!(recipient = %self.recipient, recorded, "a permit of another delivery was shown: nothing is sent");
            return Err(StreamGone);
        }
        metrics::counter!("concord_deliveries_sent_total").increment(1);
        self.send(pb::receive_response::Message::Delivery(delivery)).await
    }

    /// Fills the number of a delivery whose permit was denied.
    pub async fn withhold(&self, number: u64, history: [u8; 16]) -> Result<(), StreamGone> {
        let history = bytes::Bytes::copy_from_slice(&history);
        self.send(pb::receive_response::Message::Withheld(pb::Withheld { number, history })).await
    }

    /// Tells how far acknowledgements are recorded, and the welcome.
    pub async fn send(&self, message: pb::receive_response::Message) -> Result<(), StreamGone> {
        let response = pb::ReceiveResponse { message: Some(message) };
        self.outbound.send(Ok(response)).await.map_err(|_| StreamGone)
    }
}

/// Sends the mailbox from `next` on, for as long as the stream lives and its history is written. Ends with the refusal that ends
/// the stream.
pub async fn deliver(
    shared: Arc<Shared>,
    lane: Lane,
    history: HistoryId,
    writer: &MailboxWriter,
    mut next: u64,
) -> Result<(), Refusal> {
    let recipient = writer.recipient.clone();
    let mut projected = shared.views.watch();
    loop {
        // Marked as seen before looking, so that a row that comes meanwhile is not waited for in vain.
        projected.borrow_and_update();
        // Every commit wakes every stream: most see here, without a read, that nothing of it is theirs.
        let published = shared.published();
        if published.tail.history != history {
            return Err(history_began());
        }
        let is_there = published.ledger.mailbox(&recipient, lane).last >= next;
        let loaded = if is_there {
            let for_whom = recipient.clone();
            shared.blocking(move |shared| load(shared, &for_whom, lane, next)).await?
        } else {
            None
        };
        let Some(loaded) = loaded else {
            if projected.changed().await.is_err() {
                return Err(internal("the views are gone"));
            }
            continue;
        };
        concord_faults::point("hub.deliver.loaded");
        for number in next..loaded.run.end() {
            if send_number(&shared, writer, &loaded, number).await?.is_err() {
                return Ok(());
            }
        }
        next = loaded.run.end();
    }
}

/// One entry with what its deliveries need.
struct Loaded {
    run: Run,
    fact: ConsignmentRecorded,
    kept: Box<Kept>,
    tree: Tree,
    blobs: Vec<Option<concord_journal::Blob>>,
    recorded_at: Timestamp,
}

fn load(shared: &Shared, recipient: &ParticipantCode, lane: Lane, number: u64) -> Result<Option<Loaded>, Refusal> {
    let Some(run) = run_with(&shared.views, &shared.hub, recipient, lane, number).map_err(internal)? else {
        return Ok(None);
    };
    let entry = shared.journal.entry(run.sequence).map_err(internal)?;
    match concord_wire::stored::hub::read(&entry).map_err(internal)? {
        HubEntry::Consignment(fact, kept) => Ok(Some(Loaded {
            tree: kept.sealed.tree(),
            recorded_at: Timestamp::from_micros(entry.recorded_at),
            blobs: entry.blobs,
            run,
            fact,
            kept,
        })),
        _ => Err(internal("a mailbox row names an entry that is no consignment")),
    }
}

async fn send_number(
    shared: &Shared,
    writer: &MailboxWriter,
    loaded: &Loaded,
    number: u64,
) -> Result<Result<(), StreamGone>, Refusal> {
    let index = loaded.run.index(number).ok_or_else(|| internal("a mailbox number stands for no exchange"))?;
    let recorded = loaded.run.sequence;
    let published = shared.published();
    let permit = match permit(&published.ledger, &writer.recipient, &loaded.fact, recorded, index, shared.clock.now()) {
        Ok(permit) => permit,
        Err(reason) => {
            tracing::info!(recipient = %writer.recipient, number, %reason, "a delivery is withheld");
            metrics::counter!("concord_deliveries_withheld_total").increment(1);
            concord_faults::point("hub.deliver.withheld");
            return Ok(writer.withhold(number, *published.tail.history.as_bytes()).await);
        }
    };
    let blobs = loaded.blobs.get(loaded.kept.blob_range(index as usize)).unwrap_or_default();
    if blobs.iter().any(Option::is_none) {
        // It was acknowledged, and the retention took its body: a node that lost it since gets the number without it.
        tracing::warn!(recipient = %writer.recipient, number, "a delivery is asked for again whose body is gone: its number is filled");
        return Ok(writer.withhold(number, *published.tail.history.as_bytes()).await);
    }
    let blobs = blobs.iter().flatten().map(blob_to_bytes).collect();
    // A feed that was resumed since tells under later numbers what it told before.
    let feed_number = published.ledger.feed().number_now(&writer.recipient, loaded.run.feed_number, recorded);
    let mut delivery = delivery::delivery(
        &loaded.kept.sealed,
        &loaded.tree,
        index as usize,
        number,
        blobs,
        loaded.recorded_at,
        feed_number,
    )
    .ok_or_else(|| internal("a mailbox row names an exchange that the entry does not have"))?;
    // Then its number lies after a leave that came later, too.
    delivery.recorded_before_loss = loaded.fact.rehanded || feed_number != loaded.run.feed_number;
    concord_faults::point("hub.deliver.permitted");
    let sent = writer.deliver(permit, recorded, delivery).await;
    concord_faults::point("hub.deliver.sent");
    Ok(sent)
}

/// Asks the ledger whether a recipient may have one exchange of an entry now.
pub fn permit(
    ledger: &concord_ledger::Ledger,
    recipient: &ParticipantCode,
    fact: &ConsignmentRecorded,
    recorded: u64,
    index: u32,
    now: Timestamp,
) -> Result<Permit, WithheldReason> {
    let holds = |group: &&AudienceGroup| group.items.iter().any(|range| range.indices().contains(&index));
    // Whoever is not in the frozen audience of the exchange has no right to it, whatever a row says.
    let group = fact.groups.iter().find(holds).ok_or(WithheldReason::Left)?;
    if !group.recipients.contains(recipient) {
        return Err(WithheldReason::Left);
    }
    ledger.permit(recipient, &Mail { recorded, agreement: &group.agreement }, now)
}
