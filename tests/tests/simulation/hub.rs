//! The hub's machine: the real sequencer, projection and entry points over a simulated disk and clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_hub::damaged::Damaged;
use concord_hub::feeds::FeedsShown;
use concord_hub::fencing::RunsSeen;
use concord_hub::fleet::Fleet;
use concord_hub::follow::follow;
use concord_hub::lapses::keep_lapsing;
use concord_hub::losses::Losses;
use concord_hub::probes::Probes;
use concord_hub::projection::HubProjection;
use concord_hub::sequencer::SequencerTask;
use concord_hub::shared::{Shared, anchors_of};
use concord_hub::streams::Streams;
use concord_identity::Anchors;
use concord_journal::Journal;
use concord_ledger::{At, Ledger, Quorum};
use concord_model::Timestamp;
use concord_server::audit::Audit;
use concord_server::{Clock, DiskRoom, Quotas, Readiness, Shares, Shutdown};
use concord_views::{Projection as _, Views};
use concord_wire::stored::hub::read;
use futures::future::BoxFuture;

use crate::clock::WallClock;
use crate::disk::Disk;
use crate::forum::{Member, name};
use crate::scheduler::{Machine, Scheduler};

const ENTRIES_READ_AT_ONCE: usize = 256;

pub(crate) struct Hub {
    machine: Machine,
    scheduler: Scheduler,
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<WallClock>,
    secretariat: Arc<Member>,
    running: Mutex<Option<Arc<Shared>>>,
}

impl Hub {
    pub(crate) fn new(machine: Machine, scheduler: Scheduler, disk: Disk, secretariat: Arc<Member>) -> Self {
        let clock = Arc::new(WallClock::new());
        Self { machine, scheduler, disk, clock, secretariat, running: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state().is_some()
    }

    /// What its services hold, while it runs.
    pub(crate) fn running(&self) -> Option<(Machine, Arc<Shared>)> {
        self.state().clone().map(|shared| (self.machine, shared))
    }

    /// Everything that it had in memory is gone.
    pub(crate) fn kill(&self) {
        let ended = self.state().take();
        self.scheduler.kill(self.machine);
        drop(ended);
    }

    /// Opens what the disk has, as the process does when it starts.
    pub(crate) fn start(&self) {
        let (shared, tasks) = open(&self.disk, Arc::clone(&self.clock) as Arc<dyn Clock>, &self.secretariat);
        for task in tasks {
            self.scheduler.spawn(self.machine, task);
        }
        *self.state() = Some(shared);
    }
}

/// Opens what a disk has: what the services hold, and the tasks that run beside them.
pub(crate) fn open(
    disk: &Disk,
    clock: Arc<dyn Clock>,
    secretariat: &Member,
) -> (Arc<Shared>, Vec<BoxFuture<'static, ()>>) {
    let journal: Arc<dyn Journal> = Arc::new(disk.clone());
    let ledger = fold(journal.as_ref());
    let views = Views::in_memory(HubProjection.version());
    views.catch_up(journal.as_ref(), &mut HubProjection, journal.tail(), |_| {}).unwrap();
    let anchors = Anchors::none();
    anchors.replace(anchors_of(&ledger));
    let (task, sequencer) = SequencerTask::new(Arc::clone(&journal), Arc::clone(&clock), name("main"), ledger);
    let shared = Arc::new(Shared {
        hub: name("main"),
        sequencer: sequencer.clone(),
        journal: Arc::clone(&journal),
        views: views.clone(),
        signing_keys: Arc::new(concord_identity::SigningKeys::only(secretariat.signing_key())),
        anchors,
        clock,
        streams: Streams::default(),
        feeds: FeedsShown::default(),
        readiness: Readiness::new(),
        runs: RunsSeen::default(),
        fleet: Fleet::default(),
        probes: Probes::default(),
        losses: Losses::default(),
        node_clocks: concord_hub::node_clocks::NodeClocks::default(),
        damaged: Damaged::default(),
        audit: Audit::off(),
        room: DiskRoom::default(),
        shares: Shares::new(Quotas::default()),
        shutdown: Shutdown::new(),
        announce: Vec::new(),
        quorum: Quorum::ONE,
        refreshing: Mutex::default(),
    });
    let sequencing = async move { task.run().await.expect("the disk takes every commit") };
    let following = follow(views, journal, sequencer.watch(), sequencer.recent());
    let following = async move { following.await.expect("the views follow") };
    let lapsing = keep_lapsing(Arc::downgrade(&shared));
    (shared, vec![Box::pin(sequencing), Box::pin(following), Box::pin(lapsing)])
}

/// The ledger of all facts of a journal.
pub(crate) fn fold(journal: &dyn Journal) -> Ledger {
    let mut ledger = Ledger::default();
    let mut next = journal.first_sequence();
    loop {
        let entries = journal.read(next, ENTRIES_READ_AT_ONCE).unwrap();
        let Some(last) = entries.last() else { return ledger };
        next = last.sequence + 1;
        for entry in &entries {
            let at = At { sequence: entry.sequence, now: Timestamp::from_micros(entry.recorded_at) };
            ledger.apply(&read(entry).unwrap().into_fact(), at);
        }
    }
}
