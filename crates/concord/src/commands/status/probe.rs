//! `concord node probe`: the way to the hub and back, on each lane.

use clap::Args;
use concord_wire::proto::operations::v1::{LaneProbe, ProbeHubRequest};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call_within};
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{self, Output, short_time, table};

/// A node waits 20 s for a probe, and as long for one that was on its way.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(50);
const LOST: &str = "PROBE_LOST";

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord node probe --profile /srv/concord/node/operator\n\nA probe goes the way of an exchange on each lane, to the hub and back, and is recorded nowhere. The node does so by itself, too ([probe] in node.toml)."
)]
pub(crate) struct ProbeArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// What became of the probe of one lane.
#[derive(Serialize)]
pub(crate) struct ProbeLine {
    lane: String,
    seconds: Option<f64>,
    lost: Option<String>,
    at: Option<String>,
}

impl ProbeLine {
    pub(super) fn of(probe: LaneProbe) -> Self {
        let LaneProbe { lane, seconds, lost, at } = probe;
        let lost = Some(lost).filter(|lost| !lost.is_empty());
        Self { lane, seconds, lost, at: output::optional_time(at.as_ref()) }
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let took = match (self.seconds, &self.lost) {
            (Some(seconds), _) => format!("{:.0} ms", seconds * 1000.0),
            (None, lost) => format!("LOST: {}", lost.as_deref().unwrap_or("-")),
        };
        vec![self.lane.clone(), took, short_time(self.at.as_deref())]
    }
}

pub(crate) async fn run(args: ProbeArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let answer = client.operations().probe_hub(call_within(ProbeHubRequest {}, ANSWER_WITHIN)).await?.into_inner();
    let lines: Vec<_> = answer.lanes.into_iter().map(ProbeLine::of).collect();
    output.results(&lines, || table(&["probe", "to the hub and back", "at"], lines.iter().map(ProbeLine::cells)))?;
    let lost: Vec<_> = lines.iter().filter(|line| line.seconds.is_none()).map(|line| line.lane.as_str()).collect();
    if lost.is_empty() {
        return Ok(());
    }
    hint::next(
        output,
        "see what is wrong with the way to the hub",
        &[Line::new("status --profile").path(&args.client.profile)],
    );
    let what = format!("nothing came back on lane {}", lost.join(", "));
    Err(Failure::new(Exit::Unavailable, LOST, what).help("exchanges wait here meanwhile, and go on by themselves"))
}
