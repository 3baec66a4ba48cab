//! The one task that owns journal and state: it groups what waits into one commit, decides, appends, applies, projects,
//! and only then answers.

mod acknowledging;
mod aside;
mod batch;
mod command;
mod packing;
mod room;

use std::sync::Arc;

use concord_journal::{AppendError, Tail};
use concord_model::{Reason, Refusal, Timestamp};
use concord_views::CatchUpError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::index::{Index, IndexError};
use crate::projection::NodeProjection;
use crate::signing::NodeKeys;
use crate::state::{FoldError, NodeState};
use batch::{Batch, Finished};
use command::{Command, Effect, Reply};
use concord_server::{Clock, DiskRoom, NoRandomness};
use room::Room;

pub(crate) use aside::{Discarding, Retried, not_set_aside};
pub(crate) use batch::first_answer;
pub use command::{Accepted, Judged, NodeWriter};
pub(crate) use command::{Fetched, Prepared, Refused, Second};

/// Submissions that wait for the writer, on lane flash and on the others each. Beyond it an agency hears `QUEUE_FULL`.
pub const SUBMISSIONS_WAITING_MAX: usize = 32;
/// Commands of links and services that wait for the writer. Beyond it they wait their turn, and their peers with them.
pub const COMMANDS_WAITING_MAX: usize = 64;

/// Why the writer ended. The process must end too, and comes back by its normal start.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The journal did not take a commit.
    #[error("the journal did not take a commit: {0}")]
    Append(#[from] AppendError),
    /// What was decided cannot be applied: nothing was appended.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The views did not follow; they are rebuilt at the next start if need be.
    #[error("the views did not follow the journal: {0}")]
    Views(#[from] CatchUpError),
    /// The views could not be asked.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// No nonce or seed could be drawn.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A thread of the runtime died.
    #[error("a thread died while it decided or projected: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// A state and the journal's tail that it is the fold of.
pub type Durable = (Arc<NodeState>, Tail);

/// The task and what it owns.
pub struct Writer {
    state: NodeState,
    published: watch::Sender<Arc<NodeState>>,
    durable: watch::Sender<Durable>,
    index: Index,
    tail: Tail,
    keys: Arc<NodeKeys>,
    clock: Arc<dyn Clock>,
    last_recorded_at: Timestamp,
    queues: Queues,
    room: DiskRoom,
}

struct Queues {
    flash: mpsc::Receiver<Command>,
    /// From links and services: never refused, only waited for.
    commands: mpsc::Receiver<Command>,
    submissions: mpsc::Receiver<Command>,
}

impl Writer {
    /// Over a state that was folded up to the journal's tail and views that have caught up.
    pub fn new(
        state: NodeState,
        index: Index,
        keys: Arc<NodeKeys>,
        clock: Arc<dyn Clock>,
    ) -> (Self, NodeWriter, watch::Receiver<Arc<NodeState>>) {
        let (published, watched) = watch::channel(Arc::new(state.clone()));
        let (flash_sender, flash) = mpsc::channel(SUBMISSIONS_WAITING_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (submission_sender, submissions) = mpsc::channel(SUBMISSIONS_WAITING_MAX);
        let tail = index.journal().tail();
        let (durable, _) = watch::channel((Arc::new(state.clone()), tail));
        let writer = Self {
            state,
            published,
            durable,
            index,
            tail,
            keys,
            clock,
            last_recorded_at: Timestamp::default(),
            queues: Queues { flash, commands, submissions },
            room: DiskRoom::default(),
        };
        let handle = NodeWriter::new(flash_sender, command_sender, submission_sender);
        (writer, handle, watched)
    }

    /// What is durable, as it moves, with the entry that it is the fold of.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// Tells appends for which there was no room here.
    #[must_use]
    pub fn with_room(mut self, room: DiskRoom) -> Self {
        self.room = room;
        self
    }

    /// The time of the journal's last entry: no later one is recorded before it.
    #[must_use]
    pub fn with_last_recorded(mut self, at: Timestamp) -> Self {
        self.last_recorded_at = at;
        self
    }

    /// Runs until `stop`, then finishes what was handed over before.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WriterError> {
        let mut held = None;
        loop {
            if concord_faults::failure("node.writer.goes-on").is_err() {
                std::future::pending::<()>().await;
            }
            let first = match held.take() {
                Some(command) => command,
                None => match self.queues.next(&stop).await {
                    Some(command) => command,
                    None => return Ok(()),
                },
            };
            held = self.commit(first).await?;
        }
    }

    /// One commit of `first` and of what waits behind it; returns the command that did not fit any more.
    async fn commit(&mut self, first: Command) -> Result<Option<Command>, WriterError> {
        let now = self.clock.now().max(self.last_recorded_at);
        self.last_recorded_at = now;
        let first = match first {
            Command::Effect(effect, reply) => return self.effect(effect, reply, now).await.map(|()| None),
            first => first,
        };
        let mut room = Room::default();
        room.take(&first);
        let (mut commands, mut held) = (vec![first], None);
        let alone = commands.iter().any(Command::is_alone);
        while let Some(command) = if alone { None } else { self.queues.waiting() } {
            if !room.fits(&command) || command.is_alone() {
                held = Some(command);
                break;
            }
            room.take(&command);
            commands.push(command);
        }
        concord_faults::point("node.commit.gathered");
        let finished = self.decide(commands, now).await?;
        concord_faults::point("node.commit.decided");
        let mut finished = finished;
        if concord_faults::planted("answer-before-append") {
            std::mem::take(&mut finished.answers).into_iter().for_each(|answer| answer(None));
        }
        if !finished.drafts.is_empty() {
            // commit point: a crash before it leaves nothing of this batch, or its first entries, none of them answered, and
            // whoever waits tries again; a crash after it leaves all of it, and a repeat finds it in the state or the views.
            let committed = match self.index.journal().append(self.tail, finished.drafts).await {
                Ok(committed) => committed,
                Err(AppendError::NoRoom { .. }) => {
                    // Invariant: the state never stands ahead of the journal. What was decided goes with the batch, and nobody hears of it.
                    self.room.refused();
                    if concord_faults::planted("apply-before-append") {
                        self.state = finished.state;
                    }
                    for answer in finished.answers {
                        answer(Some(DiskRoom::refusal()));
                    }
                    return Ok(held);
                }
                Err(error) => return Err(error.into()),
            };
            concord_faults::point("node.commit.durable");
            self.tail = committed.tail;
            self.project().await?;
            concord_faults::point("node.commit.projected");
            self.state = finished.state;
            let state = Arc::new(self.state.clone());
            self.durable.send_replace((Arc::clone(&state), self.tail));
            self.published.send_replace(state);
            concord_faults::point("node.commit.published");
        }
        for answer in finished.answers {
            answer(None);
        }
        concord_faults::point("node.commit.answered");
        Ok(held)
    }

    /// Lets bodies or segments go: entries of the journal's own, by which no state changes.
    async fn effect(&mut self, effect: Effect, reply: Reply<()>, now: Timestamp) -> Result<(), WriterError> {
        let (journal, now) = (self.index.journal(), now.as_micros());
        let done = match effect {
            Effect::Redact(bodies) => journal.redact(self.tail, now, bodies).await.map(|done| (done.tail, done.gone)),
            Effect::Trim(prepared) => journal.trim(self.tail, now, prepared).await.map(|done| (done.tail, true)),
        };
        let outcome = match done {
            Ok((tail, is_whole)) => {
                self.tail = tail;
                self.project().await?;
                self.durable.send_replace((Arc::new(self.state.clone()), self.tail));
                // What was named and not overwritten nobody is given any more; the next redaction or start finishes it.
                if is_whole {
                    Ok(())
                } else {
                    self.room.refused();
                    Err(DiskRoom::refusal())
                }
            }
            Err(AppendError::NoRoom { .. }) => {
                self.room.refused();
                Err(DiskRoom::refusal())
            }
            Err(error @ (AppendError::NotRedactable { .. } | AppendError::NotTrimmable { .. })) => {
                Err(Refusal::new(Reason::Internal, error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        // Whoever asked may be gone; what is gone is gone all the same.
        drop(reply.send(outcome));
        Ok(())
    }

    /// Deciding reads views and journal, hashes and signs.
    async fn decide(&self, commands: Vec<Command>, now: Timestamp) -> Result<Finished, WriterError> {
        let (state, tail, index, keys) = (self.state.clone(), self.tail, self.index.clone(), Arc::clone(&self.keys));
        let decided = concord_server::blocking(move || {
            let mut batch = Batch::begin(state, tail, &index, &keys, now);
            commands.into_iter().try_for_each(|command| batch.take(command))?;
            batch.finish()
        });
        decided.await?
    }

    /// The rows stand before anybody is answered, so that the next batch finds what this one did.
    async fn project(&self) -> Result<(), WriterError> {
        let (index, tail) = (self.index.clone(), self.tail);
        let caught_up = concord_server::blocking(move || {
            let journal = index.journal().as_ref();
            index.views().catch_up(journal, &mut NodeProjection, tail, |_| {})
        });
        Ok(caught_up.await??)
    }
}

impl Queues {
    /// Flash first; none when it is time to end and nothing waits.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Command> {
        tokio::select! {
            biased;
            Some(command) = self.flash.recv() => Some(command),
            Some(command) = self.commands.recv() => Some(command),
            Some(command) = self.submissions.recv() => Some(command),
            () = stop.cancelled() => {
                self.flash.close();
                self.commands.close();
                self.submissions.close();
                self.waiting()
            }
            else => None,
        }
    }

    fn waiting(&mut self) -> Option<Command> {
        let queues = [&mut self.flash, &mut self.commands, &mut self.submissions];
        queues.into_iter().find_map(|queue| queue.try_recv().ok())
    }
}
