//! `concord node rotate` and `concord hub rotate`: new keys for a server that runs, with nobody else's help.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use concord_identity::{AnchorFolder, SigningKey, SigningKeys, enrolment_fingerprint};
use concord_ledger::{EpochOpening, KeyRotation};
use concord_model::{Digest, Fingerprint, Name, ParticipantCode};
use concord_node::paper;
use concord_server::FolderKind;
use concord_server::holders::{Holders, HoldersError};
use concord_wire::agreement::{DraftContent, keys};
use concord_wire::proto::agreement::v1::PrepareRequest;
use concord_wire::proto::operations::v1::{EnrolledKeys, GetBundleRequest};
use serde::Serialize;

use super::approval;
use super::certificates::{CertificateLine, DaysArgs, holders};
use super::participant::registered;
use super::statement::{Said, say_it};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};

const SIGNING_KEY_FILE: &str = "signing/key.pem";
const OFFICER_PROFILE: &str = "officer";

#[derive(Args)]
pub(crate) struct RotateArgs {
    /// The server's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The profile of the officer who says so; where none is named, DIR/officer.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Serialize)]
struct RotateLine {
    server: String,
    /// The new certificate; none where the anchor's key is elsewhere.
    certificate: Option<CertificateLine>,
    /// The serial number of the one before, by which it can be taken back.
    serial_before: Option<String>,
    signing_key: String,
    /// The epoch of the node's chains that opens with it; none of the hub.
    epoch: Option<u32>,
    /// What others compare by telephone from now on: of a node the one of its keys, of a hub the one that its bundles show. None while that
    /// cannot be told, since nobody is enrolled who would get a bundle.
    fingerprint: Option<String>,
    statement: &'static str,
}

pub(crate) async fn run(args: &RotateArgs, kind: FolderKind, output: Output) -> Result<(), Failure> {
    let (holders, found) = holders(&args.dir)?;
    if found != kind {
        return Err(Failure::usage(format!("{} is the folder of a {found}", args.dir.display()))
            .help(format!("use `concord {found} rotate`")));
    }
    let client = connect(&holders, &args.dir, args.profile.as_deref()).await?;
    let own = Own::of(&client, &holders, kind).await?;
    // First what can fail without an effect.
    let anchor = match holders.open_anchor() {
        Err(HoldersError::AnchorKey { .. }) => None,
        opened => Some(opened?),
    };
    let path = args.dir.join(SIGNING_KEY_FILE);
    // By what it is known; in a hub's folder, whose people go by its registry, nothing hangs on it.
    let known_by = holders.anchor()?;
    if kind == FolderKind::Node && known_by.is_none() {
        return Err(HoldersError::AnchorUnknown.into());
    }
    let certificate_before = holders.certificate_of(holders.server()).ok();
    let (before, next, is_begun) = own.prepare(&path)?;
    if is_begun {
        output.say(&format!(
            "note: a rotation was begun before and waits, or was cut short: the key {} goes on, and no other one is made",
            next.public().fingerprint.grouped()
        ));
    }
    let prepared = client.statements().prepare(call(PrepareRequest {})).await?.into_inner();
    let hub = Name::parse(&prepared.hub).map_err(Failure::answer)?;
    let opening = match kind {
        FolderKind::Node => {
            Some(EpochOpening { node: holders.server().name.clone(), epoch: prepared.epoch.saturating_add(1) })
        }
        FolderKind::Hub => None,
    };
    let epoch = opening.as_ref().map(|opening| opening.epoch);
    let rotation = KeyRotation { opening, before: before.public(), signing_key: next.public() };
    let participant = &holders.server().participant;
    let message = keys::rotation(participant, &hub, &rotation, |bytes| before.sign(bytes), |bytes| next.sign(bytes));
    // Asked before anything has an effect, since it can fail.
    let of_bundle = match kind {
        FolderKind::Hub => bundle_fingerprint(&client).await?,
        FolderKind::Node => None,
    };
    let (said, statement) = say_it(&client, DraftContent::RotateKey(message)).await?;
    // Last, since the connection above stands under the certificate of before.
    let renewed = anchor.as_ref().map(|anchor| renew(&holders, anchor, args.days)).transpose();
    let (certificate, not_renewed) = match renewed {
        Ok(made) => (made, None),
        Err(failure) => (None, Some(failure)),
    };
    let fingerprint = match known_by {
        Some(known_by) if kind == FolderKind::Node => {
            Some(enrolment_fingerprint(participant, known_by.der(), &next.public()))
        }
        _ => of_bundle,
    };
    let line = RotateLine {
        server: holders.server().to_string(),
        serial_before: certificate_before.filter(|_| certificate.is_some()).map(|before| before.serial),
        certificate,
        signing_key: next.public().fingerprint.grouped(),
        epoch,
        fingerprint: fingerprint.map(|fingerprint| fingerprint.grouped()),
        statement: said.as_str(),
    };
    // A bundle names what the hub was founded with: joining learns the rest from the feed.
    let compared = if kind == FolderKind::Hub { "bundle's fingerprint, as before" } else { "fingerprint" };
    output.result(&line, || {
        let certificate = line.certificate.as_ref().map(|made| format!("a new key, valid until {}", made.not_after));
        facts(&[
            ("server", line.server.clone()),
            ("certificate", certificate.unwrap_or_else(|| "as before".to_owned())),
            ("serial before", line.serial_before.clone().unwrap_or_else(|| "-".to_owned())),
            ("signing key", line.signing_key.clone()),
            ("epoch", line.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string())),
            (compared, line.fingerprint.clone().unwrap_or_else(|| "shown with the first bundle".to_owned())),
            ("statement", line.statement.to_owned()),
        ])
    })?;
    match said {
        Said::Accepted => output.say("every node is told by the feed; the key before stays known for what it signed"),
        Said::Queued => {
            output.say("the node forwards it when the hub can be reached; until then the present key signs")
        }
        Said::Waits(missing) => approval::tell_waits(missing, &statement, output),
    }
    if let Some(failure) = not_renewed {
        output.say(&format!(
            "the signing key is changed as said; the certificate is not: run `concord {kind} renew --new-key`"
        ));
        return Err(failure);
    }
    if let Some(serial) = &line.serial_before {
        tell_taking_back(&holders, serial, output)?;
    }
    if line.certificate.is_none() {
        let why = "the anchor's key is elsewhere: the certificate gets its new key by a request";
        let request = Line::new(&format!("{kind} renew --csr --new-key --dir")).path(&args.dir);
        hint::next(output, why, &[request]);
    }
    Ok(())
}

/// A new key takes nothing back: the certificate of before counts until it ends.
pub(super) fn tell_taking_back(holders: &Holders, serial: &str, output: Output) -> Result<(), Failure> {
    let Some(anchor) = holders.anchor()? else { return Ok(()) };
    let revoke = Line::new("anchor revoke --serial").text(serial).words("--dir").path(&holders.anchor_folder());
    hint::next(
        output,
        "only where somebody else may have the key of before, take its certificate back, this one alone",
        &[revoke.words("--out").path(&holders.list_of(&anchor)?)],
    );
    Ok(())
}

/// What is compared when a node joins: the same in each bundle of the hub's. None while no state is enrolled.
async fn bundle_fingerprint(client: &Client) -> Result<Option<Fingerprint>, Failure> {
    // The hub's own keys stand there as the secretariat's, who need have no node.
    let secretariat = ParticipantCode::secretariat();
    let states = registered(client).await?.into_iter().filter(|one| one.enrolled.is_some());
    let mut codes = states.filter_map(|one| Some(one.participant?.code)).filter(|code| code != secretariat.as_str());
    let Some(code) = codes.next() else { return Ok(None) };
    let answer = client.registry().get_bundle(call(GetBundleRequest { participant: code })).await?;
    let bundle = answer.into_inner().bundle.ok_or_else(|| Failure::answer("the bundle is missing"))?;
    paper::fingerprint_of(&bundle).map(Some).map_err(Failure::answer)
}

/// A new certificate for a new key of the server's.
fn renew(holders: &Holders, anchor: &AnchorFolder, days: DaysArgs) -> Result<CertificateLine, Failure> {
    let made = holders.renew(anchor, holders.server(), true, days.life())?;
    Ok(CertificateLine::of(&made, Some(&holders.folder_of(holders.server())?)))
}

/// The profile that speaks for the server of a folder, where none is named.
pub(super) fn profile_of(dir: &Path, profile: Option<&Path>) -> PathBuf {
    profile.map_or_else(|| dir.join(OFFICER_PROFILE), Path::to_owned)
}

/// The way of an officer of the server's participant to it.
pub(super) async fn connect(holders: &Holders, dir: &Path, profile: Option<&Path>) -> Result<Client, Failure> {
    let profile = profile_of(dir, profile);
    let client = Client::connect(&ClientArgs { profile }).await?;
    let (own, server) = (&client.profile().settings().identity, holders.server());
    if own.participant != server.participant {
        let what = format!("{own} does not speak for {}, whose server {} is", server.participant, server.name);
        return Err(Failure::usage(what).help(format!("use the profile of an officer of {}", server.participant)));
    }
    Ok(client)
}

/// What the registry knows of the keys of the own server.
pub(super) struct Own {
    pub(super) participant: ParticipantCode,
    server: Name,
    keys: EnrolledKeys,
}

impl Own {
    pub(super) async fn of(client: &Client, holders: &Holders, kind: FolderKind) -> Result<Self, Failure> {
        let server = holders.server();
        let all = registered(client).await?;
        let is_own = |code: &str| code == server.participant.as_str();
        let found = all.into_iter().find(|one| one.participant.as_ref().is_some_and(|one| is_own(&one.code)));
        let keys = found.and_then(|one| if kind == FolderKind::Hub { one.hub } else { one.enrolled });
        let keys = keys.ok_or_else(|| {
            Failure::failed("PARTICIPANT_NOT_ENROLLED", format!("the registry has no keys of {server} yet"))
                .help("a node that has not joined has nothing that anybody goes by: make its folder anew where its keys are to be others")
        })?;
        Ok(Self { participant: server.participant.clone(), server: server.name.clone(), keys })
    }

    pub(super) fn anchor(&self) -> Result<Fingerprint, Failure> {
        fingerprint(&self.keys.anchor_fingerprint)
    }

    /// The anchor before the present one, while that counts too.
    pub(super) fn ending_anchor(&self) -> Result<Option<Fingerprint>, Failure> {
        let ending = &self.keys.ending_anchor_fingerprint;
        if ending.is_empty() { Ok(None) } else { fingerprint(ending).map(Some) }
    }

    /// The key that counts, of those in the server's file.
    pub(super) fn present(&self, path: &Path) -> Result<Arc<SigningKey>, Failure> {
        let present = fingerprint(&self.keys.signing_key_fingerprint)?;
        SigningKeys::load(path).map_err(HoldersError::from)?.named(&present).ok_or_else(|| {
            let what = format!(
                "{} does not have the key by which the registry knows {}, {}",
                path.display(),
                self.server,
                present.grouped()
            );
            Failure::failed("SIGNING_KEY_UNKNOWN", what).help(
                "only the present key vouches for another: put its file back; where it is lost, have the node replaced",
            )
        })
    }

    /// The present key, the one that is to follow, and whether that was begun before: then it goes on, else a new one is made and kept beside it.
    fn prepare(&self, path: &Path) -> Result<(Arc<SigningKey>, Arc<SigningKey>, bool), Failure> {
        let present = self.present(path)?;
        let mut known = vec![present.public().fingerprint];
        for earlier in &self.keys.earlier {
            known.push(fingerprint(&earlier.signing_key_fingerprint)?);
        }
        let held = SigningKeys::load(path).map_err(HoldersError::from)?.held();
        if let Some(begun) = held.into_iter().find(|key| !known.contains(&key.public().fingerprint)) {
            return Ok((present, begun, true));
        }
        let next = SigningKey::generate().map_err(HoldersError::from)?;
        // Before anybody hears of it: what nobody can sign with must not count.
        SigningKeys::add(path, &next).map_err(HoldersError::from)?;
        Ok((present, Arc::new(next), false))
    }
}

fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, Failure> {
    Digest::from_slice(bytes).map(Fingerprint).map_err(Failure::answer)
}

/// The file of the signing keys of a server's folder.
pub(super) fn signing_keys(dir: &Path) -> PathBuf {
    dir.join(SIGNING_KEY_FILE)
}

/// The name of the hub that statements are for.
pub(super) async fn hub_of(client: &Client) -> Result<Name, Failure> {
    let prepared = client.statements().prepare(call(PrepareRequest {})).await?.into_inner();
    Name::parse(&prepared.hub).map_err(Failure::answer)
}
