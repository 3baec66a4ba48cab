//! One simulated world: a hub, its nodes, the network between them; and the runtime in which one seed is played.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use concord_hub::services::statement;
use concord_identity::Caller;
use concord_journal::MemoryJournal;
use concord_ledger::AgreementState;
use concord_model::{AgreementId, Digest, Fingerprint, Identity, ParticipantCode, Role, Timestamp};
use concord_server::simulation::simulate;
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agreement::v1::SubmitRequest;
use tokio::time::sleep;

use crate::chance::Chance;
use crate::clients;
use crate::disk::Disk;
use crate::forum::{ALL, Forum, STATES, name};
use crate::hub::Hub;
use crate::judge::{self, DRAIN_SECONDS_MAX, Parties, Party};
use crate::log::Log;
use crate::network::Network;
use crate::node::Node;
use crate::scheduler::{Machine, Scheduler, SimulatedThread};
use crate::trace::Trace;

pub(crate) const WORLD: Machine = 0;
const NETWORK: Machine = 1;
pub(crate) const CLIENTS: Machine = 2;
pub(crate) const HUB: Machine = 3;
const FIRST_NODE: Machine = 4;

/// How many of the states are on [`SOME`](crate::forum::SOME).
pub(crate) const SOME_PARTIES: usize = 4;

/// With what a world begins.
#[derive(Clone)]
pub(crate) struct Beginning {
    pub(crate) forum: Arc<Forum>,
    pub(crate) hub: MemoryJournal,
    pub(crate) nodes: Vec<MemoryJournal>,
}

/// Everything there is. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) seed: u64,
    pub(crate) scheduler: Scheduler,
    pub(crate) trace: Arc<Trace>,
    pub(crate) network: Arc<Network>,
    pub(crate) forum: Arc<Forum>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) clients: Mutex<Log>,
}

impl std::ops::Deref for World {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Parts {
    pub(crate) fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn new(beginning: &Beginning, seed: u64, scheduler: Scheduler, trace: Arc<Trace>) -> Self {
        let chance = |purpose| Chance::of(seed, purpose);
        let network = Arc::new(Network::new(scheduler.clone(), NETWORK, Arc::clone(&trace), STATES.len(), chance(10)));
        let forum = Arc::clone(&beginning.forum);
        let disk = Disk::new(beginning.hub.fork(), chance(11));
        let hub = Arc::new(Hub::new(HUB, scheduler.clone(), disk, Arc::clone(&forum.secretariat)));
        let node = |(number, journal): (usize, &MemoryJournal)| {
            let disk = Disk::new(journal.fork(), chance(20 + number as u64));
            let member = Arc::clone(&forum.states[number]);
            let (network, hub) = (Arc::clone(&network), Arc::clone(&hub));
            Arc::new(Node::new(number, FIRST_NODE + number, member, disk, network, hub))
        };
        let nodes = beginning.nodes.iter().enumerate().map(node).collect();
        Self(Arc::new(Parts { seed, scheduler, trace, network, forum, hub, nodes, clients: Mutex::default() }))
    }

    /// What is judged.
    pub(crate) fn parties(&self) -> Parties {
        let hub = Party {
            code: ParticipantCode::secretariat(),
            journal: self.hub.disk.durable(),
            running: self.hub.running().map(|(_, shared)| shared),
        };
        let node = |node: &Arc<Node>| Party {
            code: node.member.code.clone(),
            journal: node.disk.durable(),
            running: node.running(),
        };
        Parties { hub, nodes: self.nodes.iter().map(node).collect() }
    }

    /// Waits until nothing is pending, and fails where that takes too long.
    pub(crate) async fn drained(&self) {
        for _ in 0..DRAIN_SECONDS_MAX {
            if judge::is_over(&self.parties(), &self.log()) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let (parties, log) = (self.parties(), self.log());
        let pending = judge::pending(&parties) + &judge::not_given(&parties, &log);
        panic!("I6: not everything drained in {DRAIN_SECONDS_MAX} s, {} at work: {pending}", log.busy);
    }

    pub(crate) fn start(&self) {
        self.hub.start();
        self.nodes.iter().for_each(|node| node.start());
    }

    /// Starts a task that outlives every machine of the forum.
    pub(crate) fn spawn(&self, machine: Machine, work: impl Future<Output = ()> + Send + 'static) {
        self.scheduler.spawn(machine, work);
    }
}

/// What one seed came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) hash: u64,
    pub(crate) lines: u64,
    pub(crate) exchanges: u64,
    /// How often a journal was trimmed to be judged.
    pub(crate) trims: u64,
    /// Bodies that a disk had damaged and that came again.
    pub(crate) mended: u64,
}

/// Plays a story in a world of its own, on this thread, in simulated time. A failure is told with the end of the trace.
pub(crate) fn play<T, Story>(beginning: &Beginning, seed: u64, story: impl FnOnce(World) -> Story) -> (T, Arc<Trace>)
where
    T: Send + 'static,
    Story: Future<Output = T> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Arc::new(Trace::new());
        let scheduler = Scheduler::new(Chance::of(seed, 1));
        let thread = SimulatedThread { scheduler: scheduler.clone(), chance: Chance::of(seed, 2) };
        let _simulated = simulate(Box::new(thread));
        let world = World::new(beginning, seed, scheduler.clone(), Arc::clone(&trace));
        let _told = TellOnPanic::new(seed, &trace);
        let ended = scheduler.run(WORLD, story(world)).await;
        scheduler.clear();
        (ended, trace)
    })
}

/// A failing seed says which one it is, what happened last, and how to see it again.
pub(crate) struct TellOnPanic {
    seed: u64,
    trace: Arc<Trace>,
}

impl TellOnPanic {
    pub(crate) fn new(seed: u64, trace: &Arc<Trace>) -> Self {
        Self { seed, trace: Arc::clone(trace) }
    }
}

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, end) = (self.seed, self.trace.end());
            eprintln!("seed {seed} failed; the last that happened:\n{end}");
            eprintln!("again: CONCORD_BATTERY_SEED={seed} CONCORD_BATTERY_COUNT=1, and this test by its name");
        }
    }
}

/// The forum with its agreements in force, made once: by the same code, in a world without faults.
pub(crate) static AGREED: LazyLock<Beginning> = LazyLock::new(|| {
    let forum = Arc::new(Forum::new());
    let nodes = (0..STATES.len()).map(|state| forum.node_journal(state)).collect();
    let bare = Beginning { hub: forum.hub_journal(), nodes, forum: Arc::clone(&forum) };
    let (agreed, _) = play(&bare, 0, |world| async move {
        agree(&world).await;
        let nodes = world.nodes.iter().map(|node| node.disk.durable().fork()).collect();
        Beginning { forum: Arc::clone(&world.forum), hub: world.hub.disk.durable().fork(), nodes }
    });
    agreed
});

async fn agree(world: &World) {
    world.hub.start();
    for state in 0..STATES.len() {
        let signed = world.forum.enrolment(state as u64 + 1, state);
        let (machine, shared) = world.hub.running().unwrap();
        let request = SubmitRequest { statement: Some(signed), ..Default::default() };
        let work = async move { statement::submit(&shared, &secretariats_officer(), request).await };
        world.scheduler.call(machine, work).await.unwrap().unwrap();
    }
    world.nodes.iter().for_each(|node| node.start());
    let proposals = [(0, ALL, STATES.len()), (1, crate::forum::SOME, SOME_PARTIES)];
    for (state, id, parties) in proposals {
        while world.nodes.iter().any(|node| node.running().unwrap().now_state().feed().number < STATES.len() as u64 + 1)
        {
            sleep(Duration::from_secs(1)).await;
        }
        let text = world.forum.text(id, parties);
        clients::say(world, state, DraftContent::Propose(text)).await.unwrap();
    }
    for state in 0..STATES.len() {
        let (world, chance) = (world.clone(), Chance::of(0, 30 + state as u64));
        world.clone().spawn(CLIENTS, clients::consent(world, state, chance, false));
    }
    let in_force = |world: &World| {
        let all = [(ALL, STATES.len()), (crate::forum::SOME, SOME_PARTIES)];
        all.into_iter().all(|(id, parties)| {
            world.nodes[..parties].iter().all(|node| {
                let state = node.running().unwrap().now_state();
                let id = AgreementId::parse(id).unwrap();
                state.directory().agreements.get(&id).is_some_and(|known| known.state == AgreementState::InForce)
            })
        })
    };
    while !in_force(world) || !judge::pending(&world.parties()).is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
}

fn secretariats_officer() -> Caller {
    Caller {
        identity: Identity { participant: ParticipantCode::secretariat(), role: Role::Officer, name: name("officer") },
        certificate_fingerprint: Fingerprint(Digest::ZERO),
        not_after: Timestamp::from_micros(i64::MAX),
    }
}
