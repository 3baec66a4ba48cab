//! The journals at rest, as plain rows: what the hub recorded, what each node queued, received and was told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use concord_journal::{Disk, Entry, RealDisk, walk};
use concord_ledger::{ConsignmentRecorded, NoticeOutcome, Told};
use concord_model::Lane;
use concord_wire::feed::parse_receipt;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::{self, HubEntry};
use concord_wire::stored::node::{self, NodeEntry, Verdict};
use concord_wire::{header, receipt};

use super::Violation;
use super::bodies::{Body, body};
use crate::witness::{Id, Word, hex};

/// Where an exchange stands in its origin's chain: origin, lane, consignment, index.
pub type Place = (String, Lane, u64, u32);

/// One exchange of a consignment, at the hub or at its origin's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its id.
    pub id: Id,
    /// Where it stands.
    pub place: Place,
    /// The entry of the journal.
    pub sequence: u64,
    /// Its body.
    pub body: Body,
    /// The hub's frozen audience, or why it was refused; empty at a node.
    pub outcome: Result<Vec<String>, String>,
    /// The agency and its request, at a node.
    pub request: Option<(String, String)>,
}

/// A run of mailbox numbers that a consignment gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The entry.
    pub sequence: u64,
    /// Whose mailbox.
    pub recipient: String,
    /// Of which lane.
    pub lane: Lane,
    /// The first number.
    pub first: u64,
    /// The exchanges that the numbers stand for.
    pub ids: Vec<Id>,
}

/// A hub's journal.
#[derive(Debug, Clone, Default)]
pub struct HubRecord {
    /// In the order of recording.
    pub exchanges: Vec<Exchange>,
    /// In the order of recording.
    pub runs: Vec<Run>,
    /// Digest of each entry that recorded a consignment, with its consignment.
    pub entries: BTreeMap<Id, (String, Lane, u64)>,
    /// Statements that were accepted: agreement, participant, word; with the entry.
    pub words: Vec<(String, String, Word, u64)>,
    /// Every statement that was decided: participant, officer and number, with the entry.
    pub statements: Vec<((String, String, u64), u64)>,
    /// Feed numbers that were given out, in order, by participant.
    pub told: BTreeMap<String, Vec<u64>>,
    /// Its histories, in the order in which they began.
    pub histories: Vec<History>,
    /// What only a hub or a node that lost data writes down: the entry, and what it says.
    pub losses: Vec<(u64, String)>,
}

/// What names a history in [`NodeRecord::hub_histories`] where receipts do.
pub(super) const RECEIPTS: &str = "receipts";

/// The id of a history.
pub type History = [u8; 16];

/// What a node made of one number of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// Accepted, with its body.
    Accepted(Id, Body),
    /// Set aside for a reason.
    SetAside(String),
    /// The hub's notice.
    Withheld,
}

/// One number of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The entry.
    pub sequence: u64,
    /// The lane.
    pub lane: Lane,
    /// The number.
    pub number: u64,
    /// What became of it.
    pub became: Became,
}

/// A receipt for a consignment in the journal of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The entry.
    pub sequence: u64,
    /// The hub's entry that it names.
    pub entry_digest: Id,
    /// Lane and number of the consignment.
    pub consignment: (Lane, u64),
    /// The audience of each exchange, or why it was refused.
    pub outcomes: Vec<Result<Vec<String>, String>>,
}

/// One exchange of which a sender was told something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldOf {
    /// The feed's number.
    pub number: u64,
    /// Of which recipient.
    pub recipient: String,
    /// Which exchange: lane, consignment, index.
    pub item: (Lane, u64, u32),
    /// `delivered`, `taken`, `withheld REASON` or `set-aside REASON`.
    pub state: String,
}

/// A node's journal.
#[derive(Debug, Clone, Default)]
pub struct NodeRecord {
    /// What was queued, in order.
    pub queued: Vec<Exchange>,
    /// In order.
    pub receipts: Vec<Receipt>,
    /// In order.
    pub mail: Vec<Mail>,
    /// Feed numbers in order; none at a recipient in the tests' own process, which keeps no feed.
    pub feed: Option<Vec<u64>>,
    /// What the feed told of own exchanges.
    pub told: Vec<ToldOf>,
    /// Cursors in order: entry, agency, lane, number.
    pub cursors: Vec<(u64, String, Lane, u64)>,
    /// The hub's history of each entry that names one, by what came in it: the feed, receipts or the mail of one lane.
    pub hub_histories: Vec<(u64, String, History)>,
    /// What only a hub or a node that lost data writes down: the entry, and what it says.
    pub losses: Vec<(u64, String)>,
}

fn entries(whose: &str, dir: &Path) -> Result<impl Iterator<Item = Result<Entry, Violation>>, Violation> {
    let broken = {
        let whose = whose.to_owned();
        move |error: &dyn fmt::Display| Violation { promise: "I5", what: format!("the journal of {whose}: {error}") }
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.join("journal")).map_err(|error| broken(&error))?);
    let walk = walk(disk, true).map_err(|error| broken(&error))?;
    Ok(walk.map(move |entry| entry.map_err(|error| broken(&error))))
}

fn unreadable(whose: &str, sequence: u64, error: &dyn fmt::Display) -> Violation {
    Violation { promise: "I5", what: format!("entry {sequence} of {whose} cannot be read: {error}") }
}

impl HubRecord {
    /// Reads the journal of a hub's folder.
    pub fn read(dir: &Path) -> Result<Self, Violation> {
        let mut record = Self::default();
        for entry in entries("the hub", dir)? {
            let entry = entry?;
            let read = hub::read(&entry).map_err(|error| unreadable("the hub", entry.sequence, &error))?;
            record.take(&entry, read);
        }
        Ok(record)
    }

    /// Every kind is named here: whoever adds one says what it means for those that are judged.
    fn take(&mut self, entry: &Entry, read: HubEntry) {
        let mut told = Vec::new();
        match read {
            HubEntry::HistoryBegun(begun) => self.histories.push(begun.history),
            // Which copy of a node is served says nothing of an exchange, and what is lost is seen where it is missing.
            HubEntry::JournalEffect | HubEntry::NodeSeen(_) | HubEntry::NotHealed(_) => {}
            // The registry is the first item of everybody's feed.
            HubEntry::Founded(founding) => {
                for participant in founding.participants {
                    self.told.entry(participant.code.to_string()).or_default().push(1);
                }
            }
            HubEntry::Statement(decided, ..) => {
                let tells = decided.tells().map(|(who, number, _)| Told { participant: who.clone(), number });
                told.extend(tells);
                let said = &decided.statement;
                let signer = (said.participant.to_string(), said.officer.to_string(), said.number);
                self.statements.push((signer, entry.sequence));
                if decided.refused.is_none()
                    && let Some((agreement, word)) = word(&decided.statement.content)
                {
                    let who = decided.statement.participant.to_string();
                    self.words.push((agreement, who, word, entry.sequence));
                }
            }
            HubEntry::Lapsed(fact) => told.extend(fact.told),
            HubEntry::Consignment(fact, kept) => self.consignment(entry, &fact, &kept),
            HubEntry::Acknowledged(fact, _) => told.extend(fact.told.iter().map(|notices| notices.told.clone())),
            HubEntry::FeedResumed(_) => self.losses.push((entry.sequence, "a feed goes on after a loss".to_owned())),
            HubEntry::MailboxResumed(_) => {
                self.losses.push((entry.sequence, "a mailbox goes on after a loss".to_owned()));
            }
        }
        for one in told {
            self.told.entry(one.participant.to_string()).or_default().push(one.number);
        }
    }

    fn consignment(&mut self, entry: &Entry, fact: &ConsignmentRecorded, kept: &Kept) {
        let origin = fact.chain.origin.to_string();
        let mut exchanges = exchanges(entry, kept);
        for group in &fact.groups {
            let audience: Vec<String> = group.recipients.iter().map(ToString::to_string).collect();
            for index in group.items.iter().flat_map(|range| range.indices()) {
                if let Some(exchange) = exchanges.get_mut(index as usize) {
                    exchange.outcome = Ok(audience.clone());
                }
            }
        }
        for refusal in &fact.refused {
            if let Some(exchange) = exchanges.get_mut(refusal.index as usize) {
                exchange.outcome = Err(refusal.reason.code().to_owned());
            }
        }
        for recipient in fact.recipients() {
            let indices = recipient.items.iter().flat_map(|range| range.indices());
            self.runs.push(Run {
                sequence: entry.sequence,
                recipient: recipient.run.recipient.to_string(),
                lane: fact.chain.lane,
                first: recipient.run.first,
                ids: indices.filter_map(|index| exchanges.get(index as usize)).map(|one| one.id).collect(),
            });
        }
        self.entries.insert(entry.digest.0, (origin, fact.chain.lane, fact.number));
        self.exchanges.extend(exchanges);
    }
}

impl NodeRecord {
    /// Reads the journal of a node's folder.
    pub fn read(code: &str, dir: &Path) -> Result<Self, Violation> {
        let mut record = Self { feed: Some(Vec::new()), ..Self::default() };
        for entry in entries(code, dir)? {
            let entry = entry?;
            let read = node::read(&entry).map_err(|error| unreadable(code, entry.sequence, &error))?;
            record.take(&entry, read).map_err(|what| unreadable(code, entry.sequence, &what))?;
        }
        Ok(record)
    }

    /// Every kind is named here: whoever adds one says what it means for those that are judged.
    fn take(&mut self, entry: &Entry, read: NodeEntry) -> Result<(), String> {
        let mut lost = |what: &str| self.losses.push((entry.sequence, what.to_owned()));
        match read {
            // Of the node's own journal: what a cut took is judged by what is missing.
            NodeEntry::HistoryBegun(_) | NodeEntry::JournalEffect | NodeEntry::RunBegun(_) => {}
            // What it is made of, and officers' words, which are judged at the hub.
            NodeEntry::Founded { .. }
            | NodeEntry::Joined(_)
            | NodeEntry::AgencyAdded { .. }
            | NodeEntry::RightsChanged(..)
            | NodeEntry::PinConfirmed(..)
            | NodeEntry::AgencyCollected(_)
            | NodeEntry::Statement(_)
            | NodeEntry::Answer(_) => {}
            NodeEntry::FeedResumed(_) => lost("the hub lost data, and the feed goes on"),
            NodeEntry::MailboxResumed(_) => lost("the hub lost data, and a mailbox goes on"),
            NodeEntry::ReceiptRenewed(_) => lost("the hub recorded what it had forgotten"),
            NodeEntry::TakenRecovered(..) => lost("acknowledgements that the hub had been told came back from it"),
            NodeEntry::LaneRecovered(_) => lost("what the hub knew of a lane came back from it"),
            NodeEntry::Restored(_) => lost("this journal was put back or made anew"),
            // An officer opened an epoch: none does where this judges.
            NodeEntry::Found(..) => lost("the hub had something else under a number of this node"),
            NodeEntry::EpochEntered(..) => lost("an epoch was closed"),
            // Another copy was at work: none is where this judges.
            NodeEntry::Fenced(_) => lost("the hub did not serve this copy of the node"),
            // A person decided: none does where this judges.
            NodeEntry::AsideEnded(_) => lost("something that had been set aside came to an end"),
            NodeEntry::FenceLifted => lost("the hub served this copy of the node again"),
            NodeEntry::Queued(queued) => {
                let mut exchanges = exchanges(entry, &queued.kept);
                for (exchange, submission) in exchanges.iter_mut().zip(queued.submissions) {
                    exchange.request = Some((submission.agency, submission.request_id));
                }
                self.queued.extend(exchanges);
            }
            NodeEntry::Receipt(message) => {
                let recorded = receipt::parse(&message.statement).map_err(|refusal| refusal.message)?;
                let outcome = |outcome: &receipt::Outcome| match outcome {
                    receipt::Outcome::Recorded { audience, .. } => {
                        Ok(audience.iter().map(ToString::to_string).collect())
                    }
                    receipt::Outcome::Refused(reason) => Err(reason.code().to_owned()),
                };
                self.hub_histories.push((entry.sequence, RECEIPTS.to_owned(), recorded.history.0));
                self.receipts.push(Receipt {
                    sequence: entry.sequence,
                    entry_digest: recorded.entry_digest.0,
                    consignment: (recorded.chain.lane, recorded.number),
                    outcomes: recorded.outcomes.iter().map(outcome).collect(),
                });
            }
            NodeEntry::Feed { history, items } => {
                self.hub_histories.push((entry.sequence, "the feed".to_owned(), history));
                for item in items {
                    self.feed.get_or_insert_default().push(item.number);
                    if let Some(Content::Receipts(receipts)) = item.content {
                        self.told_of(item.number, &receipts)?;
                    }
                }
            }
            NodeEntry::Mail { lane, history, items } => {
                self.hub_histories.push((entry.sequence, format!("mail {lane}"), history));
                let mut first_blob = 0;
                for item in items {
                    let blobs = first_blob..first_blob + item.blob_count as usize;
                    first_blob = blobs.end;
                    let became = match &item.verdict {
                        Verdict::Accepted(delivery) => {
                            let id = *header::exchange_id(&delivery.header).0.as_bytes();
                            Became::Accepted(id, body(entry, blobs))
                        }
                        Verdict::SetAside(_, reason) => Became::SetAside(reason.clone()),
                        Verdict::Withheld(_) => Became::Withheld,
                        // Only a hub that lost data repeats, and none of those that are judged here does.
                        Verdict::Repeated(_) => Became::SetAside("repeated by a hub that lost nothing".to_owned()),
                    };
                    self.mail.push(Mail { sequence: entry.sequence, lane, number: item.number(), became });
                }
            }
            NodeEntry::AgencyAcknowledged(fact) => {
                self.cursors.push((entry.sequence, fact.agency.to_string(), fact.lane, fact.through));
            }
        }
        Ok(())
    }

    fn told_of(&mut self, number: u64, receipts: &concord_wire::proto::feed::v1::Receipts) -> Result<(), String> {
        for message in &receipts.receipts {
            let notice = parse_receipt(message).map_err(|refusal| refusal.message)?;
            let state = match notice.outcome {
                NoticeOutcome::Delivered => "delivered".to_owned(),
                NoticeOutcome::Taken => "taken".to_owned(),
                NoticeOutcome::Withheld(reason) => format!("withheld {}", reason.as_str()),
                NoticeOutcome::SetAside(reason) => format!("set-aside {}", reason.as_str()),
            };
            for index in notice.items.iter().flat_map(|range| range.indices()) {
                self.told.push(ToldOf {
                    number,
                    recipient: receipts.recipient.clone(),
                    item: (notice.lane, notice.number, index),
                    state: state.clone(),
                });
            }
        }
        Ok(())
    }
}

fn exchanges(entry: &Entry, kept: &Kept) -> Vec<Exchange> {
    let sealed = &kept.sealed;
    let origin = sealed.chain.origin.to_string();
    let exchange = |(index, serialised): (usize, &bytes::Bytes)| Exchange {
        id: *header::exchange_id(serialised).0.as_bytes(),
        place: (origin.clone(), sealed.chain.lane, sealed.number, index as u32),
        sequence: entry.sequence,
        body: body(entry, kept.blob_range(index)),
        outcome: Ok(Vec::new()),
        request: None,
    };
    sealed.headers.iter().enumerate().map(exchange).collect()
}

fn word(content: &concord_ledger::StatementContent) -> Option<(String, Word)> {
    use concord_ledger::StatementContent;
    match content {
        StatementContent::Propose { text, .. } => Some((text.id.to_string(), Word::Proposed)),
        StatementContent::Consent(of) | StatementContent::Return(of, _) => Some((of.id.to_string(), Word::Consented)),
        StatementContent::Leave(of) => Some((of.id.to_string(), Word::Left)),
        _ => None,
    }
}

/// An exchange in words: its id and where it stands.
pub(super) fn named(exchange: &Exchange) -> String {
    let (origin, lane, number, index) = &exchange.place;
    format!("{} ({origin} {lane} {number}.{index}, entry {})", hex(&exchange.id[..8]), exchange.sequence)
}
