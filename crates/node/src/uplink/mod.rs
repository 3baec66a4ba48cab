//! To the hub: what the journal holds and the hub has not receipted. It only sends what stands there.

mod lane;
mod statements;

use std::sync::Arc;

use concord_model::Lane;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::link::HubLink;

pub(crate) use lane::{histories, unexpected};

/// Starts one task per lane and the forwarder of statements.
pub fn start(tasks: &mut JoinSet<()>, context: &Context, link: &Arc<dyn HubLink>) {
    for lane in Lane::ALL {
        tasks.spawn(lane::run(context.clone(), Arc::clone(link), lane));
    }
    tasks.spawn(statements::run(context.clone(), Arc::clone(link)));
}
