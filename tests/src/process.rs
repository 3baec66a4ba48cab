//! Processes that run on: servers and receiving agencies, read line by line, ended by their own ids.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{DEADLINE, executable};

/// A running process of the binary. Dropped, it is killed.
pub struct Process {
    shown: String,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `concord --json` with these arguments; its stderr is added to `log`.
    pub fn start(log: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::start_with(log, &BTreeMap::new(), args)
    }

    /// The same, with these variables of the environment.
    pub fn start_with(
        log: &Path,
        variables: &BTreeMap<&str, &str>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let mut command = Command::new(executable());
        command.envs(variables);
        // Whatever ends this test's process ends its children too.
        command.args(["--json", "--with-parent"]).args(args);
        Self::start_command(log, command)
    }

    /// Starts any command; its stderr is added to `log`.
    pub fn start_command(log: &Path, mut command: Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Read to the end whether anybody listens or not: a full pipe would stop the process.
                let _ = said.send(line);
            }
        });
        Self { shown, child, lines }
    }

    /// Its id, for as long as it is this test's child.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it writes; none when it ended.
    #[track_caller]
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{}: it said nothing for {DEADLINE:?}", self.shown),
        }
    }

    /// The next line that begins so, without that beginning.
    #[track_caller]
    pub fn line_after(&self, beginning: &str) -> String {
        loop {
            let line = self.line().unwrap_or_else(|| panic!("{}: it ended before it said '{beginning}'", self.shown));
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// The next line, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let line = self.line().unwrap_or_else(|| panic!("{}: it ended", self.shown));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {line}: {error}", self.shown))
    }

    /// The next lines, as JSON.
    #[track_caller]
    pub fn jsons(&self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.json()).collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // It may have ended by itself, and is still this test's child: its id belongs to nobody else.
        let _ = kill_process(pid, signal);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it as power loss would, and returns what it had still written.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.rest()
    }

    /// Asks it to end, and returns how it ended.
    pub fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait().0
    }

    /// Waits for its end; returns how it ended and what it had still written.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let rest = self.rest();
        (self.child.wait().unwrap(), rest)
    }

    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
