//! `concord hub init`: everything that a hub needs, so that `serve` only opens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use concord_identity::{
    AnchorKeys, CertificateRequest, LeafKey, LeafKeyKind, Profile, ProfileSettings, SigningKey, bundle_fingerprint,
    certificates_to_pem, write_public,
};
use concord_journal::{FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions, SEGMENT_SIZE_DEFAULT_BYTES};
use concord_ledger::Founding;
use concord_model::{Fingerprint, Identity, Name, ParticipantCode, Role, Timestamp};
use concord_server::{Folder, FolderKind};

use crate::config::Config;
use crate::error::HubError;
use crate::seed::Seed;
use concord_server::{Clock as _, SystemClock};

/// What `hub init` is asked for.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The folder: absent, or empty.
    pub dir: PathBuf,
    /// The hub's name.
    pub name: Name,
    /// Where nodes connect; port 0: one is chosen once and then kept.
    pub listen: String,
    /// Where health and metrics are asked for.
    pub admin: String,
    /// `host:port` as nodes reach it.
    pub announce: Vec<String>,
    /// Further DNS names and addresses for the certificate.
    pub dns: Vec<String>,
    /// The registry and the catalogue that it begins with.
    pub seed: Seed,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// What nodes compare when they join: the fingerprint that each bundle shows.
    pub fingerprint: Fingerprint,
    /// The profile of the secretariat's officer.
    pub officer: PathBuf,
    /// The profile of the secretariat's operator.
    pub operator: PathBuf,
}

/// The files of a hub's folder.
pub(crate) mod files {
    /// What goes into a backup: public, and needed beside the journal.
    pub(crate) const PUBLIC: &[&str] = &["concord.json", "hub.toml", ANCHOR_CERTIFICATE, TLS_CERTIFICATE];
    /// What a backup never holds and a hub cannot serve without.
    pub(crate) const KEYS: &[&str] = &[TLS_KEY, SIGNING_KEY];
    pub(crate) const JOURNAL: &str = "journal";
    pub(crate) const VIEWS: &str = "views";
    pub(crate) const SNAPSHOTS: &str = "snapshots";
    pub(crate) const ANCHOR_CERTIFICATE: &str = "anchor/certificate.pem";
    pub(crate) const ANCHOR_KEY: &str = "anchor/key.pem";
    pub(crate) const TLS_CERTIFICATE: &str = "tls/certificate.pem";
    pub(crate) const TLS_KEY: &str = "tls/key.pem";
    pub(crate) const SIGNING_KEY: &str = "signing/key.pem";
}

/// Makes a hub: anchor, keys, certificate, profiles, configuration, and a journal that begins with the seed.
pub fn init(options: InitOptions) -> Result<Initialised, HubError> {
    let config = Config::parse(
        &Config {
            name: options.name.clone(),
            listen: parse_address("--listen", &options.listen)?,
            admin: parse_address("--admin", &options.admin)?,
            announce: options.announce,
            journal_segment_size_bytes: SEGMENT_SIZE_DEFAULT_BYTES,
            disk_reserve_bytes: concord_server::DISK_RESERVE_DEFAULT_BYTES,
            overdue: concord_server::Overdue::default(),
            quotas: concord_server::Quotas::default(),
            retention: concord_server::Retention::default(),
            revocation: concord_server::Lapsing::default(),
        }
        .to_toml(),
    )
    .map_err(HubError::Argument)?;
    let folder = Folder::create(&options.dir, FolderKind::Hub)?;
    let at = |file: &str| folder.path().join(file);
    for made in [files::ANCHOR_KEY, files::TLS_KEY, files::SIGNING_KEY] {
        if let Some(parent) = at(made).parent() {
            make_private_folder(parent)?;
        }
    }

    let now = SystemClock.now();
    let secretariat = ParticipantCode::secretariat();
    let anchor = AnchorKeys::create(&secretariat, now)?;
    anchor.save(&at(files::ANCHOR_CERTIFICATE), &at(files::ANCHOR_KEY))?;
    let hub = Identity { participant: secretariat, role: Role::Hub, name: options.name.clone() };
    issue_server(&anchor, &hub, &config, &options.dns, now, &folder)?;
    let signing_key = SigningKey::generate()?;
    signing_key.save(&at(files::SIGNING_KEY))?;
    let officer = make_profile(&anchor, &hub, Role::Officer, &folder, now)?;
    let operator = make_profile(&anchor, &hub, Role::Operator, &folder, now)?;

    let anchor_der = anchor.anchor().der().to_vec();
    let fingerprint = bundle_fingerprint(&options.name, &anchor_der, &signing_key.public());
    let founding = Founding {
        hub: options.name,
        anchor_fingerprint: anchor.anchor().fingerprint(),
        anchor: anchor_der,
        signing_key: signing_key.public(),
        participants: options.seed.participants,
        areas: options.seed.areas,
        measures: options.seed.measures,
    };
    found_journal(&at(files::JOURNAL), &founding, now)?;
    // The configuration comes last: without it no hub serves from a folder that was made in part.
    write_public(&at(Config::FILE), config.to_toml().as_bytes())?;
    Ok(Initialised { fingerprint, officer, operator })
}

/// Opens the journal of a folder; every open may have to begin a new history.
pub(crate) fn open_journal(
    path: &Path,
    now: Timestamp,
    segment_size_max_bytes: u64,
) -> Result<(FileJournal, concord_journal::Opened), HubError> {
    let options = OpenOptions::new(now.as_micros(), HistoryId(random()?), FrameMark(random()?));
    let options = OpenOptions { segment_size_max_bytes, ..options };
    Ok(FileJournal::open_folder(path, &options)?)
}

pub(crate) fn found_journal(path: &Path, founding: &Founding, now: Timestamp) -> Result<(), HubError> {
    let (journal, _) = open_journal(path, now, SEGMENT_SIZE_DEFAULT_BYTES)?;
    let draft = concord_wire::stored::hub::founded(founding, now);
    futures::executor::block_on(journal.append(journal.tail(), vec![draft]))?;
    journal.close();
    Ok(())
}

fn issue_server(
    anchor: &AnchorKeys,
    hub: &Identity,
    config: &Config,
    dns: &[String],
    now: Timestamp,
    folder: &Folder,
) -> Result<(), HubError> {
    let key = LeafKey::generate(LeafKeyKind::for_role(Role::Hub))?;
    let mut request = CertificateRequest::leaf(hub, key.public(), now);
    let announced = config.announce.iter().filter_map(|address| address.rsplit_once(':'));
    let hosts = announced.map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    let own = ["localhost".to_owned(), config.listen.ip().to_string()];
    request.hosts = hosts.chain(dns.iter().cloned()).chain(own).collect();
    request.hosts.sort_unstable();
    request.hosts.dedup();
    let certificate = anchor.issue(&request)?;
    write_public(&folder.path().join(files::TLS_CERTIFICATE), certificates_to_pem(&[certificate]).as_bytes())?;
    key.save(&folder.path().join(files::TLS_KEY))?;
    Ok(())
}

fn make_profile(
    anchor: &AnchorKeys,
    hub: &Identity,
    role: Role,
    folder: &Folder,
    now: Timestamp,
) -> Result<PathBuf, HubError> {
    let name = Name::parse(role.as_str()).map_err(|error| HubError::Argument(error.to_string()))?;
    let identity = Identity { participant: hub.participant.clone(), role, name };
    let key = LeafKey::generate(LeafKeyKind::for_role(role))?;
    let certificate = anchor.issue(&CertificateRequest::leaf(&identity, key.public(), now))?;
    let path = folder.path().join(role.as_str());
    let settings = ProfileSettings {
        identity,
        server: hub.clone(),
        address: None,
        addresses_file: Some(PathBuf::from("../addresses.json")),
    };
    Profile::create(&path, &settings, &[certificate], &key, anchor.anchor())?;
    Ok(path)
}

fn parse_address(option: &str, text: &str) -> Result<SocketAddr, HubError> {
    text.parse().map_err(|_| {
        HubError::Argument(format!("{option} {text} is not an address; write it like 127.0.0.1:7443 or [::]:7443"))
    })
}

fn make_private_folder(path: &Path) -> Result<(), HubError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
        concord_identity::FileError { action: "make the folder", path: path.to_owned(), source }.into()
    })
}

pub(crate) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], HubError> {
    concord_server::fresh().map_err(|_| HubError::Random)
}
