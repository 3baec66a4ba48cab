//! What goes wrong: the network, the machines, the disks, the clocks; and then everything heals.

use std::time::Duration;

use crate::chance::Chance;
use crate::clients::LOAD_MILLISECONDS;
use crate::clock::{HOUR, TEN_YEARS};
use crate::forum::STATES;
use crate::world::{WORLD, World};
use concord_journal::Journal as _;
use concord_server::Clock as _;
use concord_wire::stored::node::{NodeEntry, read};
use tokio::time::{Instant, sleep};

/// Does harm for as long as the load lasts, and then lets everything heal.
pub(crate) async fn rage(world: &World) {
    let mut chance = Chance::of(world.seed, 400);
    let end = Instant::now() + Duration::from_millis(LOAD_MILLISECONDS);
    if chance.one_in(4) {
        world.spawn(WORLD, put_the_hub_back(world.clone(), Chance::of(world.seed, 401)));
    }
    // Some worlds are calm: most of what goes wrong then is what two things do to each other.
    let pause_max = *chance.pick(&[2_000, 5_000, 15_000]);
    while Instant::now() < end {
        sleep(Duration::from_millis(chance.within(100..pause_max))).await;
        strike(world, &mut chance);
    }
    heal(world, &mut chance).await;
}

fn strike(world: &World, chance: &mut Chance) {
    let node = chance.below(STATES.len() as u64) as usize;
    match chance.below(13) {
        0..=2 => {
            let (up, down) = *chance.pick(&[(true, true), (true, false), (false, true)]);
            let seconds = *chance.pick(&[1, 5, 20, 50]);
            world.trace.line(format_args!("node {node} is cut off for {seconds} s: up {up}, down {down}"));
            world.network.block(node, up, down);
            let network = world.network.clone();
            world.spawn(WORLD, async move {
                sleep(Duration::from_secs(seconds)).await;
                network.unblock(node);
            });
        }
        3 | 4 => world.network.lose_all(node, None, None),
        5 => {
            let delay = *chance.pick(&[20, 200, 3_000]);
            world.trace.line(format_args!("node {node}: messages take up to {delay} ms"));
            world.network.set_delay(node, delay);
        }
        6 | 7 => restart_node(world, node, chance),
        8 => restart_hub(world, chance),
        9 => fill_disk(world, chance),
        10 | 11 => damage(world, chance),
        _ => jump(world, chance),
    }
}

fn restart_node(world: &World, node: usize, chance: &mut Chance) {
    if world.nodes[node].running().is_none() {
        return;
    }
    let down = chance.within(50..8_000);
    world.nodes[node].kill();
    world.network.lose_all(node, Some(0), None);
    let world = world.clone();
    world.clone().spawn(WORLD, async move {
        sleep(Duration::from_millis(down)).await;
        let node = &world.nodes[node];
        let crash = node.disk.crash(node.clock.now().as_micros());
        world.trace.line(format_args!("node {} starts again: {crash:?}", node.number));
        node.start();
    });
}

fn restart_hub(world: &World, chance: &mut Chance) {
    if !world.hub.is_up() {
        return;
    }
    let down = chance.within(50..8_000);
    world.hub.kill();
    (0..STATES.len()).for_each(|node| world.network.lose_all(node, None, Some(0)));
    let world = world.clone();
    world.clone().spawn(WORLD, async move {
        sleep(Duration::from_millis(down)).await;
        let crash = world.hub.disk.crash(world.hub.clock.now().as_micros());
        world.trace.line(format_args!("the hub starts again: {crash:?}"));
        world.hub.start();
    });
}

/// The hub's journal is copied, and later that copy is put in its place: what came between is forgotten, and nobody is told.
async fn put_the_hub_back(world: World, mut chance: Chance) {
    sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / 2))).await;
    let copy = world.hub.disk.durable().fork();
    sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / 2))).await;
    while !world.hub.is_up() {
        sleep(Duration::from_millis(100)).await;
    }
    world.hub.kill();
    (0..STATES.len()).for_each(|node| world.network.lose_all(node, None, Some(0)));
    sleep(Duration::from_millis(chance.within(50..8_000))).await;
    world.hub.disk.crash(world.hub.clock.now().as_micros());
    let (kept, had) = (copy.tail().sequence, world.hub.disk.durable().tail().sequence);
    world.trace.line(format_args!("the hub is put back from an older copy: {kept} of {had} entries"));
    world.hub.disk.put_back(copy);
    world.log().hub_put_back = true;
    world.hub.start();
}

/// A disk has no room for a while.
fn fill_disk(world: &World, chance: &mut Chance) {
    let whose = chance.below(STATES.len() as u64 + 1) as usize;
    let disk = world.nodes.get(whose).map_or(&world.hub.disk, |node| &node.disk).clone();
    let seconds = chance.within(1..15);
    world.trace.line(format_args!("disk {whose} is full for {seconds} s"));
    disk.set_full(true);
    world.spawn(WORLD, async move {
        sleep(Duration::from_secs(seconds)).await;
        disk.set_full(false);
    });
}

/// A disk does not give back bodies that it took: what the hub recorded, or what a node received. Their origin has them still.
fn damage(world: &World, chance: &mut Chance) {
    let whose = chance.below(2 * STATES.len() as u64) as usize;
    let damaged = match world.nodes.get(whose) {
        None => world.hub.disk.damage(chance, |_| true),
        Some(node) => node.disk.damage(chance, |entry| matches!(read(entry), Ok(NodeEntry::Mail { .. }))),
    };
    if let Some(sequence) = damaged {
        world.trace.line(format_args!("disk {whose}: the bodies of entry {sequence} are damaged"));
    }
}

fn jump(world: &World, chance: &mut Chance) {
    let micros = *chance.pick(&[0, HOUR, -HOUR, TEN_YEARS, -TEN_YEARS]);
    let whose = chance.below(STATES.len() as u64 + 1) as usize;
    let clock = world.nodes.get(whose).map_or(&world.hub.clock, |node| &node.clock);
    world.trace.line(format_args!("clock {whose} is wrong by {} h", micros / HOUR));
    clock.set_wrong_by(micros);
}

/// The network is as it should be, and all machines run again; clocks are set right, or stay wrong by an hour.
async fn heal(world: &World, chance: &mut Chance) {
    for node in 0..STATES.len() {
        world.network.unblock(node);
        world.network.set_delay(node, 20);
    }
    let stay_wrong = chance.one_in(2);
    for clock in world.nodes.iter().map(|node| &node.clock).chain([&world.hub.clock]) {
        // Years: no certificate is valid there, and nothing can go on before somebody sets it.
        if !stay_wrong || clock.wrong_by().abs() > HOUR {
            clock.set_wrong_by(0);
        }
    }
    // Whoever is down is on its way up, and whoever was cut off is let through at the latest now.
    sleep(Duration::from_secs(60)).await;
    assert!(world.hub.is_up() && world.nodes.iter().all(|node| node.running().is_some()));
    world.log().healed = true;
    world.trace.line(format_args!("everything is healed"));
}
