//! One process that may be armed, watched by a thread that tells when it serves and when it is gone.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::Instant;

use concord_faults::CRASH_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};

use super::arms::{Arm, is_at_the_end, waits_for_officers};
use super::{PASSED_BY_OFFICERS_WITHIN, PASSED_WITHIN, SERVED_BEFORE_END};
use crate::command::executable;

const SIGKILL: i32 = 9;

/// It is gone.
#[derive(Debug)]
pub(super) struct End;

/// What happened to a process.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) who: usize,
    /// Which start of it.
    pub(super) start: u64,
    /// None: it serves.
    pub(super) end: Option<End>,
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum Signalled {
    Killed,
    No(Option<i32>),
}

/// A running process. Dropped, it is killed.
pub(super) struct Running {
    child: Child,
    pub(super) arm: Option<Arm>,
    /// When it has lived too long, or is to be asked to end.
    deadline: Option<Instant>,
    asked_to_end: bool,
}

impl Running {
    pub(super) fn start(
        log: &Path,
        words: Vec<OsString>,
        arm: Option<Arm>,
        who: usize,
        start: u64,
        tell: &Sender<Event>,
    ) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(executable());
        command.args(["--json", "--with-parent"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        if let Some(arm) = arm {
            command.env(CRASH_VARIABLE, format!("{}:{}", arm.point, arm.count));
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let tell = tell.clone();
        std::thread::spawn(move || {
            let said = |end| {
                // Whoever listened may have ended its battery.
                let _ = tell.send(Event { who, start, end });
            };
            for line in stdout.lines().map_while(Result::ok) {
                if line.starts_with("admin ") {
                    said(None);
                }
            }
            said(Some(End));
        });
        // Until it serves, only a fault keeps it.
        let deadline = arm.map(|_| Instant::now() + crate::command::DEADLINE);
        Self { child, arm, deadline, asked_to_end: false }
    }

    /// It serves now: from here on it has its time.
    pub(super) fn serves(&mut self) {
        self.deadline = self.arm.map(|arm| {
            let within = match arm.point {
                point if is_at_the_end(point) => SERVED_BEFORE_END,
                point if waits_for_officers(point) => PASSED_BY_OFFICERS_WITHIN,
                _ => PASSED_WITHIN,
            };
            Instant::now() + within
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn was_asked_to_end(&self) -> bool {
        self.asked_to_end
    }

    pub(super) fn ask_to_end(&mut self, deadline: Instant) {
        self.asked_to_end = true;
        self.deadline = Some(deadline);
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // It may have died meanwhile, and is still this battery's child: its id belongs to nobody else.
        let _ = kill_process(pid, Signal::TERM);
    }

    /// Kills a process that nobody armed: one that has ended already ended by itself, which is a fault.
    pub(super) fn kill_alive(mut self, name: &str) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{name} ended by itself with {ended:?}");
        self.kill();
    }

    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn wait(mut self) -> Signalled {
        let status = self.child.wait().unwrap();
        if status.signal() == Some(SIGKILL) { Signalled::Killed } else { Signalled::No(status.code()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
