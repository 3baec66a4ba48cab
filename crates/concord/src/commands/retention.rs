//! `retention`: what may go of a hub's or node's bodies and of its journal's old segments, and letting it go.

use clap::{Args, Subcommand};
use concord_model::Role;
use concord_wire::proto::operations::v1::{PreviewRetentionRequest, RetentionReport, RunRetentionRequest};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output};

#[derive(Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show what a run would take away: counts and bytes, by agreement and lane, and how many only by their agreement's term.
    #[command(
        after_help = "Example:\n  concord hub retention preview --profile /srv/concord/hub/operator --days 365\n  concord node retention preview --profile /srv/concord/node/operator --days 365"
    )]
    Preview(RetentionArgs),
    /// Overwrite the titles and bodies of exchanges that are old and settled, for good; and take old segments away.
    #[command(
        after_help = "Example:\n  concord hub retention run --profile /srv/concord/hub/officer --days 365\n  concord node retention run --profile /srv/concord/node/officer --days 365 --entries-days 730\n\nHeaders, receipts and digests stay, and the journal goes on to verify."
    )]
    Run(RetentionArgs),
}

#[derive(Args)]
pub(crate) struct RetentionArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Those that were recorded before so many days, in place of what is configured; 0 means all that are settled. The
    /// `--retention-days` of an agreement count where they are fewer.
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// The journal's oldest segments too, as far as all in them was recorded before so many days, not fewer than those, and is settled; in
    /// place of what is configured.
    #[arg(long, value_name = "N")]
    entries_days: Option<u32>,
}

#[derive(Serialize)]
struct RetentionLine {
    done: bool,
    before: Option<String>,
    exchanges: u64,
    /// Of them, those that only the term of their agreement has go.
    by_term: u64,
    bytes: u64,
    unsettled_exchanges: u64,
    rows: Vec<RowLine>,
    /// None where old segments were not asked for.
    old_segments: Option<SegmentsLine>,
}

#[derive(Serialize)]
struct SegmentsLine {
    before: Option<String>,
    segments: u64,
    bytes: u64,
    entries: u64,
}

#[derive(Serialize)]
struct RowLine {
    agreement: String,
    lane: String,
    exchanges: u64,
    by_term: u64,
    bytes: u64,
}

impl RetentionLine {
    fn of(report: RetentionReport, done: bool) -> Self {
        let rows: Vec<RowLine> = report
            .rows
            .into_iter()
            .map(|row| RowLine {
                agreement: row.agreement,
                lane: row.lane,
                exchanges: row.exchanges,
                by_term: row.exchanges_by_term,
                bytes: row.bytes,
            })
            .collect();
        Self {
            done,
            before: output::optional_time(report.before.as_ref()),
            exchanges: rows.iter().map(|row| row.exchanges).sum(),
            by_term: rows.iter().map(|row| row.by_term).sum(),
            bytes: rows.iter().map(|row| row.bytes).sum(),
            unsettled_exchanges: report.unsettled_exchanges,
            rows,
            old_segments: report.old_segments.map(|old| SegmentsLine {
                before: output::optional_time(old.before.as_ref()),
                segments: old.segments,
                bytes: old.bytes,
                entries: old.entries,
            }),
        }
    }

    fn show(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            vec![
                output::safe(&row.agreement),
                row.lane.clone(),
                row.exchanges.to_string(),
                row.by_term.to_string(),
                row.bytes.to_string(),
            ]
        });
        output::table(&["agreement", "lane", "exchanges", "by term", "bytes"], rows)
    }
}

/// Asks the hub or node of the profile, which must be of this role.
pub(crate) async fn run(command: RetentionCommand, wanted: Role, output: Output) -> Result<(), Failure> {
    let (RetentionCommand::Preview(args) | RetentionCommand::Run(args)) = &command;
    let client = Client::connect(&args.client).await?;
    let served_by = client.profile().settings().server.role;
    if served_by != wanted {
        let message = format!("the profile is one of a {served_by}, this command is about a {wanted}");
        return Err(Failure::usage(message).help(format!("use `concord {served_by} retention`")));
    }
    let (bodies_days, entries_days) = (args.days, args.entries_days);
    let (report, done) = match &command {
        RetentionCommand::Preview(_) => {
            let request = PreviewRetentionRequest { bodies_days, entries_days };
            (client.operations().preview_retention(call(request)).await?.into_inner().report, false)
        }
        RetentionCommand::Run(_) => {
            let request = RunRetentionRequest { bodies_days, entries_days };
            (client.operations().run_retention(call(request)).await?.into_inner().report, true)
        }
    };
    let line = RetentionLine::of(report.unwrap_or_default(), done);
    output.result(&line, || line.show())?;
    let words = if done { "went" } else { "would go" };
    let age = match &line.before {
        Some(before) => format!("recorded before {}", output::short_time(Some(before))),
        None => "old by their agreements' terms".to_owned(),
    };
    output.say(&format!("{} exchanges {words}, {} bytes, {age}", line.exchanges, line.bytes));
    if line.by_term > 0 && line.before.is_some() {
        output.say(&format!("{} of them are younger, and their agreements' terms say so", line.by_term));
    }
    if line.unsettled_exchanges > 0 {
        output.say(&format!("{} as old stay: somebody has yet to acknowledge them", line.unsettled_exchanges));
    }
    if let Some(old) = &line.old_segments {
        let before = output::short_time(old.before.as_deref());
        let SegmentsLine { segments, bytes, entries, .. } = old;
        output.say(&format!("{segments} old segments {words}, {bytes} bytes with {entries} entries of before {before}; what these say is kept"));
    }
    Ok(())
}
