//! `concord audit`: who did what at a hub or node, and what was refused.

use clap::Args;
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1::{AuditLine, ListAuditRequest};
use serde::Serialize;
use tonic::Request;

use crate::cli::ClientArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::output::{self, Output, safe, short_time, table};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord audit --refused --since 24h --profile /srv/concord/node/operator\n  concord audit --follow --profile /srv/concord/hub/operator\n\nActs of people, denied calls and handshakes, consignments and statements that were refused whole; names and numbers, never content."
)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only from then on: RFC 3339, or so long ago (90s, 30m, 24h, 7d).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<i64>,
    /// Only what was refused.
    #[arg(long)]
    refused: bool,
    /// Only of callers whose name or address has this in it.
    #[arg(long, value_name = "X", default_value = "")]
    caller: String,
    /// The newest so many of what is there; 0 means all.
    #[arg(long, value_name = "N", default_value_t = 200)]
    limit: u32,
    /// Go on with what comes.
    #[arg(long)]
    follow: bool,
}

/// Microseconds of a moment.
fn parse_since(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let wrong = || format!("'{text}' is neither a time such as 2026-11-28T09:00:00Z nor a while such as 24h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count = text[..text.len() - unit.len_utf8()].parse::<u32>().map_err(|_| wrong())?;
    let micros = i64::from(count).saturating_mul(seconds).saturating_mul(1_000_000);
    Ok(output::now().as_micros().saturating_sub(micros))
}

#[derive(Serialize)]
struct Line {
    number: u64,
    time: Option<String>,
    listener: String,
    caller: String,
    method: String,
    about: String,
    outcome: String,
    /// How many more like it were not written.
    more: u64,
}

impl Line {
    fn of(line: AuditLine) -> Self {
        let AuditLine { number, time, listener, caller, method, about, outcome, more } = line;
        let time = output::optional_time(time.as_ref());
        Self { number, time, listener, caller, method, about, outcome, more }
    }

    fn cells(&self) -> Vec<String> {
        let outcome = match self.more {
            0 => self.outcome.clone(),
            more => format!("{}, {more} more like it", self.outcome),
        };
        // A method's service and name tell it.
        let method = self.method.rsplit('.').next().unwrap_or(&self.method);
        vec![short_time(self.time.as_deref()), safe(&self.caller), safe(method), safe(&self.about), safe(&outcome)]
    }
}

pub(crate) async fn run(args: AuditArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let since = args.since.map(|micros| timestamp(concord_model::Timestamp::from_micros(micros)));
    let AuditArgs { refused, caller, limit, follow, .. } = args;
    // No deadline: a following stream lasts, and any other ends with what is there.
    let request = Request::new(ListAuditRequest { since, refused, caller, limit, follow });
    let mut stream = client.operations().list_audit(request).await?.into_inner();
    let mut lines = Vec::new();
    while let Some(answer) = stream.message().await? {
        let line = Line::of(answer.line.unwrap_or_default());
        if follow {
            output.result(&line, || line.cells().join("  "))?;
        } else {
            lines.push(line);
        }
    }
    if follow {
        return Ok(());
    }
    output.results(&lines, || table(&["time", "caller", "what", "about", "outcome"], lines.iter().map(Line::cells)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_while_ago() {
        assert_eq!(parse_since("1970-01-01T00:00:02Z"), Ok(2_000_000));
        let hour = output::now().as_micros() - parse_since("1h").unwrap();
        assert!((3_600_000_000 - 5_000_000..=3_600_000_000).contains(&hour), "{hour}");
        for wrong in ["", "h", "1", "1y", "-1h", "1.5h", "99999999999d", "1ж"] {
            assert!(parse_since(wrong).is_err(), "{wrong}");
        }
    }
}
