//! The client's profile folder: who I am, whom I call, and with which certificates.
//!
//! `profile.toml`, `certificate.pem` (chain, leaf first), `key.pem` (mode 0600), `server-anchor.pem`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_model::{Identity, Name, ParseError, ParticipantCode, Role};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::admission::ExpectedServer;
use crate::anchor::{Anchor, AnchorError};
use crate::anchors::{AnchorTable, Anchors};
use crate::certificate::Caller;
use crate::files::{self, FileError};
use crate::leaf_key::LeafKey;
use crate::pair;
use crate::refusal::CertificateRefusal;
use crate::settings::settings_from_toml;
use crate::signing::KeyError;
use crate::statement::{StatementError, StatementSigner};
use crate::tls::{self, Application, Credentials, HybridKey, TlsError};

/// Who a profile is for and whom it calls, in its folder; written last.
pub const SETTINGS_FILE: &str = "profile.toml";
/// The chain of a profile, leaf first, in its folder.
pub const CERTIFICATE_FILE: &str = "certificate.pem";
/// Its key.
pub const KEY_FILE: &str = "key.pem";
/// The anchor of its server.
pub const SERVER_ANCHOR_FILE: &str = "server-anchor.pem";

/// What every data folder of a server has.
const DATA_FOLDER_MARK: &str = "concord.json";

/// A profile cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The folder is something else, or does not exist.
    #[error("{} is not a Concord profile: it has no {SETTINGS_FILE}; give --profile the folder that was made for you", .0.display())]
    NotAProfile(PathBuf),
    /// The key is elsewhere.
    #[error("{} is not there: put the private key there that the certificate was requested with, in PEM and with mode 0600", .0.display())]
    NoKey(PathBuf),
    /// There is one already.
    #[error("{} holds a profile already; remove it or choose another folder", .0.display())]
    Exists(PathBuf),
    /// The folder could not be made.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The settings cannot be read.
    #[error("{} is not readable: {why}", path.display())]
    Settings {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
    /// A word in the settings is not what it should be.
    #[error("in the profile's settings: {0}")]
    Word(#[from] ParseError),
    /// The certificate is somebody else's.
    #[error(
        "the profile is for {expected}, but its certificate is for {found}; put the right {CERTIFICATE_FILE} there"
    )]
    OtherCertificate {
        /// Whom the settings name.
        expected: Identity,
        /// Whom the certificate names.
        found: Identity,
    },
    /// The certificate is no identity.
    #[error("the profile's {CERTIFICATE_FILE}: {0}")]
    Certificate(#[from] CertificateRefusal),
    /// The pinned anchor is none.
    #[error("the profile's {SERVER_ANCHOR_FILE}: {0}")]
    Anchor(#[from] AnchorError),
    /// Nobody said where the server is.
    #[error("the address of {server} is not known: {why}")]
    NoAddress {
        /// Whom the profile calls.
        server: Identity,
        /// What was looked for, and why it is not there.
        why: String,
        /// Where an address can be written.
        settings: PathBuf,
    },
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key cannot be read or kept.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The holder cannot sign statements.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Who I am, whom I call, and where that is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSettings {
    /// The holder: what its certificate must say.
    pub identity: Identity,
    /// The one server that this profile talks to.
    pub server: Identity,
    /// `host:port`, if it is fixed or known: for where there is no addresses file.
    pub address: Option<String>,
    /// A file `{"listen": "host:port"}` that the server writes when it has started; wins over `address`.
    /// Relative to the profile's folder.
    pub addresses_file: Option<PathBuf>,
}

/// `profile.toml` as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    participant: String,
    role: String,
    name: String,
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_credentials: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hybrid_key: Option<HybridKey>,
}

/// By what way the server is reached, where a person has set it in `profile.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileWay {
    /// `http://host:port` of a proxy that takes CONNECT.
    pub proxy: Option<String>,
    /// The file with `user:password` for it.
    pub proxy_credentials: Option<PathBuf>,
    /// Whether the hybrid key exchange is offered.
    pub hybrid_key: HybridKey,
}

/// The part of a server's addresses file that a client needs; it may say more.
#[derive(Deserialize)]
struct AddressesFile {
    listen: String,
}

/// A profile that was read whole: its certificate says what its settings say, its anchors are such.
#[derive(Debug)]
pub struct Profile {
    folder: PathBuf,
    settings: ProfileSettings,
    way: ProfileWay,
    own: Caller,
    credentials: Credentials,
    server_anchors: Vec<Anchor>,
}

impl Profile {
    /// Writes a new profile into a folder, made if need be, that holds none yet.
    pub fn create(
        folder: &Path,
        settings: &ProfileSettings,
        chain: &[CertificateDer<'_>],
        key: &LeafKey,
        server_anchor: &Anchor,
    ) -> Result<Self, ProfileError> {
        Self::lay_out(folder, settings, chain, Some(key), server_anchor)?;
        Self::load(folder)
    }

    /// The same with the key that is there already, or where none is, without one: its holder puts it there. The settings come last:
    /// a folder without them is no profile, so what a crash leaves half-made is never taken for one.
    pub fn lay_out(
        folder: &Path,
        settings: &ProfileSettings,
        chain: &[CertificateDer<'_>],
        key: Option<&LeafKey>,
        server_anchor: &Anchor,
    ) -> Result<(), ProfileError> {
        let settings_path = folder.join(SETTINGS_FILE);
        if settings_path.exists() {
            return Err(ProfileError::Exists(folder.to_owned()));
        }
        fs::create_dir_all(folder).map_err(|source| ProfileError::Folder { path: folder.to_owned(), source })?;
        let text = toml::to_string(&settings.to_file())
            .map_err(|error| ProfileError::Settings { path: settings_path.clone(), why: error.to_string() })?;
        if let Some(key) = key {
            key.save(&folder.join(KEY_FILE))?;
        }
        files::write_public(&folder.join(CERTIFICATE_FILE), files::certificates_to_pem(chain).as_bytes())?;
        files::write_public(&folder.join(SERVER_ANCHOR_FILE), server_anchor.to_pem().as_bytes())?;
        files::write_public(&settings_path, text.as_bytes())?;
        Ok(())
    }

    /// Reads a profile and refuses one whose parts do not belong together.
    pub fn load(folder: &Path) -> Result<Self, ProfileError> {
        let path = folder.join(SETTINGS_FILE);
        if !path.is_file() {
            return Err(ProfileError::NotAProfile(folder.to_owned()));
        }
        let mut file: SettingsFile =
            settings_from_toml(&files::read_text(&path)?).map_err(|why| ProfileError::Settings { path, why })?;
        let way = ProfileWay {
            proxy: file.proxy.take(),
            proxy_credentials: file.proxy_credentials.take().map(|file| folder.join(file)),
            hybrid_key: file.hybrid_key.unwrap_or_default(),
        };
        let settings = ProfileSettings::from_file(file)?;
        let key = folder.join(KEY_FILE);
        if !key.exists() {
            return Err(ProfileError::NoKey(key));
        }
        let credentials = Credentials::load(&folder.join(CERTIFICATE_FILE), &key)?;
        let own = credentials.caller()?;
        if own.identity != settings.identity {
            return Err(ProfileError::OtherCertificate { expected: settings.identity, found: own.identity });
        }
        // Two while one takes the place of the other.
        let server_anchors = Anchor::several_from_pem(&files::read_text(&folder.join(SERVER_ANCHOR_FILE))?)?;
        Ok(Self { folder: folder.to_owned(), settings, way, own, credentials, server_anchors })
    }

    /// Who I am, with the last moment of my certificate: a client says *expired* before the server refuses it.
    pub fn own(&self) -> &Caller {
        &self.own
    }

    /// The anchors that the server is known by here.
    pub fn server_anchors(&self) -> &[Anchor] {
        &self.server_anchors
    }

    /// By what way the server is reached.
    pub fn way(&self) -> &ProfileWay {
        &self.way
    }

    /// The settings.
    pub fn settings(&self) -> &ProfileSettings {
        &self.settings
    }

    /// `host:port` of the server now: from the addresses file when it can be read, else from the settings.
    pub fn address(&self) -> Result<String, ProfileError> {
        let from_file = self.settings.addresses_file.as_ref().map(|file| {
            let path = self.folder.join(file);
            read_address(&path).map_err(|why| format!("{}: {why}", path.display()))
        });
        match (from_file, &self.settings.address) {
            (Some(Ok(address)), _) => Ok(address),
            (_, Some(address)) => Ok(address.clone()),
            (from_file, None) => Err(ProfileError::NoAddress {
                server: self.settings.server.clone(),
                why: match (from_file, &self.settings.addresses_file) {
                    (Some(Err(why)), Some(file)) => self.without_addresses(file, &why),
                    _ => "the profile names none".to_owned(),
                },
                settings: self.folder.join(SETTINGS_FILE),
            }),
        }
    }

    /// The file of addresses stands in the server's folder: a profile that is not below it any more was moved.
    fn without_addresses(&self, file: &Path, why: &str) -> String {
        let path = self.folder.join(file);
        let is_in_servers_folder = path.with_file_name(DATA_FOLDER_MARK).exists();
        match is_in_servers_folder {
            true => format!("the server, which writes it when it starts, has not been started yet ({why})"),
            false => {
                "this profile is not in its server's folder any more, where that writes it, and has no address of its own"
                    .to_owned()
            }
        }
    }

    /// TLS to exactly the profile's server, for gRPC.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, ProfileError> {
        self.client_config_by(self.server_anchors.clone())
    }

    /// The same to a server that is known by these anchors, and by no others of the profile.
    pub fn client_config_by(&self, server_anchors: Vec<Anchor>) -> Result<Arc<ClientConfig>, ProfileError> {
        let server = self.settings.server.clone();
        let anchors = Anchors::none();
        anchors.replace(AnchorTable::from([(server.participant.clone(), server_anchors)]));
        let (expected, hybrid) = (ExpectedServer::Exactly(server), self.way.hybrid_key);
        Ok(tls::client_config_with(&self.credentials, &anchors, expected, Application::Grpc, hybrid)?)
    }

    /// Signs for the state. Only an officer's profile can.
    pub fn statement_signer(&self) -> Result<StatementSigner, ProfileError> {
        let identity = &self.settings.identity;
        if identity.role != Role::Officer {
            return Err(StatementError::NotAnOfficer(identity.clone()).into());
        }
        let chain = self.credentials.chain();
        let leaf = chain.first().ok_or(StatementError::NoCertificate)?;
        let key = pair::load_key_of(&self.folder.join(KEY_FILE), leaf)?
            .into_signing_key()
            .ok_or_else(|| StatementError::NotEd25519(identity.clone()))?;
        Ok(StatementSigner::new(&chain, key)?)
    }
}

fn read_address(path: &Path) -> Result<String, String> {
    let text = files::read_text(path).map_err(|error| error.source.to_string())?;
    let addresses: AddressesFile = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(addresses.listen)
}

impl ProfileSettings {
    fn to_file(&self) -> SettingsFile {
        SettingsFile {
            participant: self.identity.participant.to_string(),
            role: self.identity.role.to_string(),
            name: self.identity.name.to_string(),
            server: self.server.to_string(),
            address: self.address.clone(),
            addresses_file: self.addresses_file.clone(),
            proxy: None,
            proxy_credentials: None,
            hybrid_key: None,
        }
    }

    fn from_file(file: SettingsFile) -> Result<Self, ParseError> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == file.role);
        let role = role.ok_or_else(|| ParseError::new("role", &file.role, "hub, node, agency, officer or operator"))?;
        Ok(Self {
            identity: Identity {
                participant: ParticipantCode::parse(&file.participant)?,
                role,
                name: Name::parse(&file.name)?,
            },
            server: file.server.parse()?,
            address: file.address,
            addresses_file: file.addresses_file,
        })
    }
}
