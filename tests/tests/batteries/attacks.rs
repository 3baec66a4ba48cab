//! Attacks on the protocol, by strangers and by callers with good certificates: the attacker is dropped, the memory stays, and an
//! honest agency is served all the while.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use concord_tests::battery::{Budget, Chance, report};
use concord_tests::floods::{Ends, FLOODS, Flood};
use concord_tests::honest::Honest;
use concord_tests::http2::{Attacker, ENHANCE_YOUR_CALM, Outcome};
use concord_tests::memory::Memory;
use concord_tests::{DEADLINE, Forum, concord, words};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

pub(crate) const AGREEMENT: &str = "KAZ/warnings";
pub(crate) const MEASURE: &str = "environmental.5";
/// A process under attack may have so much more than it has without.
const GROWTH_MAX_MIB: u64 = 64;
/// Connections of one attacker.
const CONNECTIONS: usize = 2;
/// A flood that nobody ends ends by itself, far behind where it must have been ended.
const CHUNKS_MAX: u64 = 20_000;
const IDLE_STRANGERS: usize = 1000;

/// A hub, KAZ's and IRN's nodes, and TUR's, whose keys an attacker has; an honest agency of KAZ that sends to IRN.
pub(crate) struct Stage {
    pub(crate) forum: Forum,
    pub(crate) honest: Honest,
    hub: Memory,
    node: Memory,
    pub(crate) runtime: Runtime,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
        forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
        concord(words!["agency", "add", "honest", "--dir", forum.node_dir("KAZ")]).ok();
        forum.stop_node("TUR");
        let honest = Honest::start(forum.node_dir("KAZ").join("agencies/honest"), AGREEMENT, MEASURE);
        honest.await_rounds(3);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (hub, node) = (Memory::of(forum.hub_pid()), Memory::of(forum.node_pid("KAZ")));
        Self { forum, honest, hub, node, runtime }
    }

    /// Who attacks whom: somebody with a node's keys the hub, somebody with an agency's the node.
    pub(crate) fn certified(&self) -> [(&'static str, Attacker); 2] {
        [
            ("a node at the hub", Attacker::node_at_hub(&self.forum, "TUR")),
            ("an agency at the node", Attacker::agency_at_node(&self.forum, "KAZ", "agency")),
        ]
    }

    fn strangers(&self) -> [(&'static str, Attacker); 2] {
        let strange = |(_, attacker): (&str, Attacker)| attacker.without_certificate();
        let [hub, node] = self.certified().map(strange);
        [("a stranger at the hub", hub), ("a stranger at the node", node)]
    }

    /// What the honest agency has made them keep by now is normal.
    pub(crate) fn begin_measuring(&mut self) {
        (self.hub, self.node) = (Memory::of(self.forum.hub_pid()), Memory::of(self.forum.node_pid("KAZ")));
    }

    #[track_caller]
    pub(crate) fn check_memory(&self, during: &str) {
        for (whose, memory) in [("the hub", &self.hub), ("the node", &self.node)] {
            let (normal, grown) = (memory.normal_mib(), memory.grown_mib());
            assert!(grown <= GROWTH_MAX_MIB, "{during}: {whose} had {grown} MiB more than the normal {normal} MiB");
        }
    }

    /// Attacks for as long as it takes to serve the honest agency a few times beside it.
    #[track_caller]
    fn withstand(&mut self, flood: &'static Flood, who: &str, attacker: &Attacker) {
        self.begin_measuring();
        let stop = Arc::new(AtomicBool::new(false));
        let attacks: Vec<_> = (0..CONNECTIONS)
            .map(|_| self.runtime.spawn(again_and_again(flood, attacker.clone(), Arc::clone(&stop))))
            .collect();
        let slowest = self.honest.await_rounds(2);
        stop.store(true, Ordering::Relaxed);
        let joined =
            self.runtime.block_on(async { tokio::time::timeout(DEADLINE, futures::future::join_all(attacks)).await });
        let outcomes: Vec<Outcome> = joined.expect("the attacks end").into_iter().flat_map(Result::unwrap).collect();
        let what = format!("{}, by {who}", flood.name);
        self.check_memory(&what);
        if flood.ends == Ends::Dropped {
            assert!(!outcomes.is_empty(), "{what}: no connection was ended");
        }
        for outcome in &outcomes {
            let dropped = (outcome.dropped || outcome.told.is_some()) && outcome.written < CHUNKS_MAX;
            assert!(dropped || flood.ends == Ends::Stands, "{what}: it went on: {outcome:?}");
        }
        let calmed = outcomes.iter().filter(|outcome| matches!(outcome.told, Some((ENHANCE_YOUR_CALM, _)))).count();
        let most = outcomes.iter().map(|outcome| outcome.written).max().unwrap_or_default();
        report(&format!(
            "attacks: {what}: {} connections ended, {calmed} with ENHANCE_YOUR_CALM, at most {most} chunks each; the honest agency \
             waited at most {slowest:?}; hub +{} MiB, node +{} MiB",
            outcomes.len(),
            self.hub.grown_mib(),
            self.node.grown_mib(),
        ));
    }

    fn at_rest(&self) {
        for dir in [self.forum.hub_dir(), self.forum.node_dir("KAZ")] {
            assert_eq!(self.forum.status(&dir)["alarms"], serde_json::json!([]));
        }
    }
}

/// Connects and floods until it is ended, again and again; what became of each connection that was not left by this side.
async fn again_and_again(flood: &'static Flood, attacker: Attacker, stop: Arc<AtomicBool>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    // At least once to its end: the honest agency may be served sooner than the first connection ends.
    while !stop.load(Ordering::Relaxed) || (outcomes.is_empty() && flood.ends == Ends::Dropped) {
        // Refused in the handshake, or by the number of connections.
        let Ok(wire) = attacker.connect(&(flood.settings)()).await else {
            outcomes.push(Outcome { dropped: true, ..Outcome::default() });
            continue;
        };
        let never = AtomicBool::new(false);
        let stop = if flood.ends == Ends::Dropped { &never } else { &*stop };
        let outcome = wire.flood(flood.chunk, CHUNKS_MAX, flood.reads, flood.ends == Ends::Dropped, stop).await;
        outcomes.push(outcome);
    }
    outcomes
}

#[test]
fn no_flood_of_frames_stops_the_honest_or_grows_the_process_and_each_ends_its_own_connection() {
    let budget = Budget::bounded(2 * FLOODS.len() as u64, 600);
    let mut stage = Stage::set();
    let mut chance = Chance::of(budget.seed);
    let certified = stage.certified();
    for done in 0.. {
        if budget.is_over(done) {
            budget.reached(done, "floods");
            break;
        }
        let all = FLOODS.len() as u64;
        let number = if done < 2 * all { done } else { chance.below(2 * all) };
        let (who, attacker) = &certified[(number / all) as usize];
        stage.withstand(&FLOODS[(number % all) as usize], who, attacker);
    }
    stage.at_rest();
}

#[test]
fn strangers_get_nowhere_whatever_they_send_and_however_many_they_are() {
    let mut stage = Stage::set();
    let mut all = Vec::new();
    for (who, attacker) in stage.strangers() {
        // The first is as good as any: none of them is read.
        stage.withstand(&FLOODS[0], who, &attacker);
        for (from, begins) in [([127, 0, 0, 1], false), ([127, 0, 0, 9], true)] {
            let attacker = attacker.clone().from_address(IpAddr::from(from));
            let idle = stage.runtime.block_on(idle(&attacker, begins));
            assert!(idle.len() >= IDLE_STRANGERS / 2, "{}", idle.len());
            let slowest = stage.honest.await_rounds(3);
            stage.check_memory("idle strangers");
            all.extend(idle);
            report(&format!(
                "attacks: {IDLE_STRANGERS} idle connections of {who}: the honest agency waited at most {slowest:?}"
            ));
        }
    }
    let began = Instant::now();
    stage.runtime.block_on(all_closed(all));
    report(&format!("attacks: all idle connections closed after {:?}", began.elapsed()));
    stage.at_rest();
}

/// Connections that say nothing, or the first half of a hello.
async fn idle(attacker: &Attacker, begins: bool) -> Vec<tokio::net::TcpStream> {
    const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut idle = Vec::new();
    for _ in 0..IDLE_STRANGERS {
        // One that gave way may be gone already.
        let Ok(mut stream) = attacker.reach().await else { continue };
        if begins {
            let _gone = stream.write_all(HALF_A_HELLO).await;
        }
        idle.push(stream);
    }
    idle
}

async fn all_closed(idle: Vec<tokio::net::TcpStream>) {
    let closed = idle.into_iter().map(|mut stream| async move {
        // An end or a reset, whichever.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    tokio::time::timeout(DEADLINE, futures::future::join_all(closed)).await.expect("idle connections are closed");
}

/// How a slow one begins before it falls silent, or nearly.
#[derive(Debug, Clone, Copy)]
enum Slow {
    /// Past the handshake, and nothing more.
    Silent,
    /// The preface, byte by byte.
    Preface,
    /// The header fields of a call, byte by byte.
    Header,
}

#[test]
fn who_says_one_byte_a_second_or_nothing_behind_the_handshake_is_dropped() {
    let stage = Stage::set();
    let mut slow = Vec::new();
    for (who, attacker) in stage.certified() {
        for how in [Slow::Silent, Slow::Preface, Slow::Header] {
            slow.push((who, how, stage.runtime.spawn(until_dropped(attacker.clone(), how))));
        }
    }
    let slowest = stage.honest.await_rounds(5);
    for (who, how, dropped) in slow {
        let dropped = stage.runtime.block_on(dropped).unwrap();
        let after = dropped.unwrap_or_else(|| panic!("{who}, {how:?}: it was never dropped"));
        report(&format!(
            "attacks: {how:?} by {who}: dropped after {after:?}; the honest agency waited at most {slowest:?}"
        ));
    }
    stage.check_memory("slow callers");
    stage.at_rest();
}

/// How long the server let it.
async fn until_dropped(attacker: Attacker, how: Slow) -> Option<Duration> {
    use concord_tests::http2::{PREFACE, call_to, frame, kind};
    let mut stream = attacker.handshake().await.ok()?;
    let began = Instant::now();
    let words = match how {
        Slow::Silent => Vec::new(),
        Slow::Preface => PREFACE.to_vec(),
        Slow::Header => {
            stream.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()).await.ok()?;
            frame(kind::HEADERS, 0, 1, &call_to("/grpc.health.v1.Health/Check"))
        }
    };
    let dropped = async {
        let (mut read, mut write) = tokio::io::split(stream);
        let saying = async {
            for byte in words {
                if write.write_all(&[byte]).await.is_err() || write.flush().await.is_err() {
                    return;
                }
                // The attack is that time passes.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending().await
        };
        let mut heard = Vec::new();
        tokio::select! {
            _ = read.read_to_end(&mut heard) => {}
            () = saying => {}
        }
    };
    tokio::time::timeout(DEADLINE, dropped).await.ok()?;
    Some(began.elapsed())
}
