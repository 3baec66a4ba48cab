//! The link to the hub that this node joined: under which anchor, to which addresses, with which certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use concord_identity::{
    Anchor, AnchorError, AnchorTable, Anchors, Application, Credentials, ExpectedServer, client_config_with, read_text,
};
use concord_model::{Identity, ParticipantCode, Role};
use concord_server::{Certificates, Dial, FileMode, Reached, write_durably};

use crate::config::Uplink;
use crate::context::Context;
use crate::error::NodeError;
use crate::folders::Paths;
use crate::link::{HubLink, TonicLink};
use crate::paper::{bundle_from_json, bundle_to_json};
use crate::state::NodeState;

/// The link to the hub that this node joined, if it has.
pub fn hub_link(
    dial: impl Dial,
    context: &Context,
    credentials: &Credentials,
) -> Result<Option<Arc<dyn HubLink>>, NodeError> {
    let way = Way { reached: None, uplink: &Uplink::default(), folder: Path::new("") };
    hub_link_under(hub_anchors(context)?, dial, context, credentials, way)
}

/// Under what the node knows the hub that it joined, if it has.
pub(crate) fn hub_anchors(context: &Context) -> Result<Option<Anchors>, NodeError> {
    let state = context.now_state();
    if state.hub().is_none() {
        return Ok(None);
    }
    let anchors = Anchors::none();
    anchors.replace(table(&state)?);
    Ok(Some(anchors))
}

fn table(state: &NodeState) -> Result<AnchorTable, AnchorError> {
    let anchors = state.anchors_of_hub().into_iter().map(Anchor::from_der).collect::<Result<_, _>>()?;
    Ok(AnchorTable::from([(ParticipantCode::secretariat(), anchors)]))
}

/// Knows the hub by the anchors that the feed tells, and keeps the paper of the bundle at them: by it `node check` and a node that is made
/// anew find the hub.
pub(crate) async fn keep_hub_anchors(context: Context, anchors: Anchors, folder: PathBuf) {
    let mut published = context.state.clone();
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        match table(&state) {
            Ok(table) if table != *anchors.table() => {
                anchors.replace(table);
                let present: Vec<Vec<u8>> = state.anchors_of_hub().into_iter().map(<[u8]>::to_vec).collect();
                let path = Paths::of(&folder).hub();
                let written = concord_server::blocking(move || keep_paper(&path, &present)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(%error, "hub.json could not be brought up to the hub's new anchors");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "an anchor of the hub's cannot be read"),
        }
        let before = Arc::clone(state.directory());
        if published.wait_for(|state| !Arc::ptr_eq(state.directory(), &before)).await.is_err() {
            return;
        }
    }
}

fn keep_paper(path: &Path, present: &[Vec<u8>]) -> Result<(), NodeError> {
    let mut paper = bundle_from_json(&read_text(path)?)?;
    paper.bundle.present_anchors = present.iter().map(|anchor| Bytes::copy_from_slice(anchor)).collect();
    Ok(write_durably(path, bundle_to_json(&paper.bundle)?.as_bytes(), FileMode::Public)?)
}

/// By what way the hub is reached, and who hears of it.
pub(crate) struct Way<'a> {
    /// Hears whom each connection led to.
    pub(crate) reached: Option<Reached>,
    /// What the configuration says.
    pub(crate) uplink: &'a Uplink,
    /// The node's folder, which the files that it names are relative to.
    pub(crate) folder: &'a Path,
}

pub(crate) fn hub_link_under(
    anchors: Option<Anchors>,
    dial: impl Dial,
    context: &Context,
    credentials: &Credentials,
    way: Way<'_>,
) -> Result<Option<Arc<dyn HubLink>>, NodeError> {
    let state = context.now_state();
    let (Some(hub), Some(anchors)) = (state.hub(), anchors) else {
        return Ok(None);
    };
    let expected = Identity { participant: ParticipantCode::secretariat(), role: Role::Hub, name: hub.name.clone() };
    let (expected, hybrid_key) = (ExpectedServer::Exactly(expected), way.uplink.hybrid_key);
    let tls = client_config_with(credentials, &anchors, expected, Application::Grpc, hybrid_key)?;
    let link = TonicLink::new(dial, hub.addresses.clone(), tls).telling(way.reached);
    let link = link.through(way.uplink.proxy(way.folder)?).telling_clock(Arc::clone(&context.contact));
    Ok(Some(Arc::new(link)))
}

/// Remembers how long the hub's certificate lasts, as it was last seen.
pub(crate) fn seen_by(certificates: &Certificates) -> Reached {
    let certificates = certificates.clone();
    Arc::new(move |hub| certificates.saw(hub))
}
