//! A deterministic simulation at message level: the real sequencer, delivery, uplink, downlink, writers and ledger of a hub and
//! five nodes on one thread, in simulated time, over a network, disks and clocks that fail by a seed.
//!
//! Every task, every byte of randomness and every fault follow from the seed, so that the same seed makes the same trace.
//!
//! `real_stack` puts the same parties on a simulated network with everything between them that is real, and is not so strict.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on fails its test")]

mod apart;
mod chance;
mod chaos;
mod clients;
mod clock;
mod disk;
mod forum;
mod hub;
mod judge;
mod link;
mod log;
mod network;
mod node;
mod plain;
mod races;
mod real_stack;
mod scheduler;
mod tap;
mod trace;
mod trimmed;
mod withdraw;
mod world;

use concord_tests::battery::{Budget, report};
use disk::Disk;
use world::{AGREED, Played, play};

/// Plays one seed: load and faults, then healing, then the judgement.
fn played(seed: u64) -> Played {
    let ((trims, mended, exchanges), trace) = play(&AGREED, seed, |world| async move {
        world.start();
        clients::start(&world);
        chaos::rage(&world).await;
        world.drained().await;
        let trims = trimmed::judge(seed, &world.parties());
        let disks = world.nodes.iter().map(|node| &node.disk).chain([&world.hub.disk]);
        (trims, disks.map(Disk::mended).sum(), judge::judge(&world.parties(), &world.log()))
    });
    Played { hash: trace.hash(), lines: trace.lines(), exchanges, trims, mended }
}

#[test]
fn the_same_seed_makes_the_same_trace() {
    let once = [1, 2, 3].map(played);
    let again = [1, 2, 3].map(played);
    assert_eq!(once, again);
    assert_ne!(once[0].hash, once[1].hash);
    assert_ne!(once[1].hash, once[2].hash);
}

#[test]
fn nothing_acknowledged_is_lost_whatever_network_disks_and_clocks_do() {
    let budget = Budget::bounded(300, 60).by_seed(1);
    let first = budget.seed;
    let (mut done, mut exchanges, mut lines, mut trims, mut mended) = (0, 0, 0, 0, 0);
    while !budget.is_over(done) {
        let played = played(first + done);
        done += 1;
        exchanges += played.exchanges;
        lines += played.lines;
        trims += played.trims;
        mended += played.mended;
    }
    let per_second = done as f64 / budget.elapsed().as_secs_f64();
    budget.reached(done, "seeds");
    assert!(done < 100 || mended > 0, "in {done} seeds nothing was mended");
    assert!(trims >= done, "{done} seeds made only {trims} trims");
    report(&format!(
        "simulation: {done} seeds from {first}, {exchanges} exchanges, {lines} events, {trims} trims, {mended} bodies mended, {per_second:.0} seeds/s"
    ));
}
