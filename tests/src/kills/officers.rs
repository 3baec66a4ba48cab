//! Officers who go on making agreements and leaving them while everything around them dies.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::command::{DEADLINE, Ended, concord};
use crate::load::Passing;
use crate::witness::{Agreed, Witness, Word};
use crate::words;

/// Before a command is said again that a dying server did not answer.
const AGAIN: Duration = Duration::from_millis(100);
/// How long exchanges go under an agreement before somebody leaves it.
const IN_FORCE: Duration = Duration::from_millis(400);

/// Officers at work, until they are stopped.
pub(super) struct Officers {
    stop: Arc<AtomicBool>,
    /// Held while something is said.
    saying: Arc<Mutex<()>>,
    working: Option<JoinHandle<()>>,
}

/// What they need.
pub(super) struct Chamber {
    /// Proposer first; the second one leaves each time.
    pub(super) parties: Vec<(String, PathBuf)>,
    pub(super) measure: String,
    pub(super) witness: Arc<Witness>,
    pub(super) passing: Passing,
    /// Held while something is said.
    pub(super) saying: Arc<Mutex<()>>,
}

impl Officers {
    pub(super) fn start(chamber: Chamber) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, saying) = (Arc::clone(&stop), Arc::clone(&chamber.saying));
        let working = std::thread::spawn(move || {
            for round in 0_u64.. {
                if seen.load(Ordering::Relaxed) || chamber.session(round, &seen).is_none() {
                    return;
                }
            }
        });
        Self { stop, saying, working: Some(working) }
    }

    /// Waits until what is being said is answered, and nothing is said while this is held.
    pub(super) fn silence(&self) -> MutexGuard<'_, ()> {
        // Whoever gave up while saying something has told so by its end.
        self.saying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they gave up: that is a fault, which [`stop`](Self::stop) tells.
    pub(super) fn gave_up(&self) -> bool {
        self.working.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends them; what they were saying is said to its end or given up.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(working) = self.working.take() {
            working.join().expect("the officers' commands are understood");
        }
    }
}

impl Drop for Officers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Chamber {
    /// One agreement from its proposal to the leave of its second party. None when it is time to stop.
    fn session(&self, round: u64, stop: &AtomicBool) -> Option<()> {
        let id = format!("{}/passing-{round}", self.parties[0].0);
        let codes: Vec<&str> = self.parties.iter().map(|(code, _)| code.as_str()).collect();
        let parties: BTreeSet<String> = codes.iter().map(|code| (*code).to_owned()).collect();
        self.witness.note(|records| {
            records.agreements.insert(id.clone(), Agreed { parties, ..Agreed::default() });
        });
        let (proposer, leaver) = (&self.parties[0], &self.parties[1]);
        let mut propose = words!["agreement", "propose", id, "--title", "T", "--measure", self.measure];
        propose.extend(words!["--participant", codes[1..].join(",")]);
        self.say(stop, &id, proposer, propose, Word::Proposed, &["AGREEMENT_EXISTS"])?;
        for party in &self.parties[1..] {
            let consent = words!["agreement", "consent", id];
            // Already consented: the answer of the first time was lost.
            self.say(stop, &id, party, consent, Word::Consented, &["AGREEMENT_NOT_PENDING"])?;
        }
        let deadline = DEADLINE.as_secs().to_string();
        let shown = words!["agreement", "show", id, "--wait", "in-force", "--timeout", deadline];
        // Each node learns of it from its own feed, and a node that does not know it yet knows of nothing to leave.
        for party in [proposer, leaver] {
            self.until_answered(stop, party, &shown, &[])?;
        }
        *self.passing.lock().unwrap() = Some(id.clone());
        // The agreement is used for a while: that it is takes no signal.
        std::thread::sleep(IN_FORCE);
        self.witness.note(|records| {
            records.agreements.entry(id.clone()).or_default().leaving.insert(leaver.0.clone());
        });
        // Its node knew it in force: a repeat that finds it otherwise comes after its own leave, whose answer was lost.
        let leave = words!["agreement", "leave", id, "--yes"];
        self.say(stop, &id, leaver, leave, Word::Left, &["AGREEMENT_UNKNOWN", "AGREEMENT_NOT_IN_FORCE"])?;
        *self.passing.lock().unwrap() = None;
        Some(())
    }

    /// Says it until it is answered; an *accepted* is written down. `before` is what a repeat hears of what was said already.
    fn say(
        &self,
        stop: &AtomicBool,
        agreement: &str,
        who: &(String, PathBuf),
        words: Vec<OsString>,
        word: Word,
        before: &[&str],
    ) -> Option<()> {
        let answer = self.until_answered(stop, who, &words, before)?;
        if answer.code == Some(0) && answer.json()["state"] == "accepted" {
            self.witness.note(|records| {
                records.agreements.entry(agreement.to_owned()).or_default().words.push((who.0.clone(), word));
            });
        }
        Some(())
    }

    fn until_answered(
        &self,
        stop: &AtomicBool,
        (code, profile): &(String, PathBuf),
        words: &[OsString],
        before: &[&str],
    ) -> Option<Ended> {
        let since = Instant::now();
        let mut tries = 0;
        // To its answer, so that whoever holds them silent finds nothing half said.
        let _saying = self.saying.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let mut words = words.to_vec();
            words.extend(words!["--profile", profile]);
            let said = concord(words);
            let reason = said.reason().unwrap_or_default();
            // 4: nobody was there, or it died meanwhile. The agreement may not have come to this node yet.
            let may_pass = said.code == Some(4) || (reason == "AGREEMENT_UNKNOWN" && !before.contains(&&*reason));
            if said.code == Some(0) || (tries > 0 && before.contains(&&*reason)) {
                return Some(said);
            }
            assert!(may_pass && since.elapsed() < DEADLINE, "{code} after {tries} tries: {said}");
            tries += 1;
            std::thread::sleep(AGAIN);
        }
    }
}
