//! Hub and nodes under load that die at named points, come back, die again while they come back, and are judged.

mod arms;
mod keeping;
mod officers;
mod server;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::battery::Chance;
use crate::command::DEADLINE;
use crate::stage::{CODES, MEASURE, Place, Stage, come_to_rest, judge};
use arms::{choose, is_at_the_end, next_after, prepare};
use keeping::Keeping;
use officers::{Chamber, Officers};
use server::{End, Event, Running, Signalled};

pub use arms::{Arm, NOT_PASSED, Tally};

/// Processes that are armed at a time: the others are there to talk to.
const ARMED_MAX: usize = 2;
/// An armed process that lived so long after it served is given up.
const PASSED_WITHIN: Duration = Duration::from_millis(2_500);
/// The same for what officers have to bring about.
const PASSED_BY_OFFICERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a process serves before it is asked to end, where it is to die of that.
const SERVED_BEFORE_END: Duration = Duration::from_millis(120);

/// A forum whose processes are killed.
pub struct Killing {
    // They end first: they say things to the others.
    officers: Officers,
    keeping: Keeping,
    servers: Vec<Server>,
    stage: Stage,
    events: Receiver<Event>,
    tell: Sender<Event>,
    chance: Chance,
    /// What happened so far.
    pub tally: Tally,
    turn: usize,
}

/// The hub, which is the first, or a node.
struct Server {
    place: Place,
    running: Option<Running>,
    starts: u64,
}

impl Killing {
    /// A hub and three nodes under load, nobody dead yet; what was tallied before goes on.
    pub fn begin(seed: u64, tally: Tally) -> Self {
        let stage = Stage::set(seed);
        let officers = Officers::start(Chamber {
            parties: stage.officers(),
            measure: MEASURE.to_owned(),
            witness: Arc::clone(&stage.witness),
            passing: Arc::clone(&stage.load.passing),
            saying: Arc::default(),
        });
        stage.witness.note(|records| records.bodies_may_go = true);
        let keeping = Keeping::start(stage.places.clone());
        let servers = stage.places.iter().map(|place| Server { place: place.clone(), running: None, starts: 0 });
        let servers = servers.collect();
        let (tell, events) = channel();
        let chance = Chance::of(seed);
        let mut killing = Self { officers, keeping, servers, stage, events, tell, chance, tally, turn: 0 };
        killing.revive();
        killing
    }

    /// Goes on until so many more processes have died at their points, or the time is over.
    pub fn kill(&mut self, deaths: u64, until: Instant) {
        let goal = self.tally.deaths() + deaths;
        while self.tally.deaths() < goal && Instant::now() < until {
            if self.officers.gave_up() {
                self.officers.stop();
            }
            if self.keeping.gave_up() {
                self.keeping.stop();
            }
            self.arm_somebody();
            let wait = self.servers.iter().filter_map(|server| server.running.as_ref()?.deadline()).min();
            let wait = wait.map_or(PASSED_WITHIN, |at| at.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(wait) {
                Ok(event) => self.take(&event),
                Err(RecvTimeoutError::Timeout) => self.give_up(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("this side keeps a sender"),
            }
        }
    }

    /// Lets everything be answered and delivered, ends every process at once, and judges.
    pub fn judge(&mut self) {
        self.disarm();
        let servers = &mut self.servers;
        let places = self.stage.places.clone();
        let officers = &self.officers;
        self.stage.drained(|witness| {
            let silent = officers.silence();
            come_to_rest(&places, is_brought_by_officers);
            for server in servers.iter_mut() {
                let running = server.running.take().expect("it runs");
                running.kill_alive(&server.place.name);
            }
            judge(witness, &places);
            drop(silent);
        });
        self.revive();
    }

    /// How many exchanges were sent so far.
    pub fn sent(&self) -> usize {
        self.stage.sent()
    }

    /// Ends the load; the last judgement was before.
    pub fn end(mut self) -> Tally {
        self.officers.stop();
        self.keeping.stop();
        let (exchanges, segments) = self.keeping.taken();
        self.tally.bodies_taken += exchanges;
        self.tally.segments_taken += segments;
        std::mem::take(&mut self.tally)
    }

    /// Starts whoever is dead, unarmed.
    fn revive(&mut self) {
        for who in 0..self.servers.len() {
            if self.servers[who].running.is_none() {
                self.start(who, None);
            }
        }
    }

    /// Everybody runs, nobody armed.
    fn disarm(&mut self) {
        for who in 0..self.servers.len() {
            if self.servers[who].running.as_ref().is_some_and(|running| running.arm.is_some()) {
                self.end_from_outside(who);
            }
        }
        self.revive();
    }

    /// The hub and a node in turns, until enough are armed.
    fn arm_somebody(&mut self) {
        while self.servers.iter().filter(|server| server.is_armed()).count() < ARMED_MAX {
            // Hub, node, hub, another node.
            let who = if self.turn.is_multiple_of(2) { 0 } else { 1 + self.turn / 2 % CODES.len() };
            self.turn += 1;
            if self.servers[who].is_armed() {
                continue;
            }
            self.end_from_outside(who);
            self.tally.unforeseen += 1;
            let arm = choose(who == 0, false, &self.tally, &mut self.chance);
            self.start(who, Some(arm));
        }
    }

    fn take(&mut self, event: &Event) {
        let server = &mut self.servers[event.who];
        let is_current = server.starts == event.start;
        match (&event.end, server.running.as_mut()) {
            (_, None) => {}
            _ if !is_current => {}
            (None, Some(running)) => running.serves(),
            (Some(End), Some(_)) => self.ended(event.who),
        }
    }

    /// A process is gone: at its point, or as it was asked to; anything else is a fault.
    fn ended(&mut self, who: usize) {
        let Some(running) = self.servers[who].running.take() else { return };
        let arm = running.arm;
        match (running.wait(), arm) {
            (Signalled::Killed, Some(arm)) => *self.tally.died.entry(arm.point).or_default() += 1,
            (Signalled::No(Some(0)), Some(arm)) if is_at_the_end(arm.point) => self.missed(arm),
            (how, arm) => panic!("{} ended with {how:?}, armed with {arm:?}", self.servers[who].place.name),
        }
        let again = self.chance.one_in(2);
        let finishing = arm.and_then(|arm| next_after(arm.point));
        let arm = again.then(|| finishing.unwrap_or_else(|| choose(who == 0, true, &self.tally, &mut self.chance)));
        self.start(who, arm);
    }

    /// Whoever was to die of its end is asked to end; whoever did not pass its point in time is ended and started again.
    fn give_up(&mut self) {
        let now = Instant::now();
        for who in 0..self.servers.len() {
            let Some(running) = &mut self.servers[who].running else { continue };
            let Some(arm) = running.arm else { continue };
            if running.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            if is_at_the_end(arm.point) && !running.was_asked_to_end() {
                running.ask_to_end(now + DEADLINE);
                continue;
            }
            self.missed(arm);
            self.end_from_outside(who);
            self.tally.unforeseen += 1;
            self.start(who, None);
        }
    }

    fn missed(&mut self, arm: Arm) {
        *self.tally.missed.entry(arm.point).or_default() += 1;
    }

    fn end_from_outside(&mut self, who: usize) {
        if let Some(running) = self.servers[who].running.take() {
            running.kill();
        }
    }

    fn start(&mut self, who: usize, arm: Option<Arm>) {
        let server = &mut self.servers[who];
        if let Some(arm) = arm
            && prepare(arm.point, &server.place.dir, &mut self.chance)
        {
            self.tally.torn += 1;
        }
        server.starts += 1;
        server.running =
            Some(Running::start(&server.place.log, server.place.words(), arm, who, server.starts, &self.tell));
    }
}

/// What stands as a note because officers leave, and say again what may have been heard: their words are judged at the hub.
fn is_brought_by_officers(alarm: &str) -> bool {
    // As it is told when it comes, and counted later; where anything else waits too, that is a fault.
    let of_leavers = ["was set aside: NOT_A_MEMBER;", "did not verify (NOT_A_MEMBER) wait"];
    let is_aside = alarm.starts_with("set-aside: ") && of_leavers.iter().any(|told| alarm.contains(told));
    alarm.starts_with("statement-refused: ") || is_aside
}

impl Server {
    fn is_armed(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.arm.is_some())
    }
}
