//! The hosts of hub and nodes: a disk that outlives the process, and the process, which serves as the binary does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_hub::services;
use concord_hub::shared::Shared;
use concord_identity::{Admission, Anchors, Application, Credentials, server_config};
use concord_model::Role;
use concord_node::context::Context;
use concord_server::{Clock, ServeError, Shutdown};
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use turmoil::Sim;

use super::network::{Listening, Simulated, StackClock};
use crate::disk::Disk;
use crate::forum::Member;
use crate::hub;
use crate::judge::Party;
use crate::node;

pub(super) const HUB_HOST: &str = "hub";
/// On which hub and nodes listen.
pub(super) const PORT: u16 = 7443;

/// One host. `T` is what its services hold.
pub(super) struct Machine<T> {
    pub(super) host: &'static str,
    pub(super) member: Arc<Member>,
    disk: Disk,
    clock: Arc<StackClock>,
    credentials: Credentials,
    running: Mutex<Option<Running<T>>>,
}

struct Running<T> {
    held: T,
    shutdown: Shutdown,
}

/// What can be done to a process, whoever's it is.
pub(super) trait Process {
    /// Asks it to end in order, where it runs.
    fn request_end(&self);

    /// Everything that it had in memory is gone.
    fn forget(&self);
}

impl<T> Process for Machine<T> {
    fn request_end(&self) {
        self.state().iter().for_each(|running| running.shutdown.request());
    }

    fn forget(&self) {
        let ended = self.state().take();
        drop(ended);
    }
}

impl<T> Machine<T> {
    fn state(&self) -> MutexGuard<'_, Option<Running<T>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Machine<T> {
    pub(super) fn new(
        host: &'static str,
        role: Role,
        member: &Arc<Member>,
        disk: Disk,
        clock: &Arc<StackClock>,
    ) -> Self {
        let (credentials, clock) = (member.credentials(role, "main"), Arc::clone(clock));
        Self { host, member: Arc::clone(member), disk, clock, credentials, running: Mutex::default() }
    }

    /// What is judged of it.
    pub(super) fn party(&self) -> Party<T> {
        let running = self.state().as_ref().map(|running| running.held.clone());
        Party { code: self.member.code.clone(), journal: self.disk.durable(), running }
    }

    /// The disk, as far as it kept what the process before had handed to it.
    fn found_disk(&self) -> &Disk {
        self.disk.crash(self.clock.now().as_micros());
        &self.disk
    }

    fn wall_clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// Serves until the end was asked for. A task that ends before was to go on, and one that panics fails the host.
    async fn run(
        &self,
        held: T,
        shutdown: Shutdown,
        tasks: Vec<BoxFuture<'static, ()>>,
        serving: impl Future<Output = Result<(), ServeError>>,
    ) -> turmoil::Result {
        *self.state() = Some(Running { held, shutdown: shutdown.clone() });
        let mut running = JoinSet::new();
        for task in tasks {
            running.spawn(task);
        }
        let mut serving = std::pin::pin!(serving);
        loop {
            tokio::select! {
                biased;
                Some(ended) = running.join_next() => {
                    ended?;
                    assert!(shutdown.is_requested(), "a task ended, and nobody had asked for the end");
                }
                served = &mut serving => return Ok(served?),
            }
        }
    }
}

impl Machine<Arc<Shared>> {
    async fn serve(self: Arc<Self>) -> turmoil::Result {
        let (shared, tasks) = hub::open(self.found_disk(), self.wall_clock(), &self.member);
        let tls = server_config(&self.credentials, &shared.anchors, Admission::hub(), Application::Grpc)?;
        let server = services::server(&shared).await?;
        let serving = server.serve(Listening::on(PORT).await?, tls);
        self.run(Arc::clone(&shared), shared.shutdown.clone(), tasks, serving).await
    }
}

impl Machine<Context> {
    async fn serve(self: Arc<Self>) -> turmoil::Result {
        let link = |context: &Context| {
            let link = concord_node::hub_link(Simulated, context, &self.credentials);
            link.unwrap().expect("it has joined")
        };
        let (context, tasks) = node::open(self.found_disk(), self.wall_clock(), &self.member, link);
        let own = Anchors::pinned(self.member.code.clone(), self.member.anchor().clone());
        let tls = server_config(&self.credentials, &own, Admission::node(&self.member.code), Application::Grpc)?;
        let server = concord_node::server(&context).await?;
        let serving = server.serve(Listening::on(PORT).await?, tls);
        self.run(context.clone(), context.shutdown.clone(), tasks, serving).await
    }
}

/// Puts the hosts of hub and nodes into the network.
pub(super) fn register(simulation: &mut Sim<'_>, hub: &Arc<Machine<Arc<Shared>>>, nodes: &[Arc<Machine<Context>>]) {
    let hub = Arc::clone(hub);
    simulation.host(hub.host, move || Arc::clone(&hub).serve());
    for node in nodes {
        let node = Arc::clone(node);
        simulation.host(node.host, move || Arc::clone(&node).serve());
    }
}
