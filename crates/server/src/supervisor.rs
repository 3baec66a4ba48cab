//! Whoever started this process as a service and wants to hear of it: systemd's words of readiness, state and watchdog, as datagrams to
//! the socket that `NOTIFY_SOCKET` names. Where it names none, all of this does nothing.
//!
//! Invariant: while the process serves, the watchdog hears of it only behind an answer of the one task that writes the journal. A timer
//! alone would keep a stuck process alive for ever.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::drain::Shutdown;
use crate::readiness::Readiness;

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
const WATCHDOG_PROCESS_VARIABLE: &str = "WATCHDOG_PID";

/// How many signs of life fit into the time after which the watchdog bites: two may be late.
const SIGNS_PER_WATCHDOG_TIME: u32 = 3;
/// How often what is wrong is told anew where no watchdog sets a pace.
const STATUS_INTERVAL_SECONDS: u64 = 10;
/// The names of alarms in one line of state; beyond it their number.
const ALARMS_NAMED_MAX: usize = 8;

/// The supervisor of this process, if there is one. Clones share its socket.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    socket: UnixDatagram,
    /// After so long without a sign the process is restarted.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment names it. A socket that cannot be reached is said in the log and is none: the service matters more.
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let known = connect(&name).map(|socket| Arc::new(Known { socket, watchdog: watchdog_of_this_process() }));
        let known = known.inspect_err(|error| {
            tracing::warn!(%error, variable = SOCKET_VARIABLE, "the supervisor cannot be told how this process is");
        });
        Self(known.ok())
    }

    /// It serves: the ports are open. To be said once, and never before.
    pub fn ready(&self) {
        self.tell(&["READY=1", "STATUS=serves"]);
    }

    /// It is ending, and takes no new work.
    pub fn stopping(&self) {
        self.tell(&["STOPPING=1", "STATUS=ending: what is under way goes on"]);
    }

    /// What it does now, in a few words without content.
    pub fn status(&self, words: &str) {
        self.tell(&[&format!("STATUS={words}")]);
    }

    /// While the returned guard lives the watchdog hears of this process by the clock alone: for an opening that reads and rebuilds for
    /// as long as there is to read, and for a wait for room on the disk, when no task serves that could be asked.
    #[must_use]
    pub fn not_serving_yet(&self, words: &'static str) -> DropGuard {
        let (supervisor, end) = (self.clone(), CancellationToken::new());
        supervisor.status(words);
        let ended = end.clone();
        tokio::spawn(async move {
            while ended.run_until_cancelled(tokio::time::sleep(supervisor.interval())).await.is_some() {
                supervisor.sign_of_life();
            }
        });
        end.drop_guard()
    }

    /// Tells how this process is until its end is asked for: a sign of life behind each answer of `ask`, and the names of what is wrong.
    /// `ask` puts a question to the task that writes the journal and resolves when that task has answered it.
    pub async fn keep_told<A: Future<Output = ()>>(
        self,
        readiness: Readiness,
        shutdown: Shutdown,
        ask: impl Fn() -> A,
    ) {
        if self.0.is_none() {
            return;
        }
        let mut said = String::new();
        let telling = async {
            loop {
                if !concord_faults::planted("live-by-the-clock") {
                    ask().await;
                }
                self.sign_of_life();
                let state = state_of(&readiness);
                if state != said {
                    self.status(&state);
                    said = state;
                }
                tokio::time::sleep(self.interval()).await;
            }
        };
        tokio::select! {
            () = telling => {}
            () = shutdown.requested() => self.stopping(),
        }
    }

    fn sign_of_life(&self) {
        self.tell(&["WATCHDOG=1"]);
    }

    fn interval(&self) -> Duration {
        let watchdog = self.0.as_ref().and_then(|known| known.watchdog);
        let by_status = Duration::from_secs(STATUS_INTERVAL_SECONDS);
        watchdog.map_or(by_status, |watchdog| by_status.min(watchdog / SIGNS_PER_WATCHDOG_TIME))
    }

    fn tell(&self, lines: &[&str]) {
        let Some(known) = &self.0 else { return };
        // Never waited for: a supervisor that does not read must not hold the service up.
        if let Err(error) = known.socket.send(lines.join("\n").as_bytes()) {
            tracing::debug!(%error, "the supervisor was not told");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes() {
        [b'@', abstracted @ ..] => connect_abstract(&socket, abstracted)?,
        [b'/', ..] => socket.connect(name)?,
        _ => return Err(io::Error::other("it is neither a path from the root nor an abstract name")),
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::Error::other("this system has no abstract names"))
}

/// The watchdog's time, where it is set for this process and not for another one that passed its environment on.
fn watchdog_of_this_process() -> Option<Duration> {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let is_for_another = number(WATCHDOG_PROCESS_VARIABLE).is_some_and(|id| id != u64::from(std::process::id()));
    number(WATCHDOG_VARIABLE).filter(|micros| *micros > 0 && !is_for_another).map(Duration::from_micros)
}

/// One line for `systemctl status`: names of alarms only, their words are in the log and in `concord status`.
fn state_of(readiness: &Readiness) -> String {
    let names: Vec<_> = readiness.list().into_iter().filter(|alarm| alarm.stops).map(|alarm| alarm.name).collect();
    if names.is_empty() {
        return "serves".to_owned();
    }
    let mut line = format!("not ready: {}", names[..names.len().min(ALARMS_NAMED_MAX)].join(", "));
    if names.len() > ALARMS_NAMED_MAX {
        let _ = write!(line, " and {} more", names.len() - ALARMS_NAMED_MAX);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_state_names_alarms_and_not_notes_nor_what_they_say() {
        let readiness = Readiness::new();
        assert_eq!(state_of(&readiness), "serves");
        readiness.note("clock-suspect", "one hour");
        assert_eq!(state_of(&readiness), "serves");
        readiness.raise("disk-full", "5 bytes are left");
        readiness.raise("held", "why");
        assert_eq!(state_of(&readiness), "not ready: disk-full, held");
        for name in ["a", "b", "c", "d", "e", "f", "g"] {
            readiness.raise(name, "x");
        }
        assert_eq!(state_of(&readiness), "not ready: a, b, c, d, disk-full, e, f, g and 1 more");
    }

    #[test]
    fn a_name_that_is_no_address_of_a_socket_is_refused() {
        for name in ["relative/path", "vsock:2:1234", "/no/such/socket"] {
            assert!(connect(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
