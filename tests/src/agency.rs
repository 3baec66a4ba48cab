//! An agency: it submits, tracks and receives by the commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::command::{DEADLINE, Ended, concord};
use crate::process::Process;
use crate::words;

/// One agency's profile with a folder for what it receives.
#[derive(Clone)]
pub struct Agency {
    /// Its profile.
    pub profile: PathBuf,
    /// Where what it receives goes.
    pub received: PathBuf,
    outgoing: PathBuf,
    log: PathBuf,
}

/// An exchange that was submitted.
#[derive(Debug, Clone)]
pub struct Sent {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What `submit` answered.
    pub answer: Value,
    /// What was submitted.
    pub body: Vec<u8>,
}

static FILES: AtomicU64 = AtomicU64::new(0);

impl Agency {
    pub(crate) fn new(place: &Path, profile: PathBuf, name: &str) -> Self {
        Self {
            profile,
            received: place.join("received").join(name),
            outgoing: place.join("outgoing"),
            log: place.join("logs").join(format!("{name}.log")),
        }
    }

    /// Submits a body, which succeeds.
    #[track_caller]
    pub fn submit(&self, body: impl AsRef<[u8]>, options: &str) -> Sent {
        let body = body.as_ref().to_vec();
        let answer = self.try_submit(&body, options).ok().json();
        let id = answer["exchange_id"].as_str().unwrap().to_owned();
        assert_eq!(answer["digest"], digest(&body));
        Sent { id, answer, body }
    }

    /// Submits a body, with the options as one would type them, whatever comes of it.
    pub fn try_submit(&self, body: impl AsRef<[u8]>, options: &str) -> Ended {
        let path = self.outgoing.join(format!("{}.txt", FILES.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, body).unwrap();
        self.try_submit_file(&path, options)
    }

    /// Submits a file that is there, whatever comes of it.
    pub fn try_submit_file(&self, path: &Path, options: &str) -> Ended {
        let mut submit = words!["submit", path, "--profile", self.profile];
        submit.extend(options.split_whitespace().map(Into::into));
        concord(submit)
    }

    /// How far an exchange came.
    #[track_caller]
    pub fn track(&self, id: &str) -> Value {
        self.try_track(id).ok().json()
    }

    /// The same, whatever comes of it.
    pub fn try_track(&self, id: &str) -> Ended {
        concord(words!["track", id, "--profile", self.profile])
    }

    /// How far an exchange came, once each recipient is delivered, withheld or set aside.
    #[track_caller]
    pub fn track_delivered(&self, id: &str) -> Value {
        let deadline = DEADLINE.as_secs().to_string();
        concord(words!["track", id, "--wait", "delivered", "--timeout", deadline, "--profile", self.profile])
            .ok()
            .json()
    }

    /// The state and reason of each recipient, once all are settled: `IRN delivered`, `TUR withheld LEFT`.
    #[track_caller]
    pub fn settled(&self, id: &str) -> Vec<String> {
        recipients(&self.track_delivered(id))
    }

    /// Waits until the recipient's first agency has taken it and the sender knows.
    #[track_caller]
    pub fn await_taken(&self, id: &str, by: &str) {
        let since = std::time::Instant::now();
        let taken = format!("{by} taken");
        loop {
            let tracked = self.track(id);
            if recipients(&tracked).contains(&taken) {
                return;
            }
            assert_ne!(text_of(&tracked, "state"), "refused", "{by} will never take {id}: {tracked}");
            // `taken` comes with a later message and no command waits for it.
            assert!(since.elapsed() < DEADLINE, "{by} has not taken {id}: {tracked}");
        }
    }

    /// Receives and acknowledges exactly so many, waiting for them.
    #[track_caller]
    pub fn receive(&self, count: usize) -> Vec<Value> {
        let receive = words![
            "receive",
            "--follow",
            "--limit",
            count.to_string(),
            "--profile",
            self.profile,
            "--out",
            self.received
        ];
        let lines = concord(receive).ok().lines();
        assert_eq!(lines.len(), count);
        lines
    }

    /// Receives and acknowledges what is there now.
    #[track_caller]
    pub fn receive_rest(&self) -> Vec<Value> {
        concord(words!["receive", "--profile", self.profile, "--out", self.received]).ok().lines()
    }

    /// Lists what waits, and acknowledges nothing.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        concord(words!["receive", "--profile", self.profile]).ok().lines()
    }

    /// Receives and acknowledges whatever comes, until it is ended.
    pub fn follow(&self) -> Process {
        Process::start(&self.log, words!["receive", "--follow", "--profile", self.profile, "--out", self.received])
    }
}

fn recipients(tracked: &Value) -> Vec<String> {
    let of = |recipient: &Value| {
        let word = |field: &str| recipient[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("participant"), word("state"), word("reason")).trim_end().to_owned()
    };
    tracked["recipients"].as_array().unwrap().iter().map(of).collect()
}

/// The ids of received exchanges, in order.
pub fn exchange_ids(received: &[Value]) -> Vec<String> {
    received.iter().map(|one| text_of(one, "exchange_id")).collect()
}

/// A text field.
#[track_caller]
pub fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// The body of a received exchange, as it stands on the disk and as its digest says.
#[track_caller]
pub fn body_of(received: &Value) -> Vec<u8> {
    let body = fs::read(text_of(received, "file")).unwrap();
    assert_eq!(received["digest"], digest(&body));
    assert_eq!(received["size_bytes"], body.len());
    body
}

/// How many exchanges with these ids stand as received in a node's journal, and how many different ones.
pub fn count_in_journal(dir: &Path, ids: &[String]) -> (usize, usize) {
    let entries = concord(words!["journal", "show", dir]).ok().lines();
    let mail = entries.iter().filter(|entry| entry["kind"] == "mail").map(|entry| text_of(entry, "about"));
    let all: Vec<String> = mail.flat_map(|about| in_brackets(&about)).collect();
    let short: BTreeSet<String> = ids.iter().map(|id| id[..16].to_owned()).collect();
    let found: Vec<&String> = all.iter().filter(|id| short.contains(*id)).collect();
    (found.len(), found.iter().collect::<BTreeSet<_>>().len())
}

fn in_brackets(about: &str) -> Vec<String> {
    about.split('(').skip(1).filter_map(|rest| rest.split(')').next()).map(ToOwned::to_owned).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
