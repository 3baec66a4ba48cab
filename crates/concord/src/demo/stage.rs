//! The demo's processes: this executable, run as a person would run it, with its words kept in the demo's folder.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::exit::Failure;
use crate::hint;

/// One step of the demo. A step that takes longer has failed.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a process may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of agencies that wait to be told; beyond it the reader of that agency's output waits.
const LINES_WAITING_MAX: usize = 64;
/// What is shown of the log of a step that failed.
const LOG_TAIL_LINES: usize = 12;

/// What an agency said, when.
pub(super) struct Line {
    pub(super) code: &'static str,
    pub(super) value: Value,
    pub(super) at: jiff::Timestamp,
}

/// All processes that the demo runs.
pub(super) struct Stage {
    executable: PathBuf,
    folder: PathBuf,
    servers: Vec<Server>,
    followers: Vec<Follower>,
    said: mpsc::Sender<Line>,
}

struct Server {
    child: Child,
    /// Drained to the end: a full pipe would stop the server.
    reading: JoinHandle<()>,
}

struct Follower {
    child: Child,
    reading: JoinHandle<()>,
}

/// The arguments of one command.
pub(super) fn words<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

impl Stage {
    /// An empty stage, and where the lines of its agencies come out.
    pub(super) fn new(folder: &Path) -> Result<(Self, mpsc::Receiver<Line>), Failure> {
        let (said, lines) = mpsc::channel(LINES_WAITING_MAX);
        fs::create_dir_all(folder.join("logs")).map_err(|error| file(&folder.join("logs"), &error))?;
        let executable = hint::executable()?;
        let stage = Self { executable, folder: folder.to_owned(), servers: Vec::new(), followers: Vec::new(), said };
        Ok((stage, lines))
    }

    fn command(&self, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(["--json", "--with-parent"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C of the terminal is for the demo: it ends the others, in order.
        command.process_group(0);
        command
    }

    /// Runs a command to its end and returns its lines of JSON. What it says goes to the log of whom it concerns.
    pub(super) async fn run_all(&self, log: &str, args: Vec<OsString>) -> Result<Vec<Value>, Failure> {
        let path = self.log_path(log);
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        let shown = format!("concord {}", words.join(" "));
        let mut kept = self.log(log)?;
        writeln!(kept, "$ {shown}").map_err(|error| file(&path, &error))?;
        let ended = timeout(STEP_TIMEOUT, self.command(&args).output()).await;
        let failed = |why: String| self.failed(log, format!("{shown}: {why}"));
        let ended = match ended {
            Err(_) => return Err(failed(format!("it did not end within {} s", STEP_TIMEOUT.as_secs()))),
            Ok(ended) => ended.map_err(|error| failed(format!("it could not be run: {error}")))?,
        };
        kept.write_all(&ended.stderr).map_err(|error| file(&path, &error))?;
        if !ended.status.success() {
            return Err(failed(format!("it ended with {}", ended.status)));
        }
        let stdout = String::from_utf8_lossy(&ended.stdout);
        let parsed: Result<Vec<Value>, _> = stdout.lines().map(serde_json::from_str).collect();
        parsed.map_err(|error| failed(format!("its answer is not JSON: {error}")))
    }

    /// The same for a command that answers with one line.
    pub(super) async fn run(&self, log: &str, args: Vec<OsString>) -> Result<Value, Failure> {
        let last = self.run_all(log, args).await?.pop();
        last.ok_or_else(|| self.failed(log, "the command answered nothing".to_owned()))
    }

    /// Starts a hub or node and returns the address that it listens on, when it is ready.
    pub(super) async fn serve(&mut self, log: &str, args: Vec<OsString>) -> Result<String, Failure> {
        let mut child = self
            .command(&args)
            .stderr(self.log(log)?)
            .spawn()
            .map_err(|error| self.failed(log, format!("the process could not be started: {error}")))?;
        let mut lines = lines(&mut child)?;
        let ready = timeout(STEP_TIMEOUT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.strip_prefix("listen ") {
                    return Some(address.to_owned());
                }
            }
            None
        });
        let address = match ready.await {
            Ok(Some(address)) => address,
            Ok(None) => return Err(self.failed(log, "the process ended before it was ready".to_owned())),
            Err(_) => return Err(self.failed(log, "the process did not become ready in time".to_owned())),
        };
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.servers.push(Server { child, reading });
        Ok(address)
    }

    /// Starts an agency that receives whatever comes; its lines come out of the stage.
    pub(super) fn follow(&mut self, code: &'static str, args: Vec<OsString>) -> Result<(), Failure> {
        let mut child = self
            .command(&args)
            .stderr(self.log(code)?)
            .spawn()
            .map_err(|error| self.failed(code, format!("the agency could not be started: {error}")))?;
        let mut lines = lines(&mut child)?;
        let said = self.said.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if said.send(Line { code, value, at: jiff::Timestamp::now() }).await.is_err() {
                    break;
                }
            }
        });
        self.followers.push(Follower { child, reading });
        Ok(())
    }

    /// Ends the agencies; everything that they said is out of the stage when this returns.
    pub(super) async fn end_followers(&mut self) {
        for follower in &mut self.followers {
            end(&mut follower.child).await;
        }
        for follower in self.followers.drain(..) {
            // A reader that panicked has nothing more to say either.
            let _ = follower.reading.await;
        }
    }

    /// Ends everything: agencies, then the servers in the reverse of the order in which they were started.
    pub(super) async fn end(&mut self) {
        self.end_followers().await;
        while let Some(mut server) = self.servers.pop() {
            end(&mut server.child).await;
            server.reading.abort();
        }
    }

    /// The file that keeps what a process said.
    pub(super) fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    fn log(&self, name: &str) -> Result<File, Failure> {
        let path = self.log_path(name);
        OpenOptions::new().create(true).append(true).open(&path).map_err(|error| file(&path, &error))
    }

    /// A failed step, with the end of the log that tells why.
    pub(super) fn failed(&self, log: &str, message: String) -> Failure {
        let path = self.log_path(log);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default();
        // Each line by itself: a log is text of many sources.
        tail.iter().for_each(|line| eprintln!("  | {}", crate::output::safe(line)));
        Failure::failed("DEMO_STEP", message).help(format!("see {}", path.display()))
    }
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It may have ended by itself; then there is nobody to signal.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        // Only an ended process cannot be killed.
        let _ = child.kill().await;
    }
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>, Failure> {
    let stdout = child.stdout.take().ok_or_else(|| Failure::failed("DEMO_STEP", "the process has no output"))?;
    Ok(BufReader::new(stdout).lines())
}

fn file(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed("FILE", format!("cannot write {}: {error}", path.display()))
}
