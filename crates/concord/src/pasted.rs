//! What the documents tell people to type exists: every `concord …` line of them is parsed by the tree that parses it for real.

use std::path::Path;

use clap::{Command, CommandFactory as _, Parser as _};

use crate::cli::Cli;

const DOCUMENTS: [&str; 5] =
    ["README.md", "SECURITY.md", "deploy/README.md", "deploy/RUNBOOK.md", "deploy/RUNBOOK.ru.md"];

fn read(document: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    std::fs::read_to_string(root.join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The commands of a document's blocks, whole: continued lines joined, what stands behind `#`, `&&` or `>` left out.
fn whole_commands(text: &str) -> Vec<String> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    let lines = blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
    let commands = lines.map(|line| line.trim().trim_start_matches("sudo -u concord ").to_owned());
    let commands = commands.filter(|line| line.starts_with("concord "));
    let ends = [" #", " &&", " >"];
    commands.map(|line| ends.iter().fold(line, |line, end| line.split(end).next().unwrap().to_owned())).collect()
}

/// The beginnings of commands that stand in running text: `` `concord node join` ``.
fn named_commands(text: &str) -> Vec<String> {
    let without_blocks: Vec<&str> = text.split("\n```").step_by(2).collect();
    let spans = without_blocks.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
    spans.filter(|span| span.starts_with("concord ")).map(|span| span.replace('\n', " ")).collect()
}

/// Words at blanks, but for what stands in double quotes.
fn shell_words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    pieces.fold(vec![String::new()], |mut words, (place, piece)| {
        if place % 2 == 1 {
            words.last_mut().unwrap().push_str(piece);
        } else {
            let mut parts = piece.split_whitespace();
            if !piece.starts_with(char::is_whitespace)
                && let Some(first) = parts.next()
            {
                words.last_mut().unwrap().push_str(first);
            }
            words.extend(parts.map(str::to_owned));
            if piece.ends_with(char::is_whitespace) && place % 2 == 0 {
                words.push(String::new());
            }
        }
        words
    })
}

#[test]
fn every_command_of_the_documents_parses() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for line in whole_commands(&read(document)) {
            let words: Vec<_> = shell_words(&line).into_iter().filter(|word| !word.is_empty()).collect();
            if let Err(error) = Cli::try_parse_from(&words) {
                assert!(!error.use_stderr(), "{document}: '{line}' does not parse: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} commands were found");
}

#[test]
fn every_command_that_a_sentence_names_exists() {
    let mut root = Cli::command();
    root.build();
    let mut seen = 0;
    for document in DOCUMENTS {
        for span in named_commands(&read(document)) {
            let words: Vec<_> = span.split_whitespace().skip(1).collect();
            check_beginning(&root, &words, &format!("{document}: `{span}`"));
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} commands were named");
}

/// The words lead to a command; where that has options, those that are named are some of them.
fn check_beginning(root: &Command, words: &[&str], place: &str) {
    let (mut command, mut rest) = (root, words);
    while let [first, others @ ..] = rest {
        if !command.has_subcommands() || first.starts_with('-') || first.contains('|') {
            break;
        }
        let found = command.find_subcommand(first);
        command = found.unwrap_or_else(|| panic!("{place}: there is no command {first}"));
        rest = others;
    }
    for option in rest.iter().filter_map(|word| word.trim_matches(['[', ']']).strip_prefix("--")) {
        let name = option.split(['=', ']']).next().unwrap_or_default();
        let known = command.get_arguments().any(|argument| argument.get_long() == Some(name));
        assert!(known, "{place}: {} has no --{name}", command.get_name());
    }
}
