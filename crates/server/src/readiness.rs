//! What is wrong now: named alarms, raised and cleared by whoever notices, read by status, `/readyz` and metrics. A note is
//! an alarm that a person should see and that does not stop the service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_model::Timestamp;

use crate::alarms::DRAINING_ALARM;
use crate::clock::{Clock as _, SystemClock};

/// What a note says that is added to. Beyond it only the log goes on.
const NOTE_SIZE_MAX_BYTES: usize = 4096;
const NOTE_CUT: &str = "; and more, which the log has";

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// A stable word, `disk-full`: the label of its metric.
    pub name: &'static str,
    /// What happened, why, what to do. Never a title or a body.
    pub message: String,
    /// Since when it stands.
    pub since: Timestamp,
    /// Whether the process is not ready while it stands; not so for a note.
    pub stops: bool,
}

/// The alarms of a process: it is ready when there are none but notes. Clones share them; names are constants of the program, so there
/// are only so many.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Alarm>>>);

impl Readiness {
    /// Nothing is wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that stands in words, each with its name before it; and the names of those that are notes.
    pub fn in_words(&self) -> (Vec<String>, Vec<String>) {
        let all = self.list();
        let notes = all.iter().filter(|alarm| !alarm.stops).map(|alarm| alarm.name.to_owned()).collect();
        (all.into_iter().map(|alarm| format!("{}: {}", alarm.name, alarm.message)).collect(), notes)
    }

    /// Raises an alarm, or gives one that stands another message.
    pub fn raise(&self, name: &'static str, message: impl Into<String>) {
        self.set(name, message.into(), true);
    }

    /// Raises a note: status and metrics show it like an alarm, and the process stays ready.
    pub fn note(&self, name: &'static str, message: impl Into<String>) {
        self.set(name, message.into(), false);
    }

    /// Adds to a note, up to a size: what it said before is not forgotten. The log has the rest.
    pub fn note_also(&self, name: &'static str, message: &str) {
        let known = self.alarms().get(name).map(|alarm| alarm.message.clone());
        let joined = match known {
            None => message.to_owned(),
            Some(known) if known.contains(message) || known.ends_with(NOTE_CUT) => return,
            Some(known) if known.len() + message.len() > NOTE_SIZE_MAX_BYTES => format!("{known}{NOTE_CUT}"),
            Some(known) => format!("{known}; {message}"),
        };
        self.note(name, joined);
    }

    fn set(&self, name: &'static str, message: String, stops: bool) {
        let mut alarms = self.alarms();
        let was_ready = alarms.values().all(|alarm| !alarm.stops);
        let known = alarms.get_mut(name);
        match known {
            Some(alarm) if alarm.message == message && alarm.stops == stops => {}
            Some(alarm) => {
                match stops {
                    // A note that becomes an alarm is as loud as one that was none before.
                    true if !alarm.stops => tracing::error!(alarm = name, said = message, "a note became an alarm"),
                    true => tracing::warn!(alarm = name, said = message, "an alarm changed"),
                    false => tracing::warn!(alarm = name, said = message, "a note changed"),
                }
                (alarm.message, alarm.stops) = (message, stops);
            }
            None => {
                match stops {
                    // Whoever ended the process asked for it.
                    true if name == DRAINING_ALARM => {
                        tracing::info!(alarm = name, said = message, "an alarm was raised")
                    }
                    true => tracing::error!(alarm = name, said = message, "an alarm was raised"),
                    false => tracing::warn!(alarm = name, said = message, "a note was made"),
                }
                metrics::counter!("concord_alarms_raised_total", "alarm" => name).increment(1);
                metrics::gauge!("concord_alarm", "alarm" => name).set(1.0);
                alarms.insert(name, Alarm { name, message, since: SystemClock.now(), stops });
            }
        }
        measure(&alarms, was_ready);
    }

    /// Clears an alarm, if it stands.
    pub fn clear(&self, name: &'static str) {
        let mut alarms = self.alarms();
        let was_ready = alarms.values().all(|alarm| !alarm.stops);
        if alarms.remove(name).is_some() {
            tracing::info!(alarm = name, "an alarm or a note was cleared");
            metrics::gauge!("concord_alarm", "alarm" => name).set(0.0);
        }
        measure(&alarms, was_ready);
    }

    /// What is wrong now, by name, with the notes.
    pub fn list(&self) -> Vec<Alarm> {
        self.alarms().values().cloned().collect()
    }

    /// Whether nothing is wrong that stops the service.
    pub fn is_ready(&self) -> bool {
        !self.alarms().values().any(|alarm| alarm.stops)
    }

    fn alarms(&self) -> MutexGuard<'_, BTreeMap<&'static str, Alarm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under the lock of what it measures, so that the last word is the last change's.
fn measure(alarms: &BTreeMap<&'static str, Alarm>, was_ready: bool) {
    let is_ready = alarms.values().all(|alarm| !alarm.stops);
    if is_ready != was_ready {
        metrics::gauge!("concord_ready").set(f64::from(is_ready));
    }
}

/// What a note says of a loss that an earlier start found: a restart must not make it forgotten.
pub fn lost_before(proof: &Path) -> String {
    format!(
        "an earlier start found that acknowledged data was lost; {} is the proof. Remove it when what was lost is healed or listed",
        proof.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_stands_from_its_first_raise_to_its_clear() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.raise("disk", "5 % left");
        let since = readiness.list()[0].since;
        readiness.clone().raise("disk", "4 % left");
        readiness.raise("hub", "not connected");
        let list = readiness.list();
        let told: Vec<_> = list.iter().map(|alarm| (alarm.name, alarm.message.as_str())).collect();
        assert_eq!(told, [("disk", "4 % left"), ("hub", "not connected")]);
        assert_eq!(list[0].since, since);
        readiness.clear("disk");
        readiness.clear("never raised");
        assert!(!readiness.is_ready());
        readiness.clear("hub");
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_note_that_is_added_to_says_each_thing_once_and_has_an_end() {
        let readiness = Readiness::new();
        for number in 0..1000 {
            readiness.note_also("not-healed", &format!("number {number:03}"));
            readiness.note_also("not-healed", "number 000");
        }
        let message = readiness.list().remove(0).message;
        assert!(message.starts_with("number 000; number 001; ") && message.ends_with(NOTE_CUT));
        assert!(message.len() <= NOTE_SIZE_MAX_BYTES + NOTE_CUT.len() && readiness.is_ready());
    }

    #[test]
    fn a_note_is_listed_and_leaves_the_process_ready() {
        let readiness = Readiness::new();
        readiness.note("aside", "number 3");
        assert!(readiness.is_ready());
        assert_eq!(readiness.list().len(), 1);
        readiness.raise("aside", "number 3");
        assert!(!readiness.is_ready());
        readiness.note("aside", "number 3");
        assert!(readiness.is_ready());
        readiness.clear("aside");
        assert!(readiness.list().is_empty());
    }
}
