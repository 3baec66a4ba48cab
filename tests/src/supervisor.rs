//! A supervisor as systemd is one: a socket of datagrams, by a path or an abstract name, and what a service told it.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use crate::command::DEADLINE;

/// The socket that a service is given.
pub struct Supervisor {
    socket: UnixDatagram,
    name: String,
}

impl Supervisor {
    /// At a path in this folder.
    pub fn at(folder: &Path) -> Self {
        let path = folder.join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), name: path.display().to_string() }
    }

    /// Under an abstract name, which no file system knows.
    pub fn abstracted(what: &str) -> Self {
        let name = format!("concord-test/{}/{what}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self { socket: UnixDatagram::bind_addr(&address).unwrap(), name: format!("@{name}") }
    }

    /// The environment of a service that it supervises, without a watchdog.
    pub fn variables(&self) -> BTreeMap<&str, &str> {
        BTreeMap::from([("NOTIFY_SOCKET", self.name.as_str())])
    }

    /// The next line that begins so, of whatever datagram; the others before it are passed over.
    #[track_caller]
    pub fn await_line(&self, beginning: &str) -> String {
        loop {
            let told = self.told_within(DEADLINE).unwrap_or_else(|| panic!("it was not told {beginning}"));
            if let Some(line) = told.iter().find(|line| line.starts_with(beginning)) {
                return line.clone();
            }
        }
    }

    /// The lines of the next datagram, if one comes in this time.
    pub fn told_within(&self, time: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect())
    }

    /// What it was told and has not read yet.
    pub fn told_so_far(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let told = std::iter::from_fn(|| self.told_within(Duration::from_secs(1))).flatten().collect();
        self.socket.set_nonblocking(false).unwrap();
        told
    }
}
