//! Which copy of a participant's node goes on.
//!
//! Invariant: of two copies of one node's journal exactly one is served, and the other is told. A copy shows the line of its journal:
//! the history that it writes, those before it, and a word of chance that every start of its process journals (a *run*). A copy that
//! does not have the run which was served last forked before it began; only a journal that says by a new history that it was restored
//! takes the place of another.

use std::collections::{BTreeMap, VecDeque};

use concord_model::{ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::fact::NodeSeen;

/// Histories of one node that are remembered as left behind. An older one counts as unknown.
pub const NODE_HISTORIES_KEPT_MAX: usize = 64;

/// The line of a node's journal, as its node shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLine {
    /// The history that is being written.
    pub history: [u8; 16],
    /// The histories before it, the oldest first.
    pub ancestors: Vec<[u8; 16]>,
    /// The runs of its process, the oldest first; the last is the present one.
    pub runs: Vec<[u8; 16]>,
    /// The history in which it was last restored, if ever.
    pub restored_in: Option<[u8; 16]>,
    /// The history in which it was last made anew without a backup, if ever: of what was before it cannot know.
    pub rebuilt_in: Option<[u8; 16]>,
}

/// The copies that are served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nodes {
    by_participant: BTreeMap<ParticipantCode, Served>,
    /// Histories of nodes whose keys were replaced: nothing that goes on from one of them is served again.
    left: BTreeMap<ParticipantCode, VecDeque<[u8; 16]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Served {
    history: [u8; 16],
    run: [u8; 16],
    /// Histories that were served before, the oldest first.
    before: VecDeque<[u8; 16]>,
}

impl Nodes {
    /// The run of a participant's node that is served.
    pub fn run(&self, participant: &ParticipantCode) -> Option<[u8; 16]> {
        self.by_participant.get(participant).map(|served| served.run)
    }

    /// The history of a participant's node that is served.
    pub fn history(&self, participant: &ParticipantCode) -> Option<[u8; 16]> {
        self.by_participant.get(participant).map(|served| served.history)
    }

    /// What a run hands in counts while it is the one that is served.
    ///
    /// Refuses with `NODE_SUPERSEDED`.
    pub fn check_run(&self, participant: &ParticipantCode, run: &[u8; 16]) -> Result<(), Refusal> {
        if self.run(participant).as_ref() == Some(run) {
            return Ok(());
        }
        let what = format!(
            "another run of {participant}'s node came to be served: this one was started before it, or is another copy"
        );
        Err(Refusal::new(Reason::NodeSuperseded, what))
    }

    /// Whether this copy is to be served: `true` where that is news.
    ///
    /// Refuses with `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
    pub fn check(&self, participant: &ParticipantCode, line: &NodeLine) -> Result<bool, Refusal> {
        let Some(run) = line.runs.last() else {
            return Err(Refusal::new(Reason::ArgumentInvalid, "the journal shows no run of its process"));
        };
        let left = |history: &[u8; 16]| self.left.get(participant).is_some_and(|left| left.contains(history));
        if left(&line.history) || line.ancestors.iter().any(left) {
            return Err(superseded(participant));
        }
        let Some(served) = self.by_participant.get(participant) else { return Ok(true) };
        if served.history == line.history {
            return match served.run == *run {
                true => Ok(false),
                false if line.runs.contains(&served.run) => Ok(true),
                false => Err(rolled_back(participant)),
            };
        }
        if served.before.contains(&line.history) {
            return Err(superseded(participant));
        }
        let place = |history: &[u8; 16]| line.ancestors.iter().position(|ancestor| ancestor == history);
        let Some(left_at) = place(&served.history) else {
            // Once a journal that was made anew was served, it is told from its own copies like any other.
            let is_news = line.rebuilt_in.is_some_and(|rebuilt| !served.before.contains(&rebuilt));
            return if is_news { Ok(true) } else { Err(superseded(participant)) };
        };
        // It was restored since, and says so; or it only cut its end, and then it must be the copy that was served.
        let is_declared = line.restored_in.is_some_and(|restored| place(&restored).is_none_or(|place| place > left_at));
        if is_declared || line.runs.contains(&served.run) { Ok(true) } else { Err(rolled_back(participant)) }
    }

    /// Takes in that a participant's node has new keys: what was served before is not any more.
    pub fn replaced(&mut self, participant: &ParticipantCode) {
        let Some(served) = self.by_participant.remove(participant) else { return };
        let left = self.left.entry(participant.clone()).or_default();
        left.extend(served.before);
        left.push_back(served.history);
        while left.len() > NODE_HISTORIES_KEPT_MAX {
            left.pop_front();
        }
    }

    /// Takes in which copy is served from now on.
    pub fn apply(&mut self, seen: &NodeSeen) {
        match self.by_participant.get_mut(&seen.participant) {
            Some(served) => {
                if served.history != seen.history {
                    served.before.push_back(served.history);
                    while served.before.len() > NODE_HISTORIES_KEPT_MAX {
                        served.before.pop_front();
                    }
                }
                (served.history, served.run) = (seen.history, seen.run);
            }
            None => {
                let served = Served { history: seen.history, run: seen.run, before: VecDeque::new() };
                self.by_participant.insert(seen.participant.clone(), served);
            }
        }
    }
}

fn rolled_back(participant: &ParticipantCode) -> Refusal {
    let what = format!(
        "this copy of {participant}'s node does not know how it was last in contact: it is an older or a second copy"
    );
    Refusal::new(Reason::NodeRolledBack, what)
}

fn superseded(participant: &ParticipantCode) -> Refusal {
    let what = format!(
        "another copy of {participant}'s node was restored since, or restored from the same backup, or a node with new keys was enrolled, \
         and took its place"
    );
    Refusal::new(Reason::NodeSuperseded, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(history: u8, ancestors: &[u8], runs: &[u8]) -> NodeLine {
        let all = |bytes: &[u8]| bytes.iter().map(|byte| [*byte; 16]).collect();
        NodeLine { history: [history; 16], ancestors: all(ancestors), runs: all(runs), ..Default::default() }
    }

    fn restored(history: u8, ancestors: &[u8], runs: &[u8]) -> NodeLine {
        NodeLine { restored_in: Some([history; 16]), ..line(history, ancestors, runs) }
    }

    /// Shows a line: whether it is served, and then it is the one that is.
    fn show(nodes: &mut Nodes, shown: &NodeLine) -> Result<(), Reason> {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        if nodes.check(&kaz, shown).map_err(|refusal| refusal.reason)? {
            nodes.apply(&NodeSeen { participant: kaz, history: shown.history, run: *shown.runs.last().unwrap() });
        }
        Ok(())
    }

    #[test]
    fn of_two_copies_the_one_that_was_served_goes_on() {
        let mut nodes = Nodes::default();
        show(&mut nodes, &line(1, &[], &[10])).unwrap();
        show(&mut nodes, &line(1, &[], &[10, 11])).unwrap();
        // Copied before run 12 began, and started beside it.
        show(&mut nodes, &line(1, &[], &[10, 11, 12])).unwrap();
        assert_eq!(show(&mut nodes, &line(1, &[], &[10, 11, 13])), Err(Reason::NodeRolledBack));
        // Its disk tore, which is no restore.
        assert_eq!(show(&mut nodes, &line(2, &[1], &[10, 11, 13])), Err(Reason::NodeRolledBack));
        // Starts without the hub are no harm, nor is an own cut.
        show(&mut nodes, &line(1, &[], &[10, 11, 12, 14, 15])).unwrap();
        show(&mut nodes, &line(3, &[1], &[10, 11, 12, 14, 15, 16])).unwrap();
        assert_eq!(show(&mut nodes, &line(1, &[], &[10, 11, 12, 14, 15])), Err(Reason::NodeSuperseded));
    }

    #[test]
    fn nothing_that_goes_on_from_a_node_whose_keys_were_replaced_is_served_again() {
        let (mut nodes, kaz) = (Nodes::default(), ParticipantCode::parse("KAZ").unwrap());
        show(&mut nodes, &line(1, &[], &[10])).unwrap();
        show(&mut nodes, &line(2, &[1], &[10, 11])).unwrap();
        nodes.replaced(&kaz);
        let old = [line(2, &[1], &[10, 11]), line(1, &[], &[10]), restored(3, &[1, 2], &[12])];
        let rebuilt_from_it = NodeLine { rebuilt_in: Some([4; 16]), ..restored(4, &[2], &[13]) };
        for old in old.iter().chain([&rebuilt_from_it]) {
            assert_eq!(show(&mut nodes, old), Err(Reason::NodeSuperseded), "{old:?}");
        }
        show(&mut nodes, &NodeLine { rebuilt_in: Some([9; 16]), ..restored(9, &[], &[90]) }).unwrap();
        assert_eq!(show(&mut nodes, &old[0]), Err(Reason::NodeSuperseded));
    }

    #[test]
    fn a_copy_that_says_that_it_was_restored_takes_the_place_and_the_other_is_told() {
        let mut nodes = Nodes::default();
        show(&mut nodes, &line(1, &[], &[10])).unwrap();
        show(&mut nodes, &restored(2, &[1], &[20])).unwrap();
        show(&mut nodes, &restored(2, &[1], &[20, 21])).unwrap();
        assert_eq!(show(&mut nodes, &line(1, &[], &[10, 11])), Err(Reason::NodeSuperseded));
        // From the same backup, elsewhere.
        assert_eq!(show(&mut nodes, &restored(3, &[1], &[30])), Err(Reason::NodeSuperseded));
        // An old restore says nothing about what was served since.
        let old = NodeLine { restored_in: Some([2; 16]), ..line(4, &[1, 2], &[20]) };
        assert_eq!(show(&mut nodes, &old), Err(Reason::NodeRolledBack));
        // Made anew it knows of nothing before, once.
        let rebuilt = NodeLine { rebuilt_in: Some([5; 16]), ..restored(5, &[], &[50]) };
        show(&mut nodes, &rebuilt).unwrap();
        // Two restored from one backup of it: the first to come is served, and the other is told, though both were once made anew.
        let of_rebuilt = |history| NodeLine { rebuilt_in: Some([5; 16]), ..restored(history, &[5], &[history]) };
        show(&mut nodes, &of_rebuilt(6)).unwrap();
        assert_eq!(show(&mut nodes, &rebuilt), Err(Reason::NodeSuperseded));
        assert_eq!(show(&mut nodes, &of_rebuilt(7)), Err(Reason::NodeSuperseded));
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        assert_eq!(nodes.check_run(&kaz, &[6; 16]), Ok(()));
        assert_eq!(nodes.check_run(&kaz, &[50; 16]).unwrap_err().reason, Reason::NodeSuperseded);
    }
}
