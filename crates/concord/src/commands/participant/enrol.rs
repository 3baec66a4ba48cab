//! Enrolling a state, and the bundle with which its node joins.

use std::path::{Path, PathBuf};

use clap::Args;
use concord_identity::write_public;
use concord_model::{ParticipantCode, Title};
use concord_node::paper::{self, JoinPaper};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::operations::v1::{Bundle, GetBundleRequest};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::commands::approval;
use crate::commands::compare::Compared;
use crate::commands::statement::{Said, say_it};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant enrol join-request.json --profile /srv/concord/hub/officer --out bundle.json\n  concord participant enrol join-request.json --replace --reference \"note verbale 17/2026\" --profile /srv/concord/hub/officer\n\nWith a quorum above 1 it takes effect when other officers approved it: `concord approval list` tells, `concord participant bundle` writes the bundle then."
)]
pub(crate) struct EnrolArgs {
    /// The join request that the node made.
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    compared: Compared,
    /// The node's own keys are lost: these take their place, and the chains go on in a new epoch.
    #[arg(long, requires = "reference")]
    replace: bool,
    /// The paper that a replacement rests on, in one line: told to all.
    #[arg(long, requires = "replace", value_name = "TEXT")]
    reference: Option<String>,
    /// Where the bundle for the node goes, where no approval is waited for; beside the request where it is not said.
    #[arg(long, value_name = "BUNDLE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant bundle KAZ --profile /srv/concord/hub/officer\n  concord participant bundle KAZ --out kaz.bundle.json --profile /srv/concord/hub/officer"
)]
pub(crate) struct BundleArgs {
    /// Whose node joins with it.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
    /// Where the bundle goes; into the present folder, as `kaz.bundle.json`, where it is not said and no such file is there.
    #[arg(long, value_name = "BUNDLE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct EnrolLine {
    participant: String,
    node: String,
    state: &'static str,
    fingerprint: String,
    /// By which it is approved, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures_missing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle_fingerprint: Option<String>,
}

#[derive(Serialize)]
struct BundleLine {
    participant: String,
    hub: String,
    bundle: String,
    bundle_fingerprint: String,
}

pub(super) async fn enrol(args: &EnrolArgs, output: Output) -> Result<(), Failure> {
    let asked = read_request(&args.request)?;
    // Before anything is signed: a request that somebody swapped on its way is found out here.
    args.compared.check("the join request", asked.fingerprint, output)?;
    let content = match &args.reference {
        None => DraftContent::Enrol(asked.request.clone()),
        Some(reference) => {
            let reference = Title::parse(reference).map_err(|error| Failure::usage(error.to_string()))?;
            DraftContent::Replace(asked.request.clone(), reference)
        }
    };
    let client = Client::connect(&args.client).await?;
    let (said, statement) = say_it(&client, content).await?;
    let line = EnrolLine {
        participant: asked.participant.to_string(),
        node: asked.node.to_string(),
        state: said.as_str(),
        fingerprint: asked.fingerprint.grouped(),
        approval: None,
        signatures_missing: None,
        hub: None,
        bundle: None,
        bundle_fingerprint: None,
    };
    match said {
        Said::Queued => Err(Failure::answer("the hub answered as a node does")),
        Said::Waits(missing) => {
            let line = EnrolLine { approval: Some(statement.to_string()), signatures_missing: Some(missing), ..line };
            output.result(&line, || {
                facts(&[
                    ("to be enrolled", format!("{}, node {}", line.participant, line.node)),
                    ("fingerprint", line.fingerprint.clone()),
                    ("state", format!("waits for signatures of other officers: {missing}")),
                ])
            })?;
            approval::tell_waits(missing, &statement, output);
            let bundle = Line::new("participant bundle").text(&line.participant).words("--out");
            hint::next(
                output,
                "no bundle is written before that; when it is in effect, this writes it",
                &[bundle.path(&out_of(args)).words("--profile").path(&args.client.profile)],
            );
            Ok(())
        }
        Said::Accepted => {
            let out = out_of(args);
            let (bundle, fingerprint) = write_bundle(&client, &asked.participant, &out).await?;
            let line = EnrolLine {
                hub: Some(bundle.hub),
                bundle: Some(out.display().to_string()),
                bundle_fingerprint: Some(fingerprint.clone()),
                ..line
            };
            output.result(&line, || {
                facts(&[
                    ("enrolled", format!("{}, node {}", line.participant, line.node)),
                    ("fingerprint", line.fingerprint.clone()),
                    ("bundle", out.display().to_string()),
                    ("bundle's fingerprint", fingerprint),
                ])
            })?;
            tell_next(&out, output);
            Ok(())
        }
    }
}

/// Where the bundle goes.
fn out_of(args: &EnrolArgs) -> PathBuf {
    args.out.clone().unwrap_or_else(|| args.request.with_file_name("bundle.json"))
}

pub(super) async fn bundle(args: &BundleArgs, output: Output) -> Result<(), Failure> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => unless_there(PathBuf::from(format!("{}.bundle.json", args.code.as_str().to_lowercase())))?,
    };
    let client = Client::connect(&args.client).await?;
    let (bundle, fingerprint) = write_bundle(&client, &args.code, &out).await?;
    let line = BundleLine {
        participant: args.code.to_string(),
        hub: bundle.hub,
        bundle: out.display().to_string(),
        bundle_fingerprint: fingerprint,
    };
    output.result(&line, || {
        facts(&[
            ("for", line.participant.clone()),
            ("bundle", line.bundle.clone()),
            ("bundle's fingerprint", line.bundle_fingerprint.clone()),
        ])
    })?;
    tell_next(&out, output);
    Ok(())
}

/// A file whose name nobody gave takes no other's place.
fn unless_there(out: PathBuf) -> Result<PathBuf, Failure> {
    match out.symlink_metadata() {
        Ok(_) => {
            let what = format!("{} is here already, and nothing was written", out.display());
            Err(Failure::failed("FILE_EXISTS", what)
                .help("say where the bundle is to go with --out, or move that file away"))
        }
        Err(_) => Ok(out),
    }
}

/// Fetches the bundle of an enrolled participant and writes it; returns it with its fingerprint.
async fn write_bundle(client: &Client, of: &ParticipantCode, out: &Path) -> Result<(Bundle, String), Failure> {
    let answer = client.registry().get_bundle(call(GetBundleRequest { participant: of.to_string() })).await?;
    let bundle = answer.into_inner().bundle.ok_or_else(|| Failure::answer("the bundle is missing"))?;
    let text = paper::bundle_to_json(&bundle).map_err(Failure::answer)?;
    let fingerprint = paper::fingerprint_of(&bundle).map_err(Failure::answer)?;
    write_public(out, text.as_bytes()).map_err(Failure::from)?;
    Ok((bundle, fingerprint.grouped()))
}

fn tell_next(out: &Path, output: Output) {
    hint::next(
        output,
        "send the bundle to the node, read its operator the bundle's fingerprint by telephone when it asks, and let it join there",
        &[Line::new("node join --dir NODEDIR").path(out)],
    );
}

fn read_request(path: &Path) -> Result<JoinPaper, Failure> {
    let unreadable = |why: String| {
        Failure::usage(format!("the join request {} cannot be read: {why}", path.display()))
            .help("give the join-request.json that `concord node init` made")
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    paper::join_request_from_json(&text).map_err(|error| unreadable(error.to_string()))
}
