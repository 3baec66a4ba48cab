//! From the hub: the feed, and one mailbox per lane. Nothing that the hub says is taken in unverified.

mod acknowledge;
mod feed;
mod healing;
mod judge;
mod mail;
mod shape;

use std::sync::Arc;

use concord_model::Lane;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::link::HubLink;
use crate::uplink::recovered;

#[cfg(test)]
pub(crate) use acknowledge::news;
pub use feed::verify_items;
pub use judge::judge;

/// The feed's follower and one receiver per lane; each runs until the node ends.
pub fn tasks(context: &Context, link: &Arc<dyn HubLink>) -> Vec<BoxFuture<'static, ()>> {
    let feed = feed::run(context.clone(), Arc::clone(link)).boxed();
    let mail = |lane| {
        let (context, link) = (context.clone(), Arc::clone(link));
        async move {
            // Before, a restored node does not know how far it had acknowledged.
            if recovered(&context).await {
                mail::run(context, link, lane).await;
            }
        }
        .boxed()
    };
    std::iter::once(feed).chain(Lane::ALL.into_iter().map(mail)).collect()
}

/// Starts them.
pub fn start(running: &mut JoinSet<()>, context: &Context, link: &Arc<dyn HubLink>) {
    tasks(context, link).into_iter().for_each(|task| drop(running.spawn(task)));
}
