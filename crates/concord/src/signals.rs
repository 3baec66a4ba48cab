//! Ctrl-C and SIGTERM, as something to wait for; and the end of the process that started this one.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Listens from its making on, so that no signal is missed between two waits.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed("SIGNALS", format!("cannot listen for signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Resolves at the next of either.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// From now on SIGTERM comes when the parent ends, even if it is killed. Must be called before other threads start, by the
/// main thread.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_parent() -> Result<(), Failure> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let failed = |why: String| Failure::failed("SIGNALS", format!("cannot follow the parent process: {why}"));
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| failed(error.to_string()))?;
    // It may have ended just before.
    if getppid() == parent { Ok(()) } else { Err(failed("it has ended".to_owned())) }
}

/// Other systems have no such signal: there a killed parent leaves its processes running.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent() -> Result<(), Failure> {
    Ok(())
}
