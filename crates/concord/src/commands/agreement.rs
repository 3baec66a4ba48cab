//! `concord agreement`: what an officer says for its state, and what it may see.

mod paper;
mod text;
mod view;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use concord_model::{
    AgencyName, AgreementId, AgreementRef, AgreementText, Digest, Handling, InForceAmong, MeasureCode, MediaType,
    ParticipantCode, PartyRole, Reason, Refusal, Terms, Title,
};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agreement::v1::{
    Agreement, AgreementState, GetAgreementRequest, ListAgreementsRequest, PreviewAudienceRequest,
};
use concord_wire::proto::exchange::v1::HandlingCode;
use serde::Serialize;

use super::statement::{Said, confirm, confirm_if_asked, say};
use super::submit::{narrowing, note_other_agencies};
use crate::cli::ClientArgs;
use crate::client::{CALL_TIMEOUT, Client, WAIT_MARGIN, call, call_within, duration};
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{Output, facts, short_time};
use text::{Changes, PartySpec, TermsArgs};
use view::Shown;
pub(crate) use view::in_words as rule_in_words;

/// The longest single wait that is asked of a server, which allows a little more.
const ONE_WAIT_MAX: Duration = Duration::from_secs(50);

#[derive(Subcommand)]
pub(crate) enum AgreementCommand {
    /// Propose an agreement; the proposer is on it and consents with the proposal.
    Propose(ProposeArgs),
    /// Consent to an agreement that waits for this state, or come back to one that it left.
    Consent(ConsentArgs),
    /// Decline an agreement that waits for this state; that ends it, or takes this state off it where it is in force among each who consents.
    Decline(DeclineArgs),
    /// Propose a change of an agreement in force; it goes on as it is until all have consented.
    Amend(AmendArgs),
    /// Leave an agreement, at once, for everything not yet delivered too.
    #[command(
        after_help = "Example:\n  concord agreement leave KAZ/flood-warnings --profile /srv/concord/node/officer --yes"
    )]
    Leave(SureArgs),
    /// Say that an agreement is to end; it does when all its members have said so.
    #[command(
        after_help = "Example:\n  concord agreement end KAZ/flood-warnings --profile /srv/concord/node/officer --yes"
    )]
    End(SureArgs),
    /// List what waits for this state's consent.
    Pending(PendingArgs),
    /// List the agreements that this state is on.
    List(ListArgs),
    /// Show one agreement; may wait until it is in force.
    Show(ShowArgs),
    /// Show every version that this state was on, with who said what when.
    History(HistoryArgs),
    /// Show who would receive an exchange and who would not, and by which rule, before anything is sent.
    Preview(PreviewArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement propose KAZ/flood-warnings --profile /srv/concord/node/officer --title \"Flood warnings\" --measure environmental.5 --participant KGZ,UZB\n  concord agreement propose SEC/papers --profile /srv/concord/hub/officer --title \"Papers of the secretariat\" --measure human.1 --all-members=receive --in-force each"
)]
pub(crate) struct ProposeArgs {
    /// CODE/name, beginning with your own code.
    #[arg(value_name = "ID")]
    pub(crate) id: AgreementId,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// What it is about, in words.
    #[arg(long)]
    pub(crate) title: String,
    /// The measures that it covers.
    #[arg(long = "measure", value_delimiter = ',', required = true, value_name = "CODE")]
    pub(crate) measures: Vec<MeasureCode>,
    /// Those on it, observers too only by name; you are added. A role may follow: KGZ:receive, KGZ:contribute, KGZ:both.
    #[arg(
        long = "participant",
        value_delimiter = ',',
        required_unless_present = "all_members",
        value_name = "CODE[:ROLE]"
    )]
    pub(crate) participants: Vec<PartySpec>,
    /// All members that are enrolled, in this role (both where none is said); who is named with --participant has the role that is said there.
    #[arg(long, value_name = "ROLE", num_args = 0..=1, require_equals = true, default_missing_value = "both")]
    all_members: Option<PartyRole>,
    /// Whose consents bring it into force: all, or each (those who have consented, from two on; the others join by consenting later).
    #[arg(long, value_name = "AMONG", default_value_t = InForceAmong::All)]
    in_force: InForceAmong,
    #[command(flatten)]
    terms: TermsArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement amend KAZ/flood-warnings --add-participant TJK:receive --profile /srv/concord/node/officer\n  concord agreement amend KAZ/flood-warnings --handling-max AMBER --valid-until 2027-12-31T00:00:00Z --profile /srv/concord/node/officer"
)]
pub(crate) struct AmendArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    changes: Changes,
    /// Change nothing but the keys that it names: after a participant's keys were replaced.
    #[arg(long)]
    refresh_keys: bool,
    /// The number of the new version, where the hub says that it is a later one than this state knows of.
    #[arg(long, value_name = "N")]
    number: Option<u32>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement consent KAZ/flood-warnings --profile /srv/concord/node/officer")]
pub(crate) struct ConsentArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask, on a terminal; elsewhere nobody is asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement decline KAZ/flood-warnings --profile /srv/concord/node/officer --reason \"No mandate before the spring session\""
)]
pub(crate) struct DeclineArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why, in words: told to those on it, and kept in its history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask, on a terminal; elsewhere nobody is asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct OneArgs {
    /// CODE/name.
    #[arg(value_name = "ID")]
    id: AgreementId,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement preview KAZ/flood-warnings --to UZB --profile /srv/concord/node/agencies/seismology"
)]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The measure; may be left out where only one fits.
    #[arg(long, value_name = "CODE")]
    measure: Option<MeasureCode>,
    /// Only these of the agreement; all of them where it is left out.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    to: Vec<ParticipantCode>,
    /// Only these agencies, and within their states no others.
    #[arg(long, value_delimiter = ',', value_name = "CODE/AGENCY")]
    to_agency: Vec<AgencyName>,
    /// How it is to be handled (TLP 2.0).
    #[arg(long, value_name = "CODE")]
    handling: Option<Handling>,
    /// What the body is.
    #[arg(long, value_name = "TYPE/SUBTYPE")]
    media_type: Option<MediaType>,
    /// Its size, in bytes.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    size: u64,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement history KAZ/flood-warnings --profile /srv/concord/node/officer")]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
pub(crate) struct SureArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement pending --profile /srv/concord/node/officer")]
pub(crate) struct PendingArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// What `show` may wait for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    InForce,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement show KAZ/flood-warnings --profile /srv/concord/node/officer\n  concord agreement show KAZ/flood-warnings --profile /srv/concord/node/officer --short --wait in-force --timeout 60\n\nIt is shown as a paper, fit to be attached to a note: every term in a sentence, the fingerprints that a consent signs, who signed and when."
)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Answer only when it is in force, or can no longer come into force.
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// With --json too: the whole text in plain words, which people are shown anyway, as `text` beside the facts.
    #[arg(long, conflicts_with = "short")]
    text: bool,
    /// The facts alone, in a few lines, in place of the whole text.
    #[arg(long)]
    short: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
struct SaidLine<'a> {
    agreement: String,
    version: u32,
    digest: String,
    said: &'a str,
    state: &'a str,
}

pub(crate) async fn run(command: AgreementCommand, output: Output) -> Result<(), Failure> {
    match command {
        AgreementCommand::Propose(args) => propose(args, output).await,
        AgreementCommand::Consent(args) => consent(&args, output).await,
        AgreementCommand::Decline(args) => decline(args, output).await,
        AgreementCommand::Amend(args) => amend(args, output).await,
        AgreementCommand::Leave(args) => leave(&args, output).await,
        AgreementCommand::End(args) => end(&args, output).await,
        AgreementCommand::Preview(args) => preview(&args, output).await,
        AgreementCommand::History(args) => history(&args.one, output).await,
        AgreementCommand::Pending(args) => list(&args.client, true, output).await,
        AgreementCommand::List(args) => list(&args.client, false, output).await,
        AgreementCommand::Show(args) => show(&args, output).await,
    }
}

async fn propose(args: ProposeArgs, output: Output) -> Result<(), Failure> {
    let title = Title::parse(&args.title)?;
    let client = Client::connect(&args.client).await?;
    let own = client.profile().settings().identity.participant.clone();
    let mut participants = match args.all_members {
        Some(role) => text::enrolled_members(&client, &own, role).await?,
        None => Vec::new(),
    };
    participants.extend(args.participants);
    participants.push(own.into());
    let mut measures = args.measures;
    measures.sort();
    measures.dedup();
    let text = AgreementText {
        version: next_version(&client, &args.id).await?,
        id: args.id,
        title,
        measures,
        parties: text::parties(&client, participants).await?,
        terms: args.terms.over(Terms::default())?,
        valid_until: args.terms.valid_until_over(None)?,
        amends: None,
        outgoing: Vec::new(),
        in_force: args.in_force,
    };
    say_proposal(&client, &args.client, text, output).await
}

async fn amend(args: AmendArgs, output: Output) -> Result<(), Failure> {
    if args.changes.is_empty() && !args.refresh_keys {
        let what = "nothing is to change";
        return Err(Failure::usage(what).help("say what changes, or --refresh-keys after keys were replaced"));
    }
    let client = Client::connect(&args.one.client).await?;
    let current = Shown::read(&get(&client, &args.one.id, None).await?.counting)?;
    if current.state() != "in-force" {
        let what = format!("{} is {}, and only what is in force is amended", args.one.id, current.state());
        return Err(Refusal::new(Reason::AgreementNotInForce, what).into());
    }
    let version = match args.number {
        Some(number) => number,
        None => next_version(&client, &args.one.id).await?,
    };
    let text = text::amended(&client, &current, version, args.changes).await?;
    say_proposal(&client, &args.one.client, text, output).await
}

async fn say_proposal(client: &Client, args: &ClientArgs, text: AgreementText, output: Output) -> Result<(), Failure> {
    let own = &client.profile().settings().identity.participant;
    let waited = text.parties.iter().map(|party| &party.participant).chain(&text.outgoing);
    let others: Vec<_> = waited.filter(|code| *code != own).map(ToString::to_string).collect();
    let digest = concord_wire::agreement::agreement_digest(&concord_wire::agreement::encode_text(&text));
    let in_force = text.in_force;
    let reference = AgreementRef { id: text.id.clone(), version: text.version, digest };
    let said = say(client, DraftContent::Propose(text)).await?;
    tell(&reference, "propose", said, output)?;
    hint::next(
        output,
        &match in_force {
            InForceAmong::All => format!("the officers of {} consent; then it is in force", others.join(", ")),
            InForceAmong::Each => {
                format!("it is in force when one of {} consents, and among each who does", others.join(", "))
            }
        },
        &[
            Line::new("agreement consent").text(reference.id.as_str()).words("--profile NODEDIR/officer"),
            Line::new("agreement show")
                .text(reference.id.as_str())
                .words("--wait in-force --profile")
                .path(&args.profile),
        ],
    );
    Ok(())
}

/// The number after the last version that this participant knows; the hub refuses it while that one waits.
async fn next_version(client: &Client, id: &AgreementId) -> Result<u32, Failure> {
    match get_with_history(client, id).await {
        Ok(all) => Ok(all.iter().map(|shown| shown.text.version).max().unwrap_or(0).saturating_add(1)),
        Err(failure) if failure.reason == Reason::AgreementUnknown.code() => Ok(1),
        Err(failure) => Err(failure),
    }
}

async fn consent(args: &ConsentArgs, output: Output) -> Result<(), Failure> {
    let ConsentArgs { one: args, yes } = args;
    let client = Client::connect(&args.client).await?;
    let got = get_or_left(&client, &args.id).await?;
    if let Some(leave) = got.left_by {
        return come_back(&client, (args, *yes), &got, leave, output).await;
    }
    let shown = got.waiting()?;
    let own = &client.profile().own().identity.participant;
    if shown.has_left(own) {
        let what = format!(
            "{own} left version {} of {}, and there is nothing to come back to",
            shown.reference.version, args.id
        );
        return Err(Refusal::new(Reason::AgreementNotInForce, what).into());
    }
    if shown.has_declined(own) {
        let what = format!("{own} declined version {} of {}, for good", shown.reference.version, args.id);
        return Err(Refusal::new(Reason::AgreementNotPending, what).into());
    }
    let consented = shown.consented_at(own).map(ToOwned::to_owned);
    if let Some(at) = &consented {
        let at = short_time(Some(at));
        output.say(&format!("this state consented to version {} already, at {at}", shown.reference.version));
    } else if shown.waits() || shown.state() == "in-force" {
        output.say(&shown.with_fingerprints());
        ask_to_sign(own, &shown, *yes, output)?;
    }
    let said = say(&client, DraftContent::Consent(shown.reference.clone())).await?;
    tell(&shown.reference, "consent", said, output)?;
    if consented.is_some() && shown.state() == "in-force" {
        hint::next(output, "it is in force, and waits for nothing of this state", &[about("agreement show", args)]);
        return Ok(());
    }
    let next = about("agreement show", args).words("--wait in-force");
    let what = match shown.text.in_force {
        InForceAmong::All => "it is in force once all on it have consented; this waits for it",
        InForceAmong::Each => {
            "it is in force among those who have consented, and nothing of before comes; this waits for it"
        }
    };
    hint::next(output, what, &[next]);
    Ok(())
}

/// On a terminal, a yes to what was just shown: a consent binds the state to every word and key of it.
fn ask_to_sign(own: &ParticipantCode, shown: &Shown, yes: bool, output: Output) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let AgreementRef { id, version, .. } = &shown.reference;
    let question = format!("Sign for {own} that it consents to version {version} of {id}, as shown?");
    confirm_if_asked(output, &format!("consenting to {id}"), &question, "yes")
}

/// Consents again to what this state left.
async fn come_back(
    client: &Client,
    (args, yes): (&OneArgs, bool),
    got: &Got,
    leave: Digest,
    output: Output,
) -> Result<(), Failure> {
    let shown = Shown::read(&got.counting)?;
    output.say(&format!("this state left version {}: it consents to that again", shown.reference.version));
    output.say(&shown.with_fingerprints());
    ask_to_sign(&client.profile().own().identity.participant, &shown, yes, output)?;
    let said = say(client, DraftContent::Return(shown.reference.clone(), leave)).await?;
    tell(&shown.reference, "return", said, output)?;
    let what = "this state is on it again from now on, and nothing comes of before; who left meanwhile is shown";
    hint::next(output, what, &[about("agreement show", args)]);
    Ok(())
}

async fn decline(args: DeclineArgs, output: Output) -> Result<(), Failure> {
    let reason = args.reason.as_deref().map(Title::parse).transpose()?;
    let DeclineArgs { one: args, yes, .. } = args;
    let client = Client::connect(&args.client).await?;
    let shown = get(&client, &args.id, None).await?.waiting()?;
    let AgreementRef { id, version, .. } = &shown.reference;
    let (becomes, after) = match (&shown.text.amends, shown.text.in_force) {
        (Some(_), _) => (
            "it never comes into force then",
            "the amendment never comes into force, and the agreement stays as it is; any member may propose another one",
        ),
        // What became of it among those who consented this state may not have heard: also of one that is over, nothing untrue is said.
        (None, InForceAmong::Each) => (
            "this state is off it for good then",
            "this state is off it, whatever becomes of it among those who consented",
        ),
        (None, InForceAmong::All) => (
            "it never comes into force then, for nobody",
            "it never comes into force; whoever proposed it may propose another version",
        ),
    };
    if !yes {
        let question = format!("Decline version {version} of {id}? It cannot be taken back: {becomes}.");
        confirm_if_asked(output, &format!("declining {id}"), &question, id.as_str())?;
    }
    let said = say(&client, DraftContent::Decline(shown.reference.clone(), reason)).await?;
    tell(&shown.reference, "decline", said, output)?;
    let next = match (&shown.text.amends, shown.text.in_force) {
        (None, InForceAmong::Each) => Line::new("agreement list --profile").path(&args.client.profile),
        _ => about("agreement history", &args),
    };
    hint::next(output, after, &[next]);
    Ok(())
}

async fn leave(args: &SureArgs, output: Output) -> Result<(), Failure> {
    let id = &args.one.id;
    let client = Client::connect(&args.one.client).await?;
    let shown = Shown::read(&get(&client, id, None).await?.counting)?;
    let own = &client.profile().own().identity.participant;
    let ends = shown.state() == "in-force" && shown.has_consented(own) && shown.ends_with_leave_of(own);
    let warning = match (ends, shown.have_yet_to_answer().as_slice()) {
        (false, _) => "",
        (true, []) => " It ends for all with that, since fewer than two are left on it.",
        (true, _) => {
            " It ends for all with that, since fewer than two who consented are left: who has yet to answer can then no longer join."
        }
    };
    if args.yes {
        if !warning.is_empty() {
            output.say(warning.trim_start());
        }
    } else {
        let question = format!("Leave {id}? What is not yet delivered will not be.{warning}");
        confirm(output, &format!("leaving {id}"), &question, id.as_str())?;
    }
    let said = say(&client, DraftContent::Leave(shown.reference.clone())).await?;
    tell(&shown.reference, "leave", said, output)?;
    if ends {
        let what = "this state is out, and what was not delivered is not; it is over for all, and there is nothing to come back to";
        // The hub shows the secretariat nothing of what that is on no more; a state's own node has its past.
        let next = match *own == ParticipantCode::secretariat() {
            true => Line::new("agreement list --profile").path(&args.one.client.profile),
            false => about("agreement history", &args.one),
        };
        hint::next(output, what, &[next]);
        return Ok(());
    }
    let what =
        "this state is out at once, and what was not delivered is not; while this version is in force it may come back";
    let read = about("agreement show", &args.one);
    hint::next(output, what, &[read, about("agreement consent", &args.one)]);
    Ok(())
}

async fn end(args: &SureArgs, output: Output) -> Result<(), Failure> {
    let id = &args.one.id;
    if !args.yes {
        let question = format!("Say that {id} is to end? It does when all its members have said so.");
        confirm(output, &format!("ending {id}"), &question, id.as_str())?;
    }
    let client = Client::connect(&args.one.client).await?;
    let shown = Shown::read(&get(&client, id, None).await?.counting)?;
    let said = say(&client, DraftContent::End(shown.reference.clone())).await?;
    tell(&shown.reference, "end", said, output)?;
    let own = &client.profile().settings().identity.participant;
    let what = match shown.yet_to_end(own).as_slice() {
        [] => "all its members have said so: it is over".to_owned(),
        others => format!("it is over when {} have said so too; until then it goes on", others.join(", ")),
    };
    hint::next(output, &what, &[about("agreement show", &args.one)]);
    Ok(())
}

async fn history(args: &OneArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    view::history(&get_with_history(&client, &args.id).await?, output)
}

async fn preview(args: &PreviewArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.one.client).await?;
    let request = PreviewAudienceRequest {
        agreement_id: args.one.id.to_string(),
        measure: args.measure.as_ref().map(ToString::to_string).unwrap_or_default(),
        to: narrowing(&args.to),
        agencies: args.to_agency.iter().map(concord_wire::header::agency_name).collect(),
        handling: args.handling.map_or(HandlingCode::Unspecified, concord_wire::convert::handling).into(),
        media_type: args.media_type.as_ref().map(ToString::to_string).unwrap_or_default(),
        body_size_bytes: args.size,
    };
    let answer = client.agreements().preview_audience(call(request)).await?.into_inner();
    view::previewed(&answer, output)?;
    // The rules speak of participants; what is sent is bound by the terms besides.
    let shown = Shown::read(&get(&client, &args.one.id, None).await?.counting)?;
    if args.media_type.is_none() && !shown.text.terms.media.is_empty() {
        let types: Vec<_> = shown.text.terms.media.iter().map(ToString::to_string).collect();
        output.say(&format!("only bodies of {} are exchanged under it: --media-type checks one", types.join(", ")));
    }
    note_other_agencies(output, &client, &args.to_agency);
    Ok(())
}

/// A command about the same agreement, of the same caller.
fn about(words: &str, args: &OneArgs) -> Line {
    Line::new(words).text(args.id.as_str()).words("--profile").path(&args.client.profile)
}

async fn list(args: &ClientArgs, pending: bool, output: Output) -> Result<(), Failure> {
    let client = Client::connect(args).await?;
    let answer = client.agreements().list_agreements(call(ListAgreementsRequest { pending })).await?.into_inner();
    let all = answer.agreements.iter().map(Shown::read).collect::<Result<Vec<_>, _>>()?;
    view::list(&all, output)?;
    if let (true, Some(first)) = (pending, all.first()) {
        let about = |words: &str| Line::new(words).text(first.text.id.as_str()).words("--profile").path(&args.profile);
        let next = ["agreement show", "agreement consent", "agreement decline"].map(about);
        hint::next(output, "read each, then consent to it or decline it", &next);
    }
    Ok(())
}

async fn show(args: &ShowArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.one.client).await?;
    let wait = args.wait.map(|WaitFor::InForce| Duration::from_secs(args.timeout));
    // Who left may come back, and reads first what it would consent to again.
    let got = match wait {
        None => get_or_left(&client, &args.one.id).await?,
        Some(_) => get(&client, &args.one.id, wait).await?,
    };
    let amendment = got.amendment.as_ref().map(Shown::read).transpose()?;
    let shown = Shown::read(&got.counting)?;
    let amendment = amendment.as_ref();
    match (args.short, args.text) {
        (true, _) => view::show(&shown, amendment, output)?,
        // The facts are what a program goes by; it says when it wants the words.
        (false, false) if output.json => view::show(&shown, amendment, output)?,
        (false, _) => paper::show(&client, &shown, amendment, output).await?,
    }
    if wait.is_some() && got.counting.state() != AgreementState::InForce {
        let message = format!("{} can no longer come into force", args.one.id);
        return Err(Failure::new(Exit::Refused, Reason::AgreementNotInForce.code(), message)
            .help(Reason::AgreementNotInForce.help()));
    }
    if got.left_by.is_some() {
        let what = "this state left it, and hears nothing more of it: so it stood then; while it is in force it may consent to it again";
        hint::next(output, what, &[about("agreement consent", &args.one)]);
    } else if shown.has_left(&client.profile().own().identity.participant) {
        output.say("this state left it, and there is nothing to come back to: so it stood then");
    }
    Ok(())
}

/// An agreement as it stands for this participant.
struct Got {
    counting: Agreement,
    amendment: Option<Agreement>,
    /// Of one that this state left: by which statement.
    left_by: Option<Digest>,
}

impl Got {
    /// The version that waits for consents, else the one that counts: the server says what is wrong with that.
    fn waiting(&self) -> Result<Shown, Failure> {
        Shown::read(self.amendment.as_ref().unwrap_or(&self.counting))
    }
}

/// One agreement; with `wait`, when it is in force or can no longer be. A server waits only so long for one call: then it is
/// asked again, until the time is over.
async fn get(client: &Client, id: &AgreementId, wait: Option<Duration>) -> Result<Got, Failure> {
    let end = wait.map(|wait| Instant::now() + wait);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let one_wait = left.map(|left| left.min(ONE_WAIT_MAX));
        let wait_in_force = one_wait.map(duration);
        let request = GetAgreementRequest { id: id.to_string(), wait_in_force, with_history: false, with_left: false };
        let deadline = one_wait.map_or(CALL_TIMEOUT, |wait| wait + WAIT_MARGIN);
        match client.agreements().get_agreement(call_within(request, deadline)).await.map_err(Failure::from) {
            Ok(answer) => {
                let answer = answer.into_inner();
                let counting = answer.agreement.ok_or_else(|| Failure::answer("the agreement is missing"))?;
                return Ok(Got { counting, amendment: answer.amendment, left_by: None });
            }
            Err(failure) if failure.reason == Reason::WaitExpired.code() && left > one_wait => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// One agreement, also one that this participant left.
async fn get_or_left(client: &Client, id: &AgreementId) -> Result<Got, Failure> {
    let request = GetAgreementRequest { id: id.to_string(), with_left: true, ..Default::default() };
    let answer = client.agreements().get_agreement(call(request)).await?.into_inner();
    let counting = answer.agreement.ok_or_else(|| Failure::answer("the agreement is missing"))?;
    let left_by = match &answer.left_by[..] {
        [] => None,
        digest => Some(Digest::from_slice(digest).map_err(Failure::answer)?),
    };
    Ok(Got { counting, amendment: answer.amendment, left_by })
}

/// Every version that this participant was on, the latest first; of what it left, as it stood when it left.
async fn get_with_history(client: &Client, id: &AgreementId) -> Result<Vec<Shown>, Failure> {
    let request = GetAgreementRequest { id: id.to_string(), wait_in_force: None, with_history: true, with_left: true };
    let answer = client.agreements().get_agreement(call(request)).await?.into_inner();
    answer.history.iter().map(Shown::read).collect()
}

fn tell(reference: &AgreementRef, verb: &'static str, said: Said, output: Output) -> Result<(), Failure> {
    let line = SaidLine {
        agreement: reference.id.to_string(),
        version: reference.version,
        digest: reference.digest.0.to_string(),
        said: verb,
        state: said.as_str(),
    };
    output.result(&line, || {
        facts(&[
            ("agreement", format!("{} version {}", line.agreement, line.version)),
            ("digest", line.digest.clone()),
            ("said", format!("{verb} ({})", line.state)),
        ])
    })?;
    if said == Said::Queued {
        output.say(
            "the hub has not answered yet: the node keeps it and hands it on by itself; see `concord agreement show`",
        );
    }
    Ok(())
}
