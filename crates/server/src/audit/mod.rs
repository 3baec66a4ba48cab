//! The audit log of a server: acts of people and what was refused, for its operators and officers; never content.
//!
//! It is beside the journal and no part of it: what Submit and Consign bring is in the journals. It never holds up a call and never fails
//! one: what its queue or the disk does not take is lost, counted, and told by a note. *Invariant: refusals never push out acts*: they have
//! files of their own, their number is limited before they reach the queue, and half of the queue is left to acts. *Nor do strangers, who
//! showed no name that counts, push out refusals of who has one*: they are limited apart, have a quarter of the queue, and what finds no
//! room there is no loss: it is counted in a line.

mod files;
mod limits;
mod line;
mod list;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_model::ParticipantCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::alarms::AUDIT_LOST_NOTE;
use crate::clock::{Clock as _, SystemClock};
use crate::readiness::Readiness;

pub use files::{AUDIT_FOLDER, AUDIT_SIZE_MAX_BYTES, SEGMENT_SIZE_MAX_BYTES, SEGMENTS_MAX};
use files::{Class, Files};
use limits::Limits;
pub use limits::{ACTS, CALLERS_MAX, REFUSALS, Rates, STRANGERS};
pub use line::{Actor, AuditLine, Event, Object, is_by_rule, outcome};
use list::OpenLists;
pub use list::{AuditStream, LISTS_OPEN_MAX, LISTS_OPEN_PER_CALLER_MAX};

/// Lines that wait to be written. Refusals beyond half of it, and acts beyond all of it, are lost and counted; of strangers no more than
/// a quarter wait.
pub const AUDIT_WAITING_MAX: usize = 1024;
/// Lines that are written at once.
const LINES_AT_ONCE_MAX: usize = 256;
/// What was left out is counted so often.
const COUNTED_EVERY: Duration = Duration::from_secs(60);

/// Takes what is to be written. Clones share it.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    limits: Mutex<OfAll>,
    lines: mpsc::Sender<Written>,
    folder: PathBuf,
    readiness: Readiness,
    /// Told whenever something was written.
    written: watch::Sender<()>,
    lists: OpenLists,
}

/// Whose lines are limited together, so that none of the others loses by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Acts,
    Refusals,
    /// Refusals of who showed no name under an anchor that counts.
    Strangers,
}

impl Share {
    const ALL: [Self; 3] = [Self::Acts, Self::Refusals, Self::Strangers];

    const fn of(event: &Event) -> Self {
        match (event.refused, &event.by) {
            (None, _) => Self::Acts,
            (Some(_), Actor::Address(_) | Actor::Unknown) => Self::Strangers,
            (Some(_), Actor::Caller(_) | Actor::Server) => Self::Refusals,
        }
    }

    const fn class(self) -> Class {
        match self {
            Self::Acts => Class::Acts,
            Self::Refusals | Self::Strangers => Class::Refusals,
        }
    }

    /// Places of the queue that it leaves to the others.
    const fn leaves(self) -> usize {
        match self {
            Self::Acts => 0,
            Self::Refusals => AUDIT_WAITING_MAX / 2,
            Self::Strangers => AUDIT_WAITING_MAX / 4 * 3,
        }
    }
}

/// The limits of all shares.
struct OfAll {
    acts: Limits,
    refusals: Limits,
    strangers: Limits,
}

impl OfAll {
    const fn of(&mut self, share: Share) -> &mut Limits {
        match share {
            Share::Acts => &mut self.acts,
            Share::Refusals => &mut self.refusals,
            Share::Strangers => &mut self.strangers,
        }
    }
}

enum Written {
    /// With how many more like it were not written.
    Line(Class, Event, u64),
    /// Answered when all that was handed over before is written.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// One that keeps nothing: for whoever drives services without a folder.
    pub fn off() -> Self {
        Self::default()
    }

    /// Writes into the `audit` folder of a data folder, in a task of its own.
    pub fn begin(data: &Path, own: ParticipantCode, readiness: Readiness) -> Self {
        let (lines, waiting) = mpsc::channel(AUDIT_WAITING_MAX);
        let inner = Arc::new(Inner {
            limits: Mutex::new(OfAll {
                acts: Limits::new(ACTS, own.clone(), Instant::now()),
                refusals: Limits::new(REFUSALS, own.clone(), Instant::now()),
                strangers: Limits::new(STRANGERS, own, Instant::now()),
            }),
            lines,
            folder: data.join(AUDIT_FOLDER),
            readiness,
            written: watch::Sender::new(()),
            lists: OpenLists::default(),
        });
        tokio::spawn(write_all(Arc::downgrade(&inner), inner.folder.clone(), waiting));
        Self(Some(inner))
    }

    /// Writes one act of the machine's keeper, while no server runs in the folder.
    pub fn write_stopped(data: &Path, event: &Event) -> io::Result<()> {
        let mut files = Files::open(&data.join(AUDIT_FOLDER))?;
        let line = AuditLine::of(event, files.next_number(), SystemClock.now(), 0);
        files.write(&line, Class::Acts)?;
        files.sync_acts()
    }

    /// Notes what happened; at once, whatever becomes of the line.
    pub fn note(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        let share = Share::of(&event);
        if inner.limits().of(share).admit(&event, Instant::now()) {
            inner.hand_over(share, event, 0);
        } else {
            metrics::counter!("concord_audit_lines_left_out_total").increment(1);
        }
    }

    /// Returns when all that was noted before is written, with how much was left out.
    pub async fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        inner.count_left_out();
        let (done, written) = oneshot::channel();
        if inner.lines.send(Written::Flush(done)).await.is_ok() {
            // A task that died writes nothing more.
            let _gone = written.await;
        }
    }
}

impl Inner {
    fn limits(&self) -> MutexGuard<'_, OfAll> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, share: Share, event: Event, more: u64) {
        let has_room = self.lines.capacity() > share.leaves();
        if has_room && self.lines.try_send(Written::Line(share.class(), event, more)).is_ok() {
            return;
        }
        if share == Share::Strangers {
            self.limits().of(share).count_again(more.max(1));
        } else {
            self.lost(1, "more is noted than is written");
        }
    }

    fn count_left_out(&self) {
        for share in Share::ALL {
            let left_out = self.limits().of(share).left_out();
            for (event, count) in left_out {
                self.hand_over(share, event, count);
            }
            let of_others = self.limits().of(share).of_others();
            if of_others > 0 {
                let about = Object::words("of callers that are too many to be told apart");
                let refused = (share != Share::Acts).then_some("VARIOUS");
                let event = Event { listener: "all", by: Actor::Unknown, method: "various", about, refused };
                self.hand_over(share, event, of_others);
            }
        }
    }

    fn lost(&self, count: u64, why: &str) {
        metrics::counter!("concord_audit_lines_lost_total").increment(count);
        let what = format!(
            "lines of the audit log were lost ({why}); how many, the metric concord_audit_lines_lost_total tells. What happened, happened"
        );
        self.readiness.note(AUDIT_LOST_NOTE, what);
    }
}

/// Writes until nobody is left to note anything.
async fn write_all(inner: std::sync::Weak<Inner>, folder: PathBuf, mut waiting: mpsc::Receiver<Written>) {
    let mut files: Option<Files> = None;
    let mut counting = tokio::time::interval(COUNTED_EVERY);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            taken = waiting.recv_many(&mut batch, LINES_AT_ONCE_MAX) => {
                if taken == 0 {
                    return;
                }
            }
            _ = counting.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                inner.count_left_out();
                continue;
            }
        }
        let (folder, mut writing) = (folder.clone(), files.take());
        let written = tokio::task::spawn_blocking(move || {
            let outcome = write_batch(&folder, &mut writing, &batch);
            (writing, batch, outcome)
        });
        let Ok((writing, batch, lost)) = written.await else {
            tracing::error!("writing the audit log ended in a fault of this program");
            return;
        };
        files = writing;
        if let Some(inner) = inner.upgrade() {
            if let Some((count, error)) = lost {
                inner.lost(count, &error.to_string());
            }
            inner.written.send_replace(());
        }
        for line in batch {
            if let Written::Flush(done) = line {
                // Whoever asked may be gone.
                let _gone = done.send(());
            }
        }
    }
}

/// How many lines were lost, and the last reason why, if any were.
fn write_batch(folder: &Path, files: &mut Option<Files>, batch: &[Written]) -> Option<(u64, io::Error)> {
    let (mut lost, mut has_acts) = (None, false);
    let mut one = |event: &Event, more, class| -> io::Result<()> {
        let files = match files {
            Some(files) => files,
            None => files.insert(Files::open(folder)?),
        };
        let line = AuditLine::of(event, files.next_number(), SystemClock.now(), more);
        files.write(&line, class)
    };
    for line in batch {
        let written = match line {
            Written::Line(class, event, more) => {
                has_acts |= *class == Class::Acts;
                one(event, *more, *class)
            }
            Written::Flush(_) => continue,
        };
        match written {
            Ok(()) => metrics::counter!("concord_audit_lines_written_total").increment(1),
            Err(error) => lost = Some((lost.map_or(0, |(count, _)| count) + 1, error)),
        }
    }
    if has_acts
        && let Some(files) = files
        && let Err(error) = files.sync_acts()
    {
        lost = Some((lost.map_or(0, |(count, _)| count) + 1, error));
    }
    lost
}

#[cfg(test)]
mod tests;
