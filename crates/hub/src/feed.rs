//! Telling a participant its feed: the entries that concern it, numbered.

use std::sync::Arc;

use concord_journal::{Entry, HistoryId};
use concord_ledger::{Completed, Statement, Waiting};
use concord_model::{ParticipantCode, Reason, Refusal, Timestamp};
use concord_wire::consignment::closed_epoch;
use concord_wire::convert::timestamp;
use concord_wire::header::agreement_ref;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::feed::v1 as pb;
use concord_wire::stored::hub::HubEntry;
use concord_wire::{feed, registry};
use tokio::sync::mpsc;

use crate::projection::feed_entry;
use crate::shared::{Shared, internal};

/// Items made and not yet handed to the connection.
pub const ITEMS_WAITING_MAX: usize = 16;

/// What a stream hears that was welcomed in another history than is written now.
pub fn history_began() -> Refusal {
    Refusal::new(Reason::Healing, "this hub found that it lost data and began a new history: connect again")
}

/// Sends the feed from `next` on, for as long as the stream lives and its history is written.
pub async fn tell(
    shared: Arc<Shared>,
    participant: ParticipantCode,
    history: HistoryId,
    outbound: &mpsc::Sender<Result<pb::FollowResponse, tonic::Status>>,
    mut next: u64,
) -> Result<(), Refusal> {
    let mut projected = shared.views.watch();
    loop {
        projected.borrow_and_update();
        let published = shared.published();
        // Its numbers are of the history that the welcome named: the node keeps them under that.
        if published.tail.history != history {
            return Err(history_began());
        }
        let item = if published.ledger.feed_last(&participant) >= next {
            let whose = participant.clone();
            shared.blocking(move |shared| load(shared, &whose, next)).await?
        } else {
            None
        };
        let Some(item) = item else {
            if projected.changed().await.is_err() {
                return Err(internal("the views are gone"));
            }
            continue;
        };
        concord_faults::point("hub.feed.loaded");
        let message = pb::FollowResponse { message: Some(pb::follow_response::Message::Item(item)) };
        if outbound.send(Ok(message)).await.is_err() {
            return Ok(());
        }
        concord_faults::point("hub.feed.sent");
        next += 1;
    }
}

/// The item of one number, if the views know it yet; blocks.
pub fn load(shared: &Shared, participant: &ParticipantCode, number: u64) -> Result<Option<pb::FeedItem>, Refusal> {
    let Some(sequence) = feed_entry(&shared.views, participant, number).map_err(internal)? else {
        return Ok(None);
    };
    let entry = shared.entry(sequence)?;
    item(shared, participant, number, &entry).map(Some)
}

/// What an entry tells one participant. Receipts of other origins in the same entry are left out.
fn item(shared: &Shared, participant: &ParticipantCode, number: u64, entry: &Entry) -> Result<pb::FeedItem, Refusal> {
    use pb::feed_item::Content;
    let (mut closes, mut approvals) = (None, Vec::new());
    let content = match concord_wire::stored::hub::read(entry).map_err(internal)? {
        HubEntry::Founded(founding) => {
            Content::Registry(registry::registry(&founding.participants, &founding.areas, &founding.measures))
        }
        HubEntry::Statement(fact, signed, with) => match fact.refused {
            None => {
                let told = match &fact.completes {
                    Some(completed) => completed_statement(shared, completed, signed)?,
                    None => Effective { statement: fact.statement, signed, approvals: with },
                };
                // How many consignments somebody handed in is nobody else's matter.
                let own = told.statement.closes().is_some_and(|(whose, _)| whose == participant);
                closes = fact.closes.as_deref().filter(|_| own).map(closed_epoch);
                approvals = told.approvals;
                Content::Statement(told.signed)
            }
            Some(reason) => Content::StatementRefused(pb::StatementRefused {
                officer: fact.statement.officer.to_string(),
                number: fact.statement.number,
                reason: reason.code().to_owned(),
            }),
        },
        HubEntry::Acknowledged(fact, _) => {
            let own = fact.told.iter().find(|notices| notices.told.participant == *participant);
            let own = own.ok_or_else(|| internal("a feed row names an entry that tells somebody else"))?;
            let receipts = own.notices.iter().map(|notice| feed::receipt(&shared.hub, notice)).collect();
            Content::Receipts(pb::Receipts { recipient: fact.recipient.to_string(), receipts })
        }
        HubEntry::Lapsed(fact) => Content::Lapsed(agreement_ref(&fact.agreement)),
        HubEntry::HistoryBegun(_)
        | HubEntry::JournalEffect
        | HubEntry::Consignment(..)
        | HubEntry::FeedResumed(_)
        | HubEntry::MailboxResumed(_)
        | HubEntry::NodeSeen(_)
        | HubEntry::NotHealed(_) => {
            return Err(internal("a feed row names an entry that tells nothing"));
        }
    };
    let recorded_at = Some(timestamp(Timestamp::from_micros(entry.recorded_at)));
    Ok(pb::FeedItem { number, recorded_at, content: Some(content), closes, approvals })
}

/// A statement as it takes effect, with all who signed it.
struct Effective {
    statement: Statement,
    signed: SignedStatement,
    approvals: Vec<SignedStatement>,
}

/// What the last approval lets take effect: the statement that waited, and the approvals in the order in which they came. So it is what
/// comes back, too, where a hub that lost data is handed it all at once.
fn completed_statement(shared: &Shared, completed: &Completed, last: SignedStatement) -> Result<Effective, Refusal> {
    let read = |sequence| match concord_wire::stored::hub::read(&shared.entry(sequence)?).map_err(internal)? {
        HubEntry::Statement(fact, signed, with) => Ok((fact.statement, signed, with)),
        _ => Err(internal(format!("entry {sequence} is named as a statement and is none"))),
    };
    let (statement, signed, mut approvals) = read(completed.statement)?;
    for sequence in &completed.approvals {
        approvals.push(read(*sequence)?.1);
    }
    approvals.push(last);
    Ok(Effective { statement, signed, approvals })
}

/// What the statement at this entry was the last signature for, and where that stands, if it was that. Blocks.
pub fn completed_by(shared: &Shared, sequence: u64) -> Result<Option<(u64, Statement)>, Refusal> {
    let read = |sequence| match concord_wire::stored::hub::read(&shared.entry(sequence)?).map_err(internal)? {
        HubEntry::Statement(fact, ..) => Ok(fact),
        _ => Err(internal(format!("entry {sequence} is named as a statement and is none"))),
    };
    let completed = read(sequence)?.completes;
    let said = |completed: Completed| Ok((completed.statement, read(completed.statement)?.statement));
    completed.map(said).transpose()
}

/// A statement of the secretariat's that waits, as its officer signed it. Blocks.
pub fn waiting_statement(shared: &Shared, waiting: &Waiting) -> Result<SignedStatement, Refusal> {
    let sequence = waiting.signed.first().map_or(0, |signed| signed.sequence);
    match concord_wire::stored::hub::read(&shared.entry(sequence)?).map_err(internal)? {
        HubEntry::Statement(_, signed, _) => Ok(signed),
        _ => Err(internal(format!("entry {sequence} is named as a statement and is none"))),
    }
}

/// What officers signed so far of a statement that waits, its own officer first. Blocks.
pub fn waiting_signatures(shared: &Shared, waiting: &Waiting) -> Result<Vec<SignedStatement>, Refusal> {
    let mut sequences: Vec<u64> = waiting.signed.iter().map(|signed| signed.sequence).collect();
    // What came with it when it was handed back stands in its own entry.
    sequences.dedup();
    let mut signatures = Vec::with_capacity(waiting.signed.len());
    for sequence in sequences {
        match concord_wire::stored::hub::read(&shared.entry(sequence)?).map_err(internal)? {
            HubEntry::Statement(_, signed, with) => signatures.extend(std::iter::once(signed).chain(with)),
            _ => return Err(internal(format!("entry {sequence} is named as a statement and is none"))),
        }
    }
    Ok(signatures)
}
