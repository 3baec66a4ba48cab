//! Delivering one mailbox: reads where the recipient left off, asks for the permit again, sends.
//!
//! Invariant: no byte of an exchange is handed to a recipient's stream but through a permit given for this recipient and this entry on
//! the newest published ledger.

use std::sync::Arc;
use std::time::SystemTime;

use concord_journal::{Blob, Entry, HistoryId, Journal, ReadError};
use concord_ledger::{ConsignmentRecorded, Mail, Permit};
use concord_model::{Lane, ParticipantCode, Refusal, Timestamp, WithheldReason};
use concord_server::traces::{self, Span, Step};
use concord_wire::consignment::blob_to_bytes;
use concord_wire::delivery;
use concord_wire::header::{exchange_id, withdraws};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::HubEntry;
use concord_wire::tree::Tree;
use tokio::sync::{mpsc, watch};

use crate::feed::history_began;
use crate::projection::{Run, run_with};
use crate::shared::{Shared, internal};

/// Deliveries permitted and not yet handed to the connection. The stream's own flow control does the rest.
pub const DELIVERIES_PERMITTED_MAX: usize = 1;

/// Deliveries that one stream gives again; the next gives more.
const DELIVERED_AGAIN_MAX: usize = 1024;

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
        // The same for what is mended.
        let mut mended = shared.damaged.watch();
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
            let looks = is_there && !concord_faults::planted("wait-at-a-hole");
            let resumes = published.ledger.mailboxes().resumes(&recipient, lane).filter(|_| looks);
            if let Some(end) = resumes.and_then(|resumes| resumes.hole_end(next)) {
                // Only a node that starts over comes by numbers that this hub forgot, and by which nothing is meant any more.
                while next <= end {
                    if writer.withhold(next, *history.as_bytes()).await.is_err() {
                        return Ok(());
                    }
                    next += 1;
                }
                continue;
            }
            if projected.changed().await.is_err() {
                return Err(internal("the views are gone"));
            }
            continue;
        };
        concord_faults::point("hub.deliver.loaded");
        while next < loaded.run.end() {
            match send_number(&shared, writer, &loaded, next).await? {
                Outcome::Handed => next += 1,
                Outcome::StreamGone => return Ok(()),
                Outcome::Wanted => {
                    until_mended(&shared, &recipient, &loaded, next, &mut mended).await?;
                    break;
                }
            }
        }
    }
}

/// Waits until something is mended, or the right to what is waited for has ended: then its number is filled.
async fn until_mended(
    shared: &Shared,
    recipient: &ParticipantCode,
    loaded: &Loaded,
    number: u64,
    mended: &mut watch::Receiver<()>,
) -> Result<(), Refusal> {
    let Loaded { run, fact, kept, .. } = loaded;
    let index = run.index(number).ok_or_else(|| internal("a mailbox number stands for no exchange"))?;
    let mut published = shared.sequencer.watch();
    loop {
        let may_have = {
            let now = published.borrow_and_update();
            permit(&now.ledger, recipient, (fact, kept), run.sequence, index, shared.clock.now()).is_ok()
        };
        if !may_have {
            return Ok(());
        }
        tokio::select! {
            changed = mended.changed() => return changed.map_err(internal),
            changed = published.changed() => changed.map_err(internal)?,
        }
    }
}

/// Sends deliveries again whose content is damaged at their recipient, of those before `next` that the hub still has. Those that are
/// damaged here too wait for their origin, and hold up nothing else.
pub async fn deliver_again(
    shared: &Arc<Shared>,
    lane: Lane,
    writer: &MailboxWriter,
    numbers: Vec<u64>,
    next: u64,
) -> Result<(), Refusal> {
    let asked = numbers.into_iter().take(DELIVERED_AGAIN_MAX);
    let mut left: Vec<u64> = asked.filter(|number| (1..next).contains(number)).collect();
    loop {
        // Watched before they are asked for, as above.
        let mut mended = shared.damaged.watch();
        let mut wanted = Vec::new();
        for number in left {
            let for_whom = writer.recipient.clone();
            let loaded = match shared.blocking(move |shared| load(shared, &for_whom, lane, number)).await {
                Ok(Some(loaded)) => loaded,
                // A number that stands for nothing here any more: there is nothing to give.
                Ok(None) => {
                    if writer.withhold(number, *shared.history().as_bytes()).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                // It is told on the log; what is new does not wait for it.
                Err(_) => continue,
            };
            tracing::warn!(recipient = %writer.recipient, %lane, number, "a delivery is damaged at its recipient: it goes out again");
            match send_number(shared, writer, &loaded, number).await? {
                Outcome::Handed => {}
                Outcome::StreamGone => return Ok(()),
                Outcome::Wanted => wanted.push(number),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        left = wanted;
        mended.changed().await.map_err(internal)?;
    }
}

/// One entry with what its deliveries need.
struct Loaded {
    run: Run,
    fact: ConsignmentRecorded,
    kept: Box<Kept>,
    tree: Tree,
    blobs: Vec<Body>,
    recorded_at: Timestamp,
}

/// One body of an entry, as the disk gave it.
enum Body {
    Whole(Blob),
    /// Redacted, or trimmed.
    Gone,
    Damaged,
}

/// What became of a number.
enum Outcome {
    /// To the connection.
    Handed,
    StreamGone,
    /// Nothing yet: its content is damaged, and its origin is asked for it.
    Wanted,
}

impl From<Result<(), StreamGone>> for Outcome {
    fn from(sent: Result<(), StreamGone>) -> Self {
        if sent.is_ok() { Self::Handed } else { Self::StreamGone }
    }
}

fn load(shared: &Shared, recipient: &ParticipantCode, lane: Lane, number: u64) -> Result<Option<Loaded>, Refusal> {
    let Some(run) = run_with(&shared.views, &shared.hub, recipient, lane, number).map_err(internal)? else {
        return Ok(None);
    };
    let (entry, blobs) = read_bodies(shared.journal.as_ref(), run.sequence).map_err(internal)?;
    match concord_wire::stored::hub::read(&entry).map_err(internal)? {
        HubEntry::Consignment(fact, kept) => Ok(Some(Loaded {
            tree: kept.sealed.tree(),
            recorded_at: Timestamp::from_micros(entry.recorded_at),
            blobs,
            run,
            fact,
            kept,
        })),
        _ => Err(internal("a mailbox row names an entry that is no consignment")),
    }
}

/// An entry and its bodies: at once, or one by one where some are damaged, so that these hold up no others.
fn read_bodies(journal: &dyn Journal, sequence: u64) -> Result<(Entry, Vec<Body>), ReadError> {
    match journal.entry(sequence) {
        Ok(mut entry) => {
            let blobs = std::mem::take(&mut entry.blobs).into_iter();
            Ok((entry, blobs.map(|blob| blob.map_or(Body::Gone, Body::Whole)).collect()))
        }
        Err(error) if error.is_damage() => {
            let entry = journal.head(sequence)?;
            let bodies = (0..entry.commitments.len()).map(|index| match journal.blob(sequence, index) {
                Ok(blob) => Ok(Body::Whole(blob)),
                Err(ReadError::Redacted { .. }) => Ok(Body::Gone),
                Err(error) if error.is_damage() => Ok(Body::Damaged),
                Err(error) => Err(error),
            });
            let bodies = bodies.collect::<Result<_, _>>()?;
            Ok((entry, bodies))
        }
        Err(error) => Err(error),
    }
}

async fn send_number(
    shared: &Shared,
    writer: &MailboxWriter,
    loaded: &Loaded,
    number: u64,
) -> Result<Outcome, Refusal> {
    let index = loaded.run.index(number).ok_or_else(|| internal("a mailbox number stands for no exchange"))?;
    let recorded = loaded.run.sequence;
    let published = shared.published();
    let content = (&loaded.fact, loaded.kept.as_ref());
    let permit = match permit(&published.ledger, &writer.recipient, content, recorded, index, shared.clock.now()) {
        Ok(permit) => permit,
        Err(reason) => {
            tracing::info!(recipient = %writer.recipient, number, %reason, "a delivery is withheld");
            metrics::counter!("concord_deliveries_withheld_total").increment(1);
            concord_faults::point("hub.deliver.withheld");
            return Ok(writer.withhold(number, *published.tail.history.as_bytes()).await.into());
        }
    };
    let bodies = loaded.blobs.get(loaded.kept.blob_range(index as usize)).unwrap_or_default();
    let is_damaged = bodies.iter().any(|body| matches!(body, Body::Damaged));
    let is_asked_for = !concord_faults::planted("give-up-what-is-damaged");
    if is_damaged && is_asked_for && !shared.damaged.is_gone(recorded, index) {
        shared.damaged.want(shared, &loaded.fact.chain, loaded.kept.sealed.number, recorded);
        return Ok(Outcome::Wanted);
    }
    if is_damaged {
        let id = loaded.kept.sealed.headers.get(index as usize).map(|header| exchange_id(header).to_string());
        let (origin, id, recipient) = (&loaded.fact.chain.origin, id.unwrap_or_default(), &writer.recipient);
        let what = format!(
            "{origin}'s exchange {id} for {recipient}: its content is damaged here, and its node has it no more"
        );
        shared.losses.not_healed(shared, what);
    }
    if is_damaged || bodies.iter().any(|body| matches!(body, Body::Gone)) {
        // Gone by damage; or it was acknowledged, and the retention took its body: a node that lost it since gets the number without it.
        tracing::warn!(recipient = %writer.recipient, number, "a delivery is due whose body is gone: its number is filled");
        return Ok(writer.withhold(number, *published.tail.history.as_bytes()).await.into());
    }
    let whole =
        bodies.iter().filter_map(|body| if let Body::Whole(blob) = body { Some(blob_to_bytes(blob)) } else { None });
    let blobs = whole.collect();
    // A feed that was resumed since tells under later numbers what it told before.
    let feed_number = published.ledger.feed().number_now(&writer.recipient, loaded.run.feed_number, recorded);
    let feed_number = if concord_faults::planted("count-others-in-the-feed") {
        published.ledger.feed().iter().map(|(_, last)| last).max().unwrap_or(feed_number)
    } else {
        feed_number
    };
    let mut delivery = delivery::delivery(
        &loaded.kept.sealed,
        &loaded.tree,
        index as usize,
        number,
        blobs,
        dated(loaded.recorded_at, recorded),
        feed_number,
    )
    .ok_or_else(|| internal("a mailbox row names an exchange that the entry does not have"))?;
    // Then its number lies after a leave that came later, too.
    delivery.recorded_before_loss = loaded.fact.rehanded || feed_number != loaded.run.feed_number;
    concord_faults::point("hub.deliver.permitted");
    let traced = traces::is_traced().then(|| (SystemTime::now(), exchange_id(&delivery.header)));
    let sent = writer.deliver(permit, recorded, delivery).await;
    if let (Ok(()), Some((begun, exchange))) = (&sent, traced) {
        let step = Step::Deliver(writer.recipient.to_string());
        let (lane, participant) = (loaded.fact.chain.lane, ParticipantCode::secretariat().to_string());
        traces::trace(Span { exchange, step, lane, participant, begun, caller: None });
    }
    concord_faults::point("hub.deliver.sent");
    Ok(sent.into())
}

/// When it was recorded, as its recipient is told.
fn dated(recorded_at: Timestamp, recorded: u64) -> Timestamp {
    // A mistake that tells how much else the hub has.
    let also = if concord_faults::planted("date-by-the-journal") { recorded as i64 } else { 0 };
    Timestamp::from_micros(recorded_at.as_micros() + also)
}

/// Asks the ledger whether a recipient may have one exchange of an entry now.
pub fn permit(
    ledger: &concord_ledger::Ledger,
    recipient: &ParticipantCode,
    (fact, kept): (&ConsignmentRecorded, &Kept),
    recorded: u64,
    index: u32,
    now: Timestamp,
) -> Result<Permit, WithheldReason> {
    // Whoever is not in the frozen audience of the exchange has no right to it, whatever a row says.
    let group = fact.group_of(index).ok_or(WithheldReason::Left)?;
    if !group.recipients.contains(recipient) {
        return Err(WithheldReason::Left);
    }
    let header = kept.sealed.headers.get(index as usize).ok_or(WithheldReason::Left)?;
    let origin = &fact.chain.origin;
    // Most participants never withdraw anything, and an id is a hash.
    let is_asked = ledger.withdrawals().has_any_of(origin) && !concord_faults::planted("deliver-the-withdrawn");
    // A membership that began anew has nothing of before: what was recorded then is not asked for as of now.
    let recorded = match concord_faults::planted("deliver-of-the-time-between") {
        true => recorded.max(ledger.agreements().member_since(&group.agreement.id, recipient).unwrap_or(recorded)),
        false => recorded,
    };
    let mail = Mail {
        recorded,
        agreement: &group.agreement,
        expires_at: kept.expires_at(index).filter(|_| !concord_faults::planted("deliver-what-expired")),
        exchange: is_asked.then(|| (origin, exchange_id(header))),
        withdraws: withdraws(header).is_some(),
    };
    ledger.permit(recipient, &mail, now)
}
