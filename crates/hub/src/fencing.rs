//! Which copy of a participant's node is served: judged at its first word, before anything else of it is.
//!
//! Invariant: once a run of a node is welcomed, nothing that an older run or another copy handed in is recorded any more, and nothing
//! is delivered to it. So which run is served is a fact of the ledger, and the sequencer decides nothing of another behind it; and the
//! streams of the others have ended before the feed of the new one is shown (`streams.rs`, `feeds.rs`), as at a leave. Before that no
//! stream of another copy is touched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_ledger::epoch::FIRST_EPOCH;
use concord_ledger::{Ledger, NodeLine};
use concord_model::{ChainKey, Lane, Name, ParticipantCode, Reason, Refusal};
use concord_server::{Readiness, Throttle, detach};
use concord_wire::convert::parse_lane;
use concord_wire::proto::feed::v1 as pb;
use tokio::sync::oneshot;

use crate::allowance::{Allowance, Used};
use crate::sequencer::Proposal;
use crate::shared::{Shared, internal};

/// Histories or runs that a journal may show.
const LINE_LENGTH_MAX: usize = 1024;
const ROLLED_BACK_NOTE: &str = "node-rolled-back";
const SUPERSEDED_NOTE: &str = "node-superseded";

/// A copy that is refused comes again and again. Beyond it refusals are only counted.
const REFUSALS_LOGGED_PER_SECOND_MAX: u32 = 2;
static REFUSALS: Throttle = Throttle::new(REFUSALS_LOGGED_PER_SECOND_MAX);

/// Runs of one participant's node that come to be served, each of which is an entry: more than a node that dies and is started again
/// all the time makes.
const RUNS: Allowance = Allowance { at_once: 1024, one_more_after: Duration::from_secs(5) };

/// How many runs of each participant's node came to be served while this process runs.
#[derive(Default)]
pub struct RunsSeen(Mutex<Used>);

impl RunsSeen {
    /// Whether one more may come to be served now. It takes no account of the room on the disk: the entry is small, and only a node
    /// that is served acknowledges what then makes room.
    ///
    /// Refuses with `QUEUE_FULL`.
    fn check(&self, participant: &ParticipantCode) -> Result<(), Refusal> {
        if self.used().leaves_one(RUNS, participant) {
            return Ok(());
        }
        let (at_once, after) = (RUNS.at_once, RUNS.one_more_after.as_secs());
        let often = format!("the node of {participant} was started {at_once} times; once more may be in {after} s");
        Err(Refusal::new(Reason::QueueFull, often))
    }

    fn count(&self, participant: &ParticipantCode) {
        self.used().count(participant);
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

/// What a node shows of its journal.
#[derive(Debug, Clone)]
pub struct ShownJournal {
    /// Its histories, and the runs of its process.
    pub line: NodeLine,
    /// Where its lanes stand; none of a node that says that it lost data, and fetches back what there is.
    pub lanes: Vec<ShownLane>,
}

/// Where a node stands in one lane.
#[derive(Debug, Clone)]
pub struct ShownLane {
    /// The chain that it goes on with.
    pub chain: ChainKey,
    /// Its last consignment.
    pub chain_last: u64,
    /// How far it has its mailbox.
    pub received_through: u64,
    /// First acknowledgements by its agencies.
    pub taken_count: u64,
}

impl ShownJournal {
    /// Whether the copy that shows it is to be served, after all that this ledger knows: `true` where that is news.
    ///
    /// Refuses with `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
    pub fn check(&self, ledger: &Ledger, participant: &ParticipantCode) -> Result<bool, Refusal> {
        // A run that was served before may have gone on since it composed its hello.
        let is_new = ledger.nodes().check(participant, &self.line)?;
        if is_new {
            self.lanes.iter().try_for_each(|lane| lane.check(ledger))?;
        }
        Ok(is_new)
    }
}

impl ShownLane {
    /// What the hub knows of a node and its journal does not: it lost that without noticing.
    fn check(&self, ledger: &Ledger) -> Result<(), Refusal> {
        let ChainKey { origin, lane, epoch, .. } = &self.chain;
        let rolled_back = |what: String| Err(Refusal::new(Reason::NodeRolledBack, what));
        let last = ledger.chain_last(&self.chain);
        if last > self.chain_last {
            return rolled_back(format!(
                "the hub recorded consignment {last} of lane {lane}, and this journal has them up to {}",
                self.chain_last
            ));
        }
        let mut later = epoch.saturating_add(1)..=ledger.epochs().current(origin);
        let has_later = |later: &u32| ledger.chain_last(&ChainKey { epoch: *later, ..self.chain.clone() }) > 0;
        if let Some(later) = later.find(has_later) {
            return rolled_back(format!(
                "the hub recorded consignments of lane {lane} in epoch {later}, and this journal is in epoch {epoch}"
            ));
        }
        let mailbox = ledger.mailbox(origin, *lane);
        // Where the mailbox was resumed for the node, it may not have kept that yet.
        let resumes = ledger.mailboxes().resumes(origin, *lane);
        let is_resumed = resumes.is_some_and(|resumes| resumes.hole_after(self.received_through));
        let is_behind = mailbox.delivered_through > self.received_through || mailbox.taken_count > self.taken_count;
        if is_behind && !is_resumed {
            return rolled_back(format!(
                "this node acknowledged mailbox {lane} up to {}, and this journal has it up to {}",
                mailbox.delivered_through, self.received_through
            ));
        }
        Ok(())
    }
}

/// Decides whether the copy that shows this journal is served, records which one is, and ends what there is of others.
///
/// Refuses with `NODE_ROLLED_BACK`, `NODE_SUPERSEDED`, with `QUEUE_FULL` where the node was started too often, or with
/// `ARGUMENT_INVALID` where no journal is shown.
pub async fn fence(
    shared: &Arc<Shared>,
    participant: &ParticipantCode,
    node: &Name,
    journal: Option<&pb::NodeJournal>,
) -> Result<NodeRun, Refusal> {
    let unshown = || Refusal::new(Reason::ArgumentInvalid, "a node shows its journal, with the run of its process");
    let journal = journal.ok_or_else(unshown)?;
    let shown = read(shared, participant, node, journal)?;
    let run = NodeRun { participant: participant.clone(), run: *shown.line.runs.last().ok_or_else(unshown)? };
    let judged = judge(shared, &run, shown).await;
    if let Err(refusal) = &judged {
        tell(&shared.readiness, participant, refusal);
    }
    judged.map(|()| run)
}

async fn judge(shared: &Arc<Shared>, of: &NodeRun, shown: ShownJournal) -> Result<(), Refusal> {
    let (published, participant) = (shared.published(), &of.participant);
    // Whoever is refused by what is durable does not take the sequencer's time. It asks again, behind what is not durable yet.
    let is_new = shown.check(&published.ledger, participant)?;
    if is_new {
        shared.runs.check(participant)?;
        let before = published.ledger.nodes().history(participant);
        concord_faults::point("hub.fence.judged");
        if before.is_some_and(|before| before != shown.line.history) {
            tracing::warn!(%participant, "a node goes on in a new history of its journal");
        }
    }
    serve_only(shared, of.clone(), is_new.then_some(shown)).await
}

/// Records which run is served, where that is news, and waits until all streams of others have ended; in a task of its own, since it
/// has to happen also where the one who asked is gone by then.
async fn serve_only(shared: &Arc<Shared>, of: NodeRun, news: Option<ShownJournal>) -> Result<(), Refusal> {
    let shared = Arc::clone(shared);
    let (done, settled) = oneshot::channel();
    detach(async move {
        let mut seen = Ok(());
        if let Some(journal) = news {
            let proposal = Proposal::SeeNode { participant: of.participant.clone(), journal: Box::new(journal) };
            seen = shared.sequencer.decide(proposal).await.map(|_| shared.runs.count(&of.participant));
        }
        if seen.is_ok() && !concord_faults::planted("keep-streams-of-the-other-copy") {
            seen = shared.streams.end_others(&of, || shared.check_run(&of)).await;
        }
        // Whoever is gone needs no answer.
        let _gone = done.send(seen);
    });
    settled.await.unwrap_or_else(|_| Err(internal("the task that ends the other copies' streams died")))
}

/// For people: somebody has to stop one of two copies, or to heal the one that there is.
fn tell(readiness: &Readiness, participant: &ParticipantCode, refusal: &Refusal) {
    let name = match refusal.reason {
        Reason::NodeRolledBack => ROLLED_BACK_NOTE,
        Reason::NodeSuperseded => SUPERSEDED_NOTE,
        _ => return,
    };
    if let Some(left_out) = REFUSALS.admit(Instant::now()) {
        tracing::error!(%participant, reason = %refusal.reason, why = refusal.message, left_out, "a copy of a node is not served");
    }
    metrics::counter!("concord_node_copies_refused_total", "reason" => refusal.reason.code()).increment(1);
    // The same words however often it comes and whatever it shows, so that one copy does not fill the note of all. It stays until
    // the hub ends: that there were two copies is to be known also when one of them is gone again.
    let what = format!("a copy of {participant}'s node was refused with {}; why, the log says", refusal.reason);
    readiness.note_also(name, &what);
}

fn read(
    shared: &Shared,
    participant: &ParticipantCode,
    node: &Name,
    journal: &pb::NodeJournal,
) -> Result<ShownJournal, Refusal> {
    if journal.lanes.len() > Lane::ALL.len() {
        return Err(Refusal::new(
            Reason::ArgumentInvalid,
            "the journal that the node shows has more lanes than there are",
        ));
    }
    let lane = |position: &pb::LanePosition| {
        let lane = parse_lane(position.lane);
        let lane = lane.map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        let chain = ChainKey {
            origin: participant.clone(),
            hub: shared.hub.clone(),
            node: node.clone(),
            epoch: position.epoch.max(FIRST_EPOCH),
            lane,
        };
        let &pb::LanePosition { chain_last, received_through, taken_count, .. } = position;
        Ok(ShownLane { chain, chain_last, received_through, taken_count })
    };
    let lanes = if journal.recovering { &[] } else { journal.lanes.as_slice() };
    Ok(ShownJournal { line: read_line(journal)?, lanes: lanes.iter().map(lane).collect::<Result<_, _>>()? })
}

fn read_line(journal: &pb::NodeJournal) -> Result<NodeLine, Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_started_all_the_time_is_served_so_often_and_after_a_while_once_more() {
        let (runs, code) = (RunsSeen::default(), |code| ParticipantCode::parse(code).unwrap());
        for _ in 0..RUNS.at_once {
            runs.check(&code("KAZ")).unwrap();
            runs.count(&code("KAZ"));
        }
        assert_eq!(runs.check(&code("KAZ")).unwrap_err().reason, Reason::QueueFull);
        runs.check(&code("IRN")).unwrap();
        tokio::time::advance(RUNS.one_more_after).await;
        runs.check(&code("KAZ")).unwrap();
        runs.count(&code("KAZ"));
        assert!(runs.check(&code("KAZ")).is_err());
    }

    #[test]
    fn a_copy_that_is_refused_again_and_again_leaves_room_for_the_note_of_another() {
        let (readiness, code) = (Readiness::new(), |code| ParticipantCode::parse(code).unwrap());
        for number in 0..1000 {
            let what = format!("the hub recorded consignment {number}, and this journal has them up to 0");
            tell(&readiness, &code("KAZ"), &Refusal::new(Reason::NodeRolledBack, what));
        }
        tell(&readiness, &code("IRN"), &Refusal::new(Reason::NodeRolledBack, "why"));
        let noted = readiness.list().remove(0);
        assert!(noted.message.contains("IRN") && noted.message.contains("NODE_ROLLED_BACK"), "{}", noted.message);
        assert_eq!(noted.message.matches("KAZ").count(), 1);
        assert!(readiness.is_ready(), "the others go on");
    }
}
