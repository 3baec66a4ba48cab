//! The link to the hub that this node joined: under which anchor, to which addresses, with which certificate.

use std::path::Path;
use std::sync::Arc;

use concord_identity::{Anchor, Anchors, Application, Credentials, ExpectedServer, client_config_with};
use concord_model::{Identity, ParticipantCode, Role};
use concord_server::{Certificates, Dial, Reached};

use crate::config::Uplink;
use crate::context::Context;
use crate::error::NodeError;
use crate::link::{HubLink, TonicLink};

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
    let Some(hub) = state.hub() else {
        return Ok(None);
    };
    Ok(Some(Anchors::pinned(ParticipantCode::secretariat(), Anchor::from_der(&hub.anchor)?)))
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
