//! Power cuts of one machine or several: everything that runs on it is gone at once, and so is what it had not synced.

use std::fs;

use super::{Mounted, Platter};
use crate::battery::Chance;
use crate::process::Process;
use crate::stage::{Place, Stage, come_to_rest, judge};

/// A forum whose machines lose their power.
pub struct Outage {
    machines: Vec<Machine>,
    stage: Stage,
    chance: Chance,
}

/// The hub or a node, with its disk. Dropped in this order.
struct Machine {
    process: Option<Process>,
    disk: Option<Mounted>,
    place: Place,
}

impl Outage {
    /// Everybody runs, each on a disk of its own.
    pub fn begin(seed: u64) -> Self {
        let stage = Stage::set(seed);
        let machine = |place: &Place| {
            let disk = Mounted::mount(Platter::load(&place.dir).unwrap(), &place.dir).unwrap();
            Machine { process: None, disk: Some(disk), place: place.clone() }
        };
        let mut outage = Self { machines: stage.places.iter().map(machine).collect(), stage, chance: Chance::of(seed) };
        outage.revive();
        outage
    }

    /// Lets agencies get some more receipts, then cuts one machine or all of them, and starts what was cut.
    pub fn cut(&mut self) {
        const RECEIPTS_BETWEEN_MAX: u64 = 40;
        let receipts = self.stage.sent() + 1 + self.chance.below(RECEIPTS_BETWEEN_MAX) as usize;
        let came = |records: &crate::witness::Records| {
            let missing = receipts.saturating_sub(records.sent.len());
            if missing == 0 { Vec::new() } else { vec![format!("{missing} receipts")] }
        };
        let waited = self.stage.witness.wait(crate::command::DEADLINE, came);
        waited.unwrap_or_else(|missing| panic!("agencies still wait for {missing:?}"));
        let count = self.machines.len() as u64;
        let which = self.chance.below(count + 1);
        let hit = |place: u64| which == count || which == place;
        let mut left = Vec::new();
        for (place, machine) in (0..).zip(&mut self.machines) {
            if hit(place) {
                left.push((place, machine.cut(&mut self.chance)));
            }
        }
        for (place, platter) in left {
            self.machines[place as usize].restore(platter);
        }
        self.revive();
    }

    /// Everything is answered and delivered; then every process ends at once, and the journals are judged.
    pub fn judge(&mut self) {
        let machines = &mut self.machines;
        let places = self.stage.places.clone();
        self.stage.drained(|witness| {
            come_to_rest(&places, |_| false);
            for machine in machines.iter_mut() {
                machine.assert_running();
                drop(machine.process.take().expect("it runs").kill());
            }
            judge(witness, &places);
        });
        self.revive();
    }

    /// How many exchanges were sent so far.
    pub fn sent(&self) -> usize {
        self.stage.sent()
    }

    /// Starts whoever is dead, and waits until each of them serves: one that does not start has lost more than it may.
    fn revive(&mut self) {
        let mut started = Vec::new();
        for machine in self.machines.iter_mut().filter(|machine| machine.process.is_none()) {
            machine.process = Some(Process::start(&machine.place.log, machine.place.words()));
            started.push(machine);
        }
        for machine in started {
            machine.process.as_ref().expect("it was started").line_after("admin ");
        }
    }
}

impl Machine {
    /// The power goes: what is found afterwards is decided at this moment, and the process ends without another word.
    fn cut(&mut self, chance: &mut Chance) -> Platter {
        self.assert_running();
        let left = self.disk.as_ref().expect("it has a disk").cut(chance);
        drop(self.process.take().expect("it runs").kill());
        self.disk.take().expect("it has a disk").unmount();
        left
    }

    /// Nobody else ends it.
    fn assert_running(&mut self) {
        let ended = self.process.as_mut().expect("it was started").ended();
        assert!(ended.is_none(), "{} ended by itself with {ended:?}", self.place.name);
    }

    fn restore(&mut self, platter: Platter) {
        assert!(fs::metadata(&self.place.dir).unwrap().is_dir());
        self.disk = Some(Mounted::mount(platter, &self.place.dir).unwrap());
    }
}
