//! Which copy of a participant's node is served: judged at its first word, before anything else of it is.
//!
//! Invariant: once a run of a node is welcomed, nothing that an older run or another copy handed in is recorded any more, and nothing
//! is delivered to it. So which run is served is a fact of the ledger, and the sequencer decides nothing of another behind it; and the
//! streams of the others have ended before the feed of the new one is shown (`streams.rs`, `feeds.rs`), as at a leave. Before that no
//! stream of another copy is touched.

use std::sync::Arc;

use concord_ledger::NodeLine;
use concord_ledger::epoch::FIRST_EPOCH;
use concord_model::{ChainKey, Name, ParticipantCode, Reason, Refusal};
use concord_server::detach;
use concord_wire::convert::parse_lane;
use concord_wire::proto::feed::v1 as pb;
use tokio::sync::oneshot;

use crate::sequencer::Proposal;
use crate::shared::{Shared, internal};

/// Histories or runs that a journal may show.
const LINE_LENGTH_MAX: usize = 1024;
const ROLLED_BACK_NOTE: &str = "node-rolled-back";
const SUPERSEDED_NOTE: &str = "node-superseded";

/// One run of a participant's node. What it hands in counts, and what is for its participant goes to it, while it is the one that is
/// served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRun {
    /// Whose node.
    pub participant: ParticipantCode,
    /// The word of chance that its process journaled when it started.
    pub run: [u8; 16],
}

impl NodeRun {
    /// As a hello names it. Refuses with `ARGUMENT_INVALID`.
    pub fn named(participant: &ParticipantCode, run: &[u8]) -> Result<Self, Refusal> {
        let wrong = |_| Refusal::new(Reason::ArgumentInvalid, "a node names its run, which is of 16 bytes");
        Ok(Self { participant: participant.clone(), run: run.try_into().map_err(wrong)? })
    }
}

/// Decides whether the copy that shows this journal is served, records which one is, and ends what there is of others.
///
/// Refuses with `NODE_ROLLED_BACK`, `NODE_SUPERSEDED`, or with `ARGUMENT_INVALID` where no journal is shown.
pub async fn fence(
    shared: &Arc<Shared>,
    participant: &ParticipantCode,
    node: &Name,
    journal: Option<&pb::NodeJournal>,
) -> Result<NodeRun, Refusal> {
    let unshown = || Refusal::new(Reason::ArgumentInvalid, "a node shows its journal, with the run of its process");
    let journal = journal.ok_or_else(unshown)?;
    let line = read(journal)?;
    let run = NodeRun { participant: participant.clone(), run: *line.runs.last().ok_or_else(unshown)? };
    let judged = judge(shared, &run, node, journal, line).await;
    if let Err(refusal) = &judged {
        tell(shared, participant, refusal);
    }
    judged.map(|()| run)
}

async fn judge(
    shared: &Arc<Shared>,
    of: &NodeRun,
    node: &Name,
    journal: &pb::NodeJournal,
    line: NodeLine,
) -> Result<(), Refusal> {
    let (published, participant) = (shared.published(), &of.participant);
    // A run that was served before may have gone on since it composed its hello.
    let is_new = published.ledger.nodes().check(participant, &line)?;
    if is_new && !journal.recovering {
        check_positions(shared, participant, node, &journal.lanes)?;
    }
    if is_new {
        let before = published.ledger.nodes().history(participant);
        concord_faults::point("hub.fence.judged");
        if before.is_some_and(|before| before != line.history) {
            tracing::warn!(%participant, "a node goes on in a new history of its journal");
        }
    }
    serve_only(shared, of.clone(), is_new.then_some(line)).await
}

/// Records which run is served, where that is news, and waits until all streams of others have ended; in a task of its own, since it
/// has to happen also where the one who asked is gone by then.
async fn serve_only(shared: &Arc<Shared>, of: NodeRun, news: Option<NodeLine>) -> Result<(), Refusal> {
    let shared = Arc::clone(shared);
    let (done, settled) = oneshot::channel();
    detach(async move {
        let mut seen = Ok(());
        if let Some(line) = news {
            let proposal = Proposal::SeeNode { participant: of.participant.clone(), line };
            seen = shared.sequencer.decide(proposal).await.map(drop);
        }
        if seen.is_ok() && !concord_faults::planted("let-the-other-copy-go-on") {
            shared.streams.end_others(&of).await;
        }
        // Whoever is gone needs no answer.
        let _gone = done.send(seen);
    });
    settled.await.unwrap_or_else(|_| Err(internal("the task that ends the other copies' streams died")))
}

/// What this hub knows of a node and its journal does not: it lost that without noticing.
fn check_positions(
    shared: &Shared,
    participant: &ParticipantCode,
    node: &Name,
    lanes: &[pb::LanePosition],
) -> Result<(), Refusal> {
    let published = shared.published();
    let ledger = &published.ledger;
    for position in lanes {
        let lane =
            parse_lane(position.lane).map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        let rolled_back = |what: String| Err(Refusal::new(Reason::NodeRolledBack, what));
        let chain = ChainKey {
            origin: participant.clone(),
            hub: shared.hub.clone(),
            node: node.clone(),
            epoch: position.epoch.max(FIRST_EPOCH),
            lane,
        };
        let last = ledger.chain_last(&chain);
        if last > position.chain_last {
            return rolled_back(format!(
                "the hub recorded consignment {last} of lane {lane}, and this journal has them up to {}",
                position.chain_last
            ));
        }
        let later = chain.epoch.saturating_add(1)..=ledger.epochs().current(participant);
        let has_later = |epoch: &u32| ledger.chain_last(&ChainKey { epoch: *epoch, ..chain.clone() }) > 0;
        if let Some(epoch) = later.clone().find(has_later) {
            return rolled_back(format!(
                "the hub recorded consignments of lane {lane} in epoch {epoch}, and this journal is in epoch {}",
                chain.epoch
            ));
        }
        let mailbox = ledger.mailbox(participant, lane);
        // Where the mailbox was resumed for the node, it may not have kept that yet.
        let resumes = ledger.mailboxes().resumes(participant, lane);
        let is_resumed = resumes.is_some_and(|resumes| resumes.hole_after(position.received_through));
        let is_behind =
            mailbox.delivered_through > position.received_through || mailbox.taken_count > position.taken_count;
        if is_behind && !is_resumed {
            return rolled_back(format!(
                "this node acknowledged mailbox {lane} up to {}, and this journal has it up to {}",
                mailbox.delivered_through, position.received_through
            ));
        }
    }
    Ok(())
}

/// For people: somebody has to stop one of two copies, or to heal the one that there is.
fn tell(shared: &Shared, participant: &ParticipantCode, refusal: &Refusal) {
    let name = match refusal.reason {
        Reason::NodeRolledBack => ROLLED_BACK_NOTE,
        Reason::NodeSuperseded => SUPERSEDED_NOTE,
        _ => return,
    };
    tracing::error!(%participant, reason = %refusal.reason, why = refusal.message, "a copy of a node is not served");
    metrics::counter!("concord_node_copies_refused_total", "reason" => refusal.reason.code()).increment(1);
    shared.readiness.note_also(name, &format!("a copy of {participant}'s node was refused: {}", refusal.message));
}

fn read(journal: &pb::NodeJournal) -> Result<NodeLine, Refusal> {
    let wrong =
        |what: &str| Refusal::new(Reason::ArgumentInvalid, format!("the journal that the node shows has {what}"));
    if journal.ancestors.len().max(journal.runs.len()) > LINE_LENGTH_MAX {
        return Err(wrong("more histories or runs than a hub takes"));
    }
    let word =
        |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_err(|_| wrong("a history or run that is not of 16 bytes"));
    Ok(NodeLine {
        history: word(&journal.history)?,
        ancestors: journal.ancestors.iter().map(|past| word(&past.history)).collect::<Result<_, _>>()?,
        runs: journal.runs.iter().map(|run| word(run)).collect::<Result<_, _>>()?,
        restored_in: if journal.restored_in.is_empty() { None } else { Some(word(&journal.restored_in)?) },
        rebuilt_in: if journal.rebuilt_in.is_empty() { None } else { Some(word(&journal.rebuilt_in)?) },
    })
}
