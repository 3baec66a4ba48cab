//! The one recorder of this process, which the admin listener shows.

mod table;

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub use table::{METRICS, Metric, MetricAt, MetricKind};

use concord_model::Lane;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of every metric whose name ends with `_seconds`: from one sync of a disk to a stream that waits.
const SECONDS_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Upper bounds of what is counted in entries: from one to a commit that is full of small ones.
const ENTRIES_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0];

/// Metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be recorded: {0}")]
pub struct MetricsError(#[from] BuildError);

/// Installs the recorder of a hub or a node at the first call, and returns its handle at every one. Never a label per caller-given text.
pub fn metrics_recorder(at: MetricAt) -> Result<PrometheusHandle, MetricsError> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), &ENTRIES_BUCKETS)?
        .install_recorder()?;
    METRICS.iter().filter(|metric| metric.at == at || metric.at == MetricAt::Both).for_each(begin);
    // Nothing is wrong until somebody says so: whoever asks is answered only when the ports are open.
    metrics::gauge!("concord_ready").set(1.0);
    metrics::gauge!("concord_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("process_start_time_seconds").set(since_1970.as_secs_f64());
    *recorder = Some(handle.clone());
    Ok(handle)
}

/// Describes a metric. A counter stands at 0 from the beginning, where its labels are known by then: what grows from nothing to 1 is no
/// growth to whoever asks for one, and no alert.
fn begin(metric: &Metric) {
    let Metric { name, kind, help, labels, .. } = *metric;
    match kind {
        MetricKind::Counter => {
            metrics::describe_counter!(name, help);
            match labels {
                [] => metrics::counter!(name).increment(0),
                ["lane"] => {
                    Lane::ALL.iter().for_each(|lane| metrics::counter!(name, "lane" => lane.as_str()).increment(0))
                }
                _ => {}
            }
        }
        MetricKind::Gauge => metrics::describe_gauge!(name, help),
        MetricKind::Histogram => metrics::describe_histogram!(name, help),
    }
}
