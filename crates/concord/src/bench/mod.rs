//! `concord bench`: how fast a hub takes consignments in, beside what this machine could do at all.
//!
//! Nothing here is used by hub or node. Absolute figures mean little on another machine: what counts is the ratio of one run.

mod ceiling;
mod fairness;
mod forum;
mod ingest;
mod load;
mod stages;
mod startup;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::exit::Failure;
use crate::output::Output;

/// Streams that are driven at once, each of another participant.
pub(crate) const STREAMS: usize = 4;
/// Exchanges of each consignment.
pub(crate) const EXCHANGES_PER_CONSIGNMENT: usize = 64;
/// The body of each exchange, in bytes.
pub(crate) const BODY_SIZE_BYTES: usize = 1024;

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// One real hub process takes four streams of signed consignments in, timed to the receipts.
    #[command(after_help = "Example:\n  concord bench ingest --json")]
    Ingest(BenchArgs),
    /// The same bytes over the same TLS to a process that only hashes and appends them.
    #[command(after_help = "Example:\n  concord bench ceiling --json")]
    Ceiling(BenchArgs),
    /// Both in one run, in turn, and the ratio; then where the hub's time goes.
    #[command(after_help = "Example:\n  concord bench ratio --rounds 3 --json")]
    Ratio(RatioArgs),
    /// What one flooding participant costs the others: their receipts without and with it, in one run, and the ratio.
    #[command(after_help = "Example:\n  concord bench fairness --json")]
    Fairness(fairness::FairnessArgs),
    /// How soon a hub and a node with a long past serve: after a clean end, after kill -9, without views, without snapshots.
    #[command(after_help = "Example:\n  concord bench startup --exchanges 1000000 --json")]
    Startup(startup::StartupArgs),
    /// The process that `ceiling` drives.
    #[command(hide = true, after_help = "Example:\n  concord bench ceiling-serve --dir /tmp/ceiling")]
    CeilingServe(CeilingServeArgs),
}

#[derive(Args, Clone)]
pub(crate) struct BenchArgs {
    /// Consignments of each stream, 64 exchanges of 1 KiB each.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) consignments: u32,
    /// Where the files go; a temporary folder if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub(crate) struct RatioArgs {
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
    /// How often both are run; the median ratio counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) rounds: u32,
}

#[derive(Args, Clone)]
pub(crate) struct CeilingServeArgs {
    /// The folder with its certificates; the file that it appends to is made there.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// What one run measured.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Measured {
    /// Which benchmark.
    pub(crate) bench: &'static str,
    /// Exchanges that got their receipt.
    pub(crate) exchanges: u64,
    /// From the first consignment sent to the last receipt.
    pub(crate) seconds: f64,
    /// The figure.
    pub(crate) exchanges_per_second: f64,
    /// From sending a consignment to its receipt.
    pub(crate) receipt_milliseconds_p50: f64,
    pub(crate) receipt_milliseconds_p99: f64,
    /// Processor time of the serving process, user and system.
    pub(crate) server_cpu_seconds: f64,
    /// Processor time of the driving process.
    pub(crate) client_cpu_seconds: f64,
    /// Durable writes of the serving process.
    pub(crate) commits: u64,
}

impl Measured {
    fn new(bench: &'static str, driven: &load::Driven, server_cpu_seconds: f64, commits: u64) -> Self {
        let exchanges = driven.receipts * EXCHANGES_PER_CONSIGNMENT as u64;
        let seconds = driven.elapsed.as_secs_f64();
        let quantile = |quantile: f64| load::quantile(&driven.latencies, quantile).as_secs_f64() * 1e3;
        Self {
            bench,
            exchanges,
            seconds,
            exchanges_per_second: (exchanges as f64 / seconds).round(),
            receipt_milliseconds_p50: quantile(0.5),
            receipt_milliseconds_p99: quantile(0.99),
            server_cpu_seconds,
            client_cpu_seconds: driven.cpu.as_secs_f64(),
            commits,
        }
    }
}

pub(crate) async fn run(command: BenchCommand, output: Output) -> Result<(), Failure> {
    match command {
        BenchCommand::Ingest(args) => show(output, &ingest::run(&args).await.map_err(failed)?),
        BenchCommand::Ceiling(args) => show(output, &ceiling::run(&args).await.map_err(failed)?),
        BenchCommand::Ratio(args) => ratio(&args, output).await,
        BenchCommand::Fairness(args) => fairness::run(&args, output).await,
        BenchCommand::Startup(args) => startup::run(&args, output).await.map_err(failed),
        BenchCommand::CeilingServe(args) => ceiling::serve(&args.dir).await.map_err(failed),
    }
}

async fn ratio(args: &RatioArgs, output: Output) -> Result<(), Failure> {
    let mut ratios = Vec::new();
    for _ in 0..args.rounds {
        let ingest = ingest::run(&args.bench).await.map_err(failed)?;
        let ceiling = ceiling::run(&args.bench).await.map_err(failed)?;
        show(output, &ingest)?;
        show(output, &ceiling)?;
        ratios.push(ingest.exchanges_per_second / ceiling.exchanges_per_second);
    }
    ratios.sort_by(f64::total_cmp);
    let stages = stages::measure().map_err(failed)?;
    for stage in &stages {
        output.result(stage, || format!("{:<44} {:>8.1} µs a consignment", stage.stage, stage.microseconds))?;
    }
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let summary = serde_json::json!({ "bench": "ratio", "rounds": args.rounds, "ratio": median, "ratios": ratios });
    output.result(&summary, || format!("ingest is {median:.3} of the ceiling (median of {} rounds)", args.rounds))
}

fn show(output: Output, measured: &Measured) -> Result<(), Failure> {
    let text = || {
        format!(
            "{:<8} {:>9.0} exchanges/s   receipt p50 {:>6.1} ms, p99 {:>6.1} ms   {} exchanges in {:.2} s   cpu: server {:.2} s, client {:.2} s   {} commits",
            measured.bench,
            measured.exchanges_per_second,
            measured.receipt_milliseconds_p50,
            measured.receipt_milliseconds_p99,
            measured.exchanges,
            measured.seconds,
            measured.server_cpu_seconds,
            measured.client_cpu_seconds,
            measured.commits,
        )
    };
    output.result(measured, text)
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::failed("BENCH", format!("{error:#}"))
}

/// Processor time that a process has used, user and system, from `/proc`; zero where there is none.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    const TICKS_PER_SECOND: f64 = 100.0;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    // The command's name may hold spaces: the fields are counted after its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}
