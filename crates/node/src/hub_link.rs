//! The link to the hub that this node joined: under which anchor, to which addresses, with which certificate.

use std::sync::Arc;

use concord_identity::{Anchor, Anchors, Application, Credentials, ExpectedServer, client_config};
use concord_model::{Identity, ParticipantCode, Role};
use concord_server::{Certificates, Dial, Reached};

use crate::context::Context;
use crate::error::NodeError;
use crate::link::{HubLink, TonicLink};

/// The link to the hub that this node joined, if it has.
pub fn hub_link(
    dial: impl Dial,
    context: &Context,
    credentials: &Credentials,
) -> Result<Option<Arc<dyn HubLink>>, NodeError> {
    hub_link_under(hub_anchors(context)?, dial, context, credentials, None)
}

/// Under what the node knows the hub that it joined, if it has.
pub(crate) fn hub_anchors(context: &Context) -> Result<Option<Anchors>, NodeError> {
    let state = context.now_state();
    let Some(hub) = state.hub() else {
        return Ok(None);
    };
    Ok(Some(Anchors::pinned(ParticipantCode::secretariat(), Anchor::from_der(&hub.anchor)?)))
}

pub(crate) fn hub_link_under(
    anchors: Option<Anchors>,
    dial: impl Dial,
    context: &Context,
    credentials: &Credentials,
    reached: Option<Reached>,
) -> Result<Option<Arc<dyn HubLink>>, NodeError> {
    let state = context.now_state();
    let (Some(hub), Some(anchors)) = (state.hub(), anchors) else {
        return Ok(None);
    };
    let expected = Identity { participant: ParticipantCode::secretariat(), role: Role::Hub, name: hub.name.clone() };
    let tls = client_config(credentials, &anchors, ExpectedServer::Exactly(expected), Application::Grpc)?;
    Ok(Some(Arc::new(TonicLink::new(dial, hub.addresses.clone(), tls).telling(reached))))
}

/// Remembers how long the hub's certificate lasts, as it was last seen.
pub(crate) fn seen_by(certificates: &Certificates) -> Reached {
    let certificates = certificates.clone();
    Arc::new(move |hub| certificates.saw(hub))
}
