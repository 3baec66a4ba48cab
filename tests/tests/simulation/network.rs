//! The network between the nodes and the hub: connections that carry each stream in order, with delay, until they are lost; and
//! then each side learns of it when it learns of it, with an unknown part of what was on the way delivered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::chance::Chance;
use crate::scheduler::{Machine, Scheduler};
use crate::tap::Tap;
use crate::trace::Trace;

/// Messages on the way in one direction of a stream; the sender waits with more.
const ON_THE_WAY_MAX: usize = 8;
/// Either side gives a silent connection up after so long.
const KEEPALIVE_SECONDS: u64 = 30;

/// Where all is steady, nodes are so far apart that no two of them answer the hub at the same moment: which comes first must not be
/// chance.
const STEADY_APART_MILLISECONDS: u64 = 40;
/// What a slow connection adds to each message's delay at most.
const SLOW_CONNECTION_MILLISECONDS_MAX: u64 = 2_000;

/// Towards the hub, or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// All paths.
pub(crate) struct Network {
    pub(crate) scheduler: Scheduler,
    pub(crate) trace: Arc<Trace>,
    /// What the nodes are handed and get, where a story listens.
    pub(crate) tap: Tap,
    machine: Machine,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    chance: Chance,
    paths: Vec<Path>,
    next_connection: u64,
    /// All messages take the same time, whatever else is on the way.
    steady: bool,
}

#[derive(Default)]
struct Path {
    blocked_up: bool,
    blocked_down: bool,
    /// Counts the blockings, so that the end of an earlier one is not taken for this one's.
    blockings: u64,
    /// What a message takes at most, in milliseconds.
    delay_max: u64,
    connections: Vec<Weak<Connection>>,
}

/// One connection between a node and the hub.
pub(crate) struct Connection {
    pub(crate) id: u64,
    node: usize,
    /// Added to each message's delay, in milliseconds: connections of one node are not equally quick.
    slow_by: u64,
    /// Nothing is carried any more.
    dead: CancellationToken,
    node_knows: CancellationToken,
    hub_knows: CancellationToken,
}

impl Connection {
    pub(crate) fn is_known_dead(&self) -> bool {
        self.node_knows.is_cancelled()
    }

    /// Ends when the node learns that the connection is gone.
    pub(crate) async fn lost(&self) {
        self.node_knows.cancelled().await;
    }
}

impl Network {
    pub(crate) fn new(scheduler: Scheduler, machine: Machine, trace: Arc<Trace>, nodes: usize, chance: Chance) -> Self {
        let paths = (0..nodes).map(|_| Path { delay_max: 20, ..Path::default() }).collect();
        let state = Mutex::new(State { chance, paths, next_connection: 1, steady: false });
        Self { scheduler, trace, tap: Tap::default(), machine, state, changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that stands at both ends.
    pub(crate) fn connected(&self, node: usize) -> Arc<Connection> {
        let mut state = self.state();
        let slow_by = if !state.steady && state.chance.one_in(6) {
            state.chance.within(50..SLOW_CONNECTION_MILLISECONDS_MAX)
        } else {
            0
        };
        let connection = Arc::new(Connection {
            id: state.next_connection,
            node,
            slow_by,
            dead: CancellationToken::new(),
            node_knows: CancellationToken::new(),
            hub_knows: CancellationToken::new(),
        });
        state.next_connection += 1;
        let open = &mut state.paths[node].connections;
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        connection
    }

    fn is_blocked(&self, node: usize, direction: Direction) -> bool {
        let path = &self.state().paths[node];
        match direction {
            Direction::Up => path.blocked_up,
            Direction::Down => path.blocked_down,
        }
    }

    /// Waits until a direction lets messages through.
    async fn passable(&self, node: usize, direction: Direction) {
        loop {
            let changed = self.changed.notified();
            if !self.is_blocked(node, direction) {
                return;
            }
            changed.await;
        }
    }

    /// One way through the network, without a stream.
    pub(crate) async fn travel(&self, node: usize, direction: Direction) {
        sleep(self.delay(node)).await;
        self.passable(node, direction).await;
    }

    fn delay(&self, node: usize) -> Duration {
        let mut state = self.state();
        if state.steady {
            return Duration::from_millis(1 + STEADY_APART_MILLISECONDS * node as u64);
        }
        let max = state.paths[node].delay_max;
        Duration::from_millis(state.chance.within(1..max + 1))
    }

    /// From now on every message takes the same time, so that one more changes nothing for the others.
    pub(crate) fn be_steady(&self) {
        self.state().steady = true;
    }

    pub(crate) fn set_delay(&self, node: usize, max_milliseconds: u64) {
        self.state().paths[node].delay_max = max_milliseconds;
    }

    /// Lets nothing through any more; connections that are silent for too long are given up by both sides.
    pub(crate) fn block(self: &Arc<Self>, node: usize, up: bool, down: bool) {
        let blocking = {
            let path = &mut self.state().paths[node];
            (path.blocked_up, path.blocked_down) = (up, down);
            path.blockings += 1;
            path.blockings
        };
        let network = Arc::clone(self);
        self.scheduler.spawn(self.machine, async move {
            sleep(Duration::from_secs(KEEPALIVE_SECONDS)).await;
            let still = {
                let path = &network.state().paths[node];
                path.blockings == blocking && (path.blocked_up || path.blocked_down)
            };
            if still {
                network.lose_all(node, Some(0), Some(0));
            }
        });
    }

    /// Lets everything through again.
    pub(crate) fn unblock(&self, node: usize) {
        {
            let path = &mut self.state().paths[node];
            (path.blocked_up, path.blocked_down) = (false, false);
            path.blockings += 1;
        }
        self.changed.notify_waiters();
    }

    /// Loses all connections of a node. Each side learns of it after so many milliseconds, or after some that chance gives.
    pub(crate) fn lose_all(self: &Arc<Self>, node: usize, node_learns: Option<u64>, hub_learns: Option<u64>) {
        let open: Vec<Arc<Connection>> =
            self.state().paths[node].connections.drain(..).filter_map(|connection| connection.upgrade()).collect();
        for connection in open {
            self.lose(&connection, node_learns, hub_learns);
        }
    }

    fn lose(self: &Arc<Self>, connection: &Arc<Connection>, node_learns: Option<u64>, hub_learns: Option<u64>) {
        if connection.dead.is_cancelled() {
            return;
        }
        self.trace.line(format_args!("connection {} of node {} is lost", connection.id, connection.node));
        connection.dead.cancel();
        let sides = [(&connection.node_knows, node_learns), (&connection.hub_knows, hub_learns)];
        for (knows, learns) in sides {
            let after = learns.unwrap_or_else(|| {
                let mut state = self.state();
                if state.chance.one_in(3) {
                    state.chance.within(1_000..KEEPALIVE_SECONDS * 1_000)
                } else {
                    state.chance.within(1..200)
                }
            });
            let knows = knows.clone();
            self.scheduler.spawn(self.machine, async move {
                sleep(Duration::from_millis(after)).await;
                knows.cancel();
            });
        }
    }

    /// Carries one direction of a stream: what is put into `source` comes out of the answer, in order, as long as it is carried.
    /// `reset` ends the stream when one side has done with it.
    pub(crate) fn carry<T: Send + 'static>(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        direction: Direction,
        source: BoxStream<'static, T>,
        reset: &CancellationToken,
        label: impl Fn(&T) -> String + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let (sink, arrived) = mpsc::channel(1);
        let way = Way {
            network: Arc::clone(self),
            connection: Arc::clone(connection),
            direction,
            reset: reset.clone(),
            sink,
            label: Box::new(label),
        };
        self.scheduler.spawn(self.machine, way.carry(source));
        let knows = match direction {
            Direction::Up => connection.hub_knows.clone(),
            Direction::Down => connection.node_knows.clone(),
        };
        let arriving = Arriving { arrived, knows, reset: reset.clone(), direction, ended: false };
        futures::stream::unfold(arriving, |mut arriving| async move { Some((arriving.next().await?, arriving)) })
            .boxed()
    }
}

struct Way<T> {
    network: Arc<Network>,
    connection: Arc<Connection>,
    direction: Direction,
    reset: CancellationToken,
    sink: mpsc::Sender<T>,
    label: Box<dyn Fn(&T) -> String + Send + Sync>,
}

impl<T: Send + 'static> Way<T> {
    async fn carry(self, mut source: BoxStream<'static, T>) {
        let mut on_the_way: VecDeque<(Instant, T)> = VecDeque::new();
        let mut last = Instant::now();
        let (mut ended, mut is_lost) = (false, false);
        let node = self.connection.node;
        loop {
            if ended && on_the_way.is_empty() {
                break;
            }
            let next_at = on_the_way.front().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = self.connection.dead.cancelled() => { is_lost = true; break },
                () = self.sink.closed() => break,
                () = self.reset.cancelled(), if self.direction == Direction::Up => break,
                place = self.place(next_at), if next_at.is_some() => {
                    if let (Some(place), Some((_, message))) = (place, on_the_way.pop_front()) {
                        self.tell(&message);
                        place.send(message);
                    }
                }
                message = source.next(), if !ended && on_the_way.len() < ON_THE_WAY_MAX => match message {
                    Some(message) => {
                        // In order: nothing overtakes what was sent before.
                        let slow_by = Duration::from_millis(self.connection.slow_by);
                        last = last.max(Instant::now() + self.network.delay(node) + slow_by);
                        on_the_way.push_back((last, message));
                    }
                    None => ended = true,
                },
            }
        }
        if is_lost {
            return self.lost(source, on_the_way).await;
        }
        // The hub's end of a stream ends all of it, and so does a node that hangs up.
        if self.direction == Direction::Down {
            drop(source);
            self.reset.cancel();
        }
    }

    /// The message that is due can be handed over.
    async fn place(&self, at: Option<Instant>) -> Option<mpsc::Permit<'_, T>> {
        sleep_until(at?).await;
        self.network.passable(self.connection.node, self.direction).await;
        self.sink.reserve().await.ok()
    }

    /// An unknown part of what was on the way arrives all the same; each side goes on until it knows.
    async fn lost(self, source: BoxStream<'static, T>, on_the_way: VecDeque<(Instant, T)>) {
        let arrive = self.network.state().chance.below(on_the_way.len() as u64 + 1);
        for (_, message) in on_the_way.into_iter().take(arrive as usize) {
            let Ok(place) = self.sink.try_reserve() else { break };
            self.tell(&message);
            place.send(message);
        }
        let (sender_knows, receiver_knows) = match self.direction {
            Direction::Up => (&self.connection.node_knows, &self.connection.hub_knows),
            Direction::Down => (&self.connection.hub_knows, &self.connection.node_knows),
        };
        sender_knows.cancelled().await;
        drop(source);
        receiver_knows.cancelled().await;
    }

    fn tell(&self, message: &T) {
        let (id, node) = (self.connection.id, self.connection.node);
        let what = (self.label)(message);
        match self.direction {
            Direction::Up => self.network.trace.line(format_args!("{id:>4} node {node} > hub: {what}")),
            Direction::Down => self.network.trace.line(format_args!("{id:>4} node {node} < hub: {what}")),
        }
    }
}

/// What comes out at the far end.
struct Arriving<T> {
    arrived: mpsc::Receiver<T>,
    knows: CancellationToken,
    reset: CancellationToken,
    direction: Direction,
    ended: bool,
}

impl<T> Arriving<T> {
    async fn next(&mut self) -> Option<Result<T, Status>> {
        if self.ended {
            return None;
        }
        tokio::select! {
            biased;
            arrived = self.arrived.recv() => match arrived {
                Some(message) => return Some(Ok(message)),
                None => {
                    self.ended = true;
                    // The carrier keeps its end until the loss is known here.
                    return self.knows.is_cancelled().then(|| Err(Status::unavailable("the connection was lost")));
                }
            },
            () = self.knows.cancelled() => {}
            () = self.reset.cancelled(), if self.direction == Direction::Up => {}
        }
        self.ended = true;
        Some(Err(Status::unavailable("the connection was lost")))
    }
}
