//! `concord node check`: whether a node can serve, from its folder to the hub's answer. It takes no lock, opens no journal and no stream of
//! the hub's, so that a node that serves beside it does not notice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use concord_identity::{
    Anchor, Anchors, Application, Credentials, ExpectedServer, HybridKey, SigningKey, SigningKeys, client_config_with,
    enrolment_fingerprint, read_text, trying_config,
};
use concord_model::{Digest, Fingerprint, Identity, ParticipantCode, Role};
use concord_server::checks::{
    Check, FILES_TIMEOUT_SECONDS, Reached, Verdict, WayToServer, apart, beside_another_anchor, clock_beside_own, disk,
    fdatasync, key_is_another, own_certificate, own_certificate_beside,
};
use concord_server::{DISK_RESERVE_DEFAULT_BYTES, Folder, FolderKind, MESSAGE_SIZE_MAX_BYTES};
use concord_wire::proto::operations::v1::registry_service_client::RegistryServiceClient;
use concord_wire::proto::operations::v1::{ListParticipantsRequest, RegisteredParticipant};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::folders::Paths;
use crate::init::identity;
use crate::paper::bundle_from_json;
use crate::state::HubKeys;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What needs a hub that was joined, in its order.
const OF_THE_HUB: [&str; 9] =
    ["name", "tcp", "proxy", "tls", "hub-certificate", "hybrid-key", "clock", "round-trip", "registry"];
const SEE_OWN: &str = "see the line own-certificate";
const PUT_BACK: &str = "put the file back from a safe place, or set the node up anew (`concord node init`)";

/// Which hub is tried where that is not the one of the folder: before a node joins, or to try what it is to join anew.
#[derive(Debug, Clone, Default)]
pub struct HubTried {
    /// `host:port`, in place of the addresses that the bundle names.
    pub address: Option<String>,
    /// The secretariat's bundle, in place of `hub.json`.
    pub bundle: Option<PathBuf>,
}

/// Checks a node's folder, its machine and its way to the hub; in the order in which a person would look.
pub async fn check(dir: &Path, hub: HubTried) -> Vec<Check> {
    let folder = dir.to_owned();
    let Some(found) = apart(FILES_TIMEOUT_SECONDS, move || Found::read(&folder, hub)).await else {
        let what = format!("its files could not be read within {FILES_TIMEOUT_SECONDS} s");
        let next = "see whether the disk answers, and whether each of them is a file";
        return vec![Check::failed("folder", what, next)];
    };
    let mut checks = found.own();
    let reserve = found.config.as_ref().map_or(DISK_RESERVE_DEFAULT_BYTES, |config| config.disk_reserve_bytes);
    checks.push(disk(dir.to_owned(), reserve).await);
    // The journal comes with the certificates; until then its place is this folder.
    let journal = if found.awaited.is_some() { dir.to_owned() } else { Paths::of(dir).journal() };
    checks.push(fdatasync(journal).await);
    checks.extend(found.of_the_hub(dir).await);
    found.blame_the_clock(&mut checks);
    checks
}

/// What the folder says, as far as it can be read.
struct Found {
    folder: Result<Folder, String>,
    config: Result<NodeConfig, String>,
    credentials: Result<Credentials, String>,
    /// The present one first.
    anchors: Result<Vec<Anchor>, String>,
    signing: Result<SigningKeys, String>,
    /// Why it does not serve yet, where its certificates have yet to come.
    awaited: Option<String>,
    /// None: not joined yet, and no bundle was given.
    hub: Result<Option<Hub>, String>,
    tried: HubTried,
}

struct Hub {
    keys: HubKeys,
    /// For whom the bundle was made.
    enrolled: Option<Fingerprint>,
}

impl Found {
    /// Blocks for as long as the disk does.
    fn read(dir: &Path, tried: HubTried) -> Self {
        let paths = Paths::of(dir);
        let said = |error: &dyn std::fmt::Display| error.to_string();
        Self {
            folder: Folder::open(dir, FolderKind::Node).map_err(|error| said(&error)),
            config: NodeConfig::load(dir).map_err(|error| said(&error)),
            credentials: Credentials::load(&paths.tls_certificate(), &paths.tls_key()).map_err(|error| said(&error)),
            anchors: read_text(&paths.tls_anchor())
                .map_err(NodeError::from)
                .and_then(|text| Ok(Anchor::several_from_pem(&text)?))
                .map_err(|error| said(&error)),
            signing: SigningKeys::load(&paths.signing_key()).map_err(|error| said(&error)),
            awaited: NodeConfig::load(dir)
                .and_then(|config| crate::init::refuse_if_awaited(dir, &config))
                .err()
                .filter(|error| matches!(error, NodeError::CertificatesAwaited { .. }))
                .map(|error| said(&error)),
            hub: match &tried.bundle {
                Some(bundle) => Hub::given(bundle),
                None => Hub::read(&paths.hub()),
            },
            tried,
        }
    }

    /// folder and own-certificate.
    fn own(&self) -> Vec<Check> {
        let folder = match (&self.folder, &self.config) {
            (Err(why), _) => Check::failed("folder", why, "give the folder of a node"),
            (_, Err(why)) => Check::failed("folder", why, "correct node.toml"),
            (Ok(_), Ok(config)) => {
                Check::ok("folder", format!("of {}'s node {}; node.toml can be read", config.participant, config.name))
            }
        };
        vec![folder, self.own_certificate()]
    }

    fn own_certificate(&self) -> Check {
        const NAME: &str = "own-certificate";
        let (credentials, anchors) = match (&self.config, &self.credentials, &self.anchors) {
            (Err(_), _, _) => return Check::untried(NAME, "without node.toml it is not known whose it is to be"),
            (Ok(_), _, _) if self.awaited.is_some() => {
                let why = self.awaited.as_deref().unwrap_or_default();
                return Check::failed(NAME, why, "have the requests signed, and run `concord node install-cert`");
            }
            (_, Err(why), _) | (_, _, Err(why)) => return Check::failed(NAME, why, PUT_BACK),
            (Ok(_), Ok(credentials), Ok(anchors)) => (credentials, anchors),
        };
        let Some(own) = self.identity() else {
            return Check::untried(NAME, "without node.toml it is not known whose it is to be");
        };
        if let Some(another) = key_is_another(NAME, credentials) {
            return another;
        }
        if let Err(why) = &self.signing {
            return Check::failed(NAME, why, PUT_BACK);
        }
        let checked = own_certificate(NAME, credentials, &own, anchors);
        let dir = self.folder.as_ref().map_or(Path::new("DIR"), Folder::path);
        beside_another_anchor(checked, credentials, anchors, dir, FolderKind::Node)
    }

    /// Where the clock is found to be wrong, the certificate is judged by the right time too: it may not be to blame.
    fn blame_the_clock(&self, checks: &mut [Check]) {
        let offset = |check: &Check| check.values.get("offset_seconds").and_then(serde_json::Value::as_f64);
        let wrong = checks.iter().find(|check| check.check == "clock" && check.result == Verdict::Failed);
        let (Some(offset), Some(own)) = (wrong.and_then(offset), self.identity()) else { return };
        let (Ok(credentials), Ok(anchors)) = (&self.credentials, &self.anchors) else { return };
        if let Some(line) = checks.iter_mut().find(|check| check.check == "own-certificate")
            && line.result != Verdict::Untried
            && credentials.check_pair().is_ok()
            && self.signing.is_ok()
        {
            *line = own_certificate_beside("own-certificate", credentials, &own, anchors, (offset * 1e6) as i64);
        }
    }

    fn identity(&self) -> Option<Identity> {
        let config = self.config.as_ref().ok()?;
        Some(identity(&config.participant, Role::Node, &config.name))
    }

    fn is_secretariats(&self) -> bool {
        self.config.as_ref().is_ok_and(|config| config.participant == ParticipantCode::secretariat())
    }

    /// How a node of the secretariat's follows its hub's anchor.
    fn follow(&self) -> String {
        let dir = self.folder.as_ref().map_or_else(|_| "DIR".to_owned(), |folder| folder.path().display().to_string());
        format!("`concord node renew --all --dir {dir} --anchor HUBDIR/anchor`")
    }

    /// Whether this folder goes by the anchor of this fingerprint.
    fn goes_by(&self, fingerprint: &[u8]) -> bool {
        let Ok(anchors) = &self.anchors else { return false };
        anchors.iter().any(|anchor| anchor.fingerprint().0.as_bytes()[..] == *fingerprint)
    }

    /// What both sides compare, of the keys in this folder.
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprints().into_iter().next()
    }

    /// Of all keys and anchors that are here, the present ones first.
    fn fingerprints(&self) -> Vec<Fingerprint> {
        let (Ok(config), Ok(anchors), Ok(signing)) = (&self.config, &self.anchors, &self.signing) else {
            return Vec::new();
        };
        let of =
            |anchor: &Anchor, key: &SigningKey| enrolment_fingerprint(&config.participant, anchor.der(), &key.public());
        let held = signing.held();
        anchors.iter().flat_map(|anchor| held.iter().map(|key| of(anchor, key)).collect::<Vec<_>>()).collect()
    }

    async fn of_the_hub(&self, dir: &Path) -> Vec<Check> {
        let hub = match &self.hub {
            Ok(hub) => hub.as_ref(),
            Err(why) => {
                let untried = OF_THE_HUB.iter().map(|name| Check::untried(name, "without its bundle no hub is known"));
                let next = match &self.tried.bundle {
                    Some(_) => {
                        "give the bundle that the secretariat made: `concord participant bundle` writes it again"
                    }
                    None => "join again with the secretariat's bundle: `concord node join`",
                };
                return std::iter::once(Check::failed("hub", why, next)).chain(untried).collect();
            }
        };
        if hub.is_none() && self.tried.address.is_none() {
            let joined = match self.folder {
                Ok(_) => {
                    "not joined yet: --hub HOST:PORT, or --bundle FILE with the secretariat's bundle, tries the way to the hub before that"
                }
                Err(_) => "without the folder of a node no hub is known",
            };
            return OF_THE_HUB.map(|name| self.or_own_clock(Check::untried(name, joined))).into();
        }
        let way = match self.way(dir, hub) {
            Ok(way) => way,
            Err(check) => {
                let rest = OF_THE_HUB.iter().filter(|name| **name != check.check);
                let untried =
                    rest.map(|name| Check::untried(name, "this folder is not fit to connect")).collect::<Vec<_>>();
                return std::iter::once(check).chain(untried).collect();
            }
        };
        let knows_server = way.knows_server;
        let Reached { mut checks, channel, refused_by_server } = way.walk().await;
        // What is wrong with the certificate here is reason enough to be refused, and is mended here, without the secretariat.
        let own_fails = refused_by_server && self.own_certificate().result == Verdict::Failed;
        if own_fails && let Some(tls) = checks.iter_mut().find(|check| check.check == "tls") {
            *tls = Check::failed("tls", "the hub does not let this node in with this certificate", SEE_OWN);
            checks.push(Check::untried("registry", "the hub did not let this node in, to say what it has enrolled"));
            return checks;
        }
        checks.push(match hub {
            Some(hub) if knows_server => self.registry(hub, channel, refused_by_server).await,
            _ => {
                let what = "the hub says what it has enrolled to those whom it has enrolled";
                Check::untried("registry", what)
            }
        });
        if !knows_server {
            checks = checks.into_iter().map(|check| self.or_own_clock(check)).collect();
        }
        checks
    }

    /// Where the hub cannot be asked for its time, the clock is looked at beside what this machine wrote.
    fn or_own_clock(&self, check: Check) -> Check {
        match (check.check, check.result) {
            ("clock", Verdict::Untried) => clock_beside_own("clock", self.credentials.as_ref().ok(), None),
            _ => check,
        }
    }

    fn way(&self, dir: &Path, hub: Option<&Hub>) -> Result<WayToServer, Check> {
        let Ok(config) = &self.config else {
            return Err(Check::untried("tls", "without node.toml there is no connection"));
        };
        let proxy = config.uplink.proxy(dir);
        let proxy =
            proxy.map_err(|error| Check::failed("proxy", error.to_string(), "correct [uplink] in node.toml"))?;
        let named = || hub.map(|hub| hub.keys.addresses.clone()).unwrap_or_default();
        let addresses = self.tried.address.clone().map_or_else(named, |address| vec![address]);
        let hybrid = config.uplink.hybrid_key;
        // What has no certificate yet is known by no hub, and finds out all the same whether the way is open.
        let Some(hub) = hub.filter(|_| self.awaited.is_none()) else {
            let tls = |hybrid| {
                trying_config(Application::Grpc, hybrid)
                    .map_err(|error| Check::failed("tls", error.to_string(), SEE_OWN))
            };
            let [with_hybrid, without_hybrid] = [tls(HybridKey::Prefer)?, tls(HybridKey::Off)?];
            return Ok(WayToServer { addresses, proxy, hybrid, with_hybrid, without_hybrid, knows_server: false });
        };
        let Ok(credentials) = &self.credentials else {
            return Err(Check::untried("tls", "without certificate and key there is no connection"));
        };
        let damaged = |why: String| Check::failed("hub-certificate", why, "join again with the secretariat's bundle");
        let known = hub.keys.present_anchors.iter().chain(std::iter::once(&hub.keys.anchor));
        let known = known.map(|der| Anchor::from_der(der)).collect::<Result<Vec<_>, _>>();
        let anchors = Anchors::none();
        let known = known.map_err(|error| damaged(error.to_string()))?;
        anchors.replace(BTreeMap::from([(ParticipantCode::secretariat(), known)]));
        let expected = identity(&ParticipantCode::secretariat(), Role::Hub, &hub.keys.name);
        let tls = |hybrid| {
            let expected = ExpectedServer::Exactly(expected.clone());
            client_config_with(credentials, &anchors, expected, Application::Grpc, hybrid)
                .map_err(|error| Check::failed("tls", error.to_string(), SEE_OWN))
        };
        let [with_hybrid, without_hybrid] = [tls(HybridKey::Prefer)?, tls(HybridKey::Off)?];
        Ok(WayToServer { addresses, proxy, hybrid, with_hybrid, without_hybrid, knows_server: true })
    }

    /// Whether the hub has enrolled what is in this folder: by its word, and by the bundle's.
    async fn registry(&self, hub: &Hub, channel: Option<Channel>, refused_by_server: bool) -> Check {
        const NAME: &str = "registry";
        let (Some(own), Ok(config)) = (self.fingerprint(), &self.config) else {
            return Check::untried(NAME, "without this folder's keys there is nothing to compare");
        };
        let compare =
            format!("this folder's fingerprint is {}: compare it by telephone with the secretariat's", own.grouped());
        let Some(channel) = channel else {
            // Keys that followed others are not those of the bundle: what counts, the hub says where it is reached. The bundle of a node that
            // joined was for its keys of then; only one that is given may be another's.
            let is_of_bundle = hub.enrolled.is_none_or(|enrolled| self.fingerprints().contains(&enrolled));
            if !is_of_bundle && self.tried.bundle.is_none() && !refused_by_server {
                let what = "the hub was not reached; this node joined with earlier keys than these, and which count the hub says once it is reached";
                return Check::untried(NAME, what);
            }
            if !is_of_bundle && self.tried.bundle.is_some() {
                let what = "the bundle was made for other keys than those in this folder";
                return Check::failed(
                    NAME,
                    what,
                    format!("{compare}; put the right keys back, or enrol and join anew"),
                );
            }
            return match refused_by_server {
                true => {
                    let what =
                        "the hub does not accept this folder's certificate: it may have other keys enrolled by now";
                    let next = match self.is_secretariats() {
                        true => format!("where the hub's anchor changed: {}; else {compare}", self.follow()),
                        false => compare,
                    };
                    Check::failed(NAME, what, next)
                }
                false => Check::untried(NAME, "the hub was not reached; by the bundle these keys were enrolled"),
            };
        };
        let told = match registered(channel, &config.participant).await {
            Ok(told) => told,
            Err(status) if status.code() == Code::PermissionDenied => {
                let what = format!("the hub has no node {} of {} enrolled", config.name, config.participant);
                return Check::failed(NAME, what, compare);
            }
            Err(status) => {
                let what = format!("the hub did not say what it has enrolled: {}", status.message());
                return Check::failed(NAME, what, "try again, and tell the secretariat if it stays");
            }
        };
        let Some(enrolled) = told.and_then(|told| told.enrolled) else {
            return Check::failed(NAME, format!("the hub has no keys of {} enrolled", config.participant), compare);
        };
        let known = Digest::from_slice(&enrolled.enrolment_fingerprint).map(Fingerprint);
        match known {
            Ok(known) if known == own && enrolled.node == config.name.as_str() => {
                Check::ok(NAME, format!("the hub has these keys enrolled; fingerprint {}", own.grouped()))
            }
            Ok(known) if known == own => {
                let what = format!("the hub has a node {} enrolled, this one is {}", enrolled.node, config.name);
                Check::failed(NAME, what, "put the right folder there, or have this node enrolled anew")
            }
            Ok(known) if enrolled.node == config.name.as_str() && self.fingerprints().contains(&known) => {
                let what = "the hub has keys of this folder enrolled, with the fingerprint";
                let waits = "others that are here count once the hub has recorded them";
                Check::ok(NAME, format!("{what} {}; {waits}", known.grouped()))
            }
            Ok(_) if self.goes_by(&enrolled.ending_anchor_fingerprint) => {
                let what = "the hub has an anchor enrolled that follows this folder's, which counts until it is ended";
                let next = match self.is_secretariats() {
                    true => self.follow(),
                    false => "run `concord anchor next` again: it ends what was cut short".to_owned(),
                };
                Check::warning(NAME, what, next)
            }
            Ok(known) => {
                let what = format!("the hub has other keys enrolled, with the fingerprint {}", known.grouped());
                Check::failed(
                    NAME,
                    what,
                    format!("{compare}; put the right keys back, or enrol anew (`participant enrol --replace`)"),
                )
            }
            Err(error) => Check::failed(
                NAME,
                format!("the hub's answer cannot be read: {error}"),
                "compare the versions of both sides",
            ),
        }
    }
}

impl Hub {
    fn read(path: &Path) -> Result<Option<Self>, String> {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        Self::of(&text).map(Some)
    }

    /// What a person gave, which has to be there.
    fn given(path: &Path) -> Result<Option<Self>, String> {
        let text = read_text(path).map_err(|error| error.to_string())?;
        Self::of(&text).map(Some)
    }

    fn of(text: &str) -> Result<Self, String> {
        let bundle = bundle_from_json(text).map_err(|error| error.to_string())?.bundle;
        let keys = HubKeys::from_bundle(&bundle).map_err(|error| error.to_string())?;
        Ok(Self { keys, enrolled: Digest::from_slice(&bundle.enrolment_fingerprint).ok().map(Fingerprint) })
    }
}

async fn registered(channel: Channel, own: &ParticipantCode) -> Result<Option<RegisteredParticipant>, Status> {
    let mut client = RegistryServiceClient::new(channel).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
    let asked = tokio::time::timeout(CALL_TIMEOUT, client.list_participants(ListParticipantsRequest {}));
    let answer = asked.await.map_err(|_| Status::deadline_exceeded("it did not answer in time"))?;
    let listed = answer?.into_inner().participants;
    let is_own = |one: &RegisteredParticipant| one.participant.as_ref().is_some_and(|known| known.code == own.as_str());
    Ok(listed.into_iter().find(is_own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::{InitOptions, init};
    use concord_model::Name;

    fn made(place: &Path) -> PathBuf {
        let dir = place.join("node");
        let [code, name] = ["KAZ", "main"];
        let options =
            InitOptions::usual(dir.clone(), ParticipantCode::parse(code).unwrap(), Name::parse(name).unwrap());
        init(options).unwrap();
        dir
    }

    fn verdict(checks: &[Check], name: &str) -> Verdict {
        checks.iter().find(|check| check.check == name).map(|check| check.result).unwrap()
    }

    /// Whatever is done to a folder, every check comes to a word, and none of them is missing.
    #[tokio::test]
    async fn a_damaged_folder_is_told_and_never_a_fault() {
        let place = tempfile::tempdir().unwrap();
        let dir = made(place.path());
        let whole = check(&dir, HubTried::default()).await;
        assert_eq!(verdict(&whole, "own-certificate"), Verdict::Ok, "{whole:?}");
        assert_eq!(verdict(&whole, "registry"), Verdict::Untried);
        let files = [
            "concord.json",
            "node.toml",
            "tls/certificate.pem",
            "tls/key.pem",
            "tls/anchor.pem",
            "signing/key.pem",
            "hub.json",
        ];
        for file in files {
            let path = dir.join(file);
            let kept = std::fs::read(&path).ok();
            for damage in [b"".as_slice(), b"{}", b"\xff\xfe", &[b'x'; 200_000]] {
                std::fs::write(&path, damage).unwrap();
                let checks = check(&dir, HubTried::default()).await;
                let failed: Vec<_> = checks.iter().filter(|check| check.result == Verdict::Failed).collect();
                assert!(!failed.is_empty() && failed.iter().all(|check| !check.next.is_empty()), "{file}: {checks:?}");
                assert!(checks.len() >= whole.len(), "{file}: {checks:?}");
            }
            match kept {
                Some(kept) => std::fs::write(&path, kept).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
        }
        std::fs::remove_dir_all(dir.join("journal")).unwrap();
        assert_eq!(verdict(&check(&dir, HubTried::default()).await, "fdatasync"), Verdict::Failed);
        assert_eq!(verdict(&check(&place.path().join("absent"), HubTried::default()).await, "folder"), Verdict::Failed);
    }

    #[tokio::test]
    async fn another_key_under_the_certificate_is_told() {
        let place = tempfile::tempdir().unwrap();
        let dir = made(place.path());
        std::fs::copy(dir.join("operator/key.pem"), dir.join("tls/key.pem")).unwrap();
        let checks = check(&dir, HubTried::default()).await;
        let own = checks.iter().find(|check| check.check == "own-certificate").unwrap();
        assert!(own.result == Verdict::Failed && own.next.contains("tls/key.pem"), "{own:?}");
    }
}
