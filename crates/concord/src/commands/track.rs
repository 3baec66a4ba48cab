//! `concord track`: the sender's side of one exchange; also what `submit --wait` waits with.

use std::time::Duration;

use clap::{Args, ValueEnum};
use concord_model::{Reason, ReceiptState, Refusal};
use concord_wire::proto::agency::v1::{TrackRequest, TrackResponse, TrackState, TrackUntil};
use concord_wire::proto::exchange::v1::WithdrawalKind;
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{CALL_TIMEOUT, Client, call_within};
use crate::exit::Failure;
use crate::output::{self, Output, facts, hex, short_time, table};

/// How far to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// Until the hub has it, or has refused it.
    Recorded,
    /// Until each recipient's node has it, or will not get it.
    Delivered,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord track 3f9a12bc --profile /srv/concord/node/agencies/drug-control")]
pub(crate) struct TrackArgs {
    /// The exchange's id, or its first 8 digits or more.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    #[command(flatten)]
    client: ClientArgs,
    /// Answer only when it has come that far.
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
}

/// How far an exchange has come.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tracked {
    pub(crate) exchange_id: String,
    pub(crate) state: &'static str,
    pub(crate) queued_at: Option<String>,
    pub(crate) recorded_at: Option<String>,
    pub(crate) recipients: Vec<Recipient>,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
    /// By what it is not current any more.
    pub(crate) not_current: Option<NotCurrent>,
    /// Of a withdrawal: what it withdraws.
    pub(crate) withdraws: Option<String>,
    pub(crate) supersedes: Option<String>,
    /// It, or a recipient, waits for longer than its lane should.
    pub(crate) overdue: bool,
    pub(crate) exercise: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct NotCurrent {
    pub(crate) kind: &'static str,
    pub(crate) withdrawal: String,
    pub(crate) successor: Option<String>,
    pub(crate) at: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Recipient {
    pub(crate) participant: String,
    pub(crate) state: &'static str,
    pub(crate) at: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) overdue: bool,
}

impl NotCurrent {
    pub(crate) fn in_words(&self) -> String {
        let by = self.successor.as_ref().unwrap_or(&self.withdrawal);
        format!("{} by {by} at {}", self.kind, short_time(self.at.as_deref()))
    }
}

impl Tracked {
    /// The hub's later refusal, as the failure that a waiting command ends with.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let code = self.reason.as_deref().filter(|_| self.state == ReceiptState::Refused.as_str())?;
        let message = format!("the hub refused the exchange {}", self.exchange_id);
        Some(match Reason::from_code(code) {
            Some(reason) => Refusal::new(reason, message).into(),
            None => Failure::new(crate::exit::Exit::Refused, code, message),
        })
    }
}

/// What a wait came to.
pub(crate) struct Waited {
    /// The last that was told, if anything was.
    pub(crate) last: Option<Tracked>,
    /// Whether the wait came to its end before the time was over.
    pub(crate) ended: bool,
}

pub(crate) async fn run(args: TrackArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let time = args.wait.map_or(CALL_TIMEOUT, |_| Duration::from_secs(args.timeout));
    let waited = wait(&client, &args.exchange, args.wait, time).await?;
    let tracked = waited.last.ok_or_else(|| expired(&args.exchange))?;
    output.result(&tracked, || shown(&tracked))?;
    if !waited.ended {
        return Err(expired(&tracked.exchange_id));
    }
    // Only who waited for more than the answer is told by the exit code what the answer says.
    match args.wait.and_then(|_| tracked.refusal()) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Follows one exchange until it has come that far, or the time is over.
pub(crate) async fn wait(
    client: &Client,
    exchange: &str,
    until: Option<WaitFor>,
    time: Duration,
) -> Result<Waited, Failure> {
    let until = match until {
        None => TrackUntil::Unspecified,
        Some(WaitFor::Recorded) => TrackUntil::Recorded,
        Some(WaitFor::Delivered) => TrackUntil::Delivered,
    };
    let request = TrackRequest { exchange_id: exchange.to_owned(), until: until.into() };
    let mut last = None;
    let following = async {
        let mut changes = client.agency().track(call_within(request, time)).await?.into_inner();
        while let Some(change) = changes.message().await? {
            last = Some(read(&change)?);
        }
        Ok::<(), Failure>(())
    };
    match tokio::time::timeout(time, following).await {
        Ok(Ok(())) => Ok(Waited { last, ended: true }),
        // The server keeps the same deadline and may be the first to say so.
        Ok(Err(failure)) if is_late(&failure) => Ok(Waited { last, ended: false }),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Ok(Waited { last, ended: false }),
    }
}

fn is_late(failure: &Failure) -> bool {
    failure.reason == "DEADLINE_EXCEEDED" || failure.reason == Reason::WaitExpired.code()
}

/// The failure of a wait whose time is over.
pub(crate) fn expired(exchange: &str) -> Failure {
    Refusal::new(Reason::WaitExpired, format!("the exchange {exchange} did not come that far in the time allowed"))
        .into()
}

fn read(response: &TrackResponse) -> Result<Tracked, Failure> {
    let recipients = response.recipients.iter().map(|recipient| {
        Ok(Recipient {
            participant: recipient.participant.clone(),
            state: word(recipient.state())?,
            at: output::optional_time(recipient.at.as_ref()),
            reason: stated(&recipient.reason),
            overdue: recipient.overdue,
        })
    });
    Ok(Tracked {
        exchange_id: hex(&response.exchange_id),
        state: word(response.state())?,
        queued_at: output::optional_time(response.queued_at.as_ref()),
        recorded_at: output::optional_time(response.recorded_at.as_ref()),
        recipients: recipients.collect::<Result<_, Failure>>()?,
        reason: stated(&response.reason),
        not_current: response.not_current.as_ref().map(not_current).transpose()?,
        withdraws: stated(&hex(&response.withdraws)),
        supersedes: stated(&hex(&response.supersedes)),
        overdue: response.overdue,
        exercise: response.exercise,
    })
}

pub(crate) fn not_current(message: &concord_wire::proto::agency::v1::NotCurrent) -> Result<NotCurrent, Failure> {
    let kind = match message.kind() {
        WithdrawalKind::Unspecified => return Err(Failure::answer("why it is not current is missing")),
        WithdrawalKind::Withdrawn => "withdrawn",
        WithdrawalKind::Superseded => "superseded",
    };
    Ok(NotCurrent {
        kind,
        withdrawal: hex(&message.withdrawal),
        successor: stated(&hex(&message.successor)),
        at: output::optional_time(message.at.as_ref()),
    })
}

pub(crate) fn stated(reason: &str) -> Option<String> {
    (!reason.is_empty()).then(|| reason.to_owned())
}

pub(crate) fn word(state: TrackState) -> Result<&'static str, Failure> {
    Ok(match state {
        TrackState::Unspecified => return Err(Failure::answer("a state is missing")),
        TrackState::Queued => ReceiptState::Queued,
        TrackState::Recorded => ReceiptState::Recorded,
        TrackState::Delivered => ReceiptState::Delivered,
        TrackState::Taken => ReceiptState::Taken,
        TrackState::Refused => ReceiptState::Refused,
        TrackState::Withheld => ReceiptState::Withheld,
        TrackState::SetAside => ReceiptState::SetAside,
    }
    .as_str())
}

/// An id, behind the mark of an exercise where it is one.
pub(crate) fn marked(id: &str, is_exercise: bool) -> String {
    if is_exercise { format!("EXERCISE  {id}") } else { id.to_owned() }
}

/// What is overdue at a recipient's node is said as what its sender can know: whether no agency has the right to it, or none asks for it,
/// is that state's own.
fn or_overdue(state: &str, is_overdue: bool) -> String {
    match is_overdue {
        false => state.to_owned(),
        true if state == ReceiptState::Delivered.as_str() => format!("{state}, NOT TAKEN YET"),
        true => format!("{state}, OVERDUE"),
    }
}

fn shown(tracked: &Tracked) -> String {
    let mut rows = vec![
        ("exchange", marked(&tracked.exchange_id, tracked.exercise)),
        ("state", or_overdue(tracked.state, tracked.overdue)),
        ("queued", short_time(tracked.queued_at.as_deref())),
        ("recorded", short_time(tracked.recorded_at.as_deref())),
    ];
    rows.extend(tracked.reason.iter().map(|reason| ("reason", reason.clone())));
    rows.extend(tracked.not_current.iter().map(|why| ("not current", why.in_words())));
    rows.extend(tracked.withdraws.iter().map(|id| ("withdraws", id.clone())));
    rows.extend(tracked.supersedes.iter().map(|id| ("supersedes", id.clone())));
    if tracked.recipients.is_empty() {
        return facts(&rows);
    }
    let recipients = tracked.recipients.iter().map(|one| {
        let reason = one.reason.clone().unwrap_or_default();
        vec![one.participant.clone(), or_overdue(one.state, one.overdue), short_time(one.at.as_deref()), reason]
    });
    format!("{}\n{}", facts(&rows), table(&["recipient", "state", "at", "reason"], recipients))
}
