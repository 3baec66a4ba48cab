//! Letting an agency in, whether the node runs or not: its certificate and profile, and the entry in the journal.

use std::path::{Path, PathBuf};

use concord_identity::{AnchorKeys, Profile};
use concord_journal::SEGMENT_SIZE_DEFAULT_BYTES;
use concord_model::{MeasureCode, Name, Role};
use concord_server::{ConnectError, Folder, FolderError, FolderKind, connect};
use concord_wire::proto::operations::v1::AddAgencyRequest;
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use concord_wire::status::from_status;
use concord_wire::stored::node as stored;

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::folders::Paths;
use crate::init::{identity, make_profile};
use crate::open::{append, fold, open_journal, snapshots};
use crate::restore::note;
use crate::state::Step;
use concord_server::audit::{Event, Object};
use concord_server::{Clock as _, SystemClock};

/// Where an agency's profile finds the addresses of its node.
const ADDRESSES_FROM_AGENCY: &str = "../../addresses.json";

/// An agency that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgencyAdded {
    /// The folder for `--profile`.
    pub profile_dir: PathBuf,
    /// The journal was put back or made anew: it has nothing until an officer confirms it.
    pub unconfirmed: bool,
}

/// Lets an agency in from now on. No measures means all. The same name and measures again is harmless.
pub async fn add_agency(dir: &Path, name: Name, mut measures: Vec<MeasureCode>) -> Result<AgencyAdded, NodeError> {
    measures.sort_unstable();
    measures.dedup();
    let folder = Folder::open(dir, FolderKind::Node)?;
    let config = NodeConfig::load(dir)?;
    let paths = Paths::of(dir);
    let profile_dir = paths.agency(&name);
    // First what can fail without an effect: the anchor's key may be kept elsewhere.
    let known = Profile::load(&profile_dir).is_ok();
    let anchor = if known { None } else { Some(load_anchor(&paths)?) };

    let unconfirmed = match folder.lock() {
        Ok(_lock) => {
            let unconfirmed = add_stopped(&paths, &name, &measures)?;
            note(dir, &Event::local("agency add", Object::agency(&name, None)));
            unconfirmed
        }
        Err(FolderError::InUse { .. }) => add_running(&paths, &name, &measures).await?,
        Err(error) => return Err(error.into()),
    };
    if let Some(anchor) = anchor {
        let holder = identity(&config.participant, Role::Agency, &name);
        let server = identity(&config.participant, Role::Node, &config.name);
        make_profile(&anchor, &profile_dir, &holder, &server, ADDRESSES_FROM_AGENCY, SystemClock.now())?;
    }
    Ok(AgencyAdded { profile_dir, unconfirmed })
}

fn load_anchor(paths: &Paths) -> Result<AnchorKeys, NodeError> {
    AnchorKeys::load(&paths.anchor_certificate(), &paths.anchor_key())
        .map_err(|source| NodeError::AnchorKey { path: paths.anchor_key(), source })
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

async fn add_running(paths: &Paths, name: &Name, measures: &[MeasureCode]) -> Result<bool, NodeError> {
    let operator = Profile::load(&paths.operator())?;
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
