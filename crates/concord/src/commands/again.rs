//! A server that ended for want of room waits for some and starts itself anew: nobody has to come for it.
//!
//! The journal refuses what it has no room for and goes on; the views, which are only derived, cannot. They are made again by a start.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use concord_journal::RealDisk;
use concord_server::Supervisor;

use crate::exit::Failure;
use crate::signals::Stop;

/// With less, a failure of what is derived is one of the full disk, and what is derived could not be made again: it begins with files of
/// some megabytes.
const ROOM_MIN_BYTES: u64 = 8 * 1024 * 1024;
/// How often the disk is asked while nothing else can be done.
const LOOK_INTERVAL_SECONDS: u64 = 1;

/// Passes on how a server ended, unless it ended by what a full disk does: then this returns only where it is told to stop.
pub(crate) async fn unless_full<E>(
    dir: &Path,
    stop: &mut Stop,
    ended: Result<(), E>,
    may_want_room: impl Fn(&E) -> bool,
) -> Result<(), Failure>
where
    E: std::error::Error + Into<Failure>,
{
    let error = match ended {
        Err(error) if may_want_room(&error) && is_full(dir) => error,
        ended => return ended.map_err(Into::into),
    };
    let _told = Supervisor::from_environment().not_serving_yet("not serving: the disk is full");
    tracing::error!(%error, "the disk is full; nothing is served until there is room, then this process starts anew by itself");
    while is_full(dir) {
        tokio::select! {
            () = stop.wait() => return Err(error.into()),
            () = tokio::time::sleep(Duration::from_secs(LOOK_INTERVAL_SECONDS)) => {}
        }
    }
    tracing::info!("there is room again: starting anew");
    Err(start_anew())
}

fn is_full(dir: &Path) -> bool {
    let available = RealDisk::open(dir).and_then(|disk| concord_journal::Disk::available_bytes(&disk));
    available.is_ok_and(|bytes| bytes < ROOM_MIN_BYTES)
}

/// The same program with the same arguments in the place of this one, so that whoever watches the process sees the same one. Returns
/// only what went wrong.
fn start_anew() -> Failure {
    let failed = |error: std::io::Error| Failure::failed("START_FAILED", format!("cannot start anew: {error}"));
    match std::env::current_exe() {
        Ok(program) => failed(Command::new(program).args(std::env::args_os().skip(1)).exec()),
        Err(error) => failed(error),
    }
}
