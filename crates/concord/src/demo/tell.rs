//! How the demo tells its story: events as JSON lines, or for a person, in the words hub, node, agency, agreement and
//! exchange.

use std::path::PathBuf;

use serde::Serialize;

use super::cast::{ITEMS, STATES};
use crate::exit::Failure;
use crate::hint::Line;
use crate::output::{Output, colours, table};

/// Something that happened.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    Begun {
        folder: &'a PathBuf,
    },
    HubReady {
        address: &'a str,
    },
    NodeReady {
        participant: &'a str,
        name: &'a str,
        agency: &'a str,
        address: &'a str,
    },
    AgreementInForce {
        agreement: &'a str,
        title: &'a str,
        participants: &'a [&'a str],
    },
    Submitted {
        exchange: &'a str,
        exchange_id: &'a str,
        title: &'a str,
        participant: &'a str,
        agency: &'a str,
        agreement: &'a str,
        lane: &'a str,
    },
    Reached {
        exchange_id: &'a str,
        #[serde(flatten)]
        step: &'a Step,
    },
    NotSent {
        exchange_id: &'a str,
        participant: &'a str,
        agreement: &'a str,
    },
    Outcome {
        held: bool,
        failed: &'a [String],
        milliseconds: u128,
    },
    Try {
        what: &'a str,
        line: String,
    },
    Stopped {
        folder: &'a PathBuf,
        kept: bool,
    },
}

/// One step on the way of an exchange.
#[derive(Clone, Serialize)]
pub(super) struct Step {
    /// queued, recorded, delivered, taken or received.
    pub(super) state: &'static str,
    /// At which state's node or agency; none for the hub.
    pub(super) participant: Option<String>,
    pub(super) agency: Option<&'static str>,
    pub(super) at: jiff::Timestamp,
    /// Since it was queued.
    pub(super) milliseconds: f64,
}

/// Who received what: for each exchange, in the cast's order of states, how long it took.
pub(super) type Grid = Vec<[Cell; STATES.len()]>;

#[derive(Clone, Copy)]
pub(super) enum Cell {
    Sent,
    /// After so many milliseconds.
    Received(f64),
    NotAgreed,
    Missing,
}

pub(super) struct Teller {
    output: Output,
    colours: bool,
}

impl Teller {
    pub(super) fn new(output: Output) -> Self {
        Self { output, colours: colours() && !output.json }
    }

    pub(super) fn heading(&self, text: &str) -> Result<(), Failure> {
        if self.output.json { Ok(()) } else { self.text(&format!("\n{}", self.bold(text))) }
    }

    /// Only for a person.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        if self.output.json { Ok(()) } else { self.output.result(&(), || text.to_owned()) }
    }

    pub(super) fn tell(&self, event: &Event<'_>) -> Result<(), Failure> {
        self.output.result(event, || self.human(event))
    }

    fn human(&self, event: &Event<'_>) -> String {
        match event {
            Event::Begun { folder } => format!(
                "{}\n{}",
                self.bold("Concord: one hub, four nodes, three agreements, four exchanges"),
                self.dim(&format!("every one a process of its own, in {}", folder.display()))
            ),
            Event::HubReady { address } => format!("  {} hub        {address}", self.tick()),
            Event::NodeReady { participant, name, agency, address } => {
                format!("  {} node {participant}   {address:<17}  {name:<18} agency {agency}", self.tick())
            }
            Event::AgreementInForce { agreement, title, participants } => {
                let on = STATES.iter().map(|state| if participants.contains(&state.code) { state.code } else { "   " });
                let on = on.collect::<Vec<_>>().join(" ");
                format!("  {} {agreement:<22}  {on}  {}", self.tick(), self.dim(title))
            }
            Event::Submitted { exchange, exchange_id, title, participant, agency, agreement, lane } => format!(
                "\n  {}  {title}\n  {}",
                self.bold(exchange),
                self.dim(&format!(
                    "exchange {}, {}, from {participant}'s agency {agency} under the agreement {agreement}",
                    exchange_id.get(..8).unwrap_or(exchange_id),
                    if *lane == "flash" { "urgent" } else { "not urgent" },
                ))
            ),
            Event::Reached { step, .. } => self.step(step),
            Event::NotSent { participant, agreement, .. } => {
                format!(
                    "    {}  {participant:<4}  gets nothing: it is not on the agreement {agreement}",
                    self.dim("      never")
                )
            }
            Event::Outcome { held: true, milliseconds, .. } => {
                format!(
                    "{} as agreed, and nothing else, in {:.1} s",
                    self.green("Everybody received"),
                    *milliseconds as f64 / 1000.0
                )
            }
            Event::Outcome { failed, .. } => {
                let lines: Vec<_> = failed.iter().map(|what| format!("  {} {what}", self.red("✗"))).collect();
                format!("{}\n{}", self.red("Not as agreed:"), lines.join("\n"))
            }
            Event::Try { what, line } => format!("  {}\n  {line}", self.dim(&format!("# {what}"))),
            Event::Stopped { folder, kept: true } => format!("stopped; the folder {} was kept", folder.display()),
            Event::Stopped { folder, kept: false } => format!("stopped; the folder {} was removed", folder.display()),
        }
    }

    fn step(&self, step: &Step) -> String {
        let code = step.participant.as_deref().unwrap_or("hub");
        let what = match step.state {
            "queued" => "the node keeps it and sends it on".to_owned(),
            "recorded" => "the hub keeps it, and knows who may have it".to_owned(),
            "delivered" => "the node has it, and the sender knows".to_owned(),
            "taken" => "confirmed by the agency, and the sender knows".to_owned(),
            _ => format!("received by the agency {}", step.agency.unwrap_or_default()),
        };
        let what = if step.state == "received" { self.green(&what) } else { what };
        let at = step.at.strftime("%H:%M:%S%.3f").to_string();
        format!("    {}  {code:<4}  {what}", self.dim(&format!("{at} {:>+6.0} ms", step.milliseconds)))
    }

    /// The closing table, only for a person.
    pub(super) fn grid(&self, grid: &Grid) -> Result<(), Failure> {
        let head: Vec<&str> = std::iter::once("").chain(STATES.iter().map(|state| state.code)).collect();
        let rows = ITEMS.iter().zip(grid).map(|(item, cells)| {
            let cells = cells.iter().map(|cell| match cell {
                Cell::Sent => "sent it".to_owned(),
                Cell::Received(milliseconds) => format!("✓ {milliseconds:.0} ms"),
                Cell::NotAgreed => "–".to_owned(),
                Cell::Missing => "✗ missing".to_owned(),
            });
            std::iter::once(item.name.to_owned()).chain(cells).collect()
        });
        let text: String = table(&head, rows).lines().map(|line| format!("  {line}\n")).collect();
        self.text(&text)?;
        self.text(&self.dim(
            "  – not on the agreement. The closing bulletin went to everybody after all the others, so whoever\n    received it without one of those was never sent that one.",
        ))
    }

    pub(super) fn paste(&self, what: &str, line: &Line) -> Result<(), Failure> {
        self.tell(&Event::Try { what, line: line.to_string() })
    }

    fn tick(&self) -> String {
        self.green("✓")
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// SGR of ECMA-48.
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
