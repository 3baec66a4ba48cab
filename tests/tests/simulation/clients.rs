//! Agencies and officers: they ask again until they are answered, and remember what they were answered and given.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use concord_ledger::{AgreementState, EpochOpening, PartyState};
use concord_model::{AgreementRef, Class, ExchangeId, Lane, Reason, Refusal};
use concord_node::calls;
use concord_wire::agreement::{DraftContent, agreement_digest, encode_text};
use concord_wire::convert;
use concord_wire::proto::agency::v1::{ReceiveRequest, SubmitRequest, SubmitResponse};
use concord_wire::proto::exchange::v1::Narrowing;
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::forum::{AGENCIES, ALL, MEASURE, SOME, STATES, name};
use crate::log::Queued;
use crate::withdraw;
use crate::world::{CLIENTS, SOME_PARTIES, World};

/// All of the load begins within so many simulated milliseconds.
pub(crate) const LOAD_MILLISECONDS: u64 = 45_000;
const SUBMISSIONS_MAX: u64 = 3;

/// Hands a statement in until the node has answered.
pub(crate) async fn say(world: &World, state: usize, content: DraftContent) -> Result<(), Refusal> {
    let node = &world.nodes[state];
    let officer = name("officer");
    let mut signed = None;
    loop {
        if let Some(context) = node.running() {
            let signed = signed.get_or_insert_with(|| {
                let known = context.now_state();
                let number = known.officers().get(&officer).map_or(1, |officer| officer.next_number());
                node.member.says(number, content.clone())
            });
            let (signed, officer) = (signed.clone(), officer.clone());
            let work = async move { calls::hand_in(&context, &officer, signed).await };
            match world.scheduler.call(node.machine, work).await {
                Ok(Err(refusal)) if !is_passing(&refusal) => return Err(refusal),
                Ok(Ok(_)) => return Ok(()),
                // The same words again: a node that had them already says so.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        sleep(Duration::from_millis(700)).await;
    }
}

/// Whether asking again may be answered.
pub(crate) fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal.reason.class(), Class::Exhausted | Class::Unavailable)
}

/// An officer who answers every proposal: with consent, or sometimes without.
pub(crate) async fn consent(world: World, state: usize, mut chance: Chance, declines: bool) {
    let own = world.nodes[state].member.code.clone();
    let mut answered = BTreeSet::new();
    loop {
        sleep(Duration::from_millis(chance.within(200..3_000))).await;
        let Some(context) = world.nodes[state].running() else { continue };
        let directory = context.now_state().directory().clone();
        drop(context);
        let open = directory.agreements.all().find(|agreement| {
            agreement.state == AgreementState::Proposed
                && agreement.party_state(&own) == Some(PartyState::Pending)
                && !answered.contains(&agreement.text.id)
        });
        let Some(open) = open else { continue };
        let reference = open.reference();
        let content = if declines && chance.one_in(5) {
            DraftContent::Decline(reference.clone(), None)
        } else {
            DraftContent::Consent(reference.clone())
        };
        let outcome = say(&world, state, content).await;
        world.trace.line(format_args!("{} answers {}: {}", STATES[state], reference.id, outcome.is_ok()));
        answered.insert(reference.id);
    }
}

/// Starts all agencies and officers.
pub(crate) fn start(world: &World) {
    let seed = world.seed;
    for state in 0..STATES.len() {
        world.spawn(CLIENTS, use_what_is_new(world.clone(), state, Chance::of(seed, 250 + state as u64)));
        for agency in 0..AGENCIES.len() {
            let purpose = 100 + (state * AGENCIES.len() + agency) as u64;
            world.spawn(CLIENTS, submit_all(world.clone(), state, agency, Chance::of(seed, purpose)));
            world.spawn(CLIENTS, receive(world.clone(), state, agency, Chance::of(seed, purpose + 50)));
            let back = withdraw::take_back(world.clone(), state, agency, Chance::of(seed, purpose + 400));
            world.spawn(CLIENTS, back);
        }
        let chance = Chance::of(seed, 200 + state as u64);
        world.spawn(CLIENTS, consent(world.clone(), state, chance, true));
    }
    world.spawn(CLIENTS, speak(world.clone(), Chance::of(seed, 300)));
    for state in 0..STATES.len() {
        world.spawn(CLIENTS, open_epochs(world.clone(), state, Chance::of(seed, 310 + state as u64)));
    }
}

/// An officer who sometimes opens an epoch, while exchanges are queued, sent and recorded.
async fn open_epochs(world: World, state: usize, mut chance: Chance) {
    world.log().busy += 1;
    while chance.one_in(3) {
        sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / 2))).await;
        let Some(context) = world.nodes[state].running() else { continue };
        let current = context.now_state().directory().epochs.current(&world.nodes[state].member.code);
        drop(context);
        let opening = EpochOpening { node: name("main"), epoch: current + 1 };
        let outcome = say(&world, state, DraftContent::OpenEpoch(opening)).await;
        world.trace.line(format_args!("{} opens epoch {}: {}", STATES[state], current + 1, outcome.is_ok()));
    }
    world.log().busy -= 1;
}

/// One state proposes something new, and one leaves what was agreed.
async fn speak(world: World, mut chance: Chance) {
    world.log().busy += 1;
    sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS))).await;
    if chance.one_in(2) {
        let parties = chance.within(2..STATES.len() as u64 + 1) as usize;
        let state = chance.below(parties as u64) as usize;
        let text = world.forum.text(&format!("{}/new", STATES[state]), parties);
        let outcome = say(&world, state, DraftContent::Propose(text)).await;
        world.trace.line(format_args!("{} proposes among {parties}: {}", STATES[state], outcome.is_ok()));
    }
    sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / 2))).await;
    if chance.one_in(2) {
        let state = chance.below(SOME_PARTIES as u64) as usize;
        let text = world.forum.text(SOME, SOME_PARTIES);
        let digest = agreement_digest(&encode_text(&text));
        let left = AgreementRef { id: text.id, version: text.version, digest };
        let outcome = say(&world, state, DraftContent::Leave(left)).await;
        world.trace.line(format_args!("{} leaves: {}", STATES[state], outcome.is_ok()));
    }
    world.log().busy -= 1;
}

/// An agency that submits under whatever comes into force, as soon as its own node knows it: others may have it later in their feed
/// than the exchange in their mailbox.
async fn use_what_is_new(world: World, state: usize, mut chance: Chance) {
    const LOOKS_EVERY_MILLISECONDS: u64 = 20;
    let own = world.nodes[state].member.code.clone();
    let known = [ALL, SOME].map(|id| concord_model::AgreementId::parse(id).unwrap());
    let mut used = BTreeSet::new();
    loop {
        sleep(Duration::from_millis(LOOKS_EVERY_MILLISECONDS)).await;
        let Some(context) = world.nodes[state].running() else { continue };
        let directory = context.now_state().directory().clone();
        drop(context);
        let new = directory.agreements.all().find(|agreement| {
            let id = &agreement.text.id;
            agreement.state == AgreementState::InForce
                && agreement.party_state(&own) == Some(PartyState::Consented)
                && !known.contains(id)
                && !used.contains(id)
        });
        let Some(id) = new.map(|agreement| agreement.text.id.clone()) else { continue };
        world.log().busy += 1;
        for lane in [Lane::Flash, Lane::Priority] {
            let request = SubmitRequest {
                request_id: format!("{id}-{lane}"),
                agreement_id: id.to_string(),
                measure: MEASURE.to_owned(),
                lane: convert::lane(lane).into(),
                title: "Simulated".to_owned(),
                media_type: "text/plain".to_owned(),
                body: Bytes::from(format!("{own} {id} {lane}")),
                ..SubmitRequest::default()
            };
            let answer = submit(&world, state, 0, &request, &mut chance).await;
            world.trace.line(format_args!("{own} uses {id} {lane}: {}", answer.is_ok()));
            if let Ok(id) = answer {
                world.log().note(id, Queued { state, agency: 0, request });
            }
        }
        world.log().busy -= 1;
        used.insert(id);
    }
}

/// An agency that submits now and then, each time until it is answered.
async fn submit_all(world: World, state: usize, agency: usize, mut chance: Chance) {
    world.log().busy += 1;
    let count = chance.below(SUBMISSIONS_MAX + 1);
    for number in 0..count {
        sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / SUBMISSIONS_MAX))).await;
        let request = request(state, agency, number, &mut chance);
        let lane = request.lane().as_str_name();
        let answer = submit(&world, state, agency, &request, &mut chance).await;
        let outcome = answer.as_ref().map_or_else(|refusal| refusal.reason.code(), |_| "queued");
        world.trace.line(format_args!("{} {} {lane} {number}: {outcome}", STATES[state], AGENCIES[agency]));
        if let Ok(id) = answer {
            world.log().note(id, Queued { state, agency, request });
        }
    }
    world.log().busy -= 1;
}

/// Something to submit, under an agreement that its state is on.
pub(crate) fn request(state: usize, agency: usize, number: u64, chance: &mut Chance) -> SubmitRequest {
    let some = state < SOME_PARTIES && chance.one_in(3);
    let (agreement, parties) = if some { (SOME, SOME_PARTIES) } else { (ALL, STATES.len()) };
    let others: Vec<&str> = (0..parties).filter(|other| *other != state).map(|other| STATES[other]).collect();
    let to = chance.one_in(4).then(|| Narrowing { participants: vec![(*chance.pick(&others)).to_owned()] });
    SubmitRequest {
        request_id: format!("{}-{number}", AGENCIES[agency]),
        agreement_id: agreement.to_owned(),
        measure: MEASURE.to_owned(),
        lane: convert::lane(*chance.pick(&Lane::ALL)).into(),
        title: "Simulated".to_owned(),
        media_type: "text/plain".to_owned(),
        to,
        body: Bytes::from(format!("{} {agency} {number}", STATES[state])),
        ..SubmitRequest::default()
    }
}

/// Submits until there is an answer; whoever asks again hears the same, also while the first is under way, and other content under
/// the same request id is a conflict, whatever ended meanwhile.
async fn submit(
    world: &World,
    state: usize,
    agency: usize,
    request: &SubmitRequest,
    chance: &mut Chance,
) -> Result<ExchangeId, Refusal> {
    let node = &world.nodes[state];
    let mut answered = None;
    let call = |request: SubmitRequest| {
        let (context, agency) = (node.running()?, name(AGENCIES[agency]));
        let work = async move { calls::submit(&context, &agency, request).await };
        Some(world.scheduler.call(node.machine, work))
    };
    loop {
        let mut calls = vec![call(request.clone())];
        if chance.one_in(4) {
            // It did not wait long for the first answer.
            sleep(Duration::from_millis(chance.below(30))).await;
            calls.push(call(request.clone()));
        }
        let mut refused = None;
        for call in calls.into_iter().flatten() {
            match call.await {
                Ok(Ok(response)) => {
                    let id = ExchangeId(concord_model::Digest::from_slice(&response.exchange_id).unwrap());
                    let before = answered.replace(id);
                    assert!(before.is_none_or(|before| before == id), "I3: a repeated request got another exchange");
                }
                Ok(Err(refusal)) if !is_passing(&refusal) => {
                    assert_eq!(answered, None, "a repeated request was refused: {refusal}");
                    refused = Some(refusal);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        match (answered, refused) {
            // Sometimes the answer does not reach the agency.
            (Some(_), _) if chance.one_in(6) => {}
            (Some(id), _) => {
                if chance.one_in(3) {
                    let other = SubmitRequest { body: Bytes::from_static(b"something else"), ..request.clone() };
                    let reason = conflict(call, other, chance).await;
                    assert_eq!(reason, Reason::RequestIdConflict, "I3: other content under a request id");
                }
                return Ok(id);
            }
            (None, Some(refusal)) => return Err(refusal),
            (None, None) => {}
        }
        sleep(Duration::from_millis(chance.within(100..1_500))).await;
    }
}

/// Asks until there is an answer, which has to be a refusal.
async fn conflict(
    call: impl Fn(SubmitRequest) -> Option<oneshot::Receiver<Result<SubmitResponse, Refusal>>>,
    request: SubmitRequest,
    chance: &mut Chance,
) -> Reason {
    loop {
        // At once, or when its node may have ended and come back meanwhile.
        let pause = *chance.pick(&[1, 500, 8_000]);
        sleep(Duration::from_millis(chance.below(pause))).await;
        let Some(call) = call(request.clone()) else { continue };
        match call.await {
            Ok(Ok(_)) => panic!("I3: other content under the same request id was taken in"),
            Ok(Err(refusal)) if !is_passing(&refusal) => return refusal.reason,
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// An agency that follows what it is given, acknowledges now or later, and now and then begins again.
pub(crate) async fn receive(world: World, state: usize, agency: usize, mut chance: Chance) {
    let node = world.nodes[state].clone();
    loop {
        let Some(context) = node.running() else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let (items, given) = mpsc::channel(1);
        let replaced = CancellationToken::new();
        let taken_back = world.log().taken_back_at(state);
        let request = ReceiveRequest { follow: true, without_bodies: false };
        let mut given = Box::pin(calls::given(&context, name(AGENCIES[agency]), ReceiverStream::new(given)));
        let giving = calls::give(context, name(AGENCIES[agency]), request, items, replaced.clone());
        let _until_hung_up = world.scheduler.call(node.machine, giving);
        let mut last: Option<Bytes> = None;
        loop {
            let item = match timeout(Duration::from_secs(2), given.next()).await {
                Ok(Some(Ok(item))) => Some(item),
                Ok(Some(Err(_)) | None) => break,
                Err(_) => None,
            };
            let idle = item.is_none();
            if let Some(item) = item {
                let given = concord_wire::header::exchange_id(&item.header);
                assert!(!taken_back.contains(&given), "{} gave {given} after it gave notice", STATES[state]);
                let (lane, number) = world.log().keep((state, agency), &node.member, &item);
                world.trace.line(format_args!("{} {} is given {lane} {number}", STATES[state], AGENCIES[agency]));
                world.network.tap.given(state, agency, &item);
                last = Some(item.cursor);
            }
            let healed = world.log().healed;
            if let Some(cursor) = &last
                && (healed || idle || chance.one_in(2))
                && acknowledge(&world, state, agency, cursor.clone()).await
            {
                last = None;
            }
            if !healed && chance.one_in(12) {
                break;
            }
        }
        replaced.cancel();
        sleep(Duration::from_millis(chance.within(100..2_000))).await;
    }
}

async fn acknowledge(world: &World, state: usize, agency: usize, cursor: Bytes) -> bool {
    let node = &world.nodes[state];
    let Some(context) = node.running() else { return false };
    let (name, given) = (name(AGENCIES[agency]), cursor.clone());
    let work = async move { calls::acknowledge(&context, name, &given).await };
    let answered = matches!(world.scheduler.call(node.machine, work).await, Ok(Ok(())));
    if answered {
        world.log().acknowledged((state, agency), &node.member, &cursor);
    }
    answered
}
