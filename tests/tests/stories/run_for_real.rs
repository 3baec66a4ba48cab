//! README's *Run it for real*, command by command as it stands there; and no page names a command that is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use concord_tests::{Ended, Process, executable, port_of_its_own, run};

const README: &str = include_str!("../../../README.md");
/// Pages for people, each with commands.
const PAGES: [(&str, &str); 4] = [
    ("README.md", README),
    ("deploy/README.md", include_str!("../../../deploy/README.md")),
    ("deploy/RUNBOOK.md", include_str!("../../../deploy/RUNBOOK.md")),
    ("deploy/RUNBOOK.ru.md", include_str!("../../../deploy/RUNBOOK.ru.md")),
];
/// What stands in the README for an id that the reader sees on the screen.
const AN_EXCHANGE: &str = "3f9a12bc";

/// A block of commands, and whose machine they are for: the second word of its fence.
struct Block<'a> {
    machine: &'a str,
    commands: Vec<String>,
}

/// The fenced blocks of a page; lines that go on by `\` are one command.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let (mut fenced, mut begun) = (false, String::new());
    for line in page.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !fenced => {
                fenced = true;
                let machine = language.strip_prefix("sh ").unwrap_or_default();
                blocks.push(Block { machine, commands: Vec::new() });
            }
            Some(_) => fenced = false,
            None if fenced => {
                begun.push_str(line.trim());
                match begun.strip_suffix('\\') {
                    Some(goes_on) => begun = goes_on.to_owned(),
                    None => blocks.last_mut().unwrap().commands.push(std::mem::take(&mut begun)),
                }
            }
            None => {}
        }
    }
    blocks
}

/// The machines of the section, each a folder with a disk of its own; what is carried between them; and what runs.
struct World {
    place: tempfile::TempDir,
    ports: BTreeMap<String, u16>,
    serving: Vec<Process>,
    exchange: Option<String>,
}

impl World {
    fn new() -> Self {
        let place = tempfile::Builder::new().prefix("concord-real-").tempdir().unwrap();
        fs::create_dir(place.path().join("stick")).unwrap();
        Self { place, ports: BTreeMap::new(), serving: Vec::new(), exchange: None }
    }

    fn machine(&mut self, name: &str) -> PathBuf {
        let folder = self.place.path().join(name);
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            self.ports.insert(name.to_owned(), port_of_its_own());
        }
        folder
    }

    /// The command where it runs here: its machine is a folder, and its network is loopback.
    fn here(&self, machine: &str, command: &str) -> String {
        let folder = |name: &str| self.place.path().join(name).display().to_string();
        let mut here = command
            .replace("/srv/concord", &folder(machine))
            .replace("/media/stick", &folder("stick"))
            .replace("hub.example.org:7443", &format!("127.0.0.1:{}", self.ports["secretariat"]));
        for any in ["0.0.0.0:7443", "0.0.0.0:7444", "node.example.kz:7444", "node.example.tr:7444"] {
            here = here.replace(any, &format!("127.0.0.1:{}", self.ports[machine]));
        }
        match &self.exchange {
            Some(exchange) => here.replace(AN_EXCHANGE, exchange),
            None => here,
        }
    }

    fn run(&mut self, machine: &str, command: &str) -> Ended {
        let folder = self.machine(machine);
        let here = self.here(machine, command);
        let mut shell = Command::new("sh");
        let beside = executable().parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        shell.args(["-ec", &here]).current_dir(folder).env("PATH", format!("{beside}:{path}"));
        run(shell)
    }

    /// Starts what runs on, and waits until it serves.
    fn serve(&mut self, machine: &str, command: &str) {
        let here = self.here(machine, command);
        let words: Vec<&str> = here.split_whitespace().skip(1).collect();
        let process = Process::start(&self.place.path().join(format!("{machine}.log")), words);
        process.line_after("admin ");
        self.serving.push(process);
    }

    fn carried_out(&mut self, machine: &str, command: &str) {
        self.machine(machine);
        if command.contains(" serve ") {
            return self.serve(machine, command);
        }
        let mut ended = self.run(machine, command).ok();
        // A reader sees nothing yet, and looks again.
        while command.starts_with("concord agreement pending") && !ended.text().contains("KAZ/drug-trafficking") {
            ended = self.run(machine, command).ok();
        }
        if command.starts_with("concord submit") {
            let said = ended.text();
            let id =
                said.split_whitespace().find(|word| word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit()));
            self.exchange = Some(id.unwrap_or_else(|| panic!("submit shows no id: {ended}")).to_owned());
        }
    }
}

#[test]
fn the_section_that_runs_it_for_real_does_so_command_by_command() {
    let section = README.split("\n## Run it for real\n").nth(1).and_then(|rest| rest.split("\n### ").next()).unwrap();
    let mut world = World::new();
    let mut count = 0;
    for Block { machine, commands } in blocks(section) {
        assert!(!machine.is_empty(), "README does not say on which machine: {commands:?}");
        for command in commands {
            world.carried_out(machine, &command);
            count += 1;
        }
    }
    assert!(count > 20, "only {count} commands were found");
    let received = only_file(&world.place.path().join("tur/inbox"));
    assert_eq!(received, fs::read(world.place.path().join("kaz/seizures.csv")).unwrap());
    let tracked =
        world.run("kaz", "concord track 3f9a12bc --profile /srv/concord/node/agencies/drug-control").ok().text();
    assert!(tracked.contains("taken"), "{tracked}");
    let fleet = world.run("secretariat", "concord status --profile /srv/concord/hub/operator").ok().text();
    assert!(["KAZ", "TUR"].iter().all(|code| fleet.contains(code)), "{fleet}");
    assert_eq!(world.serving.into_iter().map(|server| server.terminate().code()).collect::<Vec<_>>(), [Some(0); 3]);
}

fn only_file(folder: &Path) -> Vec<u8> {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    fs::read(&files[0]).unwrap()
}

#[test]
fn no_page_names_a_command_or_an_option_that_there_is_none_of() {
    let mut count = 0;
    for (page, text) in PAGES {
        for command in blocks(text).into_iter().flat_map(|block| block.commands) {
            let Some((_, words)) = command.split_once("concord ").filter(|(before, _)| is_prefix(before)) else {
                continue;
            };
            // Comments, pipes and what the shell does with the output are not concord's.
            let words = words.split([';', '|', '>']).next().unwrap_or_default().split(" # ").next().unwrap_or_default();
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec \"$0\" {} --help", words.trim().trim_end_matches('…'))]).arg(executable());
            let ended = run(shell);
            assert_eq!(ended.code, Some(0), "{page} names what is no command: {command}\n{ended}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} commands were found");
}

/// What may stand before a command: nothing, or who runs it.
fn is_prefix(before: &str) -> bool {
    matches!(before.trim(), "" | "sudo -u concord")
}
