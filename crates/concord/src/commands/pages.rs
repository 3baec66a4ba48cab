//! `concord completions` and `concord man`: what shells and readers of manuals know of the commands, made of the same tree that parses them.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use crate::cli::Cli;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};

/// What the binary is called on the path.
const NAME: &str = "concord";

#[derive(Args)]
#[command(after_help = "Example:\n  concord completions bash\n\n\
    To have them in every new shell: concord completions bash > ~/.local/share/bash-completion/completions/concord")]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Where a page for each command is written; where nothing is said, the first page goes to stdout.
    #[arg(long, value_name = "OUT")]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct CompletionsLine {
    shell: String,
    script: String,
}

#[derive(Serialize)]
struct PageLine {
    page: String,
    text: String,
}

#[derive(Serialize)]
struct PagesLine {
    dir: String,
    pages: usize,
}

pub(crate) fn completions(args: &CompletionsArgs, output: Output) -> Result<(), Failure> {
    let script = script(args.shell);
    let line = CompletionsLine { shell: args.shell.to_string(), script };
    output.result(&line, || line.script.clone())
}

pub(crate) fn man(args: &ManArgs, output: Output) -> Result<(), Failure> {
    let failed = |what: String| move |error: io::Error| Failure::failed("MAN", format!("{what}: {error}"));
    let pages = pages().map_err(failed("a page cannot be made".to_owned()))?;
    let Some(dir) = &args.dir else {
        let first = pages.into_iter().find(|page| page.page == format!("{NAME}.1"));
        let page = first.ok_or_else(|| Failure::failed("MAN", "there is no first page"))?;
        return output.result(&page, || page.text.clone());
    };
    let at = |what: &str| failed(format!("{} cannot be {what}", dir.display()));
    std::fs::create_dir_all(dir).map_err(at("made"))?;
    for page in &pages {
        std::fs::write(dir.join(&page.page), &page.text).map_err(at("written to"))?;
    }
    let line = PagesLine { dir: dir.display().to_string(), pages: pages.len() };
    output.result(&line, || facts(&[("folder", line.dir.clone()), ("pages", line.pages.to_string())]))?;
    hint::next(output, "the same for a shell", &[Line::new("completions bash")]);
    Ok(())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// A page for each command, `concord-hub-init.1`.
fn pages() -> io::Result<Vec<PageLine>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<PageLine>) -> io::Result<()> {
    command.get_subcommands().filter(|one| !one.is_hide_set()).try_for_each(|one| add_pages(one, pages))?;
    let (man, mut text) = (Man::new(command.clone()).manual("Concord"), Vec::new());
    man.render(&mut text)?;
    pages.push(PageLine { page: man.get_filename(), text: String::from_utf8_lossy(&text).into_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::ValueEnum as _;

    use super::*;

    /// Every command that is shown, as its words: `["hub", "init"]`.
    fn commands(command: &Command, words: &[String], all: &mut Vec<Vec<String>>) {
        for one in command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help") {
            let words = [words, &[one.get_name().to_owned()]].concat();
            all.push(words.clone());
            commands(one, &words, all);
        }
    }

    fn all_commands() -> Vec<Vec<String>> {
        let mut all = Vec::new();
        commands(&Cli::command(), &[], &mut all);
        assert!(all.len() > 40, "only {} commands were found", all.len());
        all
    }

    #[test]
    fn every_command_has_a_page_with_its_synopsis_and_example() {
        let pages: BTreeMap<_, _> = pages().unwrap().into_iter().map(|page| (page.page, page.text)).collect();
        let all = all_commands();
        assert_eq!(pages.len(), all.len() + 1);
        for words in all {
            let name = format!("{NAME}-{}.1", words.join("-"));
            let page = pages.get(&name).unwrap_or_else(|| panic!("{name} is not there"));
            assert!(page.contains("SYNOPSIS") && page.contains("Example:"), "{name}: {page}");
        }
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for words in all_commands() {
                let last = words.last().unwrap();
                assert!(script.contains(last.as_str()), "{shell} does not know {words:?}");
            }
        }
    }
}
