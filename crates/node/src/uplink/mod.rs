//! To the hub: what the journal holds and the hub has not receipted. It only sends what stands there.

pub(crate) mod epoch;
mod fetch;
mod lane;
mod statements;
mod withdrawn;

use std::sync::Arc;

use concord_model::Lane;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::link::HubLink;

pub(crate) use lane::{broken, histories, unexpected};

/// One task per lane, the forwarder of statements, and what a restored node fetches back; each runs until the node ends.
pub fn tasks(context: &Context, link: &Arc<dyn HubLink>) -> Vec<BoxFuture<'static, ()>> {
    let lane = |lane| {
        let (context, link) = (context.clone(), Arc::clone(link));
        async move {
            if recovered(&context).await {
                lane::run(context, link, lane).await;
            }
        }
        .boxed()
    };
    let statements = {
        let (context, link) = (context.clone(), Arc::clone(link));
        async move {
            if recovered(&context).await {
                statements::run(context, link).await;
            }
        }
        .boxed()
    };
    fetch::tell(context);
    let fetch = context.now_state().is_recovering().then(|| fetch::run(context.clone(), Arc::clone(link)).boxed());
    Lane::ALL.into_iter().map(lane).chain([statements]).chain(fetch).collect()
}

/// Waits until a restored node has fetched back what it lost; false where the node ends before.
pub(crate) async fn recovered(context: &Context) -> bool {
    let mut published = context.state.clone();
    published.wait_for(|state| !state.is_recovering()).await.is_ok()
}

/// Starts them.
pub fn start(running: &mut JoinSet<()>, context: &Context, link: &Arc<dyn HubLink>) {
    tasks(context, link).into_iter().for_each(|task| drop(running.spawn(task)));
}
