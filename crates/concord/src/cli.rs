//! The commands as clap knows them: names, groups, and what every client command has in common.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchCommand;
use crate::commands::{
    agency, agreement, anchor, approval, audit, contact, explain, holder, hub, journal, measure, node, pages,
    participant, pin, receive, role, set_aside, status, submit, track, verify, why, withdraw,
};
use crate::demo;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Exchange information between states, and only with those who agreed.
#[derive(Parser)]
#[command(
    name = "concord",
    version,
    propagate_version = true,
    // Examples stay on one line each, for pasting.
    term_width = 0,
    after_help = "Example:\n  concord demo\n\nExit codes: 0 done, 1 failed, 2 usage, 3 refused by a rule, 4 unavailable."
)]
pub(crate) struct Cli {
    /// Print one JSON object per line instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// End by SIGTERM when the process that started this one ends, however it ends.
    #[arg(long, global = true, hide = true)]
    pub(crate) with_parent: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Set up and run the hub.
    #[command(subcommand, after_help = "Example:\n  concord hub init --dir /srv/concord/hub")]
    Hub(hub::HubCommand),
    /// Set up and run a state's node.
    #[command(subcommand, after_help = "Example:\n  concord node init --dir /srv/concord/node --participant KAZ")]
    Node(node::NodeCommand),
    /// Show the registry; enrol a state, record what the forum decided about it (secretariat only).
    #[command(subcommand, after_help = "Example:\n  concord participant list --profile /srv/concord/hub/officer")]
    Participant(participant::ParticipantCommand),
    /// Show the catalogue; record that the forum added a measure (secretariat only).
    #[command(subcommand, after_help = "Example:\n  concord measure list --profile /srv/concord/node/officer")]
    Measure(measure::MeasureCommand),
    /// Sign, or reject, what other officers of the secretariat said and what needs several of them.
    #[command(
        subcommand,
        after_help = "Example:\n  concord approval list --profile /srv/concord/hub/officers/officer-2"
    )]
    Approval(approval::ApprovalCommand),
    /// See whose keys count for what this state consented to; confirm keys that changed.
    #[command(subcommand, after_help = "Example:\n  concord pin list --profile /srv/concord/node/officer")]
    Pin(pin::PinCommand),
    /// Let national agencies in; say what each may send and receive.
    #[command(subcommand, after_help = "Example:\n  concord agency add drug-control --dir /srv/concord/node")]
    Agency(agency::AgencyCommand),
    /// The officers of a hub's or node's folder: who signs for the state.
    #[command(subcommand, after_help = "Example:\n  concord officer list --dir /srv/concord/node")]
    Officer(holder::OfficerCommand),
    /// The operators of a hub's or node's folder: who sees how it is.
    #[command(subcommand, after_help = "Example:\n  concord operator list --dir /srv/concord/node")]
    Operator(holder::OperatorCommand),
    /// A trust anchor that is kept elsewhere: make it, sign requests with it, take back what it issued.
    #[command(subcommand, after_help = "Example:\n  concord anchor init --dir /media/anchor --participant KAZ")]
    Anchor(anchor::AnchorCommand),
    /// Propose, consent to, decline, leave and show agreements.
    #[command(subcommand, after_help = "Example:\n  concord agreement pending --profile /srv/concord/node/officer")]
    Agreement(agreement::AgreementCommand),
    /// Say and show whom one calls in each state, about which measure.
    #[command(subcommand, after_help = "Example:\n  concord contact list --profile /srv/concord/node/officer")]
    Contact(contact::ContactCommand),
    /// Show the chair and who coordinates what; record what the forum decided of it (secretariat only).
    #[command(subcommand, after_help = "Example:\n  concord role list --profile /srv/concord/node/officer")]
    Role(role::RoleCommand),
    /// Hand in files as an agency: one exchange for each.
    Submit(submit::SubmitArgs),
    /// Take an exchange of this agency back: who had it is told, and nobody else gets it.
    Withdraw(withdraw::WithdrawArgs),
    /// Take in what other states sent to this agency.
    Receive(receive::ReceiveArgs),
    /// Tell how far an exchange of this agency has come.
    Track(track::TrackArgs),
    /// Tell why an exchange of this agency did, or did not, go to a participant.
    Explain(explain::ExplainArgs),
    /// Tell where an exchange is, and what it waits for.
    Why(why::WhyArgs),
    /// Show, judge again and discard what came to a node and did not verify.
    #[command(subcommand, after_help = "Example:\n  concord set-aside list --profile /srv/concord/node/operator")]
    SetAside(set_aside::SetAsideCommand),
    /// Tell how a node or the hub is.
    Status(status::StatusArgs),
    /// List who did what at a node or the hub, and what was refused.
    Audit(audit::AuditArgs),
    /// Check a journal from its first entry to its last.
    Verify(verify::VerifyArgs),
    /// Read a journal.
    #[command(subcommand, after_help = "Example:\n  concord journal show /srv/concord/hub --from 12")]
    Journal(journal::JournalCommand),
    /// Show everything once, for real, on this machine.
    Demo(demo::DemoArgs),
    /// Measure how fast a hub takes consignments in, beside what this machine could do at all.
    #[command(subcommand, after_help = "Example:\n  concord bench ratio")]
    Bench(BenchCommand),
    /// Print what a shell needs to complete commands and options.
    Completions(pages::CompletionsArgs),
    /// Write manual pages, one for each command.
    Man(pages::ManArgs),
}

/// Prints what clap has to say, help or what is wrong with the line, and returns how the process ends.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    // The line did not parse, so that it is not known whether this is the flag: whoever wrote it most likely meant it.
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let words = error.to_string();
        let message: Vec<&str> = words.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        Output::new(true).failure(&Failure::usage(message.join(" ").trim_start_matches("error: ")));
        return Exit::Usage.into();
    }
    // Nobody is left to tell when the output is closed.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// What every client command takes.
#[derive(Args, Clone)]
pub(crate) struct ClientArgs {
    /// The profile folder: who you are, whom you call, with which certificate.
    #[arg(long, value_name = "DIR")]
    pub(crate) profile: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_has_an_example_that_parses() {
        let mut root = Cli::command();
        root.clone().debug_assert();
        root.build();
        let mut seen = 0;
        check(&root, &mut seen);
        assert!(seen > 25, "only {seen} commands were walked");
    }

    fn check(command: &clap::Command, seen: &mut usize) {
        *seen += 1;
        let help = command.clone().render_long_help().to_string();
        let (_, examples) = help.split_once("Example:\n").unwrap_or_else(|| panic!("{} has none", command.get_name()));
        for line in examples.lines().map(str::trim).take_while(|line| line.starts_with("concord ")) {
            if let Err(error) = Cli::try_parse_from(shell_words(line)) {
                panic!("the example '{line}' does not parse: {error}");
            }
        }
        assert!(examples.trim_start().starts_with("concord "), "{}", command.get_name());
        // clap's own `help` shows the others.
        command.get_subcommands().filter(|one| one.get_name() != "help").for_each(|one| check(one, seen));
    }

    /// Words at blanks, but for what stands in double quotes.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for character in line.chars() {
            match character {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                other => words.iter_mut().last().unwrap().push(other),
            }
        }
        words
    }

    #[test]
    fn lists_take_commas_and_repetition() {
        let line = "concord agreement propose KAZ/x --profile p --title T --measure a.1,b.2 --measure c.3 --participant IRN,TUR";
        let Command::Agreement(agreement::AgreementCommand::Propose(args)) = Cli::parse_from(line.split(' ')).command
        else {
            panic!("another command");
        };
        assert_eq!(args.measures.len(), 3);
        assert_eq!(args.participants.len(), 2);
    }

    #[test]
    fn an_empty_narrowing_never_means_all() {
        let parsed = Cli::try_parse_from(["concord", "submit", "f", "--profile", "p", "--to", ""]);
        assert_eq!(parsed.err().map(|error| error.exit_code()), Some(2));
    }
}
