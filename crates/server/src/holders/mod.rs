//! Who holds a certificate of a hub's or node's participant, and where each stands in the data folder: the server itself, officers,
//! operators, agencies. Adding, renewing, requesting, installing, taking back.
//!
//! Nothing here needs the server to stand still: a certificate is replaced by a rename, with its key there before it (`concord_identity`'s
//! pair). Nothing here is read from or written to a journal.

mod error;
mod install;
mod issue;
mod list;
mod moved;
mod remove;
mod succession;
mod taken_back;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use concord_identity::{Anchor, AnchorFolder, CERTIFICATE_FILE, KEY_FILE, ProfileSettings, SETTINGS_FILE, read_text};
use concord_model::{Identity, Name, Role};

pub use error::HoldersError;
pub use install::Installed;
pub use issue::{Asked, LIFETIME_MAX_DAYS, Lifetime, REQUEST_FILE, read_requests};
pub use list::Held;
pub use moved::{Moved, RENEWED_FOLDER};
pub use remove::{Removed, read_list, refuse_if_of_another};
pub use taken_back::TakenBack;

/// How long a leaf is valid where nothing else is said, in days.
pub const LEAF_LIFETIME_DAYS: u32 = concord_identity::LEAF_LIFETIME_DAYS as u32;

const TLS_FOLDER: &str = "tls";
const ANCHOR_FOLDER: &str = "anchor";
const TLS_ANCHOR_FILE: &str = "tls/anchor.pem";
const AGENCIES_FOLDER: &str = "agencies";
const ADDRESSES_FILE: &str = "addresses.json";
const FOLDER_MODE: u32 = 0o700;

/// The holders of certificates in one data folder.
#[derive(Debug, Clone)]
pub struct Holders {
    dir: PathBuf,
    server: Identity,
    /// Where it is reached from other machines.
    elsewhere: Option<String>,
}

/// Where one stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    /// Where a profile finds its server's addresses; none for the server itself.
    addresses_file: Option<PathBuf>,
}

impl Place {
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join(CERTIFICATE_FILE)
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join(KEY_FILE)
    }

    /// Whether all of it is there. A profile's settings are written last: without them a crash left it in part, and it is made anew.
    pub(crate) fn is_whole(&self) -> bool {
        self.certificate().exists() && (self.addresses_file.is_none() || self.folder.join(SETTINGS_FILE).exists())
    }
}

impl Holders {
    /// Those of a data folder whose server has this name.
    pub fn of(dir: &Path, server: Identity) -> Self {
        Self { dir: dir.to_owned(), server, elsewhere: None }
    }

    /// Where the server is reached from other machines, `host:port`: new profiles say so too, and go on to work when they are moved to
    /// the person whose they are, away from the file of addresses beside them.
    pub fn reached_at(self, elsewhere: Option<String>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Where the server is reached from other machines, as far as its certificate and the address that it listens on tell: a name for
    /// software that is not ours is one that it is reached by.
    pub fn reached_by(&self, listen: std::net::SocketAddr) -> Option<String> {
        // Port 0 is chosen when the server starts.
        if listen.port() == 0 {
            return None;
        }
        let hosts = self.hosts_of_server();
        let is_name = |host: &&String| host.parse::<std::net::IpAddr>().is_err() && *host != "localhost";
        match hosts.iter().find(is_name) {
            Some(host) => Some(format!("{host}:{}", listen.port())),
            None if listen.ip().is_unspecified() => None,
            None => Some(listen.to_string()),
        }
    }

    /// The server itself.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// One of the same participant.
    pub fn named(&self, role: Role, name: &Name) -> Identity {
        Identity { participant: self.server.participant.clone(), role, name: name.clone() }
    }

    /// Who a new folder begins with: its officers, one of the role's name where none is said, and one operator.
    pub fn first_people(&self, officers: &[Name]) -> Result<Vec<Identity>, HoldersError> {
        let of_role = |role: Role| Name::parse(role.as_str()).map_err(|error| HoldersError::Name(error.to_string()));
        let mut people: Vec<Identity> = officers.iter().map(|name| self.named(Role::Officer, name)).collect();
        if people.is_empty() {
            people.push(self.named(Role::Officer, &of_role(Role::Officer)?));
        }
        people.push(self.named(Role::Operator, &of_role(Role::Operator)?));
        // Each once, as they were named: neighbours or not.
        let mut seen = std::collections::BTreeSet::new();
        people.retain(|person| seen.insert(person.to_string()));
        Ok(people)
    }

    /// The folder of the anchor, whose key may be elsewhere.
    pub fn anchor_folder(&self) -> PathBuf {
        self.dir.join(ANCHOR_FOLDER)
    }

    /// The folder of whoever this is: `tls/` of the server, else a profile.
    pub fn folder_of(&self, holder: &Identity) -> Result<PathBuf, HoldersError> {
        Ok(self.place(holder)?.folder)
    }

    pub(crate) fn place(&self, holder: &Identity) -> Result<Place, HoldersError> {
        let not_here = || HoldersError::NotOfHere { holder: holder.clone(), server: self.server.clone() };
        if holder.participant != self.server.participant {
            return Err(not_here());
        }
        let name = holder.name.as_str();
        let role = holder.role.as_str();
        let below = match holder.role {
            _ if *holder == self.server => {
                return Ok(Place { folder: self.dir.join(TLS_FOLDER), addresses_file: None });
            }
            // The first one of a new folder has the name of its role.
            Role::Officer | Role::Operator if name == role => PathBuf::from(role),
            Role::Officer | Role::Operator => PathBuf::from(format!("{role}s")).join(name),
            Role::Agency if self.server.role == Role::Node => PathBuf::from(AGENCIES_FOLDER).join(name),
            Role::Agency | Role::Hub | Role::Node => return Err(not_here()),
        };
        let up: PathBuf = below.components().map(|_| "..").collect();
        Ok(Place { folder: self.dir.join(below), addresses_file: Some(up.join(ADDRESSES_FILE)) })
    }

    /// Everybody whose key, or certificate, is here: the server first, then by role and name.
    pub fn everybody(&self) -> Vec<Identity> {
        let mut all = vec![self.server.clone()];
        for role in [Role::Officer, Role::Operator, Role::Agency] {
            let first = Name::parse(role.as_str()).ok().filter(|_| role != Role::Agency);
            let folder = if role == Role::Agency { AGENCIES_FOLDER.to_owned() } else { format!("{role}s") };
            let entries = fs::read_dir(self.dir.join(folder)).into_iter().flatten().flatten();
            let mut names: Vec<Name> = entries
                .filter_map(|entry| Name::parse(entry.file_name().to_str()?).ok())
                .filter(|name| first.as_ref() != Some(name))
                .collect();
            names.sort_unstable();
            all.extend(first.into_iter().chain(names).map(|name| self.named(role, &name)));
        }
        all.retain(|holder| {
            let place = self.place(holder);
            *holder == self.server || place.is_ok_and(|place| place.key().exists() || place.certificate().exists())
        });
        all
    }

    /// What a profile of this holder says, with the server's address where the holder is on another machine.
    fn settings(&self, holder: &Identity, place: &Place, address: Option<String>) -> ProfileSettings {
        let addresses_file = place.addresses_file.clone().filter(|_| address.is_none());
        let address = address.or_else(|| self.elsewhere.clone());
        ProfileSettings { identity: holder.clone(), server: self.server.clone(), address, addresses_file }
    }

    /// The anchor that the server's own people are known by, if one was installed yet: the present one, while it follows another.
    pub fn anchor(&self) -> Result<Option<Anchor>, HoldersError> {
        Ok(self.anchors()?.into_iter().next())
    }

    /// The anchor with its key, to issue and to take back with: the one that this folder goes by. Somebody else's, put into the folder by
    /// mistake, would issue what nobody believes, and take nobody back.
    pub fn open_anchor(&self) -> Result<AnchorFolder, HoldersError> {
        let folder = self.anchor_folder();
        let opened = AnchorFolder::open(&folder)
            .map_err(|source| HoldersError::AnchorKey { path: AnchorFolder::key_in(&folder), source })?;
        let shown = |anchor: &Anchor| anchor.fingerprint().grouped();
        let known = self.anchors()?;
        if !known.is_empty() && !known.contains(opened.anchor()) {
            let known = known.iter().map(shown).collect::<Vec<_>>().join(" or ");
            return Err(HoldersError::AnchorOther { given: shown(opened.anchor()), known });
        }
        if *opened.participant() != self.server.participant {
            return Err(HoldersError::AnchorOther {
                given: format!("{} of {}", shown(opened.anchor()), opened.participant()),
                known: format!("one of {}", self.server.participant),
            });
        }
        Ok(opened)
    }

    /// All that the server's own people are known by, now, the present one first: two while one anchor takes the place of another.
    pub fn anchors(&self) -> Result<Vec<Anchor>, HoldersError> {
        // In two places, since the anchor's folder may be taken away; a hub of an older version has it in that folder alone, until it starts.
        for path in [self.dir.join(TLS_ANCHOR_FILE), AnchorFolder::certificate_in(&self.anchor_folder())] {
            match read_text(&path) {
                Ok(text) => return Ok(Anchor::several_from_pem(&text)?),
                Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Vec::new())
    }
}

fn make_folder(path: &Path) -> Result<(), HoldersError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.map_err(|source| {
        concord_identity::FileError { action: "make the folder", path: path.to_owned(), source }.into()
    })
}
