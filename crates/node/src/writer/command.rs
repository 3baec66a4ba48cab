//! What is asked of the writer, and the handle through which it is asked.

use bytes::Bytes;
use concord_journal::{Blob, Bodies, HistoryId, PreparedTrim};
use concord_ledger::Statement;
use concord_model::{
    AgreementId, ExchangeId, Fingerprint, Lane, MeasureCode, Name, ParticipantCode, Reason, Refusal, RequestId,
};
use concord_wire::consignment::Sealed;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1::{MailboxResume, RecordedReceipt};
use concord_wire::proto::feed::v1::FeedItem;
use concord_wire::receipt::Recorded;
use concord_wire::stored::node::{FeedResumed, LaneRecovered, RightsChange, StatementAnswered, Verdict};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::aside::{Discarding, Retried};
use crate::state::Step;

/// An exchange that is ready to be queued: checked, hashed and serialised outside the writer.
pub(crate) struct Prepared {
    pub(crate) agency: Name,
    pub(crate) request_id: RequestId,
    /// What tells a repeat from a conflict.
    pub(crate) request: Bytes,
    pub(crate) lane: Lane,
    pub(crate) header: Bytes,
    pub(crate) answer: Accepted,
    /// The description, then the part.
    pub(crate) blobs: Vec<Blob>,
    /// An own exchange that it takes back, or takes the place of.
    pub(crate) withdraws: Option<ExchangeId>,
    /// What its agency must be allowed to send for that, since nobody knows who submitted it.
    pub(crate) by_right: Option<(MeasureCode, AgreementId)>,
    /// The withdrawal that goes right behind it.
    pub(crate) second: Option<Second>,
}

impl Prepared {
    /// How many exchanges it is.
    pub(super) fn count(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }

    /// Their headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = Bytes> {
        std::iter::once(&self.header).chain(self.second.as_ref().map(|second| &second.header)).cloned()
    }
}

/// The withdrawal of what an exchange takes the place of: queued with it, in the same consignment.
pub(crate) struct Second {
    pub(crate) header: Bytes,
    pub(crate) blobs: Vec<Blob>,
}

/// A submission that the rules refuse, unless it was taken in before.
pub(crate) struct Refused {
    pub(crate) agency: Name,
    pub(crate) request_id: RequestId,
    /// What tells a repeat from a conflict.
    pub(crate) request: Bytes,
    pub(crate) lane: Lane,
    pub(crate) why: Refusal,
}

/// An exchange that is durable here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: ExchangeId,
    /// The agreement that it goes under.
    pub agreement: AgreementId,
    /// Its measure.
    pub measure: MeasureCode,
    /// Whether it is an exercise.
    pub exercise: bool,
}

/// One number of a mailbox as it was judged, with the blobs to keep.
pub struct Judged {
    /// What became of it.
    pub verdict: Verdict,
    /// The exchange that came, by its header: one that was accepted before is not taken in again, however it is judged now.
    pub id: Option<ExchangeId>,
    /// Beside the entry.
    pub blobs: Vec<Blob>,
    /// About how many bytes it takes in a commit.
    pub size_bytes: u64,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

pub(crate) enum Command {
    Submit(Box<Prepared>, Reply<Accepted>),
    Refused(Box<Refused>, Reply<Accepted>),
    Receipts(Vec<(RecordedReceipt, Recorded)>, Reply<()>),
    Feed(HistoryId, Vec<FeedItem>, u64, Reply<()>),
    Mail(Lane, HistoryId, Vec<Judged>, Reply<()>),
    Acknowledge(Name, Lane, u64, u64, Reply<u64>),
    Collect(Name, Lane, u64, Reply<()>),
    Statement(SignedStatement, Box<Statement>, Reply<Step>),
    Answer(StatementAnswered, Reply<()>),
    AddAgency(Name, Vec<MeasureCode>, Reply<()>),
    ConfirmPin(ParticipantCode, Fingerprint, Reply<()>),
    ChangeRights(Name, RightsChange, Reply<()>),
    /// Never part of a batch with others, as [`Self::PackAnew`].
    RetryAside(Lane, u64, Reply<Retried>),
    /// The same.
    DiscardAside(Lane, u64, Box<Discarding>, Reply<()>),
    ResumeFeed(FeedResumed, Reply<()>),
    ResumeMailbox(Lane, HistoryId, MailboxResume, u64, Reply<()>),
    Renew(Vec<(RecordedReceipt, Recorded)>, Reply<()>),
    Fetched(Box<Fetched>, Reply<()>),
    Taken(Lane, u64, Vec<u64>, Reply<()>),
    Recovered(LaneRecovered, Reply<()>),
    Begin([u8; 16], Reply<()>),
    /// Nothing: whoever asks wants to know that the writer still goes on.
    Ask(Reply<()>),
    Fence(Refusal, Reply<()>),
    LiftFence(Reply<()>),
    /// Never part of a batch with others: it asks the views for what stands before it.
    PackAnew(Lane, u64, Reply<bool>),
    /// Never part of a batch: the journal's own entries come of it.
    Effect(Effect, Reply<()>),
}

/// What the journal does to itself.
pub(crate) enum Effect {
    Redact(Vec<Bodies>),
    Trim(PreparedTrim),
}

/// A consignment that the hub gave back, verified.
pub(crate) struct Fetched {
    pub(crate) sealed: Sealed,
    pub(crate) blobs: Vec<Vec<Blob>>,
    pub(crate) receipt: RecordedReceipt,
    pub(crate) recorded: Recorded,
}

/// Tells whoever waits what became of its command; a refusal of the whole commit takes the place of what was decided.
pub(super) type Answer = Box<dyn FnOnce(Option<Refusal>) + Send>;

pub(super) fn answer<T: Send + 'static>(reply: Reply<T>, outcome: Result<T, Refusal>) -> Answer {
    // Whoever hung up does not need the answer.
    Box::new(move |refused| drop(reply.send(refused.map_or(outcome, Err))))
}

impl Command {
    /// Whether it needs a commit of its own.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self, Self::Effect(..) | Self::PackAnew(..) | Self::RetryAside(..) | Self::DiscardAside(..))
    }

    /// The refusal of a command that no commit could take.
    pub(super) fn too_large(self) -> Answer {
        match self {
            Self::Submit(_, reply) | Self::Refused(_, reply) => refuse_too_large(reply),
            Self::Receipts(_, reply)
            | Self::Feed(.., reply)
            | Self::Mail(.., reply)
            | Self::Answer(_, reply)
            | Self::ResumeFeed(_, reply)
            | Self::ResumeMailbox(.., reply)
            | Self::Renew(_, reply)
            | Self::Fetched(_, reply)
            | Self::Taken(.., reply)
            | Self::Recovered(_, reply)
            | Self::Begin(_, reply)
            | Self::Fence(_, reply)
            | Self::LiftFence(reply)
            | Self::Ask(reply)
            | Self::Effect(_, reply)
            | Self::Collect(.., reply)
            | Self::ChangeRights(.., reply)
            | Self::ConfirmPin(.., reply)
            | Self::AddAgency(.., reply) => refuse_too_large(reply),
            Self::DiscardAside(.., reply) => refuse_too_large(reply),
            Self::RetryAside(.., reply) => refuse_too_large(reply),
            Self::Acknowledge(.., reply) => refuse_too_large(reply),
            Self::PackAnew(.., reply) => refuse_too_large(reply),
            Self::Statement(.., reply) => refuse_too_large(reply),
        }
    }
}

fn refuse_too_large<T: Send + 'static>(reply: Reply<T>) -> Answer {
    answer(reply, Err(Refusal::new(Reason::Internal, "this does not fit into one commit of this node")))
}

/// Hands commands to the writer and brings its answers. Every answer means that it is durable.
#[derive(Clone)]
pub struct NodeWriter {
    flash: mpsc::Sender<Command>,
    commands: mpsc::Sender<Command>,
    submissions: mpsc::Sender<Command>,
}

impl NodeWriter {
    pub(super) fn new(
        flash: mpsc::Sender<Command>,
        commands: mpsc::Sender<Command>,
        submissions: mpsc::Sender<Command>,
    ) -> Self {
        Self { flash, commands, submissions }
    }

    /// Queues an exchange. A repeat of its request gives the first answer.
    ///
    /// Refuses with `QUEUE_FULL`, `REQUEST_ID_CONFLICT`, `NOT_JOINED` or `SHUTTING_DOWN`.
    pub(crate) async fn submit(&self, prepared: Box<Prepared>) -> Result<Accepted, Refusal> {
        let lane = prepared.lane;
        self.hand_in(lane, |reply| Command::Submit(prepared, reply)).await
    }

    /// The answer to a submission that the rules refuse: the first one, where the same was taken in before, or is under way.
    ///
    /// Refuses as it was refused, or with `QUEUE_FULL`, `REQUEST_ID_CONFLICT` or `SHUTTING_DOWN`.
    pub(crate) async fn refused(&self, refused: Box<Refused>) -> Result<Accepted, Refusal> {
        let lane = refused.lane;
        self.hand_in(lane, |reply| Command::Refused(refused, reply)).await
    }

    async fn hand_in(&self, lane: Lane, command: impl FnOnce(Reply<Accepted>) -> Command) -> Result<Accepted, Refusal> {
        let queue = match lane {
            Lane::Flash => &self.flash,
            Lane::Priority | Lane::Routine => &self.submissions,
        };
        let (reply, answer) = oneshot::channel();
        queue.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => {
                Refusal::new(Reason::QueueFull, "more submissions wait than this node takes at once")
            }
            TrySendError::Closed(_) => ending(),
        })?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Keeps verified receipts of one lane, in order.
    pub async fn receipts(&self, receipts: Vec<(RecordedReceipt, Recorded)>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Receipts(receipts, reply)).await
    }

    /// Applies verified feed items, in order; `size_bytes` is their serialised length.
    pub async fn feed(&self, history: HistoryId, items: Vec<FeedItem>, size_bytes: u64) -> Result<(), Refusal> {
        self.ask(|reply| Command::Feed(history, items, size_bytes, reply)).await
    }

    /// Keeps judged deliveries of one mailbox, in order.
    pub async fn mail(&self, lane: Lane, history: HistoryId, items: Vec<Judged>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Mail(lane, history, items, reply)).await
    }

    /// Moves an agency's cursor, over what was given under its rights as this entry of the journal left them; 0: as they are. A repeat
    /// is harmless.
    pub async fn acknowledge(&self, agency: Name, lane: Lane, through: u64, rights_at: u64) -> Result<(), Refusal> {
        // A long way goes in steps of one entry each, so that a commit stays small.
        let mut reached = 0;
        while reached < through {
            let agency = agency.clone();
            reached = self.ask(|reply| Command::Acknowledge(agency, lane, through, rights_at, reply)).await?;
        }
        Ok(())
    }

    /// Keeps that an agency has one delivery behind its cursor that nobody had collected. A repeat is harmless.
    pub async fn collect(&self, agency: Name, lane: Lane, number: u64) -> Result<(), Refusal> {
        self.ask(|reply| Command::Collect(agency, lane, number, reply)).await
    }

    /// Judges again what was set aside under a number; where it holds now, its agencies are given it.
    ///
    /// Refuses with `EXCHANGE_UNKNOWN` where nothing is set aside under it (any more), `EXCHANGE_WITHDRAWN`, `BLOB_MISMATCH`, `QUEUE_FULL`
    /// and `RECOVERING`.
    pub(crate) async fn retry_aside(&self, lane: Lane, number: u64) -> Result<Retried, Refusal> {
        self.ask(|reply| Command::RetryAside(lane, number, reply)).await
    }

    /// Discards what was set aside under a number.
    ///
    /// Refuses with `EXCHANGE_UNKNOWN` and `RECOVERING`.
    pub(crate) async fn discard_aside(&self, lane: Lane, number: u64, why: Discarding) -> Result<(), Refusal> {
        self.ask(|reply| Command::DiscardAside(lane, number, Box::new(why), reply)).await
    }

    /// Queues an officer's verified statement.
    pub async fn statement(&self, signed: SignedStatement, statement: Statement) -> Result<Step, Refusal> {
        self.ask(|reply| Command::Statement(signed, Box::new(statement), reply)).await
    }

    /// Keeps the hub's answer to a statement.
    pub async fn answer(&self, answer: StatementAnswered) -> Result<(), Refusal> {
        self.ask(|reply| Command::Answer(answer, reply)).await
    }

    /// Lets an agency in.
    pub async fn add_agency(&self, name: Name, measures: Vec<MeasureCode>) -> Result<(), Refusal> {
        self.ask(|reply| Command::AddAgency(name, measures, reply)).await
    }

    /// Keeps an officer's word that the present keys of a participant are those that were read out with this fingerprint.
    pub async fn confirm_pin(&self, whose: ParticipantCode, said: Fingerprint) -> Result<(), Refusal> {
        self.ask(|reply| Command::ConfirmPin(whose, said, reply)).await
    }

    /// Gives an agency a right, takes one from it, or ends it. A repeat is harmless.
    pub async fn change_rights(&self, name: Name, change: RightsChange) -> Result<(), Refusal> {
        self.ask(|reply| Command::ChangeRights(name, change, reply)).await
    }

    /// The feed goes on after the hub lost data.
    pub async fn resume_feed(&self, resumed: FeedResumed) -> Result<(), Refusal> {
        self.ask(|reply| Command::ResumeFeed(resumed, reply)).await
    }

    /// A mailbox goes on after the hub lost data, which knows so many first acknowledgements.
    pub async fn resume_mailbox(
        &self,
        lane: Lane,
        history: HistoryId,
        resume: MailboxResume,
        taken_count: u64,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Command::ResumeMailbox(lane, history, resume, taken_count, reply)).await
    }

    /// Keeps verified receipts of consignments that have one, which the hub had forgotten.
    pub async fn renew(&self, receipts: Vec<(RecordedReceipt, Recorded)>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Renew(receipts, reply)).await
    }

    /// Keeps a consignment that the hub gave back, with its receipt. A repeat is harmless.
    ///
    /// Refuses with `FORK` where another one stands here.
    pub(crate) async fn fetched(&self, fetched: Box<Fetched>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Fetched(fetched, reply)).await
    }

    /// Keeps first acknowledgements after the `before`-th of a lane that the hub had been told of. A repeat is harmless.
    pub(crate) async fn taken(&self, lane: Lane, before: u64, numbers: Vec<u64>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Taken(lane, before, numbers, reply)).await
    }

    /// Keeps that this process began. A repeat is harmless.
    pub async fn begin_run(&self, run: [u8; 16]) -> Result<(), Refusal> {
        self.ask(|reply| Command::Begin(run, reply)).await
    }

    /// Resolves when the writer has answered, behind what it was doing before; also where the answer is a refusal. Never, where it hangs.
    pub async fn asked(&self) {
        drop(self.ask(Command::Ask).await);
    }

    /// Keeps that the hub does not serve this copy of the node. A repeat is harmless.
    pub async fn fence(&self, why: Refusal) -> Result<(), Refusal> {
        self.ask(|reply| Command::Fence(why, reply)).await
    }

    /// Keeps that the hub serves it after all. A repeat is harmless.
    pub async fn lift_fence(&self) -> Result<(), Refusal> {
        self.ask(Command::LiftFence).await
    }

    /// Keeps that what the hub knew of a lane is here again. A repeat is harmless.
    pub(crate) async fn recovered(&self, fact: LaneRecovered) -> Result<(), Refusal> {
        self.ask(|reply| Command::Recovered(fact, reply)).await
    }

    /// Packs what is left of a lane's closed epoch anew, as much as one commit takes, of which the hub has everything up to
    /// `hub_last`; whether the lane has entered the next epoch.
    ///
    /// Refuses with `INTERNAL` where not all of that is known here, or a consignment cannot be read; with `DISK_FULL`.
    pub(crate) async fn pack_anew(&self, lane: Lane, hub_last: u64) -> Result<bool, Refusal> {
        self.ask(|reply| Command::PackAnew(lane, hub_last, reply)).await
    }

    /// Lets bodies go for good.
    pub(crate) async fn redact(&self, bodies: Vec<Bodies>) -> Result<(), Refusal> {
        self.ask(|reply| Command::Effect(Effect::Redact(bodies), reply)).await
    }

    /// Lets old segments go for good.
    pub(crate) async fn trim(&self, prepared: PreparedTrim) -> Result<(), Refusal> {
        self.ask(|reply| Command::Effect(Effect::Trim(prepared), reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "this node is ending")
}
