//! What one flooding participant costs the others. Three states send at a steady pace within their quotas, without a flood and beside
//! a fourth that sends as fast as it can, in turn on one hub; what counts is the ratio of one run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::status::from_status;
use tokio::sync::mpsc;

use super::forum::{Forum, State, consignments};
use super::ingest::{Welcomed, found_hub_with, place_in, welcomed};
use super::load::quantile;
use super::{EXCHANGES_PER_CONSIGNMENT, failed};
use crate::exit::Failure;
use crate::output::Output;

/// Between two consignments of one honest state: below its quota, and more than most states ever send.
const PACE: Duration = Duration::from_millis(100);
/// Consignments that the flooding state has ready for each second of a part: more than its quota lets through, and more than a hub takes.
const FLOOD_PER_SECOND: u32 = 100;
const UNLIMITED_FLOOD_PER_SECOND: u32 = 1_000;
/// Before the flooding state comes again when its quota was used up: sooner than any node does.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Args, Clone)]
pub(crate) struct FairnessArgs {
    /// How long each of the two parts of a round takes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// How often both are run; the median ratio counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) rounds: u32,
    /// Without quotas: what the flood costs where nobody limits it.
    #[arg(long)]
    pub(crate) unlimited: bool,
    /// Where the files go; a temporary folder if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// One part of a round, of the honest states together.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Part {
    exchanges_per_second: f64,
    receipt_milliseconds_p50: f64,
    receipt_milliseconds_p99: f64,
    /// Of the flooding state, that were recorded.
    flooded_exchanges_per_second: f64,
    /// How often the flooding state heard `QUOTA_EXCEEDED`.
    refused: u64,
}

pub(crate) async fn run(args: &FairnessArgs, output: Output) -> Result<(), Failure> {
    let mut ratios = Vec::new();
    for round in 1..=args.rounds {
        let (without, with) = measure(args).await.map_err(failed)?;
        let throughput = with.exchanges_per_second / without.exchanges_per_second;
        let latency = with.receipt_milliseconds_p50 / without.receipt_milliseconds_p50;
        ratios.push((throughput, latency));
        let told = serde_json::json!({
            "bench": "fairness", "round": round, "without": without, "with": with,
            "throughput_ratio": throughput, "latency_ratio": latency,
        });
        let shown = |part: &Part| {
            format!(
                "{:>7.0} exchanges/s   receipt p50 {:>6.1} ms, p99 {:>6.1} ms",
                part.exchanges_per_second, part.receipt_milliseconds_p50, part.receipt_milliseconds_p99
            )
        };
        output.result(&told, || {
            format!(
                "three honest states   {}\nthe same beside a flood {}   the flood {:.0} exchanges/s, refused {} times",
                shown(&without),
                shown(&with),
                with.flooded_exchanges_per_second,
                with.refused
            )
        })?;
    }
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = ratios.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let (throughput, latency) = (median(|ratio| ratio.0), median(|ratio| ratio.1));
    let summary = serde_json::json!({
        "bench": "fairness", "rounds": args.rounds, "throughput_ratio": throughput, "latency_ratio": latency,
    });
    output.result(&summary, || {
        format!(
            "beside a flood the others get {throughput:.3} of their throughput, at {latency:.2} of the time to a receipt (medians of {} rounds)",
            args.rounds
        )
    })
}

async fn measure(args: &FairnessArgs) -> Result<(Part, Part)> {
    let folder = tempfile::Builder::new().prefix("concord-bench-").tempdir_in(place_in(args.dir.as_ref())?)?;
    let quotas = match args.unlimited {
        true => concord_server::Quotas {
            exchanges_per_second: concord_server::QUOTA_MAX,
            bytes_per_second: concord_server::QUOTA_MAX,
            flash_exchanges_per_second: concord_server::QUOTA_MAX,
        },
        false => concord_server::Quotas::default(),
    };
    let (server, forum) = found_hub_with(&folder.path().join("hub"), quotas).await?;
    let forum = Arc::new(forum);
    let (flooding, honest) = forum.states.split_last().context("there are four states")?;
    let count = u32::try_from(args.seconds * 1000 / PACE.as_millis() as u64)?;
    let mut signed = Vec::new();
    for state in honest {
        let all = consignments(state, &forum.agreement, 2 * count)?;
        let (first, second) = all.split_at(count as usize);
        signed.push((first.to_vec(), second.to_vec()));
    }
    let per_second = if args.unlimited { UNLIMITED_FLOOD_PER_SECOND } else { FLOOD_PER_SECOND };
    let seconds = u32::try_from(args.seconds + 2 * concord_server::QUOTA_SAVED_SECONDS)?;
    let flood = Arc::new(consignments(flooding, &forum.agreement, per_second * seconds)?);

    let without = part(&forum, honest, signed.iter().map(|(first, _)| first.clone())).await?;
    let (stop, recorded, refused) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let flooding = tokio::spawn(flood_until(
        Arc::clone(&forum),
        flood,
        (Arc::clone(&stop), Arc::clone(&recorded), Arc::clone(&refused)),
    ));
    // What was saved up goes first: a share of some seconds is not what a flood costs.
    tokio::time::sleep(Duration::from_secs(concord_server::QUOTA_SAVED_SECONDS)).await;
    let (begun, before) = (Instant::now(), recorded.load(Ordering::Relaxed));
    let with = part(&forum, honest, signed.into_iter().map(|(_, second)| second)).await?;
    let flooded = (recorded.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    flooding.await??;
    drop(server);
    let refused = refused.load(Ordering::Relaxed);
    Ok((without, Part { flooded_exchanges_per_second: flooded, refused, ..with }))
}

/// The honest states send at their pace, each on a stream of its own.
async fn part(
    forum: &Arc<Forum>,
    honest: &[State],
    signed: impl Iterator<Item = Vec<pb::Consignment>>,
) -> Result<Part> {
    let mut sending = Vec::new();
    let begun = Instant::now();
    for (state, signed) in honest.iter().zip(signed) {
        sending.push(tokio::spawn(paced(welcomed(forum, state).await?, signed)));
    }
    let mut latencies = Vec::new();
    for state in sending {
        latencies.extend(state.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |part: f64| quantile(&latencies, part).as_secs_f64() * 1e3;
    Ok(Part {
        exchanges_per_second: (latencies.len() * EXCHANGES_PER_CONSIGNMENT) as f64 / seconds,
        receipt_milliseconds_p50: quantile(0.5),
        receipt_milliseconds_p99: quantile(0.99),
        flooded_exchanges_per_second: 0.0,
        refused: 0,
    })
}

/// One consignment at each beat, whether the one before has its receipt or not; how long each waited for it.
async fn paced(stream: Welcomed, signed: Vec<pb::Consignment>) -> Result<Vec<Duration>> {
    let Welcomed { requests, mut responses, .. } = stream;
    let count = signed.len();
    let (sent_in, mut sent) = mpsc::unbounded_channel();
    let sending = tokio::spawn(async move {
        let mut beat = tokio::time::interval(PACE);
        for consignment in signed {
            // From the beat on: what the connection does not take at once waits too.
            sent_in.send(beat.tick().await)?;
            let message = pb::consign_request::Message::Consignment(consignment);
            requests.send(pb::ConsignRequest { message: Some(message), ..Default::default() }).await?;
        }
        anyhow::Ok(requests)
    });
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count {
        let response = responses.message().await?.context("the hub ended the stream")?;
        ensure!(matches!(response.message, Some(pb::consign_response::Message::Receipt(_))), "no receipt came");
        latencies.push(sent.recv().await.context("a receipt for nothing")?.elapsed());
    }
    drop(sending.await??);
    Ok(latencies)
}

/// Sends as fast as it can, and comes again at once whenever it is refused.
async fn flood_until(
    forum: Arc<Forum>,
    signed: Arc<Vec<pb::Consignment>>,
    (stop, recorded, refused): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>),
) -> Result<()> {
    let state = forum.states.last().context("there are four states")?;
    while !stop.load(Ordering::Relaxed) {
        let Welcomed { requests, mut responses, last } = welcomed(&forum, state).await?;
        let rest = usize::try_from(last)?;
        let (all, ended) = (Arc::clone(&signed), Arc::clone(&stop));
        let sending = tokio::spawn(async move {
            for consignment in all.iter().skip(rest) {
                let message = pb::consign_request::Message::Consignment(consignment.clone());
                let sent = requests.send(pb::ConsignRequest { message: Some(message), ..Default::default() }).await;
                if sent.is_err() || ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        loop {
            match responses.message().await {
                Ok(Some(_)) => recorded.fetch_add(EXCHANGES_PER_CONSIGNMENT as u64, Ordering::Relaxed),
                Ok(None) => break,
                Err(status) if from_status(&status).is_some() => refused.fetch_add(1, Ordering::Relaxed),
                Err(status) => bail!("the flood ended with {status}"),
            };
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        sending.abort();
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}
