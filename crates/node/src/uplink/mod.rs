//! To the hub: what the journal holds and the hub has not receipted. It only sends what stands there.

mod lane;
mod statements;

use std::sync::Arc;

use concord_model::Lane;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::link::HubLink;

pub(crate) use lane::{broken, histories, unexpected};

/// One task per lane and the forwarder of statements; each runs until the node ends.
pub fn tasks(context: &Context, link: &Arc<dyn HubLink>) -> Vec<BoxFuture<'static, ()>> {
    let lane = |lane| lane::run(context.clone(), Arc::clone(link), lane).boxed();
    let statements = statements::run(context.clone(), Arc::clone(link)).boxed();
    Lane::ALL.into_iter().map(lane).chain([statements]).collect()
}

/// Starts them.
pub fn start(running: &mut JoinSet<()>, context: &Context, link: &Arc<dyn HubLink>) {
    tasks(context, link).into_iter().for_each(|task| drop(running.spawn(task)));
}
