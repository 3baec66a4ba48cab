//! One real hub process, four nodes' streams, no recipients: timed from the first consignment to the last receipt.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use concord_identity::{Anchor, Profile};
use concord_model::limits::CONSIGN_UNRECEIPTED_MAX;
use concord_wire::consignment::chain_key;
use concord_wire::proto::exchange::v1 as pb;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::forum::{Forum, RUN, State, chain, consignments};
use super::load::{Driven, Stream, drive};
use super::{BenchArgs, EXCHANGES_PER_CONSIGNMENT, Measured, STREAMS};

/// How long a process may take to be ready, also with millions of entries to fold, and a run to end. Only a fault uses it up.
const PATIENCE: Duration = Duration::from_mins(30);

/// A serving process that is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) listen: String,
    /// Where it answers for its metrics, if it does.
    pub(crate) admin: Option<String>,
}

impl Server {
    /// Starts this executable and reads its addresses.
    pub(crate) async fn start(args: &[&str], dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .arg("--dir")
            .arg(dir)
            .env("CONCORD_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("the process has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let (mut listen, mut admin) = (None, None);
        while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await?? {
            if let Some(address) = line.strip_prefix("listen ") {
                listen = Some(address.to_owned());
            }
            if let Some(address) = line.strip_prefix("admin http://") {
                admin = Some(address.to_owned());
            }
            if listen.is_some() && admin.is_some() {
                break;
            }
        }
        let listen = listen.context("the process ended before it was ready")?;
        Ok(Self { child, listen, admin })
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it has ended")?;
        kill_process(pid, Signal::TERM)?;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        ensure!(ended.success(), "it ended with {ended}");
        Ok(())
    }

    /// Ends it as a power switch would, except that the system writes out what it was given.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Its processor time so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.child.id().map(super::cpu_time).unwrap_or_default()
    }
}

/// A new hub that serves, with four enrolled states in one agreement. What a hub can do is measured without quotas.
pub(crate) async fn found_hub(dir: &Path) -> Result<(Server, Forum)> {
    found_hub_with(
        dir,
        concord_server::Quotas {
            exchanges_per_second: concord_server::QUOTA_MAX,
            bytes_per_second: concord_server::QUOTA_MAX,
            flash_exchanges_per_second: concord_server::QUOTA_MAX,
        },
    )
    .await
}

/// The same with these quotas.
pub(crate) async fn found_hub_with(dir: &Path, quotas: concord_server::Quotas) -> Result<(Server, Forum)> {
    concord_hub::init(concord_hub::InitOptions {
        dir: dir.to_owned(),
        name: concord_model::Name::parse("main")?,
        listen: "127.0.0.1:0".to_owned(),
        admin: "127.0.0.1:0".to_owned(),
        announce: Vec::new(),
        dns: Vec::new(),
        seed: concord_hub::Seed::cica_2007()?,
    })?;
    let file = dir.join("hub.toml");
    let config = concord_hub::Config::load(dir)?;
    std::fs::write(&file, concord_hub::Config { quotas, ..config }.to_toml())?;
    let server = Server::start(&["hub", "serve"], dir).await?;
    let profile = Profile::load(&dir.join("officer"))?;
    let anchor = Anchor::from_pem(&std::fs::read_to_string(dir.join("anchor/certificate.pem"))?)?;
    let forum = Forum::gather(&server.listen, &profile, anchor).await?;
    Ok((server, forum))
}

/// Runs the benchmark.
pub(crate) async fn run(args: &BenchArgs) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("concord-bench-").tempdir_in(place(args)?)?;
    let dir = folder.path().join("hub");
    let (server, forum) = found_hub(&dir).await?;

    let (gate, opened) = watch::channel(false);
    let mut streams = Vec::with_capacity(STREAMS);
    for state in &forum.states {
        let signed = consignments(state, &forum.agreement, args.consignments)?;
        streams.push(stream(&forum, state, signed, opened.clone()).await?);
    }
    let before = (server.cpu_time(), commits(&server).await?);
    let driven: Driven = tokio::time::timeout(PATIENCE, drive(streams, gate)).await??;
    let cpu = server.cpu_time().saturating_sub(before.0);
    let commits = commits(&server).await?.saturating_sub(before.1);
    Ok(Measured::new("ingest", &driven, cpu.as_secs_f64(), commits))
}

/// Where the files go.
pub(crate) fn place(args: &BenchArgs) -> Result<std::path::PathBuf> {
    place_in(args.dir.as_ref())
}

/// The same for a folder that was given or not.
pub(crate) fn place_in(dir: Option<&std::path::PathBuf>) -> Result<std::path::PathBuf> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            Ok(dir.clone())
        }
        None => Ok(std::env::temp_dir()),
    }
}

/// A stream of consignments behind its welcome.
pub(crate) struct Welcomed {
    pub(crate) requests: mpsc::Sender<pb::ConsignRequest>,
    pub(crate) responses: tonic::Streaming<pb::ConsignResponse>,
    /// The last consignment that the hub has.
    pub(crate) last: u64,
}

/// Says hello, and hears the welcome.
pub(crate) async fn welcomed(forum: &Forum, state: &State) -> Result<Welcomed> {
    let mut client = forum.exchange_client(state).await?;
    let (requests, inbound) = mpsc::channel(2);
    let hello = pb::ConsignHello {
        limits: Some(concord_wire::limits()),
        chain: Some(chain_key(&chain(state)?)),
        run: bytes::Bytes::from_static(&RUN),
    };
    requests
        .send(pb::ConsignRequest { message: Some(pb::consign_request::Message::Hello(hello)), ..Default::default() })
        .await?;
    let mut responses = client.consign(ReceiverStream::new(inbound)).await?.into_inner();
    match responses.message().await?.and_then(|response| response.message) {
        Some(pb::consign_response::Message::Welcome(welcome)) => {
            Ok(Welcomed { requests, responses, last: welcome.last_number })
        }
        _ => bail!("the hub did not say welcome"),
    }
}

/// Says hello, then waits for the gate.
async fn stream(
    forum: &Forum,
    state: &State,
    signed: Vec<pb::Consignment>,
    mut gate: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<Result<Stream>>> {
    let Welcomed { requests, mut responses, .. } = welcomed(forum, state).await?;
    Ok(tokio::spawn(async move {
        gate.wait_for(|open| *open).await?;
        let window = Arc::new(Semaphore::new(CONSIGN_UNRECEIPTED_MAX));
        let expected = signed.len();
        let (sent_in, mut sent) = mpsc::channel(CONSIGN_UNRECEIPTED_MAX);
        let sending = tokio::spawn({
            let window = Arc::clone(&window);
            async move {
                for consignment in signed {
                    window.acquire().await?.forget();
                    sent_in.send(Instant::now()).await?;
                    let message = pb::consign_request::Message::Consignment(consignment);
                    requests.send(pb::ConsignRequest { message: Some(message), ..Default::default() }).await?;
                }
                anyhow::Ok(())
            }
        });
        let mut latencies = Vec::with_capacity(expected);
        let mut receipts = Vec::with_capacity(expected);
        while receipts.len() < expected {
            let response = responses.next().await.context("the hub ended the stream")??;
            let Some(pb::consign_response::Message::Receipt(receipt)) = response.message else {
                bail!("the hub sent something else than a receipt");
            };
            let begun = sent.recv().await.context("a receipt for nothing")?;
            latencies.push(begun.elapsed());
            window.add_permits(1);
            receipts.push(receipt);
        }
        sending.await??;
        check_receipts(&receipts)?;
        Ok(Stream { latencies })
    }))
}

/// A receipt counts only if every exchange was recorded for the three others.
fn check_receipts(receipts: &[pb::RecordedReceipt]) -> Result<()> {
    for (receipt, number) in receipts.iter().zip(1..) {
        let recorded = concord_wire::receipt::parse(&receipt.statement)?;
        ensure!(recorded.number == number, "receipt {} came instead of {number}", recorded.number);
        let for_three = |outcome: &concord_wire::receipt::Outcome| matches!(outcome, concord_wire::receipt::Outcome::Recorded { audience, .. } if audience.len() == STREAMS - 1);
        let counted = recorded.outcomes.iter().filter(|outcome| for_three(outcome)).count();
        ensure!(counted == EXCHANGES_PER_CONSIGNMENT, "only {counted} exchanges of consignment {number} were recorded");
    }
    Ok(())
}

/// Commits so far, as the hub's metrics count them.
async fn commits(server: &Server) -> Result<u64> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Some(admin) = &server.admin else { return Ok(0) };
    let mut socket = tokio::net::TcpStream::connect(admin).await?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let line = answer.lines().find_map(|line| line.strip_prefix("concord_commit_duration_seconds_count "));
    Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or_default())
}
