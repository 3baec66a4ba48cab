//! One thread that runs the tasks of all simulated machines, always the one that the seed picks among those that can go on; and
//! that ends all tasks of a machine at once.
//!
//! Invariant: which task goes next follows from the set of those that can and from the seed, never from the order in which they
//! were woken. So tokio's own chance in waking those who watch one value does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use concord_server::simulation::Machine as Thread;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::chance::Chance;

/// Polls without a pause of simulated time; more are two tasks that wake each other for ever.
const POLLS_AT_ONCE_MAX: u64 = 1_000_000;

/// A simulated machine: its tasks end together.
pub(crate) type Machine = usize;

/// Runs tasks. Clones are the same scheduler.
#[derive(Clone)]
pub(crate) struct Scheduler(Arc<Inner>);

struct Inner(Mutex<State>);

struct State {
    tasks: BTreeMap<u64, Task>,
    ready: BTreeSet<u64>,
    next: u64,
    current: Machine,
    chance: Chance,
    /// How often tasks of this machine were polled, and who waits for some such number.
    steps: Option<Steps>,
    outer: Option<Waker>,
}

struct Steps {
    machine: Machine,
    done: u64,
    awaited: Option<(u64, oneshot::Sender<()>)>,
}

struct Task {
    machine: Machine,
    /// None while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
}

struct TaskWaker {
    id: u64,
    scheduler: Weak<Inner>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let Some(inner) = self.scheduler.upgrade() else { return };
        let mut state = inner.state();
        if state.tasks.contains_key(&self.id) {
            state.ready.insert(self.id);
        }
        let outer = state.outer.take();
        drop(state);
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

impl State {
    /// Counts a step, and gives whoever waits for just this one.
    fn count_step(&mut self, machine: Machine) -> Option<oneshot::Sender<()>> {
        let steps = self.steps.as_mut().filter(|steps| steps.machine == machine)?;
        steps.done += 1;
        let is_due = steps.awaited.as_ref().is_some_and(|(count, _)| *count <= steps.done);
        if is_due { steps.awaited.take().map(|(_, reached)| reached) } else { None }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scheduler {
    pub(crate) fn new(chance: Chance) -> Self {
        let state = State {
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            next: 0,
            current: 0,
            chance,
            steps: None,
            outer: None,
        };
        Self(Arc::new(Inner(Mutex::new(state))))
    }

    /// Starts a task on a machine.
    pub(crate) fn spawn(&self, machine: Machine, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(machine, Box::pin(work));
    }

    fn spawn_boxed(&self, machine: Machine, work: BoxFuture<'static, ()>) {
        let mut state = self.0.state();
        let id = state.next;
        state.next += 1;
        let waker = Waker::from(Arc::new(TaskWaker { id, scheduler: Arc::downgrade(&self.0) }));
        state.tasks.insert(id, Task { machine, future: Some(work), waker });
        state.ready.insert(id);
    }

    /// Does work on another machine; an error says that the machine ended meanwhile.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        machine: Machine,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.spawn(machine, async move {
            let _hung_up = answer.send(work.await);
        });
        answered
    }

    /// Counts the steps of a machine from now on; the answer comes right after so many of them.
    pub(crate) fn after_steps(&self, machine: Machine, count: u64) -> oneshot::Receiver<()> {
        let (reached, answer) = oneshot::channel();
        self.0.state().steps = Some(Steps { machine, done: 0, awaited: Some((count, reached)) });
        answer
    }

    /// How many steps the machine made that is counted.
    pub(crate) fn steps(&self) -> u64 {
        self.0.state().steps.as_ref().map_or(0, |steps| steps.done)
    }

    /// Ends all tasks of a machine; not from one of its own.
    pub(crate) fn kill(&self, machine: Machine) {
        let mut state = self.0.state();
        assert_ne!(state.current, machine, "a machine cannot end itself");
        let ids: Vec<u64> = state.tasks.iter().filter(|(_, task)| task.machine == machine).map(|(id, _)| *id).collect();
        let ended: Vec<Option<Task>> = ids.iter().map(|id| state.tasks.remove(id)).collect();
        state.ready.retain(|id| !ids.contains(id));
        drop(state);
        // Without the lock: what they hold wakes others while it is dropped.
        drop(ended);
    }

    /// Ends all tasks of all machines.
    pub(crate) fn clear(&self) {
        let mut state = self.0.state();
        let ended = std::mem::take(&mut state.tasks);
        state.ready.clear();
        drop(state);
        drop(ended);
    }

    /// Runs `main` on a machine, and all other tasks until it has ended.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        machine: Machine,
        main: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut ended = self.call(machine, main);
        let running = poll_fn(|context| {
            for _ in 0..POLLS_AT_ONCE_MAX {
                match ended.try_recv() {
                    Ok(ended) => return Poll::Ready(ended),
                    Err(TryRecvError::Closed) => panic!("the machine that runs the simulation was ended"),
                    Err(TryRecvError::Empty) => {}
                }
                if !self.poll_one() {
                    self.0.state().outer = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
            panic!("the tasks wake each other without end");
        });
        // tokio's budget is for one task among others: here one poll is a whole moment of all of them.
        tokio::task::unconstrained(running).await
    }

    /// Polls the task that the seed picks; false where none can go on.
    fn poll_one(&self) -> bool {
        let mut state = self.0.state();
        let count = state.ready.len() as u64;
        if count == 0 {
            return false;
        }
        let place = state.chance.below(count) as usize;
        let id = *state.ready.iter().nth(place).expect("within the set");
        state.ready.remove(&id);
        let Some(task) = state.tasks.get_mut(&id) else { return true };
        let (machine, waker) = (task.machine, task.waker.clone());
        let mut future = task.future.take().expect("polled one at a time");
        state.current = machine;
        drop(state);

        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.0.state();
        state.current = usize::MAX;
        let reached = state.count_step(machine);
        let left = match polled {
            Poll::Ready(()) => {
                let ended = state.tasks.remove(&id);
                state.ready.remove(&id);
                (Some(future), ended)
            }
            Poll::Pending => match state.tasks.get_mut(&id) {
                Some(task) => {
                    task.future = Some(future);
                    (None, None)
                }
                None => (Some(future), None),
            },
        };
        drop(state);
        drop(left);
        if let Some(reached) = reached {
            let _nobody_waits = reached.send(());
        }
        true
    }
}

/// What stands in for this thread's machine while a scheduler runs.
pub(crate) struct SimulatedThread {
    pub(crate) scheduler: Scheduler,
    pub(crate) chance: Chance,
}

impl Thread for SimulatedThread {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.chance.fill(bytes);
    }

    fn detach(&mut self, work: BoxFuture<'static, ()>) {
        let machine = self.scheduler.0.state().current;
        self.scheduler.spawn_boxed(machine, work);
    }
}
