//! What this process knows of lost data: who found it, who has handed back what, and what cannot be healed.
//!
//! What cannot be healed stands in the journal, with the decision that shows it (`sequencer/decide.rs`), and is listed for good, or until
//! it comes back; what the disk shows again, such as a damaged body, is found again by each process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use concord_model::{ParticipantCode, Reason, Refusal};
use concord_server::{JOURNAL_BEHIND_VIEWS_ALARM, NOT_HEALED_NOTE, Readiness};
use tokio::sync::watch;

use crate::allowance::{Allowance, Used};
use crate::sequencer::Published;
use crate::shared::Shared;

const LOST_ALARM: &str = "history-lost";
/// New histories that one participant's positions may begin while the process runs. Beyond it its node hears `HISTORY_UNKNOWN`: a
/// node that claims what no hub gave it must not end everybody's streams again and again.
const NEW_HISTORIES_MAX: u32 = 8;
/// Resumptions of one participant's feed and mailboxes. Beyond it its node hears `HISTORY_UNKNOWN` until one more may be: each is an
/// entry, and gives again what is not known to be delivered.
const RESUMPTIONS: Allowance = Allowance { at_once: 32, one_more_after: Duration::from_secs(600) };
/// Things that cannot be healed and are listed. More are only counted and logged.
const NOT_HEALED_LISTED_MAX: usize = 100;

/// What this process knows of lost data.
#[derive(Default)]
pub struct Losses(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What was found first, in words; none while nothing is missing.
    found: Option<String>,
    /// Something signed that this hub had forgotten came back: until then a node only says so.
    is_confirmed: bool,
    began: BTreeMap<ParticipantCode, u32>,
    resumed: Used,
    handed_back: BTreeSet<ParticipantCode>,
    /// Something was passed over that was handed back of a participant whose keys do not count.
    has_passed_over: bool,
    /// Whose nodes are to hand everything back once more.
    asked_again: BTreeSet<ParticipantCode>,
    /// What cannot be healed and does not stand in the journal.
    not_healed: BTreeSet<String>,
    not_healed_count: u64,
}

impl Losses {
    /// Data was lost: `what` a node has that is not here.
    pub fn found(&self, shared: &Shared, participant: &ParticipantCode, what: &str) {
        let is_first = {
            let mut known = self.known();
            let is_first = known.found.is_none();
            known.found.get_or_insert_with(|| what.to_owned());
            is_first
        };
        if is_first {
            tracing::error!(%participant, what, "this hub lost data, or was restored from an older copy");
        } else {
            tracing::info!(%participant, what, "more of what this hub lost");
        }
        metrics::counter!("concord_losses_found_total").increment(1);
        self.tell(shared);
    }

    /// Something came back that somebody signed and that this hub did not know: it did lose data.
    pub fn confirmed(&self, shared: &Shared) {
        if !std::mem::replace(&mut self.known().is_confirmed, true) {
            self.tell(shared);
        }
    }

    /// A participant's feed stands: as far as it goes, nothing is missing any more.
    pub fn healed(&self, shared: &Shared) {
        if self.known().found.is_some() {
            self.tell(shared);
        }
    }

    /// A participant's node has handed back everything that it had.
    pub fn handed_back(&self, participant: &ParticipantCode) {
        let mut known = self.known();
        known.asked_again.remove(participant);
        known.handed_back.insert(participant.clone());
    }

    /// What was handed back of a participant was passed over, since no keys of it count yet.
    pub fn passed_over(&self) {
        self.known().has_passed_over = true;
    }

    /// Keys count from now on, so that what was handed back of their participant and passed over may count too: whoever has handed back is
    /// asked again. Returns them all.
    ///
    /// `also` are those who may have in a process before.
    pub fn ask_again(&self, also: impl IntoIterator<Item = ParticipantCode>) -> BTreeSet<ParticipantCode> {
        let mut known = self.known();
        let mut asked: BTreeSet<_> = also.into_iter().collect();
        if std::mem::take(&mut known.has_passed_over) {
            asked.extend(known.handed_back.iter().cloned());
        }
        known.asked_again.extend(asked.iter().cloned());
        asked
    }

    /// Whether a participant's node is to hand everything back once more.
    pub fn is_asked_again(&self, participant: &ParticipantCode) -> bool {
        self.known().asked_again.contains(participant)
    }

    /// Whether it has, since this process began: a hub loses nothing while it runs.
    pub fn has_handed_back(&self, participant: &ParticipantCode) -> bool {
        self.known().handed_back.contains(participant)
    }

    /// Whether a participant's position may make a new history begin.
    ///
    /// Refuses with `HISTORY_UNKNOWN` beyond the limit.
    pub fn check_new_history(&self, participant: &ParticipantCode) -> Result<(), Refusal> {
        let began = self.known().began.get(participant).copied().unwrap_or(0);
        if began >= NEW_HISTORIES_MAX {
            let often = format!("positions of {participant} that this hub does not know began {began} new histories");
            return Err(Refusal::new(Reason::HistoryUnknown, often));
        }
        Ok(())
    }

    /// Counts one that began: what could not begin, for want of room or because the hub ends, is tried again.
    pub fn count_new_history(&self, participant: &ParticipantCode) {
        *self.known().began.entry(participant.clone()).or_default() += 1;
    }

    /// Whether a feed or mailbox of this participant may be resumed now.
    ///
    /// Refuses with `HISTORY_UNKNOWN` beyond the limit.
    pub fn check_resumption(&self, participant: &ParticipantCode) -> Result<(), Refusal> {
        if self.known().resumed.leaves_one(RESUMPTIONS, participant) {
            return Ok(());
        }
        let often = format!(
            "feed and mailboxes of {participant} were resumed {} times; one more may be in {} s",
            RESUMPTIONS.at_once,
            RESUMPTIONS.one_more_after.as_secs()
        );
        Err(Refusal::new(Reason::HistoryUnknown, often))
    }

    /// Counts one that was made.
    pub fn count_resumption(&self, participant: &ParticipantCode) {
        self.known().resumed.count(participant);
    }

    /// Something cannot be healed, which the next process would find again: it is listed for people.
    pub fn not_healed(&self, shared: &Shared, what: String) {
        {
            let mut known = self.known();
            if known.not_healed.contains(&what) {
                return;
            }
            known.not_healed_count += 1;
            tracing::error!(what, count = known.not_healed_count, "this cannot be healed");
            if known.not_healed.len() < NOT_HEALED_LISTED_MAX {
                known.not_healed.insert(what);
            }
        }
        self.tell_not_healed(&shared.readiness, &shared.sequencer.watch());
    }

    /// Lists all that cannot be healed, as far as a note goes.
    fn tell_not_healed(&self, readiness: &Readiness, published: &watch::Receiver<Arc<Published>>) {
        // Held to the end, so that an older list does not follow a newer one; and what is published is read behind it.
        let known = self.known();
        let published = published.borrow().clone();
        let lost = published.ledger.losses();
        let count = lost.count() + known.not_healed_count;
        metrics::gauge!("concord_not_healed_items").set(count as f64);
        if count == 0 {
            // All of it came back, or was withdrawn.
            return readiness.clear(NOT_HEALED_NOTE);
        }
        // Nobody's losses hide another's.
        let each = (NOT_HEALED_LISTED_MAX / (lost.participants() + 1)).max(1);
        let mut list: Vec<String> = known.not_healed.iter().take(each).cloned().collect();
        let mut of_one = 0;
        let mut whose = None;
        for listed in lost.listed() {
            of_one = if whose == Some(listed.0) { of_one + 1 } else { 1 };
            whose = Some(listed.0);
            if of_one <= each {
                let (participant, lost, reason) = listed;
                list.push(format!("{participant}'s {lost}: {reason}"));
            }
        }
        let rest = if count > list.len() as u64 {
            "; the rest is shown by `concord journal show`, of damaged bodies by the log"
        } else {
            ""
        };
        readiness.note(NOT_HEALED_NOTE, format!("{count} cannot be healed: {}{rest}", list.join("; ")));
    }

    /// A note as long as a node only says so; then an alarm while somebody has yet to come, and a note when all have.
    fn tell(&self, shared: &Shared) {
        let (found, is_confirmed) = {
            let known = self.known();
            let Some(found) = known.found.clone() else { return };
            (found, known.is_confirmed)
        };
        let published = shared.published();
        let waits: Vec<String> = published
            .ledger
            .registry()
            .enrolments()
            .map(|(code, _)| code)
            .filter(|code| !shared.feeds.is_shown(code, published.tail.history))
            .map(ToString::to_string)
            .collect();
        let lost = format!("this hub lost data or was restored from an older copy; first found at {found}");
        if !is_confirmed {
            // One node's word, which must not take the service from the others.
            let said = format!("a node says that {found}; nothing has come back yet that this hub had forgotten");
            shared.readiness.note(LOST_ALARM, said);
        } else if waits.is_empty() {
            let healed = format!("{lost}. The nodes of all participants have handed back what they had");
            shared.readiness.note(LOST_ALARM, healed);
            // The views had seen the same loss at the start.
            for seen in shared.readiness.list().into_iter().filter(|alarm| alarm.name == JOURNAL_BEHIND_VIEWS_ALARM) {
                shared.readiness.note(seen.name, seen.message);
            }
        } else {
            let waiting = format!(
                "{lost}. What nodes have they hand back by themselves; nothing is delivered to a participant before its node has, and the secretariat's officers best say nothing new until then: {} to come",
                waits.join(", ")
            );
            shared.readiness.raise(LOST_ALARM, waiting);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the list of what cannot be healed at what is durable, until the sequencer ends.
pub async fn keep_told(shared: Weak<Shared>, readiness: Readiness, mut published: watch::Receiver<Arc<Published>>) {
    let mut told = 0;
    loop {
        let count = published.borrow_and_update().ledger.losses().count();
        if count != told {
            let Some(shared) = shared.upgrade() else { return };
            shared.losses.tell_not_healed(&readiness, &published);
            told = count;
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn positions_that_a_node_makes_up_are_resumed_so_often_and_after_a_while_once_more() {
        let (losses, code) = (Losses::default(), ParticipantCode::parse("KAZ").unwrap());
        for _ in 0..RESUMPTIONS.at_once {
            losses.check_resumption(&code).unwrap();
            losses.count_resumption(&code);
        }
        assert_eq!(losses.check_resumption(&code).unwrap_err().reason, Reason::HistoryUnknown);
        losses.check_resumption(&ParticipantCode::parse("IRN").unwrap()).unwrap();
        tokio::time::advance(RESUMPTIONS.one_more_after).await;
        losses.check_resumption(&code).unwrap();
        losses.count_resumption(&code);
        assert!(losses.check_resumption(&code).is_err());
    }

    #[test]
    fn who_has_handed_back_is_asked_again_once() {
        let code = |text| ParticipantCode::parse(text).unwrap();
        let losses = Losses::default();
        losses.handed_back(&code("KAZ"));
        assert!(losses.ask_again([]).is_empty() && !losses.is_asked_again(&code("KAZ")), "nothing was passed over");
        losses.passed_over();
        let asked = losses.ask_again([code("TUR")]);
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), [code("KAZ"), code("TUR")]);
        assert!(losses.is_asked_again(&code("KAZ")) && !losses.is_asked_again(&code("IRN")));
        losses.handed_back(&code("KAZ"));
        assert!(!losses.is_asked_again(&code("KAZ")) && losses.is_asked_again(&code("TUR")));
    }

    #[test]
    fn a_history_that_could_not_begin_does_not_count() {
        let (losses, code) = (Losses::default(), ParticipantCode::parse("KAZ").unwrap());
        (0..100).for_each(|_| losses.check_new_history(&code).unwrap());
        (0..NEW_HISTORIES_MAX).for_each(|_| losses.count_new_history(&code));
        assert_eq!(losses.check_new_history(&code).unwrap_err().reason, Reason::HistoryUnknown);
    }
}
