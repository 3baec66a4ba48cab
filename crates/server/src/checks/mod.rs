//! Named checks of a machine, a folder and a way, for people who set a server up or look why it does not run: each says that something
//! holds, or the cause and the next step.
//!
//! *Invariant: a check ends in time, whatever it meets, and changes nothing that a server beside it would notice.* What may block (a
//! disk, a pipe in the place of a file) runs on a thread of its own, which nobody waits for once its time is over.

mod connection;
mod machine;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use concord_identity::{Anchor, CertificateFacts, Credentials};
use concord_model::{Identity, Timestamp};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::clock::{Clock as _, SystemClock};
use crate::folder::FolderKind;

pub use connection::{Reached, WayToServer};
pub use machine::{disk, fdatasync};

/// What reading the files of a folder may take.
pub const FILES_TIMEOUT_SECONDS: u64 = 10;
/// A certificate with fewer days left is a warning.
pub const CERTIFICATE_DAYS_WARNED: i64 = 30;

const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It holds, and somebody should look at it.
    Warning,
    /// It does not hold.
    Failed,
    /// It could not be tried; the message says why.
    Untried,
}

/// One check that came to an end, however.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// A stable name.
    pub check: &'static str,
    /// How it came out.
    pub result: Verdict,
    /// What was found: the cause, where it does not hold.
    pub message: String,
    /// What to do next; empty where there is nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// What was measured, under stable names with their units.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<&'static str, Value>,
}

impl Check {
    /// It holds.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, message.into(), String::new())
    }

    /// It holds for now.
    pub fn warning(check: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, message.into(), next.into())
    }

    /// It does not hold: the cause, and the next step.
    pub fn failed(check: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, message.into(), next.into())
    }

    /// It could not be tried, and why.
    pub fn untried(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Verdict::Untried, why.into(), String::new())
    }

    fn new(check: &'static str, result: Verdict, message: String, next: String) -> Self {
        Self { check, result, message, next, values: BTreeMap::new() }
    }

    /// The same, with something that was measured.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.values.insert(name, value.into());
        self
    }
}

/// What `work`, which may block, comes to; none where its time is over, or where it failed inside.
pub async fn apart<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    // Not one of the runtime's threads: its end would wait for a disk that hangs.
    let started = thread::Builder::new().spawn(move || {
        // Nobody is left to hear of what comes too late.
        let _late = done.send(work());
    });
    started.ok()?;
    tokio::time::timeout(Duration::from_secs(seconds), outcome).await.ok()?.ok()
}

/// The same for a check, which fails where it does not end.
pub async fn check_apart(check: &'static str, seconds: u64, work: impl FnOnce() -> Check + Send + 'static) -> Check {
    apart(seconds, work).await.unwrap_or_else(|| {
        let what = format!("it did not end within {seconds} s");
        Check::failed(check, what, "see whether the disk answers, and whether what should be a file is one")
    })
}

/// What is wrong where key and certificate do not belong together.
pub fn key_is_another(check: &'static str, credentials: &Credentials) -> Option<Check> {
    let error = credentials.check_pair().err()?;
    let next = "put the key that belongs to tls/certificate.pem into tls/key.pem";
    Some(Check::failed(check, error.to_string(), next))
}

/// A server's own certificate: it is `expected`'s, its anchor stands behind it by this machine's clock, and it has days left. That key
/// and certificate belong together the caller has found out by then.
pub fn own_certificate(
    check: &'static str,
    credentials: &Credentials,
    expected: &Identity,
    anchors: &[Anchor],
) -> Check {
    own_certificate_at(check, credentials, expected, anchors, SystemClock.now())
}

/// The same, where this machine's clock was found to be wrong by so much: what is about the clock is said to be, and not about the certificate.
pub fn own_certificate_beside(
    check: &'static str,
    credentials: &Credentials,
    expected: &Identity,
    anchors: &[Anchor],
    ahead_micros: i64,
) -> Check {
    let now = SystemClock.now();
    let by_own = own_certificate_at(check, credentials, expected, anchors, now);
    let right = Timestamp::from_micros(now.as_micros().saturating_sub(ahead_micros));
    let by_right = own_certificate_at(check, credentials, expected, anchors, right);
    if by_own.result == by_right.result {
        return by_own;
    }
    let what = format!(
        "by the hub's time ({}): {}. By this machine's clock, which is wrong: {}",
        concord_identity::rfc3339(right),
        by_right.message,
        by_own.message
    );
    let next = match by_right.result {
        Verdict::Ok => "set the clock of this machine (line clock); the certificate is not to blame".to_owned(),
        _ => by_right.next,
    };
    Check { message: what, next, ..by_own }
}

fn own_certificate_at(
    check: &'static str,
    credentials: &Credentials,
    expected: &Identity,
    anchors: &[Anchor],
    now: Timestamp,
) -> Check {
    let found = match credentials.caller() {
        Ok(caller) if caller.identity == *expected => caller,
        Ok(caller) => {
            let what = format!("the certificate in tls/ is for {}, this folder is {expected}'s", caller.identity);
            return Check::failed(check, what, "put the certificate of this server there");
        }
        Err(refusal) => {
            return Check::failed(
                check,
                refusal.to_string(),
                "put the certificate of this server into tls/certificate.pem",
            );
        }
    };
    if let Err(refusal) = credentials.verify_under(anchors, now) {
        let next = "where the time is the matter, compare this machine's clock with another; if that is right, renew the certificate: `concord node \
             renew`, or `hub renew`";
        return Check::failed(check, format!("the anchor in this folder does not bear it out: {refusal}"), next);
    }
    let days = days_left(found.not_after, now);
    let message = format!("{expected}, its key fits, its anchor stands behind it, {days} days left");
    lasting(check, message, days, "renew it before it ends: `concord node renew`, or `hub renew`")
}

/// While one anchor follows another, what is to be done next: that is a phase that a person ends, and no fault.
pub fn beside_another_anchor(
    checked: Check,
    credentials: &Credentials,
    anchors: &[Anchor],
    dir: &Path,
    kind: FolderKind,
) -> Check {
    let ([present, _, ..], Verdict::Ok) = (anchors, checked.result) else { return checked };
    let is_under_present = credentials.verify_under(std::slice::from_ref(present), SystemClock.now()).is_ok();
    let waits = dir.join("anchor-next").exists();
    let next = match (waits, is_under_present) {
        (true, _) => format!(
            "the next one waits to be recorded: `concord anchor next --dir {}` again finishes it",
            dir.display()
        ),
        (false, false) => {
            format!("this certificate is under the one before: `concord {kind} renew --all --dir {}`", dir.display())
        }
        (false, true) => {
            format!("`concord anchor end --dir {}` ends the one before, once nobody needs it", dir.display())
        }
    };
    Check { message: format!("{}; two anchors are known here: {next}", checked.message), ..checked }
}

/// How long a certificate that holds will, by this machine's clock; `what` says whose it is.
pub fn certificate_lasts(check: &'static str, what: &str, not_after: Timestamp) -> Check {
    let now = SystemClock.now();
    if not_after < now {
        let what = format!("{what} expired on {}", concord_identity::rfc3339(not_after));
        return Check::failed(check, what, "renew it, or set this machine's clock if that is wrong");
    }
    let days = days_left(not_after, now);
    lasting(check, format!("{what}, {days} days left"), days, "renew it before it ends")
}

/// How a certificate stands that holds and has so many days left.
fn lasting(check: &'static str, message: String, days: i64, next: &str) -> Check {
    let made =
        if days < CERTIFICATE_DAYS_WARNED { Check::warning(check, message, next) } else { Check::ok(check, message) };
    made.with("days_left", days)
}

fn days_left(not_after: Timestamp, now: Timestamp) -> i64 {
    not_after.as_micros().saturating_sub(now.as_micros()).div_euclid(MICROS_PER_DAY)
}

/// Whether this machine's clock can be right beside what this machine itself has written: `written` are moments of before now.
/// A certificate was made when its validity began.
pub fn clock_beside_own(check: &'static str, credentials: Option<&Credentials>, written: Option<Timestamp>) -> Check {
    let now = SystemClock.now();
    let chain = credentials.map(Credentials::chain).unwrap_or_default();
    let begins = chain.first().and_then(|leaf| CertificateFacts::read(leaf).ok()).map(|leaf| leaf.not_before);
    let shown = concord_identity::rfc3339(now);
    for (moment, what) in [(begins, "the server's own certificate begins"), (written, "the journal was written last")] {
        let Some(moment) = moment else { continue };
        let behind = moment.as_micros().saturating_sub(now.as_micros());
        if behind > SKEW_ALLOWED_MICROS {
            let message = format!(
                "this machine's clock shows {shown}, which is before {what} ({}): it is behind",
                concord_identity::rfc3339(moment)
            );
            return Check::failed(check, message, "set the clock of this machine (`timedatectl` shows it)");
        }
    }
    Check::ok(check, format!("this machine's clock shows {shown}, after everything that it has written"))
}

const SKEW_ALLOWED_MICROS: i64 = 60 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_or_fails_inside_is_a_check_that_failed() {
        let hung = check_apart("x", 0, || {
            thread::park();
            Check::ok("x", "never")
        });
        assert_eq!(hung.await.result, Verdict::Failed);
        let broken = check_apart("x", 5, || std::panic::resume_unwind(Box::new("inside")));
        assert_eq!(broken.await.result, Verdict::Failed);
        assert_eq!(check_apart("x", 5, || Check::ok("x", "fine")).await.result, Verdict::Ok);
    }

    #[test]
    fn a_check_is_one_object_with_stable_names() {
        let check = Check::failed("disk", "full", "make room").with("available_bytes", 7_u64);
        let text = serde_json::to_string(&check).unwrap();
        let expected =
            r#"{"check":"disk","result":"failed","message":"full","next":"make room","values":{"available_bytes":7}}"#;
        assert_eq!(text, expected);
        assert_eq!(
            serde_json::to_string(&Check::ok("tcp", "it")).unwrap(),
            r#"{"check":"tcp","result":"ok","message":"it"}"#
        );
    }
}
