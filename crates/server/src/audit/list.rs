//! Reading the audit log: what is there, and what comes.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_model::{Identity, Reason, Refusal, Timestamp};
use concord_wire::convert::{optional_timestamp, parse_timestamp};
use concord_wire::proto::operations::v1::{self as pb, ListAuditRequest, ListAuditResponse};
use concord_wire::status::to_status;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::files::{Position, read_on};
use super::line::AuditLine;
use super::{Audit, Inner};
use crate::drain::Shutdown;

/// Lists that are given at once. One more hears `QUEUE_FULL`.
pub const LISTS_OPEN_MAX: usize = 8;
/// Of these, lists of one caller, so that nobody who follows in many windows shuts out the others. One more hears `QUEUE_FULL`.
pub const LISTS_OPEN_PER_CALLER_MAX: usize = 2;
/// Lines on their way to a slow reader; the files have the rest.
const LINES_WAITING_MAX: usize = 64;

/// What a list is given as.
pub type AuditStream = BoxStream<'static, Result<ListAuditResponse, Status>>;

/// How many lists each caller has open. Who has none is not in it.
#[derive(Clone, Default)]
pub(super) struct OpenLists(Arc<Mutex<BTreeMap<Identity, usize>>>);

impl OpenLists {
    fn take(&self, by: &Identity) -> Result<OpenList, Refusal> {
        let mut open = self.open();
        if open.values().sum::<usize>() >= LISTS_OPEN_MAX {
            return Err(Refusal::new(Reason::QueueFull, format!("{LISTS_OPEN_MAX} lists of the audit log are open")));
        }
        let of_caller = open.get(by).copied().unwrap_or_default();
        if of_caller >= LISTS_OPEN_PER_CALLER_MAX {
            let full = format!("{by} has {of_caller} lists of the audit log open, the most for one caller; end one");
            return Err(Refusal::new(Reason::QueueFull, full));
        }
        open.insert(by.clone(), of_caller + 1);
        Ok(OpenList { by: by.clone(), lists: self.clone() })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Identity, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken until this is dropped.
struct OpenList {
    by: Identity,
    lists: OpenLists,
}

impl Drop for OpenList {
    fn drop(&mut self) {
        let mut open = self.lists.open();
        match open.get_mut(&self.by) {
            Some(lists) if *lists > 1 => *lists -= 1,
            _ => drop(open.remove(&self.by)),
        }
    }
}

/// Which lines.
struct Wanted {
    since: Option<Timestamp>,
    refused: bool,
    caller: String,
}

impl Wanted {
    fn has(&self, line: &AuditLine) -> bool {
        let at = line.time.parse::<prost_types::Timestamp>().ok().and_then(|time| parse_timestamp(&time).ok());
        let is_late = self.since.is_none_or(|since| at.is_some_and(|at| at >= since));
        is_late && (!self.refused || line.is_refused()) && line.caller.contains(&self.caller)
    }
}

impl Audit {
    /// Gives the lines that are asked for, in their order, and goes on with those that come where that is asked for.
    ///
    /// Refuses with `QUEUE_FULL`.
    pub fn list(&self, by: &Identity, request: ListAuditRequest, shutdown: Shutdown) -> Result<AuditStream, Refusal> {
        let Some(inner) = &self.0 else { return Ok(futures::stream::empty().boxed()) };
        let open = inner.lists.take(by)?;
        let (lines, stream) = mpsc::channel(LINES_WAITING_MAX);
        let (audit, follow) = (self.clone(), request.follow);
        let reader = Reader { folder: inner.folder.clone(), position: Position::default(), written: written(inner) };
        tokio::spawn(async move {
            // What was noted before the question is in the answer.
            audit.flush().await;
            drop(audit);
            tokio::select! {
                biased;
                () = lines.closed() => {}
                () = shutdown.streams_end(), if follow => drop(lines.send(Err(Shutdown::status())).await),
                () = reader.give(request, &lines) => {}
            }
            drop(open);
        });
        let given = futures::stream::unfold(stream, async |mut lines| lines.recv().await.map(|line| (line, lines)));
        Ok(given.boxed())
    }
}

fn written(inner: &Inner) -> watch::Receiver<()> {
    inner.written.subscribe()
}

struct Reader {
    folder: PathBuf,
    position: Position,
    written: watch::Receiver<()>,
}

impl Reader {
    async fn give(mut self, request: ListAuditRequest, lines: &mpsc::Sender<Result<ListAuditResponse, Status>>) {
        let ListAuditRequest { since, refused, caller, limit, follow } = request;
        let wanted = Wanted { since: optional_timestamp(since.as_ref()), refused, caller };
        let mut limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        loop {
            self.written.borrow_and_update();
            let (folder, mut position) = (self.folder.clone(), self.position);
            let read =
                tokio::task::spawn_blocking(move || read_on(&folder, &mut position).map(|read| (read, position)));
            let read = match read.await {
                Ok(Ok((read, position))) => {
                    self.position = position;
                    read
                }
                failed => {
                    let why = failed.map_or_else(
                        |error| error.to_string(),
                        |read| read.map_or_else(|error| error.to_string(), |_| String::new()),
                    );
                    tracing::error!(why, "the audit log could not be read");
                    let refusal = Refusal::new(Reason::Internal, "the audit log could not be read");
                    drop(lines.send(Err(to_status(&refusal))).await);
                    return;
                }
            };
            let mut found: VecDeque<AuditLine> = read.into_iter().filter(|line| wanted.has(line)).collect();
            // The newest so many of what is there; what comes is not limited.
            if let Some(limit) = limit.take() {
                found.drain(..found.len().saturating_sub(limit));
            }
            for line in found {
                if lines.send(Ok(message(line))).await.is_err() {
                    return;
                }
            }
            if !follow || self.written.changed().await.is_err() {
                return;
            }
        }
    }
}

fn message(line: AuditLine) -> ListAuditResponse {
    let AuditLine { number, time, listener, caller, method, about, outcome, more } = line;
    let time = time.parse::<prost_types::Timestamp>().ok();
    let line = pb::AuditLine { number, time, listener, caller, method, about, outcome, more };
    ListAuditResponse { line: Some(line) }
}
