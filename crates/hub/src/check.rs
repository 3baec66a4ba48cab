//! `concord hub check`: whether a hub can serve. It takes no lock and opens no journal, so that a hub that serves beside it does not notice.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use concord_identity::{Anchor, Credentials, SigningKey};
use concord_model::{Identity, ParticipantCode, Role, Timestamp};
use concord_server::checks::{
    Check, FILES_TIMEOUT_SECONDS, apart, beside_another_anchor, clock_beside_own, disk, fdatasync, key_is_another,
    own_certificate,
};
use concord_server::{DISK_RESERVE_DEFAULT_BYTES, Folder, FolderKind, connect};
use tonic::transport::Channel;

use crate::config::Config;
use crate::init::{files, of_name, refuse_if_awaited};

mod officers;

use officers::People;

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
const PUT_BACK: &str = "put the file back from a safe place";

/// Checks a hub's folder and its machine, in the order in which a person would look.
pub async fn check(dir: &Path) -> Vec<Check> {
    let folder = dir.to_owned();
    let Some(found) = apart(FILES_TIMEOUT_SECONDS, move || Found::read(&folder)).await else {
        let what = format!("its files could not be read within {FILES_TIMEOUT_SECONDS} s");
        let next = "see whether the disk answers, and whether each of them is a file";
        return vec![Check::failed("folder", what, next)];
    };
    let mut checks = vec![found.folder(), found.own_certificate()];
    let reserve = found.config.as_ref().map_or(DISK_RESERVE_DEFAULT_BYTES, |config| config.disk_reserve_bytes);
    checks.push(disk(dir.to_owned(), reserve).await);
    // The journal comes with the certificates; until then its place is this folder.
    let journal = if found.awaited.is_some() { dir.to_owned() } else { dir.join(files::JOURNAL) };
    checks.push(fdatasync(journal).await);
    checks.push(clock_beside_own("clock", found.credentials.as_ref().ok(), found.written));
    checks.push(found.listen().await);
    checks.push(found.announce().await);
    checks.extend(found.people(dir));
    checks.extend(found.approvals().await);
    checks
}

/// What the folder says, as far as it can be read.
struct Found {
    folder: Result<Folder, String>,
    config: Result<Config, String>,
    credentials: Result<Credentials, String>,
    /// Those that its people are known by.
    anchors: Result<Vec<Anchor>, String>,
    signing: Result<(), String>,
    /// Why it does not serve yet, where its certificates have yet to come.
    awaited: Option<String>,
    /// None where hub.toml cannot be read.
    people: Option<People>,
    /// When the journal was written last, by the clock of then.
    written: Option<Timestamp>,
}

impl Found {
    /// Blocks for as long as the disk does.
    fn read(dir: &Path) -> Self {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let config = Config::load(dir);
        let anchors = match &config {
            Ok(config) => of_name(dir, &config.name).anchors().map_err(|error| said(&error)),
            Err(error) => Err(said(error)),
        };
        Self {
            folder: Folder::open(dir, FolderKind::Hub).map_err(|error| said(&error)),
            awaited: refuse_if_awaited(dir).err().map(|error| said(&error)),
            people: config.as_ref().ok().map(|config| People::read(dir, config)),
            config: config.map_err(|error| said(&error)),
            credentials: Credentials::load(&dir.join(files::TLS_CERTIFICATE), &dir.join(files::TLS_KEY))
                .map_err(|error| said(&error)),
            anchors,
            signing: SigningKey::load(&dir.join(files::SIGNING_KEY)).map(drop).map_err(|error| said(&error)),
            written: last_written(&dir.join(files::JOURNAL)),
        }
    }

    fn folder(&self) -> Check {
        match (&self.folder, &self.config) {
            (Err(why), _) => Check::failed("folder", why, "give the folder of a hub"),
            (_, Err(why)) => Check::failed("folder", why, "correct hub.toml"),
            (Ok(_), Ok(config)) => Check::ok("folder", format!("of the hub {}; hub.toml can be read", config.name)),
        }
    }

    fn identity(&self) -> Option<Identity> {
        let config = self.config.as_ref().ok()?;
        Some(Identity { participant: ParticipantCode::secretariat(), role: Role::Hub, name: config.name.clone() })
    }

    fn own_certificate(&self) -> Check {
        const NAME: &str = "own-certificate";
        let Some(own) = self.identity() else {
            return Check::untried(NAME, "without hub.toml it is not known whose it is to be");
        };
        if let Some(why) = &self.awaited {
            return Check::failed(NAME, why, "have the requests signed, and run `concord hub install-cert`");
        }
        let (credentials, anchors) = match (&self.credentials, &self.anchors) {
            (Err(why), _) | (_, Err(why)) => return Check::failed(NAME, why, PUT_BACK),
            (Ok(credentials), Ok(anchors)) => (credentials, anchors),
        };
        if anchors.is_empty() {
            let what = "nothing here says by which trust anchor it is known: neither tls/anchor.pem nor anchor/certificate.pem";
            return Check::failed(NAME, what, "start the hub, which writes tls/anchor.pem by its registry");
        }
        if let Some(another) = key_is_another(NAME, credentials) {
            return another;
        }
        if let Err(why) = &self.signing {
            return Check::failed(NAME, why, PUT_BACK);
        }
        let checked = own_certificate(NAME, credentials, &own, anchors);
        let dir = self.folder.as_ref().map_or(Path::new("DIR"), Folder::path);
        beside_another_anchor(checked, credentials, anchors, dir, FolderKind::Hub)
    }

    /// Served by this hub itself, or free. Somebody who listens is asked first, so that a hub that serves is not disturbed.
    async fn listen(&self) -> Check {
        const NAME: &str = "listen";
        let Ok(config) = &self.config else { return Check::untried(NAME, "without hub.toml no address is known") };
        if let Some((address, _)) = self.served(Role::Operator).await {
            return Check::ok(NAME, format!("this hub serves at {address}"));
        }
        let address = self.bound(config);
        match TcpListener::bind(address) {
            Ok(_freed) if address.port() == 0 => Check::ok(NAME, "a port is chosen at the first start, and then kept"),
            Ok(_freed) => Check::ok(NAME, format!("{address} is free, and nobody serves there")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let what = match self.people.as_ref().and_then(|people| people.profile(Role::Operator)) {
                    Some(_) => format!(
                        "somebody holds {address} and does not answer as this hub does: this hub, hanging, or another program"
                    ),
                    None => format!(
                        "{address} is taken, by whom is not known: no profile of an operator is here that could ask"
                    ),
                };
                let next = "see what listens there (`ss -ltnp`); start a hub that hangs anew, stop another program, or configure another `listen` in hub.toml";
                Check::failed(NAME, what, next)
            }
            Err(error) => {
                let what = format!("nobody can listen at {address}: {error}");
                Check::failed(NAME, what, "set `listen` in hub.toml to an address of this machine")
            }
        }
    }

    /// Where this hub listens: with port 0 in its settings at the port that it took once, as far as it ever ran.
    fn bound(&self, config: &Config) -> SocketAddr {
        let taken = self.folder.as_ref().ok().and_then(|folder| folder.addresses().ok().flatten());
        let taken = taken.map(|addresses| addresses.listen.port()).filter(|_| config.listen.port() == 0);
        SocketAddr::new(config.listen.ip(), taken.unwrap_or_else(|| config.listen.port()))
    }

    /// Where this hub serves, as somebody of this role whose profile is here finds it.
    async fn served(&self, role: Role) -> Option<(String, Channel)> {
        let profile = self.people.as_ref()?.profile(role)?;
        let (address, tls) = (profile.address().ok()?, profile.client_config().ok()?);
        let channel = connect(&address, tls).await.ok()?;
        Some((address, channel))
    }

    fn people(&self, dir: &Path) -> Vec<Check> {
        let (Some(people), Ok(config)) = (&self.people, &self.config) else { return Vec::new() };
        people.profiles().chain([people.are_enough(dir, config)]).collect()
    }

    /// What waits for signatures: known only by a hub that serves, and told only to an officer.
    async fn approvals(&self) -> Option<Check> {
        // Where officers keep their profiles elsewhere, as they should, this line is theirs to look for (`concord approval list`).
        self.people.as_ref()?.profile(Role::Officer)?;
        Some(match self.served(Role::Officer).await {
            Some((_, channel)) => officers::approvals(channel).await,
            None => Check::untried("approvals", "what waits for signatures only a hub that serves and answers can say"),
        })
    }

    /// What nodes are told leads somewhere.
    async fn announce(&self) -> Check {
        const NAME: &str = "announce";
        let Ok(config) = &self.config else { return Check::untried(NAME, "without hub.toml no address is known") };
        let next = "set `announce` in hub.toml to what nodes reach, such as hub.example.org:7443";
        if config.announce.is_empty() {
            let listen = config.listen;
            if listen.ip().is_unspecified() || listen.ip().is_loopback() {
                let what = format!(
                    "nothing is announced, and the address that is bound, {listen}, leads nobody here from elsewhere"
                );
                return Check::warning(NAME, what, next);
            }
            return Check::ok(NAME, format!("nodes are told the address that is bound, {listen}"));
        }
        let (mut found, mut first) = (Vec::new(), None);
        for announced in &config.announce {
            let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(announced.as_str())).await;
            match resolved {
                Ok(Ok(mut addresses)) => match addresses.next() {
                    Some(address) => {
                        found.push(format!("{announced} is {}", address.ip()));
                        first.get_or_insert(announced);
                    }
                    None => return Check::failed(NAME, format!("{announced} has no address"), next),
                },
                Ok(Err(error)) => {
                    return Check::failed(NAME, format!("{announced} cannot be resolved here: {error}"), next);
                }
                Err(_) => {
                    return Check::failed(NAME, format!("{announced}: DNS does not answer"), "see this machine's DNS");
                }
            }
        }
        let words = found.join(", ");
        match first {
            Some(first) if self.served(Role::Operator).await.is_some() => self.reaches(first, words).await,
            _ => Check::ok(NAME, words),
        }
    }

    /// Whether what nodes are told leads to this hub, while it serves. Where it does not from here it may from elsewhere: a router that turns
    /// nobody back to where it came from is common.
    async fn reaches(&self, announced: &str, words: String) -> Check {
        const NAME: &str = "announce";
        const NEXT: &str = "see from another network whether it leads here (`concord node check --hub` of a node), and what stands before this hub";
        let tls = self.people.as_ref().and_then(|people| people.profile(Role::Operator));
        let Some(tls) = tls.and_then(|profile| profile.client_config().ok()) else { return Check::ok(NAME, words) };
        match tokio::time::timeout(RESOLVE_TIMEOUT, connect(announced, tls)).await {
            Ok(Ok(_)) => Check::ok(NAME, format!("{words}; this hub answers at {announced}")),
            Ok(Err(error)) => {
                Check::warning(NAME, format!("{words}; from here this hub does not answer there: {error}"), NEXT)
            }
            Err(_) => Check::warning(NAME, format!("{words}; from here nobody answers at {announced} in time"), NEXT),
        }
    }
}

fn last_written(journal: &Path) -> Option<Timestamp> {
    let files = std::fs::read_dir(journal).ok()?.flatten();
    let moments = files.filter_map(|file| file.metadata().ok()?.modified().ok());
    let newest = moments.max()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(i64::try_from(newest.as_micros()).ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use concord_server::checks::Verdict;

    use super::*;
    use crate::init::{InitOptions, init};
    use crate::seed::Seed;

    fn made(place: &Path) -> PathBuf {
        let dir = place.join("hub");
        let options = InitOptions {
            dir: dir.clone(),
            name: concord_model::Name::parse("main").unwrap(),
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            announce: vec!["127.0.0.1:7443".to_owned()],
            dns: Vec::new(),
            officers: Vec::new(),
            days: concord_server::holders::LEAF_LIFETIME_DAYS,
            seed: Seed::cica_2007().unwrap(),
            quorum: 1,
        };
        init(options).unwrap();
        dir
    }

    fn failed(checks: &[Check]) -> Vec<&'static str> {
        of(checks, Verdict::Failed)
    }

    fn of(checks: &[Check], verdict: Verdict) -> Vec<&'static str> {
        checks.iter().filter(|check| check.result == verdict).map(|check| check.check).collect()
    }

    #[tokio::test]
    async fn fewer_officers_than_must_sign_are_warned_of_and_no_profile_need_be_here() {
        let place = tempfile::tempdir().unwrap();
        let dir = made(place.path());
        let toml = dir.join("hub.toml");
        let settings = std::fs::read_to_string(&toml).unwrap();
        std::fs::write(&toml, settings.replace("quorum = 1", "quorum = 2")).unwrap();
        assert_eq!(of(&check(&dir).await, Verdict::Warning), ["officers"]);
        // With whom it is.
        std::fs::rename(dir.join("officer"), place.path().join("officer")).unwrap();
        std::fs::write(&toml, settings).unwrap();
        let whole = check(&dir).await;
        assert!(whole.iter().all(|check| check.result == Verdict::Ok), "{whole:?}");
    }

    #[tokio::test]
    async fn a_fresh_hub_holds_and_each_damage_is_told_by_its_line() {
        let place = tempfile::tempdir().unwrap();
        let dir = made(place.path());
        let whole = check(&dir).await;
        assert_eq!(of(&whole, Verdict::Untried), ["approvals"], "nobody serves");
        assert_eq!(of(&whole, Verdict::Ok).len(), whole.len() - 1, "{whole:?}");
        for (file, line) in [
            ("concord.json", "folder"),
            ("hub.toml", "folder"),
            ("tls/key.pem", "own-certificate"),
            ("signing/key.pem", "own-certificate"),
            ("officer/certificate.pem", "officer-profile"),
            ("operator/key.pem", "operator-profile"),
        ] {
            let path = dir.join(file);
            let kept = std::fs::read(&path).unwrap();
            std::fs::write(&path, b"\xff{}").unwrap();
            assert_eq!(failed(&check(&dir).await), [line], "{file}");
            std::fs::write(&path, kept).unwrap();
        }
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (toml, address) = (dir.join("hub.toml"), taken.local_addr().unwrap().to_string());
        let settings = std::fs::read_to_string(&toml).unwrap();
        let settings =
            settings.replacen("127.0.0.1:0", &address, 1).replace("127.0.0.1:7443", "no-such-host.invalid:7443");
        std::fs::write(&toml, &settings).unwrap();
        assert_eq!(failed(&check(&dir).await), ["listen", "announce"]);
        // Port 0 in the settings is the port that was taken once.
        std::fs::write(&toml, settings.replacen(&address, "127.0.0.1:0", 1)).unwrap();
        assert_eq!(failed(&check(&dir).await), ["announce"]);
        let taken_once = format!(r#"{{"listen":"{address}","admin":"{address}"}}"#);
        std::fs::write(dir.join("addresses.json"), taken_once).unwrap();
        let all = check(&dir).await;
        assert_eq!(failed(&all), ["listen", "announce"]);
        let listen = all.iter().find(|check| check.check == "listen").unwrap();
        assert!(listen.message.contains(&address) && listen.message.contains("does not answer"), "{listen:?}");
    }
}
