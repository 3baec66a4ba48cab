//! Driving streams: a window of unreceipted consignments each, and the time from sending to the receipt.

use std::time::{Duration, Instant};

use anyhow::Result;

/// What driving all streams took.
pub(crate) struct Driven {
    pub(crate) receipts: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latencies: Vec<Duration>,
}

/// What one stream saw.
pub(crate) struct Stream {
    pub(crate) latencies: Vec<Duration>,
}

/// Waits for all streams, which begin when their gate opens.
pub(crate) async fn drive(
    streams: Vec<tokio::task::JoinHandle<Result<Stream>>>,
    gate: tokio::sync::watch::Sender<bool>,
) -> Result<Driven> {
    let own = std::process::id();
    let cpu_before = super::cpu_time(own);
    let begun = Instant::now();
    gate.send_replace(true);
    let mut latencies = Vec::new();
    for stream in streams {
        latencies.extend(stream.await??.latencies);
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    let cpu = super::cpu_time(own).saturating_sub(cpu_before);
    Ok(Driven { receipts: latencies.len() as u64, elapsed, cpu, latencies })
}

/// The value below which this part of the sorted values lies.
pub(crate) fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    let place = (sorted.len() as f64 * quantile) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
