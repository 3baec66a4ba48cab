//! The commands as clap knows them: names, groups, and what every client command has in common.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{agency, agreement, hub, journal, node, participant, receive, status, submit, track, verify};
use crate::demo;

/// Exchange information between states, and only with those who agreed.
#[derive(Parser)]
#[command(
    name = "concord",
    version,
    propagate_version = true,
    after_help = "Example:\n  concord demo\n\nExit codes: 0 done, 1 failed, 2 usage, 3 refused by a rule, 4 unavailable."
)]
pub(crate) struct Cli {
    /// Print one JSON object per line instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
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
    /// Show the registry; enrol a state (secretariat only).
    #[command(subcommand, after_help = "Example:\n  concord participant list --profile /srv/concord/hub/officer")]
    Participant(participant::ParticipantCommand),
    /// Let national agencies in.
    #[command(subcommand, after_help = "Example:\n  concord agency add drug-control --dir /srv/concord/node")]
    Agency(agency::AgencyCommand),
    /// Propose, consent to, decline, leave and show agreements.
    #[command(subcommand, after_help = "Example:\n  concord agreement pending --profile /srv/concord/node/officer")]
    Agreement(agreement::AgreementCommand),
    /// Hand in files as an agency: one exchange for each.
    Submit(submit::SubmitArgs),
    /// Take in what other states sent to this agency.
    Receive(receive::ReceiveArgs),
    /// Tell how far an exchange of this agency has come.
    Track(track::TrackArgs),
    /// Tell how a node or the hub is.
    Status(status::StatusArgs),
    /// Check a journal from its first entry to its last.
    Verify(verify::VerifyArgs),
    /// Read a journal.
    #[command(subcommand, after_help = "Example:\n  concord journal show /srv/concord/hub --from 12")]
    Journal(journal::JournalCommand),
    /// Show everything once, for real, on this machine.
    Demo(demo::DemoArgs),
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
        let root = Cli::command();
        root.clone().debug_assert();
        let mut seen = 0;
        check(&root, &mut seen);
        assert!(seen > 25, "only {seen} commands were walked");
    }

    fn check(command: &clap::Command, seen: &mut usize) {
        *seen += 1;
        let help = command.clone().render_long_help().to_string();
        let (_, examples) = help.split_once("Example:\n").unwrap_or_else(|| panic!("{} has none", command.get_name()));
        for line in examples.lines().map(str::trim).take_while(|line| line.starts_with("concord ")) {
            let words = line.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("the example '{line}' does not parse: {error}");
            }
        }
        assert!(examples.trim_start().starts_with("concord "), "{}", command.get_name());
        command.get_subcommands().for_each(|one| check(one, seen));
    }

    #[test]
    fn lists_take_commas_and_repetition() {
        let line = "concord agreement propose KAZ/x --profile p --title T --measure a.1,b.2 --measure c.3 --participant IRN,TUR";
        let Command::Agreement(agreement::AgreementCommand::Propose(args)) =
            Cli::parse_from(line.split(' ')).command
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
