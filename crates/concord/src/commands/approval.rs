//! `concord approval`: what an officer of the secretariat said and what other officers have to sign too.
//!
//! Whoever approves signs the digest of the very bytes that are shown here, not what the hub says of them.

use clap::{Args, Subcommand};
use concord_identity::enrolment_fingerprint;
use concord_ledger::{JoinRequest, Statement, StatementContent};
use concord_model::{Digest, Fingerprint, Reason, Refusal};
use concord_wire::agreement::{DraftContent, parse_statement};
use concord_wire::proto::operations::v1::{ListApprovalsRequest, WaitingStatement};
use serde::Serialize;

use super::compare::Compared;
use super::participant::registered;
use super::statement::{Said, confirm, say};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, safe, table};

/// Digits of an id that are shown where a person types it.
const ID_SHOWN_DIGITS: usize = 8;

#[derive(Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits for signatures.
    List(ListArgs),
    /// Show one of them whole.
    Show(ShowArgs),
    /// Sign it, too; with the last signature that it needs it takes effect.
    Approve(ApproveArgs),
    /// End it: it never takes effect.
    Reject(RejectArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord approval list --profile /srv/concord/hub/officers/officer-2")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord approval show KAZ --profile /srv/concord/hub/officers/officer-2")]
pub(crate) struct ShowArgs {
    /// Its id, or how it begins; or the participant's code, where nothing else of it waits.
    #[arg(value_name = "ID|CODE")]
    id: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord approval approve KAZ --profile /srv/concord/hub/officers/officer-2\n  concord approval approve 3f9a12bc --profile /srv/concord/hub/officers/officer-2\n\nOf an enrolment the fingerprint is compared first, by this officer too."
)]
pub(crate) struct ApproveArgs {
    /// Its id, or how it begins; or the participant's code, where nothing else of it waits.
    #[arg(value_name = "ID|CODE")]
    id: String,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    compared: Compared,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord approval reject 3f9a12bc --profile /srv/concord/hub/officers/officer-2")]
pub(crate) struct RejectArgs {
    /// Its id, or how it begins; or the participant's code, where nothing else of it waits.
    #[arg(value_name = "ID|CODE")]
    id: String,
    #[command(flatten)]
    client: ClientArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct ApprovalLine {
    id: String,
    /// What it is: `enrol`, `replace` or `release`.
    kind: &'static str,
    participant: String,
    node: Option<String>,
    fingerprint: Option<String>,
    reference: Option<String>,
    said_by: String,
    signed_by: Vec<String>,
    needs: u32,
    missing: u32,
    lapses_at: Option<String>,
}

#[derive(Serialize)]
struct SaidLine {
    id: String,
    said: &'static str,
    state: &'static str,
    signatures_missing: u32,
}

pub(crate) async fn run(command: ApprovalCommand, output: Output) -> Result<(), Failure> {
    match command {
        ApprovalCommand::List(args) => list(&args, output).await,
        ApprovalCommand::Show(args) => show(&args, output).await,
        ApprovalCommand::Approve(args) => approve(&args, output).await,
        ApprovalCommand::Reject(args) => reject(&args, output).await,
    }
}

/// Says that something waits, and how another officer signs it.
pub(crate) fn tell_waits(missing: u32, statement: &Digest, output: Output) {
    let signatures = if missing == 1 { "signature" } else { "signatures" };
    let why = format!(
        "it waits for {missing} more {signatures}: another officer of the secretariat looks, and approves; where there is none yet, `concord officer add NAME --dir HUBDIR` makes one"
    );
    let id = shortened(&statement.to_string());
    hint::next(
        output,
        &why,
        &[
            Line::new("approval show").words(&id).words("--profile HUBDIR/officers/NAME"),
            Line::new("approval approve").words(&id).words("--profile HUBDIR/officers/NAME"),
        ],
    );
}

fn shortened(id: &str) -> String {
    id.chars().take(ID_SHOWN_DIGITS).collect()
}

/// What waits, read from the bytes that its officer signed.
struct Read {
    statement: Statement,
    waiting: WaitingStatement,
    line: ApprovalLine,
}

/// With how many more wait that did not fit into one answer.
async fn waiting(client: &Client) -> Result<(Vec<Read>, u32), Failure> {
    let answer = client.registry().list_approvals(call(ListApprovalsRequest {})).await?.into_inner();
    let mut read = Vec::with_capacity(answer.waiting.len());
    for waiting in answer.waiting {
        let signed = waiting.statement.as_ref().ok_or_else(|| Failure::answer("a statement is missing"))?;
        let statement = parse_statement(signed).map_err(Failure::from)?;
        let line = line(client, &statement, &waiting).await?;
        read.push(Read { statement, waiting, line });
    }
    Ok((read, answer.more))
}

async fn line(client: &Client, statement: &Statement, waiting: &WaitingStatement) -> Result<ApprovalLine, Failure> {
    let (kind, participant, request, reference) = match &statement.content {
        StatementContent::Enrol(request) => ("enrol", request.participant.to_string(), Some(request), None),
        StatementContent::Replace(replacement) => {
            let request = &replacement.request;
            ("replace", request.participant.to_string(), Some(request), Some(replacement.reference.to_string()))
        }
        StatementContent::RotateKey(_) => ("rotate-key", "SEC".to_owned(), None, None),
        StatementContent::SucceedAnchor(_) => ("anchor-next", "SEC".to_owned(), None, None),
        StatementContent::EndAnchor(_) => ("anchor-end", "SEC".to_owned(), None, None),
        StatementContent::Release(hold) => ("release", held_by(client, hold).await?, None, None),
        _ => return Err(Failure::answer("something waits for signatures that this version does not know")),
    };
    let signed_by: Vec<String> = waiting.signed_by.iter().map(|signed| signed.officer.clone()).collect();
    let missing = waiting.needs.saturating_sub(u32::try_from(signed_by.len()).unwrap_or(u32::MAX));
    Ok(ApprovalLine {
        id: statement.digest.to_string(),
        kind,
        participant,
        node: request.map(|request| request.node.to_string()),
        fingerprint: compared(statement).map(|(_, fingerprint)| fingerprint.grouped()),
        reference,
        said_by: statement.officer.to_string(),
        signed_by,
        needs: waiting.needs,
        missing,
        lapses_at: output::optional_time(waiting.lapses_at.as_ref()),
    })
}

/// Over code, anchor and key of the request itself, as its own node shows it.
fn fingerprint(request: &JoinRequest) -> Fingerprint {
    enrolment_fingerprint(&request.participant, &request.anchor, &request.signing_key)
}

/// Whom the hold is on that a release names.
async fn held_by(client: &Client, hold: &Digest) -> Result<String, Failure> {
    let all = registered(client).await?;
    let has = |one: &&concord_wire::proto::operations::v1::RegisteredParticipant| {
        one.holds.iter().any(|held| held.statement == hold.as_bytes()[..])
    };
    let held = all.iter().find(has).and_then(|one| one.participant.as_ref());
    Ok(held.map_or_else(|| "-".to_owned(), |participant| participant.code.clone()))
}

async fn find(client: &Client, id: &str) -> Result<Read, Failure> {
    let prefix = id.to_ascii_lowercase();
    let (mut found, _) = waiting(client).await?;
    found.retain(|read| !prefix.is_empty() && (read.line.participant == id || read.line.id.starts_with(&prefix)));
    if found.len() > 1 {
        let many = format!("{} statements that wait are of {id}, or begin with it", found.len());
        return Err(Failure::usage(many).help("give more digits of the id: `concord approval list` shows them"));
    }
    found.pop().ok_or_else(|| {
        let what = format!("nothing that waits for signatures is of {id}, or begins with it");
        Failure::from(Refusal::new(Reason::ApprovalUnknown, what))
            .help("`concord approval list` shows what waits; what was rejected or waited over 30 days is said anew")
    })
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let (read, more) = waiting(&client).await?;
    let lines: Vec<ApprovalLine> = read.into_iter().map(|read| read.line).collect();
    if more > 0 {
        output.say(&format!("{more} more wait, and are shown when some of these are approved or rejected"));
    }
    output.results(&lines, || {
        table(
            &["id", "what", "of", "signed by", "lacks", "until", "fingerprint to compare"],
            lines.iter().map(|line| {
                vec![
                    shortened(&line.id),
                    line.kind.to_owned(),
                    line.participant.clone(),
                    line.signed_by.join(", "),
                    line.missing.to_string(),
                    output::short_time(line.lapses_at.as_deref()),
                    line.fingerprint.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }),
        )
    })
}

async fn show(args: &ShowArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let read = find(&client, &args.id).await?;
    output.result(&read.line, || shown(&read))
}

fn shown(read: &Read) -> String {
    let line = &read.line;
    let signed = read.waiting.signed_by.iter().map(|signed| {
        let at = output::optional_time(signed.at.as_ref());
        format!("{} {}", signed.officer, output::short_time(at.as_deref()))
    });
    let mut rows = vec![("id", line.id.clone()), ("what", line.kind.to_owned()), ("of", line.participant.clone())];
    let mut add = |name, value: &Option<String>| {
        rows.extend(value.iter().map(|value| (name, safe(value))));
    };
    add("node", &line.node);
    add("fingerprint", &line.fingerprint);
    add("reference", &line.reference);
    rows.push(("signed by", signed.collect::<Vec<_>>().join(", ")));
    rows.push(("lacks", format!("{} of {} signatures", line.missing, line.needs)));
    rows.push(("over", output::short_time(line.lapses_at.as_deref())));
    facts(&rows)
}

/// What is compared with whoever asks for a signature, by its fingerprint, where there is such a thing.
fn compared(statement: &Statement) -> Option<(String, Fingerprint)> {
    let request =
        |request: &JoinRequest| (format!("the join request of {}", request.participant), fingerprint(request));
    match &statement.content {
        StatementContent::Enrol(one) => Some(request(one)),
        StatementContent::Replace(replacement) => Some(request(&replacement.request)),
        StatementContent::RotateKey(rotation) => {
            Some(("the hub's new signing key".to_owned(), rotation.signing_key.fingerprint))
        }
        StatementContent::SucceedAnchor(next) => Some(("the next anchor".to_owned(), next.anchor_fingerprint)),
        StatementContent::EndAnchor(anchor) => Some(("the anchor that is ended".to_owned(), *anchor)),
        _ => None,
    }
}

async fn approve(args: &ApproveArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let read = find(&client, &args.id).await?;
    let is_enrolment = matches!(read.statement.content, StatementContent::Enrol(_) | StatementContent::Replace(_));
    output.say(&in_words(&read.line));
    match compared(&read.statement) {
        Some((what, fingerprint)) => args.compared.check(&what, fingerprint, output)?,
        None => check_meant(args, &read.line, output)?,
    }
    let said = say(&client, DraftContent::Approve(read.statement.digest)).await?;
    let missing = if let Said::Waits(missing) = said { missing } else { 0 };
    let state = if missing == 0 { "in-effect" } else { said.as_str() };
    tell(SaidLine { id: read.line.id.clone(), said: "approve", state, signatures_missing: missing }, output)?;
    if missing > 0 {
        tell_waits(missing, &read.statement.digest, output);
    } else if is_enrolment {
        let bundle = Line::new("participant bundle").text(&read.line.participant).words("--out BUNDLE --profile");
        hint::next(
            output,
            "it is in effect, told to all with who signed: this writes the bundle for its node",
            &[bundle.path(&args.client.profile)],
        );
    } else {
        tell_finishing(&read.statement.content, output);
    }
    Ok(())
}

/// What is yet to be done where the folder of the hub is: whoever approves need not have it.
fn tell_finishing(content: &StatementContent, output: Output) {
    let step = match content {
        StatementContent::SucceedAnchor(_) => {
            "run `concord anchor next --dir HUBDIR` again where the hub's folder is: then it goes by the next anchor"
        }
        StatementContent::EndAnchor(_) => {
            "run `concord anchor end --dir HUBDIR` again where the hub's folder is: then nobody there goes by the one before"
        }
        StatementContent::RotateKey(_) => {
            "it is in effect: the hub signs with the new key, and nothing is left to be done"
        }
        _ => return,
    };
    output.say(&format!("next: {step}"));
}

/// What is about to be signed, without what is yet to be compared.
fn in_words(line: &ApprovalLine) -> String {
    let mut words = format!("{} {}", line.kind, line.participant);
    words.extend(line.node.iter().map(|node| format!(", node {}", safe(node))));
    words.extend(line.reference.iter().map(|reference| format!(", reference: {}", safe(reference))));
    format!("{words}\n  said by {}, signed by {}, id {}", line.said_by, line.signed_by.join(", "), shortened(&line.id))
}

/// Of what carries nothing that could be compared, whoever signs it says that it is meant: on a terminal asked, elsewhere by naming its id. The
/// code of a participant alone may be meant for something else of it.
fn check_meant(args: &ApproveArgs, line: &ApprovalLine, output: Output) -> Result<(), Failure> {
    let what = format!("the {} of {}", line.kind, line.participant);
    args.compared.check_nothing_to_compare(&what)?;
    if args.compared.asks() {
        return confirm(
            output,
            "approving",
            &format!("{what} takes effect with the signatures that it needs."),
            &shortened(&line.id),
        );
    }
    if args.id == line.participant {
        let unnamed =
            format!("{what} is signed by its id only where nobody is asked: a code may be meant for something else");
        return Err(Failure::usage(unnamed).help(format!("give its id, {}, if it is meant", shortened(&line.id))));
    }
    Ok(())
}

async fn reject(args: &RejectArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let read = find(&client, &args.id).await?;
    if !args.yes {
        let question = format!("\"{} {}\" never takes effect then.", read.line.kind, read.line.participant);
        confirm(output, "rejecting", &question, &shortened(&read.line.id))?;
    }
    let said = say(&client, DraftContent::Reject(read.statement.digest)).await?;
    tell(SaidLine { id: read.line.id, said: "reject", state: said.as_str(), signatures_missing: 0 }, output)?;
    output.say("it never takes effect; where it is wanted after all, it is said anew");
    Ok(())
}

fn tell(line: SaidLine, output: Output) -> Result<(), Failure> {
    output.result(&line, || {
        facts(&[("id", shortened(&line.id)), ("said", line.said.to_owned()), ("state", line.state.to_owned())])
    })
}
