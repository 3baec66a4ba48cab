//! From the hub: the feed, and one mailbox per lane. Nothing that the hub says is taken in unverified.

mod acknowledge;
mod feed;
mod judge;
mod mail;
mod shape;

use std::sync::Arc;

use concord_model::Lane;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::link::HubLink;

#[cfg(test)]
pub(crate) use acknowledge::news;
pub use feed::verify_items;
pub use judge::judge;

/// Starts the feed's follower and one receiver per lane.
pub fn start(tasks: &mut JoinSet<()>, context: &Context, link: &Arc<dyn HubLink>) {
    tasks.spawn(feed::run(context.clone(), Arc::clone(link)));
    for lane in Lane::ALL {
        tasks.spawn(mail::run(context.clone(), Arc::clone(link), lane));
    }
}
