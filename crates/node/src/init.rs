//! Setting a node up: anchor, keys, profiles, configuration, journal, and the request with which it joins. Where the anchor's key is
//! elsewhere, keys and requests for certificates first, and the rest once the certificates are there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use concord_identity::{
    AnchorFolder, Credentials, FileError, IssueError, Registered, SigningKey, enrolment_fingerprint, write_public,
};
use concord_journal::{FileJournal, SEGMENT_SIZE_DEFAULT_BYTES};
use concord_model::{Fingerprint, Identity, Name, ParticipantCode, Role};
use concord_server::holders::{Asked, Holders, HoldersError, Installed, LEAF_LIFETIME_DAYS, Lifetime, REQUEST_FILE};
use concord_server::{FileMode, Folder, FolderKind, write_durably};
use concord_wire::agreement::encode_join_request;
use concord_wire::stored::node as stored;
use rustls::pki_types::CertificateDer;

use crate::config::{CONFIG_FILE, NodeConfig};
use crate::error::NodeError;
use crate::folders::Paths;
use crate::open::{append, open_journal};
use crate::paper::join_request_to_json;
use concord_server::{Clock as _, SystemClock};

/// Up to which number a name that is free is looked for.
const FIRST_PEOPLE_MAX: u32 = 64;

/// What a new node is to be.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The data folder; absent or empty.
    pub dir: PathBuf,
    /// Whose node.
    pub participant: ParticipantCode,
    /// Its name.
    pub name: Name,
    /// Where clients connect, `address:port`.
    pub listen: String,
    /// Where health and metrics are shown, `address:port`.
    pub admin: String,
    /// DNS names and addresses for the certificate, for software that is not ours.
    pub dns: Vec<String>,
    /// Its officers; none named: one of the name `officer`.
    pub officers: Vec<Name>,
    /// How long its certificates are valid, in days.
    pub days: u32,
    /// The folder of the participant's trust anchor, where there is one already: the secretariat's is the hub's. Else a new one is made.
    pub anchor: Option<PathBuf>,
}

impl InitOptions {
    /// One that listens on loopback, with all else as usual.
    pub fn usual(dir: PathBuf, participant: ParticipantCode, name: Name) -> Self {
        let [listen, admin] = [(); 2].map(|()| "127.0.0.1:0".to_owned());
        let (dns, officers, anchor) = Default::default();
        Self { dir, participant, name, listen, admin, dns, officers, days: LEAF_LIFETIME_DAYS, anchor }
    }
}

/// A node that was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// What the secretariat compares by telephone before it enrols.
    pub enrolment_fingerprint: Fingerprint,
    /// What is handed to the secretariat.
    pub join_request_path: PathBuf,
    /// The profiles of its officers and its operator.
    pub profiles: Vec<PathBuf>,
}

/// Sets a node up in an absent or empty folder.
pub fn init(options: InitOptions) -> Result<Initialised, NodeError> {
    let now = SystemClock.now();
    let life = Lifetime { days: options.days, now };
    let there = anchor_that_is_there(&options)?;
    let people = match &there {
        Some((folder, _)) => {
            people_beside(&options, &AnchorFolder::register_in(folder).read().map_err(IssueError::from)?)?
        }
        None => people_of(&options)?,
    };
    let new = New::begin(&options)?;
    let (paths, holders) = (&new.paths, &new.holders);
    let anchor = match there {
        Some((folder, anchor)) => {
            link_to(&folder, &holders.anchor_folder())?;
            anchor
        }
        None => AnchorFolder::create(&holders.anchor_folder(), &options.participant, now)?,
    };
    Paths::make(&new.folder.path().join("tls"))?;
    write_public(&paths.tls_anchor(), anchor.anchor().to_pem().as_bytes())?;
    holders.add_server(&anchor, hosts(&options.dns, new.config.listen), life)?;
    // Its certificate says by now by which name it is reached.
    let holders = &of_config(new.folder.path(), &new.config);
    for person in people {
        holders.add(&anchor, &person, None, life)?;
    }
    let made = write_join_request(paths, &new.config, holders)?;
    new.config.write(new.folder.path())?;
    // commit point: before it the folder has no journal and `serve` says that the node was not founded; after it the node is whole.
    found(paths, &new.config)?;
    Ok(made)
}

/// Sets a node up whose anchor's key is elsewhere: keys, and one file with a request for every certificate. It has neither a journal nor
/// a request to join until they are there: [`install_certificates`].
pub fn init_by_request(options: InitOptions) -> Result<Asked, NodeError> {
    let new = New::begin(&options)?;
    let mut holders = vec![new.holders.server().clone()];
    holders.extend(people_of(&options)?);
    let hosts = hosts(&options.dns, new.config.listen);
    let asked = new.holders.request(&holders, Some(hosts), false, SystemClock.now())?;
    new.config.write(new.folder.path())?;
    Ok(asked)
}

/// Puts in certificates that were made from requests of this folder, also while the node runs. The first time that all are there the node
/// gets its journal and its request to join, which is returned.
pub fn install_certificates(
    dir: &Path,
    text: &str,
    anchor: Option<&Path>,
    said: Option<Fingerprint>,
) -> Result<(Installed, Option<Initialised>), NodeError> {
    let folder = Folder::open(dir, FolderKind::Node)?;
    let (config, paths) = (NodeConfig::load(dir)?, Paths::of(dir));
    let holders = of_config(dir, &config);
    let installed = holders.install(text, anchor, said, SystemClock.now())?;
    let is_complete = installed.missing.is_empty();
    let made = match paths.join_request().exists() {
        false if is_complete => {
            let _lock = folder.lock()?;
            found(&paths, &config)?;
            // commit point: before it the same command makes it whole; after it a journal that is gone is a loss.
            Some(write_join_request(&paths, &config, &holders)?)
        }
        false => None,
        true => {
            refresh_join_request(dir)?;
            None
        }
    };
    Ok((installed, made))
}

/// The holders of certificates of a node's folder.
pub fn holders(dir: &Path) -> Result<Holders, NodeError> {
    Folder::open(dir, FolderKind::Node)?;
    Ok(of_config(dir, &NodeConfig::load(dir)?))
}

pub(crate) fn of_config(dir: &Path, config: &NodeConfig) -> Holders {
    let holders = Holders::of(dir, identity(&config.participant, Role::Node, &config.name));
    // So that people's profiles work where they are moved to.
    let by = holders.reached_by(config.listen);
    holders.reached_at(by)
}

/// What every new folder begins with.
struct New {
    folder: Folder,
    _lock: concord_server::FolderLock,
    config: NodeConfig,
    paths: Paths,
    holders: Holders,
}

impl New {
    fn begin(options: &InitOptions) -> Result<Self, NodeError> {
        let address = |key: &str, text: &str| {
            let why = format!("{key} = \"{text}\" is not an address such as 127.0.0.1:7443");
            text.parse::<SocketAddr>().map_err(|_| NodeError::Config { path: PathBuf::from(CONFIG_FILE), why })
        };
        let config = NodeConfig {
            disk_reserve_bytes: concord_server::DISK_RESERVE_DEFAULT_BYTES,
            waiting_exchanges_max: crate::config::WAITING_EXCHANGES_DEFAULT,
            keep_withdrawn: false,
            overdue: concord_server::Overdue::default(),
            probe: crate::probe::ProbeSettings::default(),
            uplink: crate::config::Uplink::default(),
            quotas: concord_server::Quotas::default(),
            retention: concord_server::Retention::default(),
            revocation: concord_server::Lapsing::default(),
            participant: options.participant.clone(),
            name: options.name.clone(),
            listen: address("listen", &options.listen)?,
            admin: address("admin", &options.admin)?,
            journal_segment_size_bytes: SEGMENT_SIZE_DEFAULT_BYTES,
        };
        let folder = Folder::create(&options.dir, FolderKind::Node)?;
        let lock = folder.lock()?;
        let paths = Paths::of(folder.path());
        Paths::make(paths.signing_key().parent().unwrap_or(&options.dir))?;
        SigningKey::generate()?.save(&paths.signing_key())?;
        // Empty, nothing is taken back. It is there so that a list can be put in when there is no time to look up where.
        Paths::make(&folder.path().join(concord_server::REVOCATION_FOLDER))?;
        let holders = of_config(folder.path(), &config);
        Ok(Self { folder, _lock: lock, config, paths, holders })
    }
}

fn people_of(options: &InitOptions) -> Result<Vec<Identity>, NodeError> {
    let server = identity(&options.participant, Role::Node, &options.name);
    Ok(Holders::of(&options.dir, server).first_people(&options.officers)?)
}

/// Who a folder begins with under an anchor that issued to others before. Two keys of one name could not be told apart: whoever was to be
/// taken back would take the other along. So a name that counts already is not given again; where none was named, the next number is.
fn people_beside(options: &InitOptions, issued: &[Registered]) -> Result<Vec<Identity>, NodeError> {
    let counts = |one: &Identity| issued.iter().any(|known| known.revoked.is_none() && known.name == one.to_string());
    let mut people = people_of(options)?;
    for person in &mut people {
        if !counts(person) {
            continue;
        }
        if options.officers.contains(&person.name) && person.role == Role::Officer {
            return Err(HoldersError::IssuedBefore(person.clone()).into());
        }
        let numbered = |number: u32| {
            let name = Name::parse(&format!("{}-{number}", person.role)).ok()?;
            Some(identity(&person.participant, person.role, &name)).filter(|one| !counts(one))
        };
        let free = (2..=FIRST_PEOPLE_MAX).find_map(numbered);
        *person = free.ok_or_else(|| HoldersError::IssuedBefore(person.clone()))?;
    }
    Ok(people)
}

/// The node's journal, where there is none yet.
fn found(paths: &Paths, config: &NodeConfig) -> Result<(), NodeError> {
    if !FileJournal::is_in_folder(&paths.journal())? {
        let (journal, _) = open_journal(&paths.journal(), &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
        append(&journal, stored::founded(&config.participant, &config.name, SystemClock.now()))?;
        journal.close();
    }
    Ok(())
}

/// Refuses to serve from a folder that waits for certificates.
pub(crate) fn refuse_if_awaited(dir: &Path, config: &NodeConfig) -> Result<(), NodeError> {
    let holders = of_config(dir, config);
    let missing: Vec<String> = holders.missing().iter().map(ToString::to_string).collect();
    let request = dir.join(REQUEST_FILE);
    let is_server_awaited = missing.contains(&holders.server().to_string()) && request.exists();
    if is_server_awaited || (!missing.is_empty() && !Paths::of(dir).join_request().exists()) {
        return Err(NodeError::CertificatesAwaited { missing, request });
    }
    Ok(())
}

/// Writes the request to join again, with the certificate that the node has now: the secretariat takes none that has expired.
pub fn refresh_join_request(dir: &Path) -> Result<(), NodeError> {
    let (config, paths) = (NodeConfig::load(dir)?, Paths::of(dir));
    write_join_request(&paths, &config, &of_config(dir, &config)).map(drop)
}

fn write_join_request(paths: &Paths, config: &NodeConfig, holders: &Holders) -> Result<Initialised, NodeError> {
    let anchor = holders.anchor()?.ok_or(HoldersError::AnchorUnknown)?;
    let credentials = Credentials::load(&paths.tls_certificate(), &paths.tls_key())?;
    let chain = credentials.chain();
    let certificate: &CertificateDer<'static> =
        chain.first().ok_or_else(|| NodeError::Mismatch(format!("{} has no certificate", holders.server())))?;
    let signing = SigningKey::load(&paths.signing_key())?;
    let request = encode_join_request(
        &config.participant,
        &config.name,
        anchor.der(),
        &signing.public(),
        certificate,
        |message| signing.sign(message),
    );
    let people = holders.everybody().into_iter().filter(|one| matches!(one.role, Role::Officer | Role::Operator));
    let profiles = people.map(|person| holders.folder_of(&person));
    write_durably(&paths.join_request(), join_request_to_json(&request)?.as_bytes(), FileMode::Public)?;
    Ok(Initialised {
        enrolment_fingerprint: enrolment_fingerprint(&config.participant, anchor.der(), &signing.public()),
        join_request_path: paths.join_request(),
        profiles: profiles.collect::<Result<_, _>>()?,
    })
}

/// The anchor that the node is to have, where there is one already.
fn anchor_that_is_there(options: &InitOptions) -> Result<Option<(PathBuf, AnchorFolder)>, NodeError> {
    let Some(folder) = &options.anchor else {
        if options.participant == ParticipantCode::secretariat() {
            let what =
                "a node of the secretariat's has the hub's trust anchor: say where it is with --anchor HUBDIR/anchor";
            return Err(NodeError::Mismatch(what.to_owned()));
        }
        return Ok(None);
    };
    let cannot = |source| file_error("find the folder of the trust anchor", folder, source);
    let folder = std::fs::canonicalize(folder).map_err(cannot)?;
    let anchor = AnchorFolder::open(&folder)?;
    if *anchor.participant() != options.participant {
        let (its, own) = (anchor.participant(), &options.participant);
        return Err(NodeError::Mismatch(format!("{} is the trust anchor of {its}, not of {own}", folder.display())));
    }
    Ok(Some((folder, anchor)))
}

/// There is one key, and one register of what it issued: a copy would make revocation lists that forget what the other took back.
fn link_to(folder: &Path, link: &Path) -> Result<(), NodeError> {
    std::os::unix::fs::symlink(folder, link).map_err(|source| file_error("link to the trust anchor at", link, source))
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> NodeError {
    IssueError::from(FileError { action, path: path.to_owned(), source }).into()
}

pub(crate) fn identity(participant: &ParticipantCode, role: Role, name: &Name) -> Identity {
    Identity { participant: participant.clone(), role, name: name.clone() }
}

fn hosts(dns: &[String], listen: SocketAddr) -> Vec<String> {
    let mut hosts = dns.to_vec();
    let address = listen.ip();
    if !address.is_unspecified() {
        hosts.push(address.to_string());
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}
