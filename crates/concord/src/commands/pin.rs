//! `concord pin`: whose keys count for what this state consented to.

use clap::{Args, Subcommand};
use concord_model::{Digest, Fingerprint, ParticipantCode};
use concord_wire::proto::operations::v1::{ConfirmPinRequest, ListPinsRequest, Pin, PinState};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, table};

#[derive(Subcommand)]
pub(crate) enum PinCommand {
    /// List the keys of the other participants, and whether they count for what this state consented to.
    List(ListArgs),
    /// Let the present keys of a participant count for what was consented to with its earlier ones, as an officer.
    Confirm(ConfirmArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord pin list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord pin confirm KAZ --fingerprint \"3f9a12bc 77e04d1e 0c5b8a90 11d2e3f4 5a6b7c8d 9eafb0c1 d2e3f405 16273849\" --profile /srv/concord/node/officer\n\nGive what the other side read out by telephone from its own node (`concord participant show KAZ` there), and not what is listed here. What was set aside before stays set aside."
)]
pub(crate) struct ConfirmArgs {
    /// Its code.
    code: ParticipantCode,
    /// What the other side read out: the fingerprint of its enrolment.
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::parse)]
    fingerprint: Fingerprint,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct PinLine {
    participant: String,
    state: &'static str,
    node: String,
    /// In groups, as both sides see it.
    fingerprint: String,
    since: Option<String>,
    /// The agreements under which what these keys sign is set aside.
    waiting: Vec<String>,
}

#[derive(Serialize)]
struct ConfirmedLine {
    participant: String,
    fingerprint: String,
    state: &'static str,
}

pub(crate) async fn run(command: PinCommand, output: Output) -> Result<(), Failure> {
    match command {
        PinCommand::List(args) => list(&args, output).await,
        PinCommand::Confirm(args) => confirm(&args, output).await,
    }
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let pins = client.registry().list_pins(call(ListPinsRequest {})).await?.into_inner().pins;
    let lines = pins.into_iter().map(line).collect::<Result<Vec<_>, Failure>>()?;
    output.results(&lines, || {
        let row = |line: &PinLine| {
            let waiting = if line.waiting.is_empty() { "-".to_owned() } else { line.waiting.join(", ") };
            vec![line.participant.clone(), line.state.to_owned(), line.fingerprint.clone(), waiting]
        };
        table(&["participant", "keys", "fingerprint", "set aside under"], lines.iter().map(row))
    })?;
    if let Some(waits) = lines.iter().find(|line| !line.waiting.is_empty()) {
        let what = "have the other side read out its fingerprint by telephone, and confirm what it read";
        let confirm = Line::new(&format!("pin confirm {} --fingerprint \"...\" --profile", waits.participant));
        hint::next(output, what, &[confirm.path(&args.client.profile)]);
    }
    Ok(())
}

async fn confirm(args: &ConfirmArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let Fingerprint(Digest(said)) = args.fingerprint;
    let request = ConfirmPinRequest { participant: args.code.to_string(), enrolment_fingerprint: said.to_vec().into() };
    client.registry().confirm_pin(call(request)).await?;
    let line = ConfirmedLine {
        participant: args.code.to_string(),
        fingerprint: args.fingerprint.grouped(),
        state: "confirmed",
    };
    output.result(&line, || {
        facts(&[
            ("participant", line.participant.clone()),
            ("fingerprint", line.fingerprint.clone()),
            ("keys", line.state.to_owned()),
        ])
    })?;
    let next = Line::new("set-aside retry --all --profile").path(&args.client.profile);
    hint::next(
        output,
        "what these keys sign from now on is taken; what was set aside before is judged again by",
        &[next],
    );
    Ok(())
}

fn line(pin: Pin) -> Result<PinLine, Failure> {
    let state = match pin.state() {
        PinState::Unspecified => "unknown",
        PinState::Unused => "unused",
        PinState::Consented => "consented",
        PinState::Confirmed => "confirmed",
        PinState::Waits => "waits",
    };
    let keys = pin.keys.unwrap_or_default();
    let fingerprint = Digest::from_slice(&keys.enrolment_fingerprint).map_err(Failure::answer)?;
    Ok(PinLine {
        participant: output::safe(&pin.participant),
        state,
        node: output::safe(&keys.node),
        fingerprint: Fingerprint(fingerprint).grouped(),
        since: output::optional_time(keys.enrolled_at.as_ref()),
        waiting: pin.waiting_agreements.iter().map(|id| output::safe(id)).collect(),
    })
}
