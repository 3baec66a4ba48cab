//! Which copy of a participant's node is served: judged at its first word, before anything else of it is.
//!
//! Invariant: nothing of a node is served before its journal was shown to be the one that goes on, and no stream of another copy is
//! touched before. Every hello names the run of its process, which counts only once the feed of that run was welcomed (`feeds.rs`).

use std::sync::Arc;

use concord_ledger::NodeLine;
use concord_model::{ChainKey, Name, ParticipantCode, Reason, Refusal};
use concord_wire::convert::parse_lane;
use concord_wire::proto::feed::v1 as pb;

use crate::feeds::Run;
use crate::sequencer::Proposal;
use crate::shared::Shared;

/// Histories or runs that a journal may show.
const LINE_LENGTH_MAX: usize = 1024;
const ROLLED_BACK_NOTE: &str = "node-rolled-back";
const SUPERSEDED_NOTE: &str = "node-superseded";

/// Decides whether the copy that shows this journal is served, and records which one is. A node of the version before shows none,
/// and is not told from its copies.
///
/// Refuses with `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
pub async fn fence(
    shared: &Arc<Shared>,
    participant: &ParticipantCode,
    node: &Name,
    journal: Option<&pb::NodeJournal>,
) -> Result<Run, Refusal> {
    let Some(journal) = journal else { return Ok(Run::default()) };
    let line = read(journal)?;
    let run = line.runs.last().copied().unwrap_or_default();
    let judged = judge(shared, participant, node, journal, line).await;
    if let Err(refusal) = &judged {
        tell(shared, participant, refusal);
    }
    judged.map(|()| Run(run.to_vec()))
}

async fn judge(
    shared: &Arc<Shared>,
    participant: &ParticipantCode,
    node: &Name,
    journal: &pb::NodeJournal,
    line: NodeLine,
) -> Result<(), Refusal> {
    let published = shared.published();
    // A run that was served before may have gone on since it composed its hello.
    let is_new = published.ledger.nodes().check(participant, &line)?;
    if is_new && !journal.recovering {
        check_positions(shared, participant, node, &journal.lanes)?;
    }
    if is_new {
        let before = published.ledger.nodes().history(participant);
        concord_faults::point("hub.fence.judged");
        let history = line.history;
        shared.sequencer.decide(Proposal::SeeNode { participant: participant.clone(), line }).await?;
        if before.is_some_and(|before| before != history) {
            tracing::warn!(%participant, "a node goes on in a new history of its journal");
        }
    }
    Ok(())
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
            epoch: concord_ledger::chain::CHAIN_EPOCH,
            lane,
        };
        let last = ledger.chain_last(&chain);
        if last > position.chain_last {
            return rolled_back(format!(
                "the hub recorded consignment {last} of lane {lane}, and this journal has them up to {}",
                position.chain_last
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
    shared.readiness.note(name, format!("a copy of {participant}'s node was refused: {}", refusal.message));
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
        rebuilt: journal.rebuilt,
    })
}
