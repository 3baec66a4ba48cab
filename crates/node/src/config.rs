//! `node.toml`: read whole before a port opens; a key that is not known is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_identity::{HybridKey, read_text};
use concord_model::{Name, ParticipantCode};
use concord_server::{DISK_RESERVE_DEFAULT_BYTES, FileMode, Lapsing, Overdue, Proxy, Quotas, Retention, write_durably};
use serde::Deserialize;

use crate::error::NodeError;
use crate::probe::ProbeSettings;

/// The name of the file in the data folder.
pub const CONFIG_FILE: &str = "node.toml";
/// Exchanges of one lane that may wait for the hub, where the file names no other number. Over it: `QUOTA_EXCEEDED`.
pub const WAITING_EXCHANGES_DEFAULT: u64 = 1_000_000;

/// What a person may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Whose node it is.
    pub participant: ParticipantCode,
    /// Its name.
    pub name: Name,
    /// Where agencies, officers and operators connect.
    pub listen: SocketAddr,
    /// Where health and metrics are shown.
    pub admin: SocketAddr,
    /// A segment of the journal of at least this size gets no further commit.
    pub journal_segment_size_bytes: u64,
    /// What is kept free on the disk for what is under way, in bytes.
    pub disk_reserve_bytes: u64,
    /// Exchanges of one lane that may wait for the hub.
    pub waiting_exchanges_max: u64,
    /// After which time what waits is overdue.
    pub overdue: Overdue,
    /// How the way to the hub and back is watched.
    pub probe: ProbeSettings,
    /// What each agency may hand in.
    pub quotas: Quotas,
    /// Whether the content of what was withdrawn stays here.
    pub keep_withdrawn: bool,
    /// How the hub is reached.
    pub uplink: Uplink,
    /// What goes by itself.
    pub retention: Retention,
    /// When revocation lists are too old.
    pub revocation: Lapsing,
}

/// The `[uplink]` of a node: by what way it reaches its hub.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// `http://host:port` of a proxy that takes CONNECT.
    pub proxy: Option<String>,
    /// The file with `user:password` for it; relative to the node's folder.
    pub proxy_credentials: Option<PathBuf>,
    /// Whether the hybrid key exchange is offered.
    #[serde(default)]
    pub hybrid_key: HybridKey,
}

impl Uplink {
    fn checked(self) -> Result<Self, String> {
        match &self.proxy {
            Some(url) => Proxy::parse(url).map_err(|why| format!("uplink: {why}")).map(|_| self),
            None if self.proxy_credentials.is_some() => {
                Err("uplink: proxy_credentials is set, and no proxy is".to_owned())
            }
            None => Ok(self),
        }
    }

    /// The proxy, with its credentials, where one is set.
    pub(crate) fn proxy(&self, folder: &Path) -> Result<Option<Arc<Proxy>>, NodeError> {
        let credentials = self.proxy_credentials.as_ref().map(|file| folder.join(file));
        Proxy::load(self.proxy.as_deref(), credentials.as_deref())
            .map_err(|why| NodeError::Config { path: folder.join(CONFIG_FILE), why: format!("uplink: {why}") })
    }

    fn to_toml(&self) -> String {
        let line = |key: &str, value: Option<&str>, example: &str| match value {
            Some(value) => format!("{key} = {}", toml::Value::from(value)),
            None => format!("# {key} = \"{example}\""),
        };
        let proxy = line("proxy", self.proxy.as_deref(), "http://proxy.example.kz:3128");
        let credentials = self.proxy_credentials.as_ref().map(|file| file.to_string_lossy());
        let credentials = line("proxy_credentials", credentials.as_deref(), "proxy-credentials");
        let hybrid_key = self.hybrid_key.as_str();
        format!(
            "
# How the hub is reached. `concord node check` tries it.
[uplink]
# Every connection to the hub goes through this HTTP proxy, by CONNECT; TLS goes through it to the hub, whole.
{proxy}
# A file with one line, user:password, that only its owner may read (mode 0600): for a proxy that asks who is calling. Relative to this folder.
{credentials}
# \"prefer\": the key exchange that a quantum computer does not open either (X25519MLKEM768) is offered first. \"off\": it is not, for a
# network that drops its larger first message.
hybrid_key = \"{hybrid_key}\"
"
        )
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    participant: String,
    name: String,
    listen: String,
    admin: String,
    journal_segment_size_bytes: Option<u64>,
    disk_reserve_bytes: Option<u64>,
    waiting_exchanges_max: Option<u64>,
    #[serde(default)]
    keep_withdrawn: bool,
    #[serde(default)]
    overdue: Overdue,
    #[serde(default)]
    probe: ProbeSettings,
    #[serde(default)]
    uplink: Uplink,
    #[serde(default)]
    quotas: Quotas,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    revocation: Lapsing,
}

impl NodeConfig {
    /// Reads `node.toml` of a data folder.
    pub fn load(folder: &Path) -> Result<Self, NodeError> {
        let path = folder.join(CONFIG_FILE);
        let text = read_text(&path)
            .map_err(|error| NodeError::Config { path: path.clone(), why: error.source.to_string() })?;
        Self::parse(&text).map_err(|why| NodeError::Config { path, why })
    }

    /// Reads the text of a `node.toml`; an error says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = concord_identity::settings_from_toml(text)?;
        let address = |key: &str, value: &str| {
            let parsed = value.parse::<SocketAddr>();
            parsed.map_err(|_| format!("{key} = \"{value}\" is not an address such as 127.0.0.1:7443"))
        };
        Ok(Self {
            participant: ParticipantCode::parse(&file.participant).map_err(|error| error.to_string())?,
            name: Name::parse(&file.name).map_err(|error| error.to_string())?,
            listen: address("listen", &file.listen)?,
            admin: address("admin", &file.admin)?,
            journal_segment_size_bytes: concord_journal::segment_size(file.journal_segment_size_bytes)
                .map_err(|why| format!("journal_segment_size_bytes: {why}"))?,
            disk_reserve_bytes: file.disk_reserve_bytes.unwrap_or(DISK_RESERVE_DEFAULT_BYTES),
            waiting_exchanges_max: match file.waiting_exchanges_max {
                Some(0) => return Err("waiting_exchanges_max = 0 would take nothing at all".to_owned()),
                other => other.unwrap_or(WAITING_EXCHANGES_DEFAULT),
            },
            keep_withdrawn: file.keep_withdrawn,
            overdue: file.overdue.checked()?,
            probe: file.probe.checked()?,
            uplink: file.uplink.checked()?,
            quotas: file.quotas.checked()?,
            retention: file.retention.checked()?,
            revocation: file.revocation.checked()?,
        })
    }

    /// Writes a commented `node.toml`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), NodeError> {
        Ok(write_durably(&folder.join(CONFIG_FILE), self.template().as_bytes(), FileMode::Public)?)
    }

    fn template(&self) -> String {
        let Self { participant, name, listen, admin, journal_segment_size_bytes, disk_reserve_bytes, .. } = self;
        let (waiting_exchanges_max, quotas) = (self.waiting_exchanges_max, self.quotas.to_toml("agency"));
        let (keep_withdrawn, retention) = (self.keep_withdrawn, self.retention.to_toml());
        let probe = self.probe.to_toml();
        let overdue =
            self.overdue.to_toml("an exchange for the hub, or for a recipient; a delivery for an agency that takes it");
        let revocation = self.revocation.to_toml();
        let uplink = self.uplink.to_toml();
        format!(
            "\
# The node of one participant. Read when the node starts; a key that is not known stops the start.

# Whose node this is, and its name. Both stand in its certificate and in its journal: a change here alone stops the start.
participant = \"{participant}\"
name = \"{name}\"

# Where this participant's agencies, officers and operators connect (gRPC, mutual TLS).
# Port 0: the system chooses a port once; the node asks for the same one again, from addresses.json.
listen = \"{listen}\"

# Where /healthz, /readyz and /metrics are shown: plain HTTP on a loopback address, mutual TLS for operators elsewhere.
admin = \"{admin}\"

# A file of the journal that has reached this size is followed by the next: 64 KiB to 2 GiB.
journal_segment_size_bytes = {journal_segment_size_bytes}

# What is kept free on the disk, in bytes. With less, agencies' submissions are refused with DISK_FULL; what waits for the hub, what
# comes from it, and what agencies acknowledge goes on. It recovers by itself.
disk_reserve_bytes = {disk_reserve_bytes}

# Exchanges of one lane that may wait for the hub, three quarters of them of one agency. Further ones are refused with QUOTA_EXCEEDED until
# it has recorded some.
waiting_exchanges_max = {waiting_exchanges_max}

# When an exchange is withdrawn by its origin, its title and body go here too, of what was received and of what was sent. With true they
# stay until the retention takes them, and agencies are given them no more all the same.
keep_withdrawn = {keep_withdrawn}
{uplink}{overdue}{probe}{quotas}{retention}{revocation}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig {
            participant: ParticipantCode::parse("KAZ").unwrap(),
            name: Name::parse("main").unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "[::1]:9000".parse().unwrap(),
            journal_segment_size_bytes: 65_536,
            disk_reserve_bytes: 1024,
            waiting_exchanges_max: 9,
            keep_withdrawn: true,
            overdue: Overdue { flash_seconds: 7, ..Overdue::default() },
            probe: ProbeSettings { every_seconds: 77 },
            uplink: Uplink {
                proxy: Some("http://proxy.example.kz:3128".to_owned()),
                proxy_credentials: Some("proxy-credentials".into()),
                hybrid_key: HybridKey::Off,
            },
            quotas: Quotas { exchanges_per_second: 7, ..Quotas::default() },
            retention: Retention { bodies_days: Some(30), entries_days: Some(60) },
            revocation: Lapsing { warn_days: 3, grace_days: 0 },
        }
    }

    #[test]
    fn the_template_reads_as_what_it_was_written_for_and_a_damaged_file_is_taken_for_nothing_else() {
        concord_server::conformance::check_configuration(&config(), NodeConfig::template, NodeConfig::parse);
    }

    #[test]
    fn a_file_of_before_the_reserve_keeps_the_usual_one() {
        let older = config().template().replace("disk_reserve_bytes = 1024", "");
        assert_eq!(NodeConfig::parse(&older).map(|config| config.disk_reserve_bytes), Ok(DISK_RESERVE_DEFAULT_BYTES));
    }

    #[test]
    fn without_an_uplink_the_hub_is_reached_at_once_and_the_hybrid_key_is_preferred() {
        let config = NodeConfig { uplink: Uplink::default(), ..config() };
        let template = config.template();
        assert!(template.contains("# proxy = ") && template.contains("hybrid_key = \"prefer\""), "{template}");
        let older = template.replace("[uplink]", "").replace("hybrid_key = \"prefer\"", "");
        assert_eq!(NodeConfig::parse(&older), Ok(config));
    }

    #[test]
    fn a_key_that_is_not_known_and_a_value_that_is_none_are_refused_by_name() {
        let template = config().template();
        let error = NodeConfig::parse(&format!("{template}\nlisten_on = \"x\"\n")).unwrap_err();
        assert!(error.contains("listen_on"), "{error}");
        let error = NodeConfig::parse(&template.replace("127.0.0.1:0", "localhost")).unwrap_err();
        assert!(error.contains("listen = \"localhost\""), "{error}");
        let error = NodeConfig::parse(&template.replace("\"KAZ\"", "\"kaz\"")).unwrap_err();
        assert!(error.contains("participant code"), "{error}");
        assert!(NodeConfig::parse("").unwrap_err().contains("participant"));
        let error =
            NodeConfig::parse(&template.replace("waiting_exchanges_max = 9", "waiting_exchanges_max = 0")).unwrap_err();
        assert!(error.contains("waiting_exchanges_max"), "{error}");
        let error = NodeConfig::parse(&template.replace("per_second = 7", "per_second = 0")).unwrap_err();
        assert!(error.contains("exchanges_per_second"), "{error}");
        let error = NodeConfig::parse(&template.replace("http://proxy", "proxy")).unwrap_err();
        assert!(error.contains("write http://host:port"), "{error}");
        let error = NodeConfig::parse(&template.replace("proxy = \"http", "# proxy = \"http")).unwrap_err();
        assert!(error.contains("proxy_credentials is set"), "{error}");
        let error = NodeConfig::parse(&template.replace("\"off\"\n", "\"never\"\n")).unwrap_err();
        assert!(error.contains("never"), "{error}");
        let error = NodeConfig::parse(&template.replace("65536", "65535")).unwrap_err();
        assert!(error.contains("journal_segment_size_bytes"), "{error}");
    }
}
