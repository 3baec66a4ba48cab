//! Non-interference: what a third participant gets is the same whether or not others have a secret among them.
//!
//! One seed is played twice. The second time others have a secret among them besides: an exchange under an agreement that the third is
//! on, which is not for it, or an agreement of their own with its whole life. Everything that comes to the third's node and agencies is
//! compared, field by field, in its order: feed, deliveries, receipts, answers, refusals, welcomes. What is left out stands in
//! [`plain`](crate::plain) and nowhere else.
//!
//! Network and disks take the same time for everything here, and the secret goes on between what all see: then times have to be equal
//! as well. At the same moment they are not: a commit waits for another's, and a node that is busy with a secret acknowledges later,
//! which whoever sent to it can see.

use std::time::Duration;

use bytes::Bytes;
use concord_ledger::AgreementState;
use concord_model::{AgreementId, AgreementRef, Lane, Title};
use concord_node::calls;
use concord_tests::battery::{Budget, report};
use concord_wire::agreement::{DraftContent, agreement_digest, encode_text};
use concord_wire::convert;
use concord_wire::proto::agency::v1::SubmitRequest;
use concord_wire::proto::exchange::v1::Narrowing;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chance::Chance;
use crate::clients;
use crate::forum::{AGENCIES, ALL, MEASURE, STATES, name};
use crate::plain::Plain;
use crate::tap::{Stage, What};
use crate::withdraw;
use crate::world::{AGREED, CLIENTS, World, play};

/// The third: on the agreement of all, and on no other.
const THIRD: usize = 4;
/// What all see happens one after the other, so far apart that it is at rest between.
const TURNS: u64 = 6;
const TURN_MILLISECONDS: u64 = 4_000;
/// The agreement that the third must not hear of.
const SECRET: &str = "IRN/secret";

/// What others have among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    /// Exchanges under the agreement of all that are for others only.
    Exchanges,
    /// An agreement: proposed, in force, used, amended, used, and left.
    Agreement,
}

/// One line of what the third got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Simulated milliseconds.
    at: u64,
    stream: String,
    text: String,
}

#[test]
fn what_others_have_among_them_changes_nothing_of_what_a_third_gets() {
    let budget = Budget::bounded(60, 8).by_seed(1);
    let (mut done, mut lines) = (0, 0);
    while !budget.is_over(done) {
        let seed = budget.seed + done;
        let without = seen(seed, None);
        assert!(without.len() > 40, "seed {seed}: the third got only {} lines", without.len());
        for secret in [Secret::Exchanges, Secret::Agreement] {
            compare(seed, secret, &without, &seen(seed, Some(secret)));
        }
        lines += without.len();
        done += 1;
    }
    budget.reached(done, "seeds");
    report(&format!(
        "non-interference: {done} seeds from {}, each in three runs, {lines} lines compared twice",
        budget.seed
    ));
}

fn compare(seed: u64, secret: Secret, without: &[Line], with: &[Line]) {
    const AROUND: usize = 12;
    let same = without.iter().zip(with).take_while(|(one, other)| one == other).count();
    if same == without.len() && same == with.len() {
        return;
    }
    let part = |lines: &[Line]| {
        let part = lines.iter().skip(same.saturating_sub(AROUND)).take(2 * AROUND);
        part.map(|line| format!("    {:>6} {} {}\n", line.at, line.stream, line.text)).collect::<String>()
    };
    panic!(
        "seed {seed}: a secret of others ({secret:?}) changes what {} gets, from line {same} \
         on\n  without it ({} lines):\n{}  with it ({} lines):\n{}again: CONCORD_BATTERY_SEED={seed} CONCORD_BATTERY_COUNT=1",
        STATES[THIRD],
        without.len(),
        part(without),
        with.len(),
        part(with),
    );
}

/// Plays a seed; everything that the third's node and agencies got.
fn seen(seed: u64, secret: Option<Secret>) -> Vec<Line> {
    let (heard, _) = play(&AGREED, seed, move |world| async move {
        world.network.be_steady();
        world.network.tap.switch_on();
        world.nodes.iter().map(|node| &node.disk).chain([&world.hub.disk]).for_each(|disk| disk.be_steady());
        world.start();
        // Agencies acknowledge at once and never hang up.
        world.log().healed = true;
        for state in 0..STATES.len() {
            for agency in 0..AGENCIES.len() {
                let chance = Chance::of(seed, 150 + (state * AGENCIES.len() + agency) as u64);
                world.spawn(CLIENTS, clients::receive(world.clone(), state, agency, chance));
            }
        }
        let began = Instant::now();
        if let Some(secret) = secret {
            world.spawn(CLIENTS, keep_among_others(world.clone(), secret, began));
        }
        let mut chance = Chance::of(seed, 600);
        for turn in 0..TURNS {
            sleep_until(began + Duration::from_millis((turn + 1) * TURN_MILLISECONDS)).await;
            for_all_to_see(&world, turn, &mut chance).await;
        }
        sleep_until(began + Duration::from_millis((TURNS + 3) * TURN_MILLISECONDS)).await;
        let heard = world.network.tap.heard();
        // The secret was one: it was there, and came to rest.
        world.drained().await;
        assert!(secret.is_none_or(|secret| went_on(&world, secret)), "seed {seed}: {secret:?} did not happen");
        heard
    });
    let plain = Plain::new();
    let mut lines = Vec::new();
    for heard in heard.iter().filter(|heard| heard.node == THIRD && heard.stage == Stage::Arrived) {
        let at = heard.at;
        let mut say = |text: String| lines.push(Line { at, stream: heard.stream.clone(), text });
        match &heard.what {
            What::Words(words) => say(words.clone()),
            What::Message { kind, bytes } => {
                say((*kind).to_owned());
                plain.lines(kind, bytes).into_iter().for_each(&mut say);
            }
        }
    }
    // What several streams bring within one millisecond has no order among them.
    lines.sort_by(|one, other| (one.at, &one.stream).cmp(&(other.at, &other.stream)));
    lines
}

/// Something that the third takes part in, or hears of, or that comes again.
async fn for_all_to_see(world: &World, turn: u64, chance: &mut Chance) {
    let lane = *chance.pick(&Lane::ALL);
    match chance.below(6) {
        // From another, to all or to the third alone.
        0..=2 => {
            let narrowed = chance.one_in(2).then_some(STATES[THIRD]);
            let state = chance.below(THIRD as u64) as usize;
            submit(world, state, &request(&format!("turn {turn}"), ALL, lane, narrowed)).await;
        }
        // From the third, to all or to one.
        3 => {
            let narrowed = chance.one_in(2).then(|| STATES[chance.below(THIRD as u64) as usize]);
            submit(world, THIRD, &request(&format!("turn {turn}"), ALL, lane, narrowed)).await;
        }
        // It asks for what it must not know.
        4 => {
            submit(world, THIRD, &request(&format!("turn {turn}"), SECRET, lane, None)).await;
            let text = world.forum.text(SECRET, 2);
            let consent = DraftContent::Consent(reference(&text));
            let answer = clients::say(world, THIRD, consent).await;
            world.network.tap.note(THIRD, "officer", || format!("{answer:?}"));
        }
        // Nothing, so that the secret has this turn for itself.
        _ => {}
    }
}

/// The secret, step by step: in the middle between the turns.
async fn keep_among_others(world: World, secret: Secret, began: Instant) {
    let mut chance = Chance::of(world.seed, 601);
    let first = world.forum.text(SECRET, 2);
    for turn in 0..TURNS {
        sleep_until(began + Duration::from_millis((turn + 1) * TURN_MILLISECONDS + TURN_MILLISECONDS / 2)).await;
        let lane = *chance.pick(&Lane::ALL);
        match secret {
            Secret::Exchanges => {
                for number in 0..chance.within(1..4) {
                    let state = chance.below(THIRD as u64) as usize;
                    let other = STATES[(state + 1) % THIRD];
                    let what = format!("secret {turn} {number}");
                    submit(&world, state, &request(&what, ALL, lane, Some(other))).await;
                }
                // Some of it is taken back later.
                let state = chance.below(THIRD as u64) as usize;
                let current = world.log().current((state, 0));
                if let Some((id, _)) = current.into_iter().find(|(_, one)| is_secret(one)) {
                    let mut calm = Chance::of(world.seed, 602);
                    let by = withdraw::withdraw(&world, (state, 0), id, &mut calm).await.unwrap();
                    world.log().withdrawn.insert(id, by);
                }
            }
            Secret::Agreement => {
                let mut second = first.clone();
                (second.version, second.amends) = (2, Some(reference(&first)));
                second.title = Title::parse("Changed").unwrap();
                let said = match turn {
                    0 => Some((0, DraftContent::Propose(first.clone()))),
                    1 => Some((1, DraftContent::Consent(reference(&first)))),
                    3 => Some((0, DraftContent::Propose(second))),
                    4 => Some((1, DraftContent::Consent(reference(&second)))),
                    5 => Some((1, DraftContent::Leave(reference(&second)))),
                    _ => None,
                };
                if let Some((state, content)) = said {
                    clients::say(&world, state, content).await.unwrap();
                }
                if turn >= 2 {
                    submit(&world, 0, &request(&format!("secret {turn}"), SECRET, lane, None)).await;
                }
            }
        }
    }
}

fn is_secret(request: &SubmitRequest) -> bool {
    request.request_id.starts_with("secret")
}

fn went_on(world: &World, secret: Secret) -> bool {
    let (_, hub) = world.hub.running().unwrap();
    let published = hub.published();
    match secret {
        Secret::Exchanges => world.log().queued.values().any(|queued| is_secret(&queued.request)),
        Secret::Agreement => {
            let agreements = published.ledger.agreements();
            let known = agreements.get(&AgreementId::parse(SECRET).unwrap());
            known.is_some_and(|known| known.text.version == 2 && known.state == AgreementState::Ended)
        }
    }
}

fn reference(text: &concord_model::AgreementText) -> AgreementRef {
    AgreementRef { id: text.id.clone(), version: text.version, digest: agreement_digest(&encode_text(text)) }
}

fn request(what: &str, agreement: &str, lane: Lane, to: Option<&str>) -> SubmitRequest {
    SubmitRequest {
        request_id: what.replace(' ', "-"),
        agreement_id: agreement.to_owned(),
        measure: MEASURE.to_owned(),
        lane: convert::lane(lane).into(),
        title: "Simulated".to_owned(),
        media_type: "text/plain".to_owned(),
        to: to.map(|one| Narrowing { participants: vec![one.to_owned()] }),
        body: Bytes::from(what.to_owned()),
        ..SubmitRequest::default()
    }
}

/// Submits until it is answered; the answer is what the agency gets.
async fn submit(world: &World, state: usize, request: &SubmitRequest) {
    let node = &world.nodes[state];
    loop {
        let (context, agency, asked) = (node.running().unwrap(), name(AGENCIES[0]), request.clone());
        let work = async move { calls::submit(&context, &agency, asked).await };
        let answer = world.scheduler.call(node.machine, work).await.unwrap();
        world.network.tap.note(state, "submit", || match &answer {
            Ok(response) => format!("queued under {} bytes", response.exchange_id.len()),
            Err(refusal) => format!("{refusal:?}"),
        });
        match answer {
            Ok(response) => {
                let id = concord_model::ExchangeId(concord_model::Digest::from_slice(&response.exchange_id).unwrap());
                let queued = crate::log::Queued { state, agency: 0, request: request.clone() };
                world.log().note(id, queued);
                return;
            }
            Err(refusal) if clients::is_passing(&refusal) => sleep(Duration::from_millis(100)).await,
            Err(_) => return,
        }
    }
}
