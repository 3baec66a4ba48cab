//! `concord hub init`: everything that a hub needs, so that `serve` only opens. Where the anchor's key is elsewhere, keys and requests for
//! certificates first, and the rest once the certificates are there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use concord_identity::{Anchor, AnchorFolder, SigningKey, bundle_fingerprint, write_public};
use concord_journal::{FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions, SEGMENT_SIZE_DEFAULT_BYTES};
use concord_ledger::{Founding, Quorum};
use concord_model::{Fingerprint, Identity, Name, ParticipantCode, Role, Timestamp};
use concord_server::holders::{Asked, Holders, HoldersError, Installed, Lifetime, REQUEST_FILE};
use concord_server::{Folder, FolderKind};

use crate::config::{Config, checked_quorum};
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
    /// The secretariat's officers; none named: as many as must sign, `officer`, `officer-2` and so on.
    pub officers: Vec<Name>,
    /// How long its certificates are valid, in days.
    pub days: u32,
    /// How many officers of the secretariat must sign what needs more than one.
    pub quorum: u32,
    /// The registry and the catalogue that it begins with.
    pub seed: Seed,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// What nodes compare when they join: the fingerprint that each bundle shows.
    pub fingerprint: Fingerprint,
}

/// The files of a hub's folder.
pub(crate) mod files {
    /// What goes into a backup: public, and needed beside the journal.
    pub(crate) const PUBLIC: &[&str] = &["concord.json", "hub.toml", ANCHOR_CERTIFICATE, TLS_CERTIFICATE, TLS_ANCHOR];
    /// What a backup never holds and a hub cannot serve without.
    pub(crate) const KEYS: &[&str] = &[TLS_KEY, SIGNING_KEY];
    pub(crate) const JOURNAL: &str = "journal";
    pub(crate) const VIEWS: &str = "views";
    pub(crate) const SNAPSHOTS: &str = "snapshots";
    pub(crate) const ANCHOR_CERTIFICATE: &str = "anchor/certificate.pem";
    pub(crate) const TLS_ANCHOR: &str = "tls/anchor.pem";
    pub(crate) const TLS_CERTIFICATE: &str = "tls/certificate.pem";
    pub(crate) const TLS_KEY: &str = "tls/key.pem";
    pub(crate) const SIGNING_KEY: &str = "signing/key.pem";
}

/// Makes a hub: anchor, keys, certificate, profiles, configuration, and a journal that begins with the seed.
pub fn init(options: InitOptions) -> Result<Initialised, HubError> {
    let now = SystemClock.now();
    let life = Lifetime { days: options.days, now };
    let new = New::begin(&options)?;
    let holders = &new.holders;
    let anchor = AnchorFolder::create(&holders.anchor_folder(), &ParticipantCode::secretariat(), now)?;
    holders.add_server(&anchor, hosts(&new.config, &options.dns), life)?;
    // Its certificate says by now by which name it is reached.
    let holders = &reached(new.holders.clone(), &new.config);
    for person in &new.people {
        holders.add(&anchor, person, None, life)?;
    }
    let made = found(&options.dir, &new.config, holders, options.seed)?;
    // The configuration comes last: without it no hub serves from a folder that was made in part.
    write_public(&options.dir.join(Config::FILE), new.config.to_toml().as_bytes())?;
    Ok(made)
}

/// Makes a hub whose anchor's key is elsewhere: keys, and one file with a request for every certificate. It has no journal until they are
/// there: [`install_certificates`].
pub fn init_by_request(options: InitOptions) -> Result<Asked, HubError> {
    let new = New::begin(&options)?;
    let mut holders = vec![new.holders.server().clone()];
    holders.extend(new.people.iter().cloned());
    let asked = new.holders.request(&holders, Some(hosts(&new.config, &options.dns)), false, SystemClock.now())?;
    write_public(&options.dir.join(AWAITED_FILE), b"`concord hub install-cert` has yet to be run\n")?;
    write_public(&options.dir.join(Config::FILE), new.config.to_toml().as_bytes())?;
    Ok(asked)
}

/// Puts in certificates that were made from requests of this folder, also while the hub runs. The first time that all are there the hub
/// gets its journal, which begins with the seed.
pub fn install_certificates(
    dir: &Path,
    text: &str,
    anchor: Option<&Path>,
    said: Option<Fingerprint>,
    seed: Seed,
) -> Result<(Installed, Option<Initialised>), HubError> {
    let folder = Folder::open(dir, FolderKind::Hub)?;
    let config = Config::load(dir)?;
    let holders = holders(dir)?;
    // A folder without an anchor never was complete: a journal that is not there is not a lost one.
    let installed = holders.install(text, anchor, said, SystemClock.now())?;
    let awaited = dir.join(AWAITED_FILE);
    let is_complete = installed.missing.is_empty() && awaited.exists();
    let made = if is_complete {
        let _lock = folder.lock()?;
        let made = found(dir, &config, &holders, seed)?;
        // commit point: before it the same command makes it whole; after it a journal that is gone is a loss.
        let gone = std::fs::remove_file(&awaited);
        gone.map_err(|source| concord_identity::FileError { action: "remove", path: awaited, source })?;
        Some(made)
    } else {
        None
    };
    Ok((installed, made))
}

/// The holders of certificates of a hub's folder.
pub fn holders(dir: &Path) -> Result<Holders, HubError> {
    Folder::open(dir, FolderKind::Hub)?;
    let config = Config::load(dir)?;
    Ok(reached(of_name(dir, &config.name), &config))
}

/// So that people's profiles work where they are moved to.
fn reached(holders: Holders, config: &Config) -> Holders {
    let announced = config.announce.first().cloned();
    let by = announced.or_else(|| holders.reached_by(config.listen));
    holders.reached_at(by)
}

pub(crate) fn of_name(dir: &Path, name: &Name) -> Holders {
    Holders::of(dir, Identity { participant: ParticipantCode::secretariat(), role: Role::Hub, name: name.clone() })
}

/// Says that certificates have yet to come to a new hub. It goes with its journal's beginning.
const AWAITED_FILE: &str = "certificates-awaited";

/// Refuses to serve from a folder that waits for certificates.
pub(crate) fn refuse_if_awaited(dir: &Path) -> Result<(), HubError> {
    if dir.join(AWAITED_FILE).exists() {
        return Err(HubError::CertificatesAwaited { request: dir.join(REQUEST_FILE) });
    }
    Ok(())
}

/// What every new folder begins with.
struct New {
    config: Config,
    holders: Holders,
    people: Vec<Identity>,
}

impl New {
    fn begin(options: &InitOptions) -> Result<Self, HubError> {
        let config = Config::parse(
            &Config {
                name: options.name.clone(),
                listen: parse_address("--listen", &options.listen)?,
                admin: parse_address("--admin", &options.admin)?,
                announce: options.announce.clone(),
                journal_segment_size_bytes: SEGMENT_SIZE_DEFAULT_BYTES,
                disk_reserve_bytes: concord_server::DISK_RESERVE_DEFAULT_BYTES,
                quorum: checked_quorum(options.quorum).map_err(|what| HubError::Argument(format!("--{what}")))?,
                overdue: concord_server::Overdue::default(),
                nodes: crate::away::AwayAfter::default(),
                quotas: concord_server::Quotas::default(),
                retention: concord_server::Retention::default(),
                revocation: concord_server::Lapsing::default(),
            }
            .to_toml(),
        )
        .map_err(HubError::Argument)?;
        let folder = Folder::create(&options.dir, FolderKind::Hub)?;
        let key = folder.path().join(files::SIGNING_KEY);
        make_private_folder(key.parent().unwrap_or(folder.path()))?;
        SigningKey::generate()?.save(&key)?;
        // Empty, nothing is taken back. It is there so that a list can be put in when there is no time to look up where.
        make_private_folder(&folder.path().join(concord_server::REVOCATION_FOLDER))?;
        let holders = reached(of_name(folder.path(), &options.name), &config);
        let people = holders.first_people(&officers(&options.officers, config.quorum)?)?;
        Ok(Self { config, holders, people })
    }
}

/// So that a new hub can do what it asks several officers for.
fn officers(named: &[Name], quorum: Quorum) -> Result<Vec<Name>, HubError> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let first = Role::Officer.as_str();
    let others = (2..=quorum.get()).map(|number| format!("{first}-{number}"));
    let all = std::iter::once(first.to_owned()).chain(others);
    all.map(|name| Name::parse(&name).map_err(|error| HubError::Argument(error.to_string()))).collect()
}

/// All keys and certificates are there: the journal, which begins with them.
fn found(dir: &Path, config: &Config, holders: &Holders, seed: Seed) -> Result<Initialised, HubError> {
    let anchor = holders.anchor()?.ok_or(HoldersError::AnchorUnknown)?;
    let signing_key = SigningKey::load(&dir.join(files::SIGNING_KEY))?;
    let fingerprint = bundle_fingerprint(&config.name, anchor.der(), &signing_key.public(), []);
    let path = dir.join(files::JOURNAL);
    if !FileJournal::is_in_folder(&path)? {
        found_journal(&path, &founding(config, &anchor, &signing_key, seed), SystemClock.now())?;
    }
    Ok(Initialised { fingerprint })
}

/// What a hub's journal begins with: its keys, and the seed.
pub(crate) fn founding(config: &Config, anchor: &Anchor, signing_key: &SigningKey, seed: Seed) -> Founding {
    Founding {
        hub: config.name.clone(),
        anchor_fingerprint: anchor.fingerprint(),
        anchor: anchor.der().to_vec(),
        signing_key: signing_key.public(),
        participants: seed.participants,
        areas: seed.areas,
        measures: seed.measures,
    }
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

fn hosts(config: &Config, dns: &[String]) -> Vec<String> {
    let announced = config.announce.iter().filter_map(|address| address.rsplit_once(':'));
    let announced = announced.map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    let own = ["localhost".to_owned(), config.listen.ip().to_string()];
    let mut hosts: Vec<String> = announced.chain(dns.iter().cloned()).chain(own).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
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
