//! A node's machine: the real writer, uplink and downlink over a simulated disk, clock and link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_identity::Caller;
use concord_journal::Journal;
use concord_model::{Digest, Fingerprint, Identity, Role, Timestamp};
use concord_node::backlog::Backlog;
use concord_node::context::{Contact, Context};
use concord_node::index::Index;
use concord_node::link::HubLink;
use concord_node::state::NodeState;
use concord_node::writer::Writer;
use concord_node::{NodeProjection, downlink, uplink};
use concord_server::{Clock, DiskRoom, Quotas, Readiness, Shares, Shutdown};
use concord_views::Views;
use concord_wire::stored::node::read;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::clock::WallClock;
use crate::disk::Disk;
use crate::forum::{Member, name};
use crate::hub::Hub;
use crate::link::SimulatedLink;
use crate::network::Network;
use crate::scheduler::{Machine, Scheduler};

const ENTRIES_READ_AT_ONCE: usize = 256;

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) machine: Machine,
    pub(crate) member: Arc<Member>,
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<WallClock>,
    scheduler: Scheduler,
    network: Arc<Network>,
    hub: Arc<Hub>,
    running: Mutex<Option<Context>>,
}

impl Node {
    pub(crate) fn new(
        number: usize,
        machine: Machine,
        member: Arc<Member>,
        disk: Disk,
        network: Arc<Network>,
        hub: Arc<Hub>,
    ) -> Self {
        let (scheduler, clock) = (network.scheduler.clone(), Arc::new(WallClock::new()));
        Self { number, machine, member, disk, clock, scheduler, network, hub, running: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Option<Context>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its services hold, while it runs.
    pub(crate) fn running(&self) -> Option<Context> {
        self.state().clone()
    }

    /// Everything that it had in memory is gone.
    pub(crate) fn kill(&self) {
        let ended = self.state().take();
        self.scheduler.kill(self.machine);
        drop(ended);
    }

    /// Opens what the disk has, as the process does when it starts.
    pub(crate) fn start(&self) {
        let caller = Caller {
            identity: Identity { participant: self.member.code.clone(), role: Role::Node, name: name("main") },
            certificate_fingerprint: Fingerprint(Digest::ZERO),
            not_after: Timestamp::from_micros(i64::MAX),
        };
        let link = SimulatedLink::new(Arc::clone(&self.network), Arc::clone(&self.hub), self.number, caller);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (context, tasks) = open(&self.disk, clock, &self.member, |_| Arc::new(link));
        for task in tasks {
            self.scheduler.spawn(self.machine, task);
        }
        *self.state() = Some(context);
    }
}

/// Opens what a disk has: what the services hold, and the tasks that run beside them.
pub(crate) fn open(
    disk: &Disk,
    clock: Arc<dyn Clock>,
    member: &Member,
    link: impl FnOnce(&Context) -> Arc<dyn HubLink>,
) -> (Context, Vec<BoxFuture<'static, ()>>) {
    let journal: Arc<dyn Journal> = Arc::new(disk.clone());
    let state = fold(journal.as_ref());
    let views = Views::in_memory(NodeProjection::VERSION);
    views.catch_up(journal.as_ref(), &mut NodeProjection, journal.tail(), |_| {}).unwrap();
    let index = Index::new(views, journal);
    let keys = Arc::new(concord_node::signing::NodeKeys::only(member.signing_key()));
    let (writer, handle, published) = Writer::new(state, index.clone(), Arc::clone(&keys), Arc::clone(&clock));
    let context = Context {
        participant: member.code.clone(),
        node: name("main"),
        own: concord_identity::Anchors::pinned(member.code.clone(), member.anchor().clone()),
        keys,
        writer: handle,
        state: published,
        index,
        clock,
        readiness: Readiness::new(),
        shutdown: Shutdown::new(),
        contact: Arc::new(Contact::default()),
        probes: Arc::default(),
        audit: concord_server::audit::Audit::off(),
        room: DiskRoom::default(),
        shares: Arc::new(Shares::new(Quotas::default())),
        overdue: concord_server::Overdue::default(),
        backlog: Arc::new(Backlog::new(u64::MAX)),
        run: concord_server::fresh().unwrap(),
    };
    let writing = async move { writer.run(CancellationToken::new()).await.expect("the disk takes every commit") };
    let mut tasks: Vec<BoxFuture<'static, ()>> = vec![Box::pin(writing)];
    let link = link(&context);
    tasks.extend(downlink::tasks(&context, &link));
    tasks.extend(uplink::tasks(&context, &link));
    let (contact, readiness) = (Arc::clone(&context.contact), context.readiness.clone());
    tasks.push(Box::pin(async move { contact.watch(&readiness).await }));
    (context, tasks)
}

/// The state of all entries of a journal.
pub(crate) fn fold(journal: &dyn Journal) -> NodeState {
    let mut state = NodeState::default();
    let mut next = journal.first_sequence();
    loop {
        let entries = journal.read(next, ENTRIES_READ_AT_ONCE).unwrap();
        let Some(last) = entries.last() else { return state };
        next = last.sequence + 1;
        for entry in &entries {
            let at = Timestamp::from_micros(entry.recorded_at);
            state.apply(&read(entry).unwrap(), entry.sequence, at).unwrap();
        }
    }
}
