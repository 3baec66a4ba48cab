//! `concord pin`: whose keys count for what this state consented to.

use clap::{Args, Subcommand};
use concord_model::{Digest, Fingerprint, ParticipantCode, Reason, Refusal};
use concord_wire::proto::operations::v1::{ConfirmPinRequest, ListPinsRequest, Pin, PinState};
use serde::Serialize;

use super::compare::Compared;
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
    after_help = "Example:\n  concord pin confirm KAZ --profile /srv/concord/node/officer\n  concord pin confirm KAZ --fingerprint \"3f9a12bc 77e04d1e 0c5b8a90 11d2e3f4 5a6b7c8d 9eafb0c1 d2e3f405 16273849\" --profile /srv/concord/node/officer\n\nOn a terminal it is asked for. Give what the other side read out by telephone from its own node (`concord participant show KAZ` there), and not what is listed here. What was set aside before stays set aside."
)]
pub(crate) struct ConfirmArgs {
    /// Its code.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    compared: Compared,
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
        let confirm = Line::new(&format!("pin confirm {} --profile", waits.participant));
        hint::next(output, what, &[confirm.path(&args.client.profile)]);
    }
    Ok(())
}

async fn confirm(args: &ConfirmArgs, output: Output) -> Result<(), Failure> {
    if !args.compared.says_or_asks() {
        let what =
            format!("the fingerprint of {}'s keys is not said, and there is no terminal to ask for it", args.code);
        return Err(Failure::usage(what).help("have it read out by telephone, and give all of it by --fingerprint"));
    }
    let client = Client::connect(&args.client).await?;
    let compared = match args.compared.said() {
        // The node compares it, and says what it knows of that participant.
        Some(said) => said,
        None => compare_with_listed(&client, args, output).await?,
    };
    let Fingerprint(Digest(said)) = compared;
    let request = ConfirmPinRequest { participant: args.code.to_string(), enrolment_fingerprint: said.to_vec().into() };
    client.registry().confirm_pin(call(request)).await?;
    let line =
        ConfirmedLine { participant: args.code.to_string(), fingerprint: compared.grouped(), state: "confirmed" };
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

/// The present keys of that participant, once somebody at the terminal has typed what was read out.
async fn compare_with_listed(client: &Client, args: &ConfirmArgs, output: Output) -> Result<Fingerprint, Failure> {
    let pins = client.registry().list_pins(call(ListPinsRequest {})).await?.into_inner().pins;
    let pin = pins.into_iter().find(|pin| pin.participant == args.code.as_str()).ok_or_else(|| {
        let what = format!("this node knows of no keys of {} that it could confirm", args.code);
        Failure::from(Refusal::new(Reason::ParticipantNotEnrolled, what))
    })?;
    let keys = pin.keys.unwrap_or_default();
    let listed = Digest::from_slice(&keys.enrolment_fingerprint).map(Fingerprint).map_err(Failure::answer)?;
    args.compared.check(&format!("{}'s enrolment", args.code), listed, output)?;
    Ok(listed)
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
