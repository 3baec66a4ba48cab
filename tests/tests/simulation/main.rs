//! A deterministic simulation at message level: the real sequencer, delivery, uplink, downlink, writers and ledger of a hub and
//! five nodes on one thread, in simulated time, over a network, disks and clocks that fail by a seed.
//!
//! Every task, every byte of randomness and every fault follow from the seed, so that the same seed makes the same trace.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on fails its test")]

mod chance;
mod chaos;
mod clients;
mod clock;
mod disk;
mod forum;
mod hub;
mod judge;
mod link;
mod network;
mod node;
mod scheduler;
mod trace;
mod world;

use std::time::{Duration, Instant};

use world::{AGREED, Played, play};

/// Plays one seed: load and faults, then healing, then the judgement.
fn played(seed: u64) -> Played {
    let (exchanges, trace) = play(&AGREED, seed, |world| async move {
        world.start();
        clients::start(&world);
        chaos::rage(&world).await;
        judge::drained(&world).await;
        judge::judge(&world)
    });
    Played { hash: trace.hash(), lines: trace.lines(), exchanges }
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
    let number = |variable| std::env::var(variable).ok().map(|text: String| text.parse::<u64>().unwrap());
    let first = number("CONCORD_BATTERY_SEED").unwrap_or(1);
    let (least, seconds) = (number("CONCORD_BATTERY_COUNT"), number("CONCORD_BATTERY_SECONDS"));
    let began = Instant::now();
    let (mut done, mut exchanges, mut lines) = (0, 0, 0);
    loop {
        let is_over = match (least, seconds) {
            (Some(count), seconds) => {
                let in_time = seconds.is_none_or(|seconds| began.elapsed() < Duration::from_secs(seconds));
                done >= count || (done > 0 && !in_time)
            }
            (None, seconds) => done >= 300 || began.elapsed() >= Duration::from_secs(seconds.unwrap_or(60)),
        };
        if is_over {
            break;
        }
        let played = played(first + done);
        done += 1;
        exchanges += played.exchanges;
        lines += played.lines;
    }
    let per_second = done as f64 / began.elapsed().as_secs_f64();
    println!("simulation: {done} seeds from {first}, {exchanges} exchanges, {lines} events, {per_second:.0} seeds/s");
}
