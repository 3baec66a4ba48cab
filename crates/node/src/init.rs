//! Setting a node up: anchor, keys, profiles, configuration, journal, and the request with which it joins.

use std::net::SocketAddr;
use std::path::PathBuf;

use concord_identity::{
    Anchor, AnchorKeys, CertificateRequest, LeafKey, LeafKeyKind, Profile, ProfileSettings, SigningKey,
    certificates_to_pem, enrolment_fingerprint, write_public,
};
use concord_journal::SEGMENT_SIZE_DEFAULT_BYTES;
use concord_model::{Fingerprint, Identity, Name, ParticipantCode, Role, Timestamp};
use concord_server::{FileMode, Folder, FolderKind, write_durably};
use concord_wire::agreement::encode_join_request;
use concord_wire::stored::node as stored;

use crate::config::{CONFIG_FILE, NodeConfig};
use crate::error::NodeError;
use crate::folders::Paths;
use crate::open::{append, open_journal};
use crate::paper::join_request_to_json;
use concord_server::{Clock as _, SystemClock};

/// Where profiles inside the data folder find the addresses of their node.
const ADDRESSES_FROM_PROFILE: &str = "../addresses.json";

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
    /// A folder with the certificate and the key of the participant's trust anchor, where there is one already: the secretariat's is the hub's.
    pub anchor: Option<PathBuf>,
}

/// A node that was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// What the secretariat compares by telephone before it enrols.
    pub enrolment_fingerprint: Fingerprint,
    /// What is handed to the secretariat.
    pub join_request_path: PathBuf,
}

/// Sets a node up in an absent or empty folder.
pub fn init(options: InitOptions) -> Result<Initialised, NodeError> {
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
    let now = SystemClock.now();
    let anchor = trust_anchor(&options, now)?;
    let folder = Folder::create(&options.dir, FolderKind::Node)?;
    let _lock = folder.lock()?;
    let paths = Paths::of(folder.path());
    for folder in [paths.anchor_key(), paths.tls_key(), paths.signing_key()] {
        Paths::make(folder.parent().unwrap_or(&options.dir))?;
    }

    anchor.save(&paths.anchor_certificate(), &paths.anchor_key())?;
    write_public(&paths.tls_anchor(), anchor.anchor().to_pem().as_bytes())?;
    let node = identity(&options.participant, Role::Node, &options.name);
    let key = LeafKey::generate(LeafKeyKind::for_role(Role::Node))?;
    let mut request = CertificateRequest::leaf(&node, key.public(), now);
    request.hosts = hosts(&options.dns, config.listen);
    let certificate = anchor.issue(&request)?;
    key.save(&paths.tls_key())?;
    write_public(&paths.tls_certificate(), certificates_to_pem(std::slice::from_ref(&certificate)).as_bytes())?;
    let signing = SigningKey::generate()?;
    signing.save(&paths.signing_key())?;

    for role in [Role::Operator, Role::Officer] {
        let name = Name::parse(role.as_str()).map_err(|error| NodeError::Mismatch(error.to_string()))?;
        let folder = if role == Role::Operator { paths.operator() } else { paths.officer() };
        make_profile(
            &anchor,
            &folder,
            &identity(&options.participant, role, &name),
            &node,
            ADDRESSES_FROM_PROFILE,
            now,
        )?;
    }

    let request = encode_join_request(
        &options.participant,
        &options.name,
        anchor.anchor().der(),
        &signing.public(),
        &certificate,
        |message| signing.sign(message),
    );
    write_durably(&paths.join_request(), join_request_to_json(&request)?.as_bytes(), FileMode::Public)?;
    config.write(folder.path())?;

    // commit point: before it the folder has no journal and `serve` says that the node was not founded; after it the node is whole.
    let (journal, _) = open_journal(&paths.journal(), &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    append(&journal, stored::founded(&options.participant, &options.name, now))?;
    journal.close();
    Ok(Initialised {
        enrolment_fingerprint: enrolment_fingerprint(&options.participant, anchor.anchor().der(), &signing.public()),
        join_request_path: paths.join_request(),
    })
}

/// The anchor that there is, or a new one. Which participant it is of, the hub and every peer check by the names that it vouches for.
fn trust_anchor(options: &InitOptions, now: Timestamp) -> Result<AnchorKeys, NodeError> {
    match &options.anchor {
        Some(folder) => Ok(AnchorKeys::load(&folder.join("certificate.pem"), &folder.join("key.pem"))?),
        None if options.participant == ParticipantCode::secretariat() => {
            let what =
                "a node of the secretariat's has the hub's trust anchor: say where it is with --anchor HUBDIR/anchor";
            Err(NodeError::Mismatch(what.to_owned()))
        }
        None => Ok(AnchorKeys::create(&options.participant, now)?),
    }
}

/// Issues a certificate for one of the participant's people or machines and writes its profile.
pub(crate) fn make_profile(
    anchor: &AnchorKeys,
    folder: &std::path::Path,
    holder: &Identity,
    server: &Identity,
    addresses_file: &str,
    now: Timestamp,
) -> Result<(), NodeError> {
    Paths::make(folder)?;
    let key = LeafKey::generate(LeafKeyKind::for_role(holder.role))?;
    let certificate = anchor.issue(&CertificateRequest::leaf(holder, key.public(), now))?;
    let settings = ProfileSettings {
        identity: holder.clone(),
        server: server.clone(),
        address: None,
        addresses_file: Some(addresses_file.into()),
    };
    let server_anchor: &Anchor = anchor.anchor();
    Profile::create(folder, &settings, &[certificate], &key, server_anchor)?;
    Ok(())
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
