//! The node's pure state: a fold of its journal, and what may be appended next.
//!
//! It knows no clock, no network, no disk and no randomness. `decide_…` looks at a command and says what to append or why
//! not; [`NodeState::apply`] takes in what was appended and never refuses what verified before. It holds what deciding
//! needs; what grows without end (exchanges, tracks, inboxes) is in the views.

mod agencies;
mod chain;
pub(crate) mod decide;
mod decide_rights;
mod directory;
mod late;
mod line;
mod mailbox;
mod officers;
mod pins;
pub mod rights;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use concord_journal::HistoryId;
use concord_ledger::ChainTip;
use concord_ledger::history::HISTORIES_KEPT_MAX;
use concord_model::{Digest, Fingerprint, Lane, Name, ParticipantCode, PublicKey, Refusal, Timestamp};
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::stored::StoredError;
use concord_wire::stored::node::{AsideEnded, AsideOutcome, NodeEntry, Restored, Verdict};
use serde::{Deserialize, Serialize};

pub use agencies::Agency;
pub use chain::ChainEnd;
use chain::LaneChains;
pub use decide::{FetchedStep, OUTBOX_CONSIGNMENTS_MAX, STATEMENTS_WAITING_MAX, Step};
pub use decide_rights::{AGENCIES_MAX, AGENCY_NAMES_MAX};
pub use directory::{Directory, DirectoryError, HubKeys};
pub use late::{LATE_MAX, Late};
pub use line::{LINE_KEPT_MAX, Line};
pub use mailbox::Mailbox;
pub use officers::{Answer, Officer, RECENT_STATEMENTS_MAX, RecentStatement};
pub use pins::{Pin, PinState};

/// Everything that the node decides upon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeState {
    founded: Option<(ParticipantCode, Name)>,
    hub: Option<Arc<HubKeys>>,
    directory: Arc<Directory>,
    agencies: Arc<BTreeMap<Name, Agency>>,
    unconfirmed: Arc<BTreeMap<Name, Agency>>,
    ended_agencies: Arc<BTreeSet<Name>>,
    /// The entry that last changed what some agency may have of what is there.
    rights_at: u64,
    officers: Arc<BTreeMap<Name, Officer>>,
    chains: [LaneChains; Lane::ALL.len()],
    mailboxes: [Mailbox; Lane::ALL.len()],
    feed: FeedCursor,
    restoration: Option<Restoration>,
    line: Arc<Line>,
    fence: Option<Arc<Refusal>>,
    late: Arc<BTreeMap<(Lane, u64), Late>>,
    /// The hub's histories, each with the entry that named it first, in that order.
    hub_histories: Arc<VecDeque<(HistoryId, u64)>>,
}

/// The journal was put back from a backup or made anew, and what came after it may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// When the backup was taken; none where there was none.
    pub taken_at: Option<Timestamp>,
    /// When it was put back.
    pub restored_at: Timestamp,
    /// Where that stands in the journal.
    pub sequence: u64,
    /// How far it had each lane's mailbox then.
    pub received_through: [u64; Lane::ALL.len()],
    /// Of which lanes what the hub knew is here again.
    pub recovered: [bool; Lane::ALL.len()],
    /// How many consignments came back.
    pub fetched: u64,
    /// Own exchanges whose content the hub has no more.
    pub bodies_lost_count: u64,
}

/// How far the feed is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeedCursor {
    /// The hub's history in which the last item came; none before the first.
    pub history: Option<HistoryId>,
    /// The last number applied.
    pub number: u64,
    /// What the hub is shown of that item; none before the first.
    pub digest: Option<Digest>,
}

/// An entry that verifies but cannot be taken in: the journal was not written by a node of this version.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// It says something that cannot follow.
    #[error("entry {sequence} cannot be applied: {what}; keep the folder and report this")]
    Impossible {
        /// The entry.
        sequence: u64,
        /// Why not.
        what: String,
    },
}

impl NodeState {
    /// Takes in an entry of this node's journal.
    pub fn apply(&mut self, entry: &NodeEntry, sequence: u64, at: Timestamp) -> Result<(), FoldError> {
        let impossible = |what: String| FoldError::Impossible { sequence, what };
        match entry {
            NodeEntry::JournalEffect => {}
            NodeEntry::HistoryBegun(begun) => Arc::make_mut(&mut self.line).begun(begun),
            NodeEntry::RunBegun(run) => Arc::make_mut(&mut self.line).ran(*run),
            NodeEntry::Fenced(why) => self.fence = Some(Arc::new(why.clone())),
            // Only the hub's welcome: that the journal is said to be restored does not mean that the hub takes it for that.
            NodeEntry::FenceLifted => self.fence = None,
            NodeEntry::Founded { participant, node } => {
                self.founded = Some((participant.clone(), node.clone()));
            }
            NodeEntry::Joined(bundle) => {
                let hub = HubKeys::from_bundle(bundle).map_err(|error| impossible(error.to_string()))?;
                self.heard_of(hub.history, sequence);
                self.hub = Some(Arc::new(hub));
            }
            NodeEntry::AgencyAdded { name, measures } => self.agency_added(name, measures, sequence),
            NodeEntry::PinConfirmed(whose, key) => Arc::make_mut(&mut self.directory).confirm_pin(whose, *key),
            NodeEntry::RightsChanged(name, change) => self.rights_changed(name, change, sequence),
            NodeEntry::AgencyCollected(fact) => {
                self.mailbox_mut(fact.lane).taken_count += fact.told().len() as u64;
                self.late_taken(fact.lane, fact.number, &fact.agency);
            }
            NodeEntry::AsideEnded(fact) => self.aside_ended(fact, sequence, at),
            NodeEntry::Queued(queued) => {
                let chain = &queued.kept.sealed.chain;
                let begun = self.begun_up_to(chain.lane, chain.epoch);
                self.chains[chain.lane.slot()].queued(&queued.kept.sealed, queued.packed_anew, begun);
            }
            NodeEntry::Found(kept, _) => self.chains[kept.sealed.chain.lane.slot()].found(&kept.sealed),
            NodeEntry::EpochEntered(lane, epoch) => {
                let begun = self.begun(*lane, *epoch);
                let begun = begun.ok_or_else(|| impossible(format!("epoch {epoch} was not opened")))?;
                self.chains[lane.slot()].enter(begun);
            }
            NodeEntry::Receipt(receipt) => {
                let recorded =
                    concord_wire::receipt::parse(&receipt.statement).map_err(|refusal| impossible(refusal.message))?;
                self.heard_of(recorded.history, sequence);
                self.chains[recorded.chain.lane.slot()].recorded(&recorded);
            }
            NodeEntry::Feed { history, items } => {
                let hub = self.hub.clone().ok_or_else(|| impossible("no hub was joined".into()))?;
                let own = self.founded.as_ref().map(|(participant, _)| participant.clone());
                let own = own.ok_or_else(|| impossible("the node was not founded".into()))?;
                for item in items {
                    let said = Arc::make_mut(&mut self.directory)
                        .apply(&hub, &own, item)
                        .map_err(|error| impossible(error.to_string()))?;
                    let said = said.filter(|statement| statement.participant == own);
                    let said = said.map(|statement| (statement.officer, statement.number));
                    // A refused statement uses its number up, too: a restored node knows of it only by this.
                    let refused = match &item.content {
                        Some(Content::StatementRefused(refused)) => Name::parse(&refused.officer)
                            .map(|officer| Some((officer, refused.number)))
                            .map_err(|error| impossible(error.to_string()))?,
                        _ => None,
                    };
                    if let Some((officer, number)) = said.or(refused) {
                        Arc::make_mut(&mut self.officers).entry(officer).or_default().told(number);
                    }
                    self.feed.number = item.number;
                }
                self.heard_of(HistoryId(*history), sequence);
                self.feed.history = Some(HistoryId(*history));
                self.feed.digest = items.last().map(concord_wire::feed::item_digest);
            }
            NodeEntry::Mail { lane, history, items } => {
                self.heard_of(HistoryId(*history), sequence);
                self.mailbox_mut(*lane).received(HistoryId(*history), items);
                self.late_withdrawn(items);
            }
            NodeEntry::FeedResumed(resumed) => {
                let history = Some(HistoryId(resumed.history));
                self.heard_of(HistoryId(resumed.history), sequence);
                self.feed = FeedCursor { history, number: resumed.at, digest: resumed.digest };
            }
            NodeEntry::MailboxResumed(resumed) => {
                self.heard_of(HistoryId(resumed.history), sequence);
                self.mailbox_mut(resumed.lane).resumed(resumed);
            }
            NodeEntry::ReceiptRenewed(receipt) => {
                let recorded =
                    concord_wire::receipt::parse(&receipt.statement).map_err(|refusal| impossible(refusal.message))?;
                self.heard_of(recorded.history, sequence);
                self.chains[recorded.chain.lane.slot()].renewed(&recorded);
            }
            NodeEntry::AgencyAcknowledged(fact) => {
                if let Some(agency) = Arc::make_mut(&mut self.agencies).get_mut(&fact.agency) {
                    agency.acknowledged(fact.lane, fact.through, fact.rights_at);
                }
                self.mailbox_mut(fact.lane).taken_count += fact.told().len() as u64;
            }
            NodeEntry::Statement(signed) => {
                let statement =
                    concord_wire::agreement::parse_statement(signed).map_err(|refusal| impossible(refusal.message))?;
                Arc::make_mut(&mut self.officers).entry(statement.officer.clone()).or_default().queued(
                    statement.number,
                    statement.digest,
                    sequence,
                    at,
                );
            }
            NodeEntry::Answer(answer) => {
                let officer = Name::parse(&answer.officer).map_err(|error| impossible(error.to_string()))?;
                Arc::make_mut(&mut self.officers).entry(officer).or_default().answered(answer);
            }
            // The hub counts on from here: what agencies took and this journal lost keeps its place in the count.
            NodeEntry::TakenRecovered(lane, taken) => self.mailbox_mut(*lane).taken_count += taken.len() as u64,
            NodeEntry::LaneRecovered(fact) => {
                self.mailbox_mut(fact.lane).acknowledged_through = fact.delivered_through;
                self.begin_behind(fact.lane, fact.delivered_through);
                if let Some(restoration) = &mut self.restoration {
                    restoration.recovered[fact.lane.slot()] = true;
                    restoration.fetched += fact.fetched;
                    restoration.bodies_lost_count += fact.bodies_lost_count;
                }
            }
            NodeEntry::Restored(how) => {
                Arc::make_mut(&mut self.line).restored(how);
                let taken_at = match how {
                    Restored::FromBackup(at) | Restored::Declared(at) => Some(*at),
                    Restored::Rebuilt => None,
                };
                self.restoration = Some(Restoration {
                    taken_at,
                    restored_at: at,
                    sequence,
                    received_through: self.mailboxes.each_ref().map(|mailbox| mailbox.received_through),
                    recovered: [false; Lane::ALL.len()],
                    fetched: 0,
                    bodies_lost_count: 0,
                });
                self.suspend_agencies(sequence);
            }
        }
        Ok(())
    }

    fn heard_of(&mut self, history: HistoryId, sequence: u64) {
        // What was recorded in an earlier one may come behind it.
        if self.hub_histories.iter().any(|(heard, _)| *heard == history) {
            return;
        }
        let histories = Arc::make_mut(&mut self.hub_histories);
        histories.push_back((history, sequence));
        if histories.len() > HISTORIES_KEPT_MAX {
            histories.pop_front();
        }
    }

    /// The hub's history that this node had heard of last when it wrote an entry; none where it had heard of none, or that is long ago.
    pub fn hub_history_at(&self, sequence: u64) -> Option<HistoryId> {
        let heard = self.hub_histories.iter().rev().find(|(_, since)| *since < sequence);
        heard.map(|(history, _)| *history)
    }

    fn aside_ended(&mut self, fact: &AsideEnded, sequence: u64, at: Timestamp) {
        let mailbox = self.mailbox_mut(fact.lane);
        mailbox.set_aside_ended_count += 1;
        mailbox.taken_count += u64::from(fact.told_as.is_some());
        if let AsideOutcome::Accepted(item) = &fact.outcome
            && let Verdict::Accepted(delivery) = &item.verdict
        {
            self.late_accepted(fact.lane, delivery, sequence, at);
        }
    }

    /// Whose node, and its name.
    pub fn identity(&self) -> Option<(&ParticipantCode, &Name)> {
        self.founded.as_ref().map(|(participant, node)| (participant, node))
    }

    /// The key of the hub's with this fingerprint, if it is one that the hub has or had.
    pub fn key_of_hub(&self, fingerprint: &Fingerprint) -> Option<&PublicKey> {
        let told = self.directory().registry.hub_keys().and_then(|keys| keys.known_key(fingerprint));
        let pinned = self.hub().map(|hub| &hub.signing_key).filter(|key| key.fingerprint == *fingerprint);
        told.or(pinned)
    }

    /// The anchors under which the hub is known now, DER: those of its bundle, until the feed has told of all of them, then those that the
    /// feed told. So whoever joins late, or anew, never goes by an anchor of before, which may have been ended since.
    pub fn anchors_of_hub(&self) -> Vec<&[u8]> {
        let Some(hub) = self.hub() else { return Vec::new() };
        let bundle: Vec<&[u8]> = match hub.present_anchors.as_slice() {
            [] => vec![hub.anchor.as_slice()],
            present => present.iter().map(Vec::as_slice).collect(),
        };
        match self.directory().registry.hub_keys() {
            Some(told) if bundle.iter().all(|anchor| told.anchors().any(|known| known == *anchor)) => {
                told.present_anchors().collect()
            }
            _ => bundle,
        }
    }

    /// The hub that was joined.
    pub fn hub(&self) -> Option<&Arc<HubKeys>> {
        self.hub.as_ref()
    }

    /// Registry, agreements and pins, as the feed told them.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The officers that made statements.
    pub fn officers(&self) -> &BTreeMap<Name, Officer> {
        &self.officers
    }

    /// Where the chain of a lane ends that takes what is queued.
    pub fn chain(&self, lane: Lane) -> &ChainEnd {
        self.chains[lane.slot()].present()
    }

    /// Where the chain of a lane ends in the newest epoch that is known of it here.
    pub fn newest_chain(&self, lane: Lane) -> &ChainEnd {
        self.chains[lane.slot()].newest()
    }

    /// The chain of a lane in an epoch that is not left behind; one that was opened and has nothing yet, too.
    pub fn chain_in(&self, lane: Lane, epoch: u32) -> Option<ChainEnd> {
        let known = self.chains[lane.slot()].of(epoch).copied();
        known.or_else(|| self.begun_up_to(lane, epoch).pop().filter(|begun| begun.epoch == epoch))
    }

    /// How far the hub recorded the chain of a lane in an epoch that is left behind.
    pub fn past_chain(&self, lane: Lane, epoch: u32) -> Option<u64> {
        self.chains[lane.slot()].past(epoch)
    }

    /// Where the hub closed the chain of a lane in this epoch, if it did.
    pub fn closed(&self, lane: Lane, epoch: u32) -> Option<ChainTip> {
        let (own, _) = self.identity()?;
        self.directory.epochs.closed(own, epoch).map(|closed| closed.tip(lane))
    }

    /// Exchanges of a lane that are queued and not yet receipted.
    pub fn unrecorded_exchanges(&self, lane: Lane) -> u64 {
        self.chains[lane.slot()].unrecorded_exchanges()
    }

    /// The chain that an opened epoch begins with.
    fn begun(&self, lane: Lane, epoch: u32) -> Option<ChainEnd> {
        let before = epoch.checked_sub(1)?;
        self.closed(lane, before).map(|tip| ChainEnd::after(before, &tip))
    }

    /// The chains of the epochs after the newest that is known of a lane here, up to this one. More than one where a lane was quiet
    /// in an epoch of which a restored node fetches nothing back: it has its chain all the same, since epochs are left one by one.
    fn begun_up_to(&self, lane: Lane, epoch: u32) -> Vec<ChainEnd> {
        let next = self.newest_chain(lane).epoch.saturating_add(1);
        (next..=epoch).map_while(|epoch| self.begun(lane, epoch)).collect()
    }

    /// Where the mailbox of a lane stands.
    pub fn mailbox(&self, lane: Lane) -> &Mailbox {
        &self.mailboxes[lane.slot()]
    }

    /// Whether what the hub knows of this node is not here yet: its journal was put back or made anew.
    pub fn is_recovering(&self) -> bool {
        self.restoration.is_some_and(|restoration| restoration.recovered.contains(&false))
    }

    /// How the journal was last put back or made anew.
    pub fn restoration(&self) -> Option<Restoration> {
        self.restoration
    }

    /// What tells this journal from its copies.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Why the hub does not serve this copy of the node, as it was heard first, if that is how it was last heard.
    pub fn fence(&self) -> Option<&Refusal> {
        self.fence.as_deref()
    }

    /// How far the feed is applied.
    pub fn feed(&self) -> FeedCursor {
        self.feed
    }

    fn mailbox_mut(&mut self, lane: Lane) -> &mut Mailbox {
        &mut self.mailboxes[lane.slot()]
    }
}
