//! Letting an agency in and ending it, whether the node runs or not: the entry in the journal, and its certificate and profile.

use std::path::{Path, PathBuf};

use concord_identity::{Profile, Requested};
use concord_journal::SEGMENT_SIZE_DEFAULT_BYTES;
use concord_model::{Identity, MeasureCode, Name, Role};
use concord_server::holders::{Asked, HoldersError, Lifetime};
use concord_server::{ConnectError, Folder, FolderError, FolderKind, connect};
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use concord_wire::proto::operations::v1::{AddAgencyRequest, EndOfAgency, RevokeAgencyRequest, revoke_agency_request};
use concord_wire::status::from_status;
use concord_wire::stored::node::{self as stored, RightsChange};

use crate::error::NodeError;
use crate::folders::Paths;
use crate::open::{append, fold, open_journal, snapshots};
use crate::restore::note;
use crate::state::Step;
use concord_server::audit::{Event, Object};
use concord_server::{Clock as _, SystemClock};

/// An agency that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgencyAdded {
    /// The folder for `--profile`.
    pub profile_dir: PathBuf,
    /// The journal was put back or made anew: it has nothing until an officer confirms it.
    pub unconfirmed: bool,
    /// The request for its certificate, where that has yet to come.
    pub asked: Option<Asked>,
}

/// Where an agency's certificate comes from.
#[derive(Debug, Clone)]
pub enum AgencyCertificate {
    /// From the anchor here, for a key that is made here.
    Made,
    /// From the anchor here, by a request that the agency made, which keeps its key.
    Requested(Requested),
    /// From an anchor that is elsewhere, by a request for a key that is made here.
    Awaited,
    /// Made elsewhere already, for a key that the agency keeps: PEM.
    Certified(String),
}

/// Whose key an agency's certificate is for, and what its profile says.
#[derive(Debug, Clone)]
pub struct AgencyKey {
    /// Where its certificate comes from.
    pub certificate: AgencyCertificate,
    /// Where the agency reaches the node from another machine, `host:port`.
    pub address: Option<String>,
    /// How long the certificate is valid, in days.
    pub days: u32,
}

/// Lets an agency in from now on. No measures means all. The same name and measures again is harmless.
pub async fn add_agency(
    dir: &Path,
    name: Name,
    mut measures: Vec<MeasureCode>,
    key: AgencyKey,
) -> Result<AgencyAdded, NodeError> {
    measures.sort_unstable();
    measures.dedup();
    let folder = Folder::open(dir, FolderKind::Node)?;
    let (holders, paths) = (crate::init::holders(dir)?, Paths::of(dir));
    let holder = holders.named(Role::Agency, &name);
    let profile_dir = holders.folder_of(&holder)?;
    // First what can fail without an effect: the anchor's key may be kept elsewhere.
    let known = holders.certificate_of(&holder).is_ok();
    if known && !matches!(key.certificate, AgencyCertificate::Made) {
        return Err(HoldersError::Known(holder).into());
    }
    let now = SystemClock.now();
    let anchor = match &key.certificate {
        AgencyCertificate::Made | AgencyCertificate::Requested(_) if !known => Some(holders.open_anchor()?),
        AgencyCertificate::Certified(text) => holders.certified(&holder, text, now).map(|_| None)?,
        _ => None,
    };

    if let AgencyCertificate::Requested(requested) = &key.certificate {
        holders.refuse_key_taken_back(&holder, &requested.key.fingerprint())?;
    }

    let unconfirmed = match folder.lock() {
        Ok(_lock) => {
            let unconfirmed = add_stopped(&paths, &name, &measures)?;
            note(dir, &Event::local("agency add", Object::agency(&name, None)));
            unconfirmed
        }
        Err(FolderError::InUse { .. }) => add_running(dir, &name, &measures).await?,
        Err(error) => return Err(error.into()),
    };
    let (life, mut asked) = (Lifetime { days: key.days, now }, None);
    match (&key.certificate, anchor) {
        (AgencyCertificate::Requested(requested), Some(anchor)) => {
            holders.add_requested(&anchor, &holder, requested, key.address, life)?;
        }
        (_, Some(anchor)) => drop(holders.add(&anchor, &holder, key.address, life)?),
        (AgencyCertificate::Certified(text), None) => {
            holders.add_certified(&holder, text, key.address, now)?;
        }
        (AgencyCertificate::Awaited, None) => {
            asked = Some(holders.request(std::slice::from_ref(&holder), None, false, now)?);
        }
        _ => {}
    }
    Ok(AgencyAdded { profile_dir, unconfirmed, asked })
}

/// Ends an agency for good, whether the node runs or not: its name is not used again. One that was ended before is no error.
pub async fn end_agency(dir: &Path, name: &Name) -> Result<(), NodeError> {
    let folder = Folder::open(dir, FolderKind::Node)?;
    let paths = Paths::of(dir);
    match folder.lock() {
        Ok(_lock) => {
            end_stopped(&paths, name)?;
            note(dir, &Event::local("agency remove", Object::agency(name, None)));
            Ok(())
        }
        Err(FolderError::InUse { .. }) => end_running(&holders_operator(dir)?, name).await,
        Err(error) => Err(error.into()),
    }
}

fn end_stopped(paths: &Paths, name: &Name) -> Result<(), NodeError> {
    let (journal, _) = open_journal(&paths.journal(), &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    let state = fold(&snapshots(paths.snapshots()), journal.as_ref())?.state;
    if !state.ended_agencies().contains(name) && state.decide_rights(name, &RightsChange::Ended)? == Step::Append {
        append(&journal, stored::rights_changed(name, &RightsChange::Ended, SystemClock.now()))?;
    }
    journal.close();
    Ok(())
}

async fn end_running(operator: &Profile, name: &Name) -> Result<(), NodeError> {
    let address = operator.address()?;
    let channel = connect(&address, operator.client_config()?).await?;
    let what = Some(revoke_agency_request::What::End(EndOfAgency {}));
    let request = RevokeAgencyRequest { name: name.to_string(), what };
    match OperationsServiceClient::new(channel).revoke_agency(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(match from_status(&status) {
            Some(refusal) => refusal.into(),
            None => ConnectError::Protocol { address, why: status.message().to_owned() }.into(),
        }),
    }
}

/// The profile of an operator whose certificate counts: the first that loads.
fn holders_operator(dir: &Path) -> Result<Profile, NodeError> {
    let holders = crate::init::holders(dir)?;
    let operators = holders.everybody().into_iter().filter(|holder| holder.role == Role::Operator);
    let now = SystemClock.now();
    // Of who was taken back the profile may have been left; the node would not let it in.
    let taken_back = holders.taken_back()?;
    let counts = |holder: &Identity| holders.certificate_of(holder).is_ok_and(|here| !taken_back.has(&here));
    let profiles = operators.filter(counts);
    let profiles = profiles.filter_map(|holder| Profile::load(&holders.folder_of(&holder).ok()?).ok());
    let mut usable = profiles.filter(|profile| profile.own().not_after > now);
    match usable.next() {
        Some(profile) => Ok(profile),
        None => Ok(Profile::load(&Paths::of(dir).operator())?),
    }
}

/// The lock is held: this process alone appends. Answers whether the agency waits for an officer's word.
fn add_stopped(paths: &Paths, name: &Name, measures: &[MeasureCode]) -> Result<bool, NodeError> {
    let (journal, _) = open_journal(&paths.journal(), &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    let mut state = fold(&snapshots(paths.snapshots()), journal.as_ref())?.state;
    if state.decide_agency(name, measures)? == Step::Append {
        append(&journal, stored::agency_added(name, measures, SystemClock.now()))?;
        state = fold(&snapshots(paths.snapshots()), journal.as_ref())?.state;
    }
    journal.close();
    Ok(state.unconfirmed().contains_key(name))
}

async fn add_running(dir: &Path, name: &Name, measures: &[MeasureCode]) -> Result<bool, NodeError> {
    let operator = holders_operator(dir)?;
    let address = operator.address()?;
    let channel = connect(&address, operator.client_config()?).await?;
    let request =
        AddAgencyRequest { name: name.to_string(), measures: measures.iter().map(ToString::to_string).collect() };
    match OperationsServiceClient::new(channel).add_agency(request).await {
        Ok(added) => Ok(added.into_inner().unconfirmed),
        Err(status) => Err(match from_status(&status) {
            Some(refusal) => refusal.into(),
            // Whether the agency was let in is not known; the same command again finds out.
            None => ConnectError::Protocol { address, why: status.message().to_owned() }.into(),
        }),
    }
}
