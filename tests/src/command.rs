//! Commands that end: run, waited for, and read.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long anything may take: about ten times what it takes on a slow machine. Nothing waits for time to pass, so that only a
/// fault uses it up.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The arguments of a command, of whatever can be one.
#[macro_export]
macro_rules! words {
    ($($word:expr),* $(,)?) => {{
        let words: Vec<std::ffi::OsString> = vec![$(std::ffi::OsString::from(&$word)),*];
        words
    }};
}

/// The binary beside this test's own folder: `target/<profile>/concord`.
pub fn executable() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().find(|folder| folder.ends_with("deps")).and_then(|deps| deps.parent());
    let path = profile.expect("the test runs from target/<profile>/deps").join("concord");
    assert!(path.is_file(), "{} is not there; build it first: cargo build", path.display());
    path
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    /// What was run.
    pub shown: String,
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ended {
    /// The same, if it exited with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The lines of JSON on stdout.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let parsed: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        parsed.unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The last line of JSON on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.lines().pop().unwrap_or_else(|| panic!("it answered nothing: {self}"))
    }

    /// What it wrote to stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The stable reason of its failure, as its JSON says it.
    pub fn reason(&self) -> Option<String> {
        let objects = self.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.filter_map(|object| object["error"]["reason"].as_str().map(ToOwned::to_owned)).next_back()
    }

    /// The message of its failure, as its JSON says it.
    pub fn message(&self) -> String {
        self.of_failure("message")
    }

    /// What to do next about its failure, as its JSON says it.
    pub fn help(&self) -> String {
        self.of_failure("help")
    }

    fn of_failure(&self, field: &str) -> String {
        let objects = self.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects
            .filter_map(|object| object["error"][field].as_str().map(ToOwned::to_owned))
            .next_back()
            .unwrap_or_default()
    }

    /// It failed with exactly this exit code and this stable reason, and said in words what and why.
    #[track_caller]
    pub fn refused(&self, code: i32, reason: &str) {
        assert_eq!((self.code, self.reason().as_deref()), (Some(code), Some(reason)), "{self}");
        assert!(self.message().len() > 10, "it does not say why: {self}");
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  exit {:?}\n  stdout: {}\n  stderr: {}", self.shown, self.code, self.text(), self.stderr)
    }
}

/// Runs `concord --json` with these arguments to its end.
pub fn concord(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let mut command = Command::new(executable());
    // Whatever ends this test's process ends its children too.
    command.args(["--json", "--with-parent"]).args(&args);
    run(command)
}

/// Runs any command to its end.
pub fn run(mut command: Command) -> Ended {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE)) else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{shown}: it did not end within {DEADLINE:?}");
    };
    let code = child.wait().unwrap().code();
    Ended { shown, code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Runs a command on a terminal, where one line is typed, and returns its exit code and what the terminal showed.
pub fn on_a_terminal(typed: &str, args: Vec<OsString>) -> (Option<i32>, String) {
    const SCRIPT: &str = "import os, pty, sys\n\
        typed = [sys.argv[1].encode() + b'\\n']\n\
        status = pty.spawn(sys.argv[2:], stdin_read=lambda _: typed.pop() if typed else b'')\n\
        sys.exit(os.waitstatus_to_exitcode(status))";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, typed]).arg(executable()).args(args);
    let ended = run(command);
    (ended.code, ended.text())
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (read, done) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends like one that is closed; nobody may be left to hear it.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = read.send(bytes);
    });
    done
}
