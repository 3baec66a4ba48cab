//! What every service of the hub holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use concord_identity::{Anchor, Anchors, Caller, SigningKey, SigningKeys, verify};
use concord_journal::{Entry, HistoryId, Journal};
use concord_ledger::hold::held;
use concord_ledger::{ConsignmentRecorded, Ledger, Quorum};
use concord_model::{Fingerprint, Name, ParticipantCode, Reason, Refusal};
use concord_server::audit::Audit;
use concord_server::{DiskRoom, Readiness, Shares, Shutdown};
use concord_views::Views;
use concord_wire::stored::Kept;
use concord_wire::stored::hub::HubEntry;

use crate::damaged::Damaged;
use crate::feeds::FeedsShown;
use crate::fencing::{NodeRun, RunsSeen};
use crate::fleet::Fleet;
use crate::losses::Losses;
use crate::node_clocks::NodeClocks;
use crate::probes::Probes;
use crate::sequencer::{Published, Sequencer};
use crate::streams::{Purpose, StreamGuard, StreamKey, Streams};
use concord_server::Clock;

/// What every service of the hub holds; clones share it.
pub struct Shared {
    /// The hub's name.
    pub hub: Name,
    /// Decides and publishes.
    pub sequencer: Sequencer,
    /// What is durable.
    pub journal: Arc<dyn Journal>,
    /// Which numbers stand for what.
    pub views: Views,
    /// Sign receipts: the one that the registry names.
    pub signing_keys: Arc<SigningKeys>,
    /// Whom the listener believes.
    pub anchors: Anchors,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The nodes' streams that are open.
    pub streams: Streams,
    /// Whose feed stands: nobody else is served.
    pub feeds: FeedsShown,
    /// What is wrong.
    pub readiness: Readiness,
    /// Whether the disk takes more than what is under way.
    pub room: DiskRoom,
    /// What each participant may bring.
    pub shares: Shares<ParticipantCode>,
    /// How many runs of each participant's node came to be served.
    pub runs: RunsSeen,
    /// What was last heard of each node.
    pub fleet: Fleet,
    /// Probes on their way back.
    pub probes: Probes,
    /// What is known of lost data.
    pub losses: Losses,
    /// How far the nodes' clocks are from this one.
    pub node_clocks: NodeClocks,
    /// What is damaged here and wanted again.
    pub damaged: Damaged,
    /// Who did what, and what was refused.
    pub audit: Audit,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// `host:port`, the best first, for bundles.
    pub announce: Vec<String>,
    /// How many officers of the secretariat must sign what needs more than one.
    pub quorum: Quorum,
    /// Held while the anchors are brought up to the ledger, so that an older ledger's never come last.
    pub refreshing: Mutex<()>,
}

impl Shared {
    /// What is durable now.
    pub fn published(&self) -> Arc<Published> {
        self.sequencer.published()
    }

    /// The history that is being written.
    pub fn history(&self) -> HistoryId {
        self.published().tail.history
    }

    /// Waits until the feed of this run of a node stands under the present history: no stream of another copy is served, nor takes
    /// the place of one that is.
    ///
    /// Refuses with `HEALING`.
    pub async fn feed_first(&self, of: &NodeRun) -> Result<(), Refusal> {
        self.feeds.await_shown(of, || self.history()).await
    }

    /// Whether a run of a node is the one that is served.
    ///
    /// Refuses with `NODE_SUPERSEDED`.
    pub fn check_run(&self, of: &NodeRun) -> Result<(), Refusal> {
        self.published().ledger.nodes().check_run(&of.participant, &of.run)
    }

    /// Registers a stream of a run that is served.
    ///
    /// Refuses with `NODE_SUPERSEDED` or, where a hold keeps it from this purpose, `PARTICIPANT_HELD`.
    pub fn open_stream(&self, of: &NodeRun, node: Name, purpose: Purpose) -> Result<StreamGuard, Refusal> {
        let waits = purpose.waits_while_held() && !concord_faults::planted("serve-the-held");
        let key = StreamKey { participant: of.participant.clone(), node, purpose };
        self.streams.open(key, of.run, || {
            self.check_run(of)?;
            let is_held = waits && self.published().ledger.registry().holds().is_held(&of.participant);
            if is_held { Err(held(&of.participant)) } else { Ok(()) }
        })
    }

    /// Runs a reading of journal or views where it may block.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let shared = Arc::clone(self);
        concord_server::blocking(move || work(&shared)).await.unwrap_or_else(|error| Err(internal(error)))
    }

    /// One entry of the journal, without its bodies, that a row of the views names. Blocks.
    pub fn entry(&self, sequence: u64) -> Result<Entry, Refusal> {
        self.journal.head(sequence).map_err(internal)
    }

    /// The consignment that an entry holds, without bodies. Blocks.
    pub fn consignment(&self, sequence: u64) -> Result<(ConsignmentRecorded, Box<Kept>), Refusal> {
        match concord_wire::stored::hub::read(&self.entry(sequence)?).map_err(internal)? {
            HubEntry::Consignment(fact, kept) => Ok((fact, kept)),
            _ => Err(internal(format!("entry {sequence} is named as a consignment and is none"))),
        }
    }

    /// Lets the listener believe whom the published ledger has enrolled.
    pub fn refresh_anchors(&self) {
        let _one_at_a_time = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        self.anchors.replace(anchors_of(&self.published().ledger));
    }

    /// The key that signs receipts now.
    pub fn signing_key(&self) -> Arc<SigningKey> {
        let published = self.published();
        self.signing_keys
            .named_or_first(published.ledger.registry().hub_keys().map(|keys| &keys.signing_key.fingerprint))
    }

    /// The caller's own node, as it is enrolled. Another certificate of the same anchor is not it.
    pub fn enrolled_node(&self, caller: &Caller) -> Result<(ParticipantCode, Name), Refusal> {
        let participant = &caller.identity.participant;
        let published = self.published();
        let enrolment = published.ledger.registry().enrolment(participant);
        if enrolment.is_none_or(|enrolment| enrolment.node != caller.identity.name) {
            let node = format!("{} is not the enrolled node of {participant}", caller.identity.name);
            return Err(Refusal::new(Reason::CallerNotAllowed, node));
        }
        Ok((participant.clone(), caller.identity.name.clone()))
    }

    /// Checks a signature of something that a participant's node says now: only the present key counts, and one before that vouches for it.
    pub fn verify_present(
        &self,
        participant: &ParticipantCode,
        key: &Fingerprint,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let published = self.published();
        let present = published.ledger.registry().enrolment(participant);
        if !present.is_some_and(|enrolment| enrolment.speaks_with(key)) {
            let other = format!("{} is not the key of {participant} now", key.grouped());
            return Err(Refusal::new(Reason::SigningKeyUnknown, other));
        }
        self.verify_enrolled(participant, key, message, signature)
    }

    /// Checks a signature under a key that is, or was, enrolled for this participant.
    pub fn verify_enrolled(
        &self,
        participant: &ParticipantCode,
        key: &Fingerprint,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let published = self.published();
        let Some(key) = published.ledger.registry().signing_key(participant, key) else {
            let unknown = format!("{participant} has no enrolled key {}", key.grouped());
            return Err(Refusal::new(Reason::SigningKeyUnknown, unknown));
        };
        verify(&key.bytes, message, signature).map_err(|_| {
            Refusal::new(
                Reason::SignatureInvalid,
                format!("the signature does not hold under the key of {participant}"),
            )
        })
    }
}

/// The anchors of all who are enrolled, for the listener.
pub fn anchors_of(ledger: &Ledger) -> BTreeMap<ParticipantCode, Vec<Anchor>> {
    let mut all: BTreeMap<ParticipantCode, Vec<Anchor>> = BTreeMap::new();
    for (code, der) in ledger.anchors() {
        all.entry(code.clone()).or_default().extend(Anchor::from_der(der).ok());
    }
    all
}

/// The anchors that each participant has or had, also those that were ended or replaced.
pub fn all_anchors_of(ledger: &Ledger) -> BTreeMap<ParticipantCode, Vec<Anchor>> {
    let registry = ledger.registry();
    let of = |code: &ParticipantCode| registry.anchors_of(code).filter_map(|der| Anchor::from_der(der).ok()).collect();
    registry.participants().map(|one| (one.code.clone(), of(&one.code))).collect()
}

/// Something failed inside: the log has it, the caller hears no more than that.
pub fn internal(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a request failed inside");
    Refusal::new(Reason::Internal, "the hub could not do this; its log says why")
}
