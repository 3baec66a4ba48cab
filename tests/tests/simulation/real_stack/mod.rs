//! The real stack over a simulated network: the servers and clients of hub, nodes and agencies with their accept loop, TLS, HTTP/2, gRPC
//! and every limit and time of theirs, on hosts of turmoil. Below them are the disks and clocks of the simulation at message level, and
//! above them its judges.
//!
//! Load and faults follow from the seed. The trace does not: keys and nonces of TLS are chance.
//!
//! In debug builds the task of a connection that was lost may end by an assertion of h2's own (hyperium/h2#907: streams were open). It
//! was ending anyway, and nobody waits for it.

mod agencies;
mod faults;
mod machines;
mod network;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_hub::shared::Shared;
use concord_journal::MemoryJournal;
use concord_model::Role;
use concord_node::context::Context;
use concord_server::simulation::simulate;
use concord_tests::battery::{Budget, report};

use crate::chance::Chance;
use crate::clients::LOAD_MILLISECONDS;
use crate::disk::Disk;
use crate::forum::{AGENCIES, STATES};
use crate::judge::{self, DRAIN_SECONDS_MAX, Parties};
use crate::log::Log;
use crate::trace::Trace;
use crate::trimmed;
use crate::world::{AGREED, Beginning, TellOnPanic};
use faults::Faults;
use machines::{HUB_HOST, Machine, Process};
use network::{HostThread, StackClock};

/// turmoil goes on by so much, and hands over what has arrived meanwhile.
const TICK: Duration = Duration::from_millis(5);
/// From one end to the other where nothing is wrong with the link.
const LATENCY_MIN: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_millis(20);
/// Writes of one connection that may be on their way.
const WRITES_UNDER_WAY_MAX: usize = 256;
const SEEDS: u64 = 20;

/// All hosts, and what their clients know.
struct Stack {
    seed: u64,
    trace: Arc<Trace>,
    clock: Arc<StackClock>,
    hub: Arc<Machine<Arc<Shared>>>,
    nodes: Vec<Arc<Machine<Context>>>,
    clients: Mutex<Log>,
}

impl Stack {
    fn new(beginning: &Beginning, seed: u64, trace: Arc<Trace>) -> Self {
        let (forum, clock) = (&beginning.forum, Arc::new(StackClock::default()));
        let disk = Disk::new(beginning.hub.fork(), Chance::of(seed, 11));
        let hub = Machine::new(HUB_HOST, Role::Hub, &forum.secretariat, disk, &clock);
        let node = |(state, journal): (usize, &MemoryJournal)| {
            let disk = Disk::new(journal.fork(), Chance::of(seed, 20 + state as u64));
            Arc::new(Machine::new(STATES[state], Role::Node, &forum.states[state], disk, &clock))
        };
        let nodes = beginning.nodes.iter().enumerate().map(node).collect();
        let log = Log { busy: STATES.len() * AGENCIES.len(), ..Log::default() };
        Self { seed, trace, clock, hub: Arc::new(hub), nodes, clients: Mutex::new(log) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        self.trace.line_at(self.clock.elapsed(), what);
    }

    fn parties(&self) -> Parties {
        Parties { hub: self.hub.party(), nodes: self.nodes.iter().map(|node| node.party()).collect() }
    }

    /// The process of hub or node on this host.
    fn process(&self, host: &str) -> &dyn Process {
        match self.nodes.iter().find(|node| node.host == host) {
            Some(node) => node.as_ref(),
            None => self.hub.as_ref(),
        }
    }

    /// One step of all hosts. What fails on one of them fails here.
    fn step(&self, simulation: &mut turmoil::Sim<'_>) {
        if let Err(error) = simulation.step() {
            panic!("a host failed: {error}");
        }
        self.clock.set(simulation.elapsed());
    }
}

/// What one seed came to.
struct Played {
    exchanges: u64,
    faults: u64,
}

/// Plays one seed: load and faults, then healing, then the judgement.
fn played(seed: u64) -> Played {
    let beginning = &*AGREED;
    let trace = Arc::new(Trace::new());
    let _told = TellOnPanic::new(seed, &trace);
    let _simulated = simulate(Box::new(HostThread(Chance::of(seed, 2))));
    let stack = Arc::new(Stack::new(beginning, seed, trace));
    let mut simulation = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::MAX)
        .min_message_latency(LATENCY_MIN)
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(WRITES_UNDER_WAY_MAX)
        .enable_random_order()
        .build();
    machines::register(&mut simulation, &stack.hub, &stack.nodes);
    agencies::register(&mut simulation, &stack);

    let mut faults = Faults::new(&stack);
    while simulation.elapsed() < Duration::from_millis(LOAD_MILLISECONDS) {
        stack.step(&mut simulation);
        faults.go_on(&mut simulation);
    }
    faults.heal(&mut simulation);
    stack.log().healed = true;

    let end = simulation.elapsed() + Duration::from_secs(DRAIN_SECONDS_MAX);
    while !judge::is_over(&stack.parties(), &stack.log()) {
        let pending = || judge::pending(&stack.parties());
        assert!(simulation.elapsed() < end, "I6: not everything drained in {DRAIN_SECONDS_MAX} s: {}", pending());
        let next_look = simulation.elapsed() + Duration::from_secs(1);
        while simulation.elapsed() < next_look {
            stack.step(&mut simulation);
        }
    }
    trimmed::judge(seed, &stack.parties());
    Played { exchanges: judge::judge(&stack.parties(), &stack.log()), faults: faults.count() }
}

#[test]
fn everything_arrives_once_and_in_order_whatever_the_network_does() {
    let budget = Budget::slice(SEEDS, 0).by_seed(1);
    let first = budget.seed;
    let (mut done, mut exchanges, mut faults) = (0, 0, 0);
    while !budget.is_over(done) {
        let played = played(first + done);
        done += 1;
        exchanges += played.exchanges;
        faults += played.faults;
    }
    let seconds = budget.elapsed().as_secs_f64();
    budget.reached(done, "seeds of the real stack");
    report(&format!("real stack: {done} seeds from {first}, {exchanges} exchanges, {faults} faults, {seconds:.0} s"));
}
