//! `hub.toml`: commented, unknown keys refused, parsed before a port opens.

use std::net::SocketAddr;
use std::path::Path;

use concord_ledger::Quorum;
use concord_model::Name;
use concord_server::{DISK_RESERVE_DEFAULT_BYTES, Lapsing, Overdue, Quotas, Retention};
use serde::Deserialize;

use crate::away::AwayAfter;
use crate::error::HubError;

/// What `hub.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The hub's name.
    pub name: Name,
    /// Where nodes and the secretariat connect.
    pub listen: SocketAddr,
    /// Where health and metrics are asked for.
    pub admin: SocketAddr,
    /// `host:port` as nodes reach it, the best first; empty: the bound address.
    pub announce: Vec<String>,
    /// A segment of the journal of at least this size gets no further commit.
    pub journal_segment_size_bytes: u64,
    /// What is kept free on the disk for what is under way, in bytes.
    pub disk_reserve_bytes: u64,
    /// How many officers of the secretariat must sign an enrolment, a replacement of keys, the release of its hold, or new keys of the hub's.
    pub quorum: Quorum,
    /// After which time what waits is overdue.
    pub overdue: Overdue,
    /// After which time a node is away for too long.
    pub nodes: AwayAfter,
    /// What each participant may bring.
    pub quotas: Quotas,
    /// What goes by itself.
    pub retention: Retention,
    /// When revocation lists are too old.
    pub revocation: Lapsing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    listen: String,
    admin: String,
    #[serde(default)]
    announce: Vec<String>,
    journal_segment_size_bytes: Option<u64>,
    disk_reserve_bytes: Option<u64>,
    quorum: Option<u32>,
    #[serde(default)]
    overdue: Overdue,
    #[serde(default)]
    nodes: AwayAfter,
    #[serde(default)]
    quotas: Quotas,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    revocation: Lapsing,
}

impl Config {
    /// The file's name in the hub's folder.
    pub const FILE: &'static str = "hub.toml";

    /// Reads and checks the file of this folder.
    pub fn load(folder: &Path) -> Result<Self, HubError> {
        let path = folder.join(Self::FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| HubError::Config { path: path.clone(), what: error.to_string() })?;
        Self::parse(&text).map_err(|what| HubError::Config { path, what })
    }

    /// Checks what a file says.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = concord_identity::settings_from_toml(text)?;
        let address = |key: &str, text: &str| {
            text.parse()
                .map_err(|_| format!("{key} = \"{text}\" is not an address; write it like 127.0.0.1:7443 or [::]:7443"))
        };
        for announced in &file.announce {
            let host_and_port = announced.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            match host_and_port.and_then(|(_, port)| port.parse::<u16>().ok()) {
                Some(0) => {
                    return Err(format!(
                        "announce names \"{announced}\", and no node reaches port 0; write the port that leads to this hub, such as 7443"
                    ));
                }
                Some(_) => {}
                None => {
                    return Err(format!(
                        "announce names \"{announced}\"; write host:port, such as hub.example.org:7443"
                    ));
                }
            }
        }
        Ok(Self {
            name: Name::parse(&file.name).map_err(|error| error.to_string())?,
            listen: address("listen", &file.listen)?,
            admin: address("admin", &file.admin)?,
            announce: file.announce,
            journal_segment_size_bytes: concord_journal::segment_size(file.journal_segment_size_bytes)
                .map_err(|why| format!("journal_segment_size_bytes: {why}"))?,
            disk_reserve_bytes: file.disk_reserve_bytes.unwrap_or(DISK_RESERVE_DEFAULT_BYTES),
            quorum: checked_quorum(file.quorum.unwrap_or(QUORUM_DEFAULT))?,
            overdue: file.overdue.checked()?,
            nodes: file.nodes.checked()?,
            quotas: file.quotas.checked()?,
            retention: file.retention.checked()?,
            revocation: file.revocation.checked()?,
        })
    }

    /// The file as `hub init` writes it.
    pub fn to_toml(&self) -> String {
        let announce: Vec<String> = self.announce.iter().map(|address| format!("{address:?}")).collect();
        format!(
            r#"# The hub of the secretariat. Unknown keys are refused.

# The hub's name. It stands in its certificate, in every consignment and in every statement: do not change it.
name = "{name}"

# Where nodes, officers and operators connect (gRPC over mutual TLS). Port 0: one is chosen once and then kept.
listen = "{listen}"

# Health, readiness and metrics: plain HTTP on a loopback address, mutual TLS for operators on any other.
admin = "{admin}"

# host:port as nodes reach this hub, the best first; it goes into their bundles. Empty: the address that is bound.
announce = [{announce}]

# A file of the journal that has reached this size is followed by the next: 64 KiB to 2 GiB.
journal_segment_size_bytes = {segment}

# What is kept free on the disk, in bytes. With less, new consignments are refused with DISK_FULL and wait at their nodes; receipts,
# deliveries, acknowledgements and officers' words go on. It recovers by itself.
disk_reserve_bytes = {disk_reserve_bytes}

# How many officers of the secretariat must sign an enrolment, a replacement of keys, the release of a hold of the secretariat's, or new
# keys of the hub's own (`hub rotate`; `anchor next` and `anchor end` of its folder): 1 to {quorum_max}. What one of them says waits until
# others approve it (`concord approval list`), for 30 days; one rejection ends it.
quorum = {quorum}
{overdue}{nodes}{quotas}{retention}{revocation}"#,
            name = self.name,
            listen = self.listen,
            admin = self.admin,
            announce = announce.join(", "),
            segment = self.journal_segment_size_bytes,
            disk_reserve_bytes = self.disk_reserve_bytes,
            quorum_max = Quorum::MAX,
            quorum = self.quorum.get(),
            overdue = self.overdue.to_toml("an exchange for its recipient's node"),
            nodes = self.nodes.to_toml(),
            quotas = self.quotas.to_toml("participant"),
            retention = self.retention.to_toml(),
            revocation = self.revocation.to_toml(),
        )
    }
}

/// What a new hub asks for.
pub const QUORUM_DEFAULT: u32 = 2;

/// How many officers must sign, as a person says it.
pub(crate) fn checked_quorum(officers: u32) -> Result<Quorum, String> {
    Quorum::new(officers).ok_or_else(|| format!("quorum = {officers}: it is 1 to {} officers", Quorum::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Config {
        Config {
            name: Name::parse("main").unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "[::1]:9".parse().unwrap(),
            announce: vec!["hub.example.org:7443".to_owned()],
            journal_segment_size_bytes: 65_536,
            disk_reserve_bytes: 1024,
            quorum: Quorum::new(3).unwrap(),
            overdue: Overdue { flash_seconds: 7, ..Overdue::default() },
            nodes: AwayAfter { away_seconds: 7 },
            quotas: Quotas { exchanges_per_second: 7, ..Quotas::default() },
            retention: Retention { bodies_days: Some(30), entries_days: Some(60) },
            revocation: Lapsing { warn_days: 3, grace_days: 0 },
        }
    }

    #[test]
    fn what_init_writes_is_what_serve_reads_and_a_damaged_file_is_taken_for_nothing_else() {
        concord_server::conformance::check_configuration(&written(), Config::to_toml, Config::parse);
    }

    #[test]
    fn a_file_of_before_the_reserve_keeps_the_usual_one() {
        let older = written().to_toml().replace("disk_reserve_bytes = 1024", "");
        assert_eq!(Config::parse(&older).map(|config| config.disk_reserve_bytes), Ok(DISK_RESERVE_DEFAULT_BYTES));
    }

    #[test]
    fn unknown_keys_and_wrong_addresses_are_refused_by_name() {
        let text = written().to_toml();
        let check = |text: String, names: &str| {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.contains(names), "{error}");
        };
        check(format!("{text}\nlisten_port = 1\n"), "listen_port");
        check(text.replace("127.0.0.1:0", "localhost"), "listen");
        check(text.replace("hub.example.org:7443", "hub.example.org"), "announce");
        check(text.replace("hub.example.org:7443", "hub.example.org:0"), "announce");
        check(text.replace("\"main\"", "\"Main\""), "Main");
        check(text.replace("65536", "65535"), "journal_segment_size_bytes");
        check(text.replace("exchanges_per_second = 7", "exchanges_per_second = 0"), "exchanges_per_second");
        check(text.replace("exchanges_per_second = 7", "exchanges_per_minute = 7"), "exchanges_per_minute");
        check(text.replace("quorum = 3", "quorum = 0"), "quorum");
        check(text.replace("quorum = 3", "quorum = 9"), "quorum");
        check(text.replace("bodies_days = 30", "bodies_days = 0"), "bodies_days");
        check(text.replace("bodies_days = 30", "entries_days = 30"), "entries_days");
        check(text.replace("warn_days = 3", "warn_days = 366"), "warn_days");
    }
}
