//! What goes wrong: links are cut, also one way, hold what is on its way, lose it, or are slow; processes are killed, their machines lose
//! power, or they end in order; and then everything heals.

use std::time::Duration;

use turmoil::Sim;

use super::Stack;
use super::agencies::AGENCIES_HOST;
use super::machines::HUB_HOST;
use super::{LATENCY_MAX, LATENCY_MIN};
use crate::chance::Chance;
use crate::forum::STATES;

/// Of all that is sent over a link that loses something: each loss breaks every connection on it, and neither side is told.
const LOSS_RATE: f64 = 0.02;

/// A node's link to another host.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link {
    node: &'static str,
    other: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    Mend(Link),
    Start(&'static str),
}

pub(super) struct Faults<'a> {
    stack: &'a Stack,
    chance: Chance,
    next: Duration,
    pause_max: u64,
    /// What will be as it should again, and when.
    undo: Vec<(Duration, Undo)>,
    count: u64,
}

impl<'a> Faults<'a> {
    pub(super) fn new(stack: &'a Stack) -> Self {
        let mut chance = Chance::of(stack.seed, 400);
        // Some worlds are calm: most of what goes wrong then is what two things do to each other.
        let pause_max = *chance.pick(&[1_000, 3_000, 10_000]);
        Self { stack, chance, next: Duration::from_secs(1), pause_max, undo: Vec::new(), count: 0 }
    }

    /// How often something went wrong.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Undoes what is due, and does the next harm where its time has come.
    pub(super) fn go_on(&mut self, simulation: &mut Sim<'_>) {
        let now = simulation.elapsed();
        let due: Vec<Undo> = self.undo.extract_if(.., |(at, _)| *at <= now).map(|(_, undo)| undo).collect();
        due.into_iter().for_each(|undo| self.undo(simulation, undo));
        if self.next <= now {
            self.next = now + Duration::from_millis(self.chance.within(100..self.pause_max));
            self.strike(simulation);
        }
    }

    /// Everything is as it should be.
    pub(super) fn heal(&mut self, simulation: &mut Sim<'_>) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo(simulation, undo);
        }
        self.stack.tell(format_args!("everything is healed"));
    }

    fn undo(&self, simulation: &mut Sim<'_>, undo: Undo) {
        match undo {
            Undo::Mend(Link { node, other }) => {
                simulation.release(node, other);
                simulation.set_link_fail_rate(node, other, 0.0);
                simulation.set_link_latency(node, other, LATENCY_MIN);
                simulation.set_link_max_message_latency(node, other, LATENCY_MAX);
            }
            Undo::Start(host) => {
                self.stack.tell(format_args!("{host} starts again"));
                self.stack.process(host).forget();
                simulation.bounce(host);
            }
        }
    }

    fn strike(&mut self, simulation: &mut Sim<'_>) {
        let node = *self.chance.pick(&STATES);
        match self.chance.below(10) {
            kind @ 0..=6 => {
                let other = if self.chance.one_in(3) { AGENCIES_HOST } else { HUB_HOST };
                self.harm(simulation, Link { node, other }, kind);
            }
            7 => self.end(simulation, node),
            8 => self.end(simulation, HUB_HOST),
            _ => {
                let host = if self.chance.one_in(2) { node } else { HUB_HOST };
                self.end_in_order(simulation, host);
            }
        }
    }

    fn harm(&mut self, simulation: &mut Sim<'_>, link: Link, kind: u64) {
        if self.undo.iter().any(|(_, undo)| *undo == Undo::Mend(link)) {
            return;
        }
        let Link { node, other } = link;
        let how = match kind {
            0 | 1 => {
                simulation.partition(node, other);
                "is cut"
            }
            2 => {
                simulation.partition_oneway(node, other);
                "is cut from the node on"
            }
            3 => {
                simulation.partition_oneway(other, node);
                "is cut towards the node"
            }
            4 => {
                simulation.hold(node, other);
                "holds everything"
            }
            5 => {
                simulation.set_link_fail_rate(node, other, LOSS_RATE);
                "loses something"
            }
            _ => {
                let most = Duration::from_millis(*self.chance.pick(&[100, 500, 2_000]));
                simulation.set_link_max_message_latency(node, other, most);
                "is slow"
            }
        };
        let seconds = *self.chance.pick(&[1, 5, 20, 35]);
        self.did(format_args!("the link of {node} and {other} {how} for {seconds} s"));
        self.later(simulation, Duration::from_secs(seconds), Undo::Mend(link));
    }

    /// A process is killed; or its machine loses power, and no peer hears of it.
    fn end(&mut self, simulation: &mut Sim<'_>, host: &'static str) {
        if self.is_ending(host) {
            return;
        }
        let down = Duration::from_millis(self.chance.within(50..8_000));
        let power = self.chance.one_in(2);
        if power {
            for link in links_of(host) {
                simulation.partition(link.node, link.other);
                self.later(simulation, down, Undo::Mend(link));
            }
        }
        let how = if power { "has no power" } else { "is killed" };
        self.did(format_args!("{host} {how}, for {} ms", down.as_millis()));
        simulation.crash(host);
        self.stack.process(host).forget();
        self.later(simulation, down, Undo::Start(host));
    }

    /// A process is asked to end; it may still drain when it is started again, and is killed then.
    fn end_in_order(&mut self, simulation: &mut Sim<'_>, host: &'static str) {
        if self.is_ending(host) {
            return;
        }
        let down = Duration::from_millis(self.chance.within(1_000..20_000));
        self.did(format_args!("{host} is asked to end, and is started after {} ms", down.as_millis()));
        self.stack.process(host).request_end();
        self.later(simulation, down, Undo::Start(host));
    }

    fn is_ending(&self, host: &'static str) -> bool {
        self.undo.iter().any(|(_, undo)| *undo == Undo::Start(host))
    }

    fn did(&mut self, what: std::fmt::Arguments<'_>) {
        self.count += 1;
        self.stack.tell(what);
    }

    fn later(&mut self, simulation: &Sim<'_>, after: Duration, undo: Undo) {
        self.undo.push((simulation.elapsed() + after, undo));
    }
}

fn links_of(host: &'static str) -> Vec<Link> {
    match host {
        HUB_HOST => STATES.iter().map(|node| Link { node, other: HUB_HOST }).collect(),
        node => [HUB_HOST, AGENCIES_HOST].map(|other| Link { node, other }).into(),
    }
}
