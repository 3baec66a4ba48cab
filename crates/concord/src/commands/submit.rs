//! `concord submit`: one exchange for each file, each with a request id, so that a repeat has no second effect.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use clap::Args;
use concord_model::{
    AgencyName, AgreementId, Digest, ExchangeId, Handling, Lane, Language, MeasureCode, MediaType, ParticipantCode,
    Reason, Refusal, RequestId, Title,
};
use concord_server::fresh;
use concord_server::traces::{self, Span, Step, TraceParent, Traces};
use concord_wire::proto::agency::v1::{SubmitRequest, SubmitResponse};
use concord_wire::proto::exchange::v1::{HandlingCode, Narrowing};
use serde::Serialize;

use super::track::{self, WaitFor};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::media;
use crate::output::{Output, hex};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord submit quake.cap --profile /srv/concord/node/agencies/seismology --agreement KAZ/disaster-warnings --lane flash --wait delivered"
)]
pub(crate) struct SubmitArgs {
    /// The files, at most 4 MiB each, on lane flash 64 KiB.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
    /// The agreement; may be left out where only one fits.
    #[arg(long, value_name = "ID")]
    agreement: Option<AgreementId>,
    /// The measure; may be left out where only one fits.
    #[arg(long, value_name = "CODE")]
    measure: Option<MeasureCode>,
    /// How urgent it is: flash, priority or routine.
    #[arg(long, default_value = "routine", value_name = "LANE")]
    lane: Lane,
    /// What a person sees first; the file's name where it is left out.
    #[arg(long)]
    title: Option<Title>,
    /// What the body is; by the file's extension where it is left out.
    #[arg(long, value_name = "TYPE/SUBTYPE")]
    media_type: Option<MediaType>,
    /// The language of the content, such as ru.
    #[arg(long, value_name = "TAG")]
    language: Option<Language>,
    /// A caveat in words, passed on as it is; may be repeated.
    #[arg(long = "caveat", value_name = "TEXT")]
    caveats: Vec<String>,
    /// Only these of the agreement; all of them where it is left out.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    to: Vec<ParticipantCode>,
    /// How it is to be handled (TLP 2.0): CLEAR, GREEN, AMBER, AMBER+STRICT or RED. AMBER, or the highest that the agreement allows,
    /// where it is left out. RED names its agencies with --to-agency.
    #[arg(long, value_name = "CODE")]
    handling: Option<Handling>,
    /// Only these agencies, and within their states no others.
    #[arg(long, value_delimiter = ',', value_name = "CODE/AGENCY")]
    to_agency: Vec<AgencyName>,
    /// After this it is not delivered any more, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// An earlier exchange under the same agreement that it takes the place of, by its id or the first 8 digits of it or more: that one is
    /// withdrawn.
    #[arg(long, value_name = "EXCHANGE_ID")]
    supersedes: Option<String>,
    /// It is an exercise: it goes the way of any other, signed as an exercise, and everybody is shown that it is one.
    #[arg(long)]
    exercise: bool,
    /// Names this submission, so that it can be repeated; made for you where it is left out.
    #[arg(long, value_name = "R")]
    request_id: Option<RequestId>,
    /// Answer only when it has come that far.
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
struct SubmitLine {
    request_id: String,
    exchange_id: String,
    state: &'static str,
    digest: String,
    agreement: String,
    measure: String,
    exercise: bool,
    file: String,
}

pub(crate) async fn run(args: SubmitArgs, output: Output) -> Result<(), Failure> {
    if args.request_id.is_some() && args.files.len() > 1 {
        return Err(Failure::usage("--request-id names one submission, and there are several files")
            .help("submit each file by itself, or leave --request-id out"));
    }
    if args.supersedes.is_some() && args.files.len() > 1 {
        return Err(Failure::usage(
            "--supersedes names what one exchange takes the place of, and there are several files",
        )
        .help("submit the one that takes its place by itself"));
    }
    // All of them are looked at before any is sent: a wrong path does not leave half a list submitted.
    args.files.iter().try_for_each(|file| check(file, args.lane))?;

    let client = Client::connect(&args.client).await?;
    // The exchange matters more than its trace.
    let traces = Traces::by_environment("concord-agency").unwrap_or_else(|what| {
        output.say(&format!("note: traces are off: {what}"));
        Traces::default()
    });
    let mut submitted = Vec::new();
    let mut failures = Vec::new();
    for file in &args.files {
        match submit(&client, file, &args).await {
            Ok(answer) if args.wait.is_some() => submitted.push((file, answer)),
            Ok(answer) => tell(file, &answer, "queued", output)?,
            Err(mut failure) => {
                let is_unavailable = failure.is_unavailable();
                if args.files.len() > 1 {
                    failure.message = format!("{}: {}", file.display(), failure.message);
                }
                failures.push(failure);
                if is_unavailable {
                    break;
                }
            }
        }
    }
    traces.end().await;
    note_other_agencies(output, &client, &args.to_agency);
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    for (file, answer) in submitted {
        match wait(&client, &answer, args.wait, deadline).await {
            Ok((state, failure)) => {
                tell(file, &answer, state, output)?;
                failures.extend(failure);
            }
            Err(failure) => {
                tell(file, &answer, "queued", output)?;
                failures.push(failure);
            }
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    failures.for_each(|failure| output.failure(&failure));
    first.map_or(Ok(()), Err)
}

/// A file that could be submitted: there, readable, not over the limit of its lane.
fn check(path: &Path, lane: Lane) -> Result<(), Failure> {
    let unreadable = |why: String| {
        Failure::usage(format!("{} cannot be submitted: {why}", path.display()))
            .help("nothing was sent; correct the list of files")
    };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if metadata.is_dir() {
        return Err(unreadable("it is a folder; name the files in it".to_owned()));
    }
    if metadata.len() > lane.body_size_max_bytes() as u64 {
        return Err(too_large(path, lane));
    }
    Ok(())
}

fn too_large(path: &Path, lane: Lane) -> Failure {
    let limit = lane.body_size_max_bytes();
    Refusal::new(Reason::BodyTooLarge, format!("{} has more than the {limit} bytes of lane {lane}", path.display()))
        .into()
}

async fn submit(client: &Client, path: &Path, args: &SubmitArgs) -> Result<SubmitResponse, Failure> {
    let request_id = match &args.request_id {
        Some(id) => id.to_string(),
        None => uuid::Uuid::now_v7().to_string(),
    };
    let request = SubmitRequest {
        request_id: request_id.clone(),
        agreement_id: args.agreement.as_ref().map(ToString::to_string).unwrap_or_default(),
        measure: args.measure.as_ref().map(ToString::to_string).unwrap_or_default(),
        lane: concord_wire::convert::lane(args.lane).into(),
        title: title(path, args.title.as_ref())?,
        media_type: args.media_type.clone().map_or_else(|| media::of_file(path), Ok)?.to_string(),
        language: args.language.as_ref().map(ToString::to_string).unwrap_or_default(),
        to: narrowing(&args.to),
        body: read(path, args.lane)?,
        caveats: args.caveats.clone(),
        handling: args.handling.map_or(HandlingCode::Unspecified, concord_wire::convert::handling).into(),
        expires_at: args.expires.as_deref().map(expiry).transpose()?,
        agencies: args.to_agency.iter().map(concord_wire::header::agency_name).collect(),
        supersedes: args.supersedes.clone().unwrap_or_default(),
        exercise: args.exercise,
    };
    let mut request = call(request);
    let traced = TracedCall::begin(&mut request);
    let answer = client.agency().submit(request).await.map_err(|status| {
        let failure = Failure::from(status);
        if !failure.is_unavailable() {
            return failure;
        }
        // Whether it is durable there is not known: the same request id finds out without a second effect.
        let help = format!("run it again with --request-id {request_id}: it is not sent twice");
        failure.help(help)
    })?;
    if let Some(traced) = traced {
        traced.end(client, args.lane, answer.get_ref());
    }
    Ok(answer.into_inner())
}

/// A call that the environment has traced. Its span stands in the exchange's trace, which is known when the answer is there; the node is told the
/// id of the span, and that is all.
struct TracedCall {
    parent: TraceParent,
    begun: SystemTime,
}

impl TracedCall {
    fn begin(request: &mut tonic::Request<SubmitRequest>) -> Option<Self> {
        let is_traced = traces::is_traced();
        let parent = is_traced.then(|| Some(TraceParent { trace: fresh().ok()?, span: fresh().ok()? })).flatten()?;
        request.metadata_mut().insert("traceparent", parent.to_string().parse().ok()?);
        Some(Self { parent, begun: SystemTime::now() })
    }

    fn end(self, client: &Client, lane: Lane, answer: &SubmitResponse) {
        let Ok(id) = Digest::from_slice(&answer.exchange_id) else { return };
        let participant = client.profile().own().identity.participant.to_string();
        let (exchange, step) = (ExchangeId(id), Step::Call(self.parent.span));
        traces::trace(Span { exchange, step, lane, participant, begun: self.begun, caller: None });
    }
}

fn expiry(text: &str) -> Result<prost_types::Timestamp, Failure> {
    crate::output::parse_time("--expires", text).map(concord_wire::convert::timestamp)
}

fn read(path: &Path, lane: Lane) -> Result<Bytes, Failure> {
    let limit = lane.body_size_max_bytes();
    let mut body = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut body));
    read.map_err(|error| {
        Failure::failed("FILE", format!("{} cannot be read: {error}", path.display()))
            .help("give `concord submit` a file that this user may read, then run it again: nothing of it was queued")
    })?;
    if body.len() > limit { Err(too_large(path, lane)) } else { Ok(body.into()) }
}

fn title(path: &Path, title: Option<&Title>) -> Result<String, Failure> {
    if let Some(title) = title {
        return Ok(title.to_string());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parsed = Title::parse(&name).map_err(|error| Failure::from(error).help("name it with --title"))?;
    Ok(parsed.to_string())
}

pub(crate) fn narrowing(to: &[ParticipantCode]) -> Option<Narrowing> {
    let mut participants: Vec<String> = to.iter().map(ToString::to_string).collect();
    participants.sort();
    (!participants.is_empty()).then_some(Narrowing { participants })
}

/// Which agencies a state has is known to that state alone: a name that is none of them is accepted, delivered, and never taken.
pub(crate) fn note_other_agencies(output: Output, client: &Client, named: &[AgencyName]) {
    let own = &client.profile().own().identity.participant;
    let others: Vec<_> = named.iter().filter(|one| one.participant != *own).map(ToString::to_string).collect();
    if !others.is_empty() {
        let named = others.join(", ");
        output.say(&format!("nobody here knows whether {named} exists: `concord track` says taken once it has it"));
    }
}

/// The state that it has come to, and why the command fails for it, if it does.
async fn wait(
    client: &Client,
    answer: &SubmitResponse,
    until: Option<WaitFor>,
    deadline: Instant,
) -> Result<(&'static str, Option<Failure>), Failure> {
    let exchange = hex(&answer.exchange_id);
    let time = deadline.saturating_duration_since(Instant::now());
    let waited = track::wait(client, &exchange, until, time).await?;
    let state = waited.last.as_ref().map_or("queued", |tracked| tracked.state);
    let refusal = waited.last.as_ref().and_then(track::Tracked::refusal);
    let failure = if waited.ended { refusal } else { Some(track::expired(&exchange)) };
    Ok((state, failure))
}

fn tell(file: &Path, answer: &SubmitResponse, state: &'static str, output: Output) -> Result<(), Failure> {
    let line = SubmitLine {
        request_id: answer.request_id.clone(),
        exchange_id: hex(&answer.exchange_id),
        state,
        digest: hex(&answer.body_digest),
        agreement: answer.agreement_id.clone(),
        measure: answer.measure.clone(),
        exercise: answer.exercise,
        file: file.display().to_string(),
    };
    output.result(&line, || {
        let SubmitLine { exchange_id, agreement, measure, request_id, file, .. } = &line;
        let mark = if line.exercise { "EXERCISE  " } else { "" };
        format!("{mark}{state:<9}  {exchange_id}  {agreement}  {measure}  request {request_id}  {file}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_judged_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let reason = |path: &Path, lane| check(path, lane).err().map(|failure| failure.reason);
        assert_eq!(reason(folder.path(), Lane::Routine).as_deref(), Some("USAGE"));
        assert_eq!(reason(&folder.path().join("absent"), Lane::Routine).as_deref(), Some("USAGE"));
        let path = folder.path().join("body");
        std::fs::write(&path, vec![0; 64 * 1024 + 1]).unwrap();
        assert_eq!(reason(&path, Lane::Routine), None);
        assert_eq!(reason(&path, Lane::Flash).as_deref(), Some("BODY_TOO_LARGE"));
        assert_eq!(read(&path, Lane::Flash).err().map(|failure| failure.reason).as_deref(), Some("BODY_TOO_LARGE"));
    }

    #[test]
    fn a_title_is_the_files_name_or_asked_for() {
        assert_eq!(title(Path::new("a/б.csv"), None).unwrap(), "б.csv");
        assert!(title(Path::new("a/x\ny"), None).is_err());
        assert_eq!(narrowing(&[]), None);
    }
}
