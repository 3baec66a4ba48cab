//! Races: something that ends a right comes at each step of a fan-out.
//!
//! Exchanges go from one to three others, on a lane and at paces that the seed picks, and one of [`ACTS`] is done at the hub (or at the
//! recipient's node) right after so many steps of that machine. First a fan-out is played without, to know its steps; then again, with
//! the act at some of them, or at every one.
//!
//! The judge knows no rules of the ledger: only who acted when, in which order the hub's journal has it, what the hub handed to whom
//! before and after the act was answered, and what the origin was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use concord_hub::delivery::DELIVERIES_PERMITTED_MAX;
use concord_hub::services::statement;
use concord_identity::Caller;
use concord_ledger::StatementContent;
use concord_model::{
    AgreementId, AgreementRef, AgreementText, Digest, ExchangeId, Fingerprint, Identity, Lane, ParticipantCode,
    Refusal, Right, Role, Scope, Timestamp, Title,
};
use concord_node::calls;
use concord_tests::battery::{Budget, report};
use concord_wire::agreement::{DraftContent, agreement_digest, encode_text};
use concord_wire::convert;
use concord_wire::header::{exchange_id, withdraws};
use concord_wire::proto::agency::v1::SubmitRequest;
use concord_wire::proto::agreement::v1::SubmitRequest as StatementRequest;
use concord_wire::proto::exchange::v1::{ReceiveResponse, receive_response};
use concord_wire::proto::feed::v1::{FollowResponse, ReceiptState, feed_item, follow_response};
use concord_wire::stored::hub::{HubEntry, read};
use concord_wire::stored::node::RightsChange;
use prost::Message as _;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::clients;
use crate::clock::{BEGIN, HOUR};
use crate::forum::{AGENCIES, MEASURE, Member, SOME, STATES, name};
use crate::judge::{self, DRAIN_SECONDS_MAX};
use crate::log::Queued;
use crate::tap::{Heard, Stage, What};
use crate::withdraw;
use crate::world::{AGREED, CLIENTS, HUB, SOME_PARTIES, World, play};

/// What ends a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A recipient leaves.
    Leave,
    /// A recipient leaves, and comes back at once: to nothing of before.
    Return,
    /// The last consent to an amendment that a recipient is not on.
    Amend,
    /// The last word that the agreement is to end.
    End,
    /// The agreement's time is over.
    Lapse,
    /// The secretariat holds a recipient, and releases it later.
    Hold,
    /// A recipient's agency may receive no more.
    Revoke,
    /// The origin's agency takes back what it submitted so far.
    Withdraw,
}

/// All acts.
const ACTS: [Act; 8] =
    [Act::Leave, Act::Return, Act::Amend, Act::End, Act::Lapse, Act::Hold, Act::Revoke, Act::Withdraw];

impl Act {
    /// Who must be handed nothing more, and of which exchanges; `again` where it was recorded after a return.
    fn loses(
        self,
        target: usize,
        withdrawn: &BTreeMap<ExchangeId, ExchangeId>,
        (state, id, again): (usize, &ExchangeId, bool),
    ) -> bool {
        match self {
            Self::Return => state == target && !again,
            Self::Leave | Self::Amend | Self::Hold => state == target,
            Self::End | Self::Lapse => state < SOME_PARTIES,
            Self::Revoke => false,
            Self::Withdraw => withdrawn.contains_key(id),
        }
    }

    /// What the origin is told of what was not handed.
    fn reason(self) -> &'static str {
        match self {
            Self::Leave | Self::Return => "LEFT",
            Self::Amend => "REMOVED",
            Self::End | Self::Lapse => "AGREEMENT_ENDED",
            Self::Hold | Self::Revoke => "nothing: it waits",
            Self::Withdraw => "WITHDRAWN",
        }
    }
}

/// What a seed picks.
#[derive(Debug, Clone)]
struct FanOut {
    seed: u64,
    act: Act,
    origin: usize,
    target: usize,
    lane: Lane,
    exchanges: u64,
}

impl FanOut {
    fn of(seed: u64, act: Act) -> Self {
        let mut chance = Chance::of(seed, 700);
        let origin = chance.below(SOME_PARTIES as u64) as usize;
        let target = (origin + chance.within(1..SOME_PARTIES as u64) as usize) % SOME_PARTIES;
        let lane = *chance.pick(&[Lane::Flash, Lane::Routine]);
        Self { seed, act, origin, target, lane, exchanges: chance.within(1..5) }
    }
}

#[test]
fn an_end_of_a_right_at_any_step_of_a_fan_out_lets_nothing_more_through() {
    const STEPS_TRIED: u64 = 4;
    let budget = Budget::bounded(90, 20).by_seed(1);
    let (mut done, mut plays) = (0, 0);
    while !budget.is_over(done) {
        let seed = budget.seed + done;
        let fan_out = FanOut::of(seed, ACTS[(seed % ACTS.len() as u64) as usize]);
        let steps = raced(&fan_out, u64::MAX);
        let mut chance = Chance::of(seed, 701);
        for _ in 0..STEPS_TRIED {
            raced(&fan_out, chance.within(1..steps + 2));
            plays += 1;
        }
        done += 1;
    }
    budget.reached(done, "seeds");
    report(&format!("races: {done} seeds from {}, {plays} acts at steps of a fan-out", budget.seed));
}

#[test]
fn every_step_of_one_fan_out_is_raced_by_every_act() {
    let mut plays = 0;
    for act in ACTS {
        let fan_out = FanOut { lane: Lane::Flash, exchanges: 2, origin: 0, target: 2, ..FanOut::of(1, act) };
        let steps = raced(&fan_out, u64::MAX);
        // Every one in a campaign; in a slice so many that none of a dozen in a row is missing.
        let every = if std::env::var_os("CONCORD_BATTERY_ALL").is_some() { 1 } else { 11 };
        for step in (1..steps + 2).step_by(every) {
            raced(&fan_out, step);
            plays += 1;
        }
    }
    report(&format!("races: {plays} steps of one fan-out for each of {} acts", ACTS.len()));
}

/// Plays a fan-out with its act right after this step; how many steps there were until everybody had everything.
fn raced(fan_out: &FanOut, step: u64) -> u64 {
    let fan_out = fan_out.clone();
    let (steps, _) = play(&AGREED, fan_out.seed, move |world| async move { race(world, fan_out, step).await });
    steps
}

async fn race(world: World, fan_out: FanOut, step: u64) -> u64 {
    let mut chance = Chance::of(fan_out.seed, 702);
    for node in 0..STATES.len() {
        world.network.set_delay(node, *chance.pick(&[3, 20, 200, 3_000]));
    }
    world.start();
    world.log().healed = true;
    for state in 0..SOME_PARTIES {
        for agency in 0..AGENCIES.len() {
            let chance = Chance::of(fan_out.seed, 750 + (state * AGENCIES.len() + agency) as u64);
            world.spawn(CLIENTS, clients::receive(world.clone(), state, agency, chance));
        }
    }
    let agreed = prepared(&world, &fan_out).await;
    at_rest(&world).await;
    world.network.tap.switch_on();
    let machine = if fan_out.act == Act::Revoke { world.nodes[fan_out.target].machine } else { HUB };
    let reached = world.scheduler.after_steps(machine, step);
    // Before its task begins: else all would be at rest already.
    world.log().busy += 1;
    world.spawn(CLIENTS, submit_all(world.clone(), fan_out.clone()));
    let mut steps = 0;
    if step == u64::MAX {
        // Without the act in the middle: it comes when everybody has everything.
        at_rest(&world).await;
        steps = world.scheduler.steps();
        assert!(steps > 10, "{fan_out:?}: a fan-out of {steps} steps");
    } else {
        let _none_left = timeout(Duration::from_secs(60), reached).await;
    }
    let ended = act(&world, &fan_out, &agreed).await;
    let until = if fan_out.act == Act::Hold {
        sleep(Duration::from_secs(5)).await;
        let until = world.network.tap.now();
        release(&world, fan_out.target).await;
        until
    } else {
        usize::MAX
    };
    at_rest(&world).await;
    // What is under way at agencies.
    sleep(Duration::from_secs(5)).await;
    judge_race(&world, &fan_out, step, (ended, until));
    steps
}

/// What the act needs before: an amendment that waits for one consent, all words but one that the agreement ends, a version that lapses.
/// The version in force, and what waits.
async fn prepared(world: &World, fan_out: &FanOut) -> (AgreementRef, Option<AgreementRef>) {
    let first = world.forum.text(SOME, SOME_PARTIES);
    let amended = |change: &dyn Fn(&mut AgreementText)| {
        let mut text = AgreementText { version: 2, amends: Some(reference(&first)), ..first.clone() };
        change(&mut text);
        text
    };
    match fan_out.act {
        Act::Amend => {
            let target = world.forum.states[fan_out.target].code.clone();
            let text = amended(&|text| {
                text.parties.retain(|party| party.participant != target);
                text.outgoing = vec![target.clone()];
            });
            say(world, fan_out.origin, DraftContent::Propose(text.clone())).await.unwrap();
            for state in (0..SOME_PARTIES).filter(|state| *state != fan_out.origin && *state != fan_out.target) {
                say(world, state, DraftContent::Consent(reference(&text))).await.unwrap();
            }
            (reference(&first), Some(reference(&text)))
        }
        Act::End => {
            for state in (0..SOME_PARTIES).filter(|state| *state != fan_out.target) {
                say(world, state, DraftContent::End(reference(&first))).await.unwrap();
            }
            (reference(&first), None)
        }
        Act::Lapse => {
            let text = amended(&|text| text.valid_until = Some(Timestamp::from_micros(BEGIN.as_micros() + HOUR)));
            say(world, fan_out.origin, DraftContent::Propose(text.clone())).await.unwrap();
            for state in (0..SOME_PARTIES).filter(|state| *state != fan_out.origin) {
                say(world, state, DraftContent::Consent(reference(&text))).await.unwrap();
            }
            (reference(&text), None)
        }
        Act::Leave | Act::Return | Act::Hold | Act::Revoke | Act::Withdraw => (reference(&first), None),
    }
}

/// Does it; the place in what was heard where it was answered.
async fn act(world: &World, fan_out: &FanOut, (now, waits): &(AgreementRef, Option<AgreementRef>)) -> usize {
    let target = fan_out.target;
    let said = match fan_out.act {
        Act::Leave => say(world, target, DraftContent::Leave(now.clone())).await,
        Act::Return => {
            let left = say(world, target, DraftContent::Leave(now.clone())).await;
            let (_, hub) = world.hub.running().unwrap();
            let code = &world.forum.states[target].code;
            let known = hub.published();
            let leave = known.ledger.agreements().version(now).and_then(|version| version.left_by(code));
            let back = DraftContent::Return(now.clone(), leave.expect("it left"));
            let back = say(world, target, back).await;
            // Nothing of before is handed from its leave on.
            back.and(left)
        }
        Act::Amend => say(world, target, DraftContent::Consent(waits.clone().unwrap())).await,
        Act::End => say(world, target, DraftContent::End(now.clone())).await,
        Act::Lapse => {
            world.hub.clock.set_wrong_by(2 * HOUR);
            let lapsed = |world: &World| {
                let known = world.hub.running().unwrap().1.published();
                known.ledger.agreements().in_force(&now.id).is_none()
            };
            while !lapsed(world) {
                sleep(Duration::from_millis(1)).await;
            }
            // Nobody is answered: what had been permitted is out, or ended, by then.
            sleep(Duration::from_millis(100)).await;
            Ok(world.network.tap.now())
        }
        Act::Hold => {
            let held = DraftContent::Hold(world.forum.states[target].code.clone(), Title::parse("Simulated").unwrap());
            say_as(world, &world.forum.secretariat.clone(), held).await
        }
        Act::Revoke => {
            let everything = Right { send: false, receive: true, measures: Scope::All, agreements: Scope::All };
            let (node, inner) = (&world.nodes[target], world.clone());
            let writer = node.running().unwrap().writer.clone();
            let work = async move {
                let done = writer.change_rights(name(AGENCIES[0]), RightsChange::Revoked(everything)).await;
                done.map(|_| inner.network.tap.now())
            };
            world.scheduler.call(node.machine, work).await.unwrap()
        }
        Act::Withdraw => {
            withdraw_all(world, fan_out).await;
            // Recorded, it is known to every stream; what had been permitted is out by then.
            sleep(Duration::from_millis(100)).await;
            Ok(world.network.tap.now())
        }
    };
    said.unwrap_or_else(|refusal| panic!("{fan_out:?}: the act was refused: {refusal}"))
}

/// Takes back all that was submitted so far; done when the hub has recorded it.
async fn withdraw_all(world: &World, fan_out: &FanOut) {
    let (origin, mut chance) = (fan_out.origin, Chance::of(fan_out.seed, 703));
    let agency = (origin, 0);
    let current = world.log().current(agency);
    for (id, request) in current {
        let by = withdraw::withdraw(world, agency, id, &mut chance).await;
        let by = by.unwrap_or_else(|refusal| panic!("{id} was not withdrawn: {refusal}"));
        let queued = Queued { state: origin, agency: 0, request: SubmitRequest { body: Bytes::new(), ..request } };
        let mut log = world.log();
        log.withdrawn.insert(id, by);
        log.note(by, queued);
    }
    let code = world.forum.states[origin].code.clone();
    let recorded = |world: &World| {
        let hub = world.hub.running().unwrap().1.published();
        world.log().withdrawn.keys().all(|id| hub.ledger.withdrawals().is_withdrawn(&code, id))
    };
    while !recorded(world) {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn release(world: &World, target: usize) {
    let code = world.forum.states[target].code.clone();
    let (_, hub) = world.hub.running().unwrap();
    let published = hub.published();
    let member = world.forum.secretariat.clone();
    let hold = *published.ledger.registry().holds().laid_by(&member.code, &code).expect("it is held");
    say_as(world, &member, DraftContent::Release(hold)).await.unwrap();
}

/// A state's officer hands a statement to the hub itself, so that nothing but the step decides when it comes.
async fn say(world: &World, state: usize, content: DraftContent) -> Result<usize, Refusal> {
    let member = world.forum.states[state].clone();
    say_as(world, &member, content).await
}

async fn say_as(world: &World, member: &Member, content: DraftContent) -> Result<usize, Refusal> {
    let (machine, shared) = world.hub.running().unwrap();
    let identity = Identity { participant: member.code.clone(), role: Role::Officer, name: name("officer") };
    let caller = Caller {
        identity,
        certificate_fingerprint: Fingerprint(Digest::ZERO),
        not_after: Timestamp::from_micros(i64::MAX),
    };
    let last = shared.published().ledger.signers().last(&member.code, &name("officer"));
    let signed = member.says(last.map_or(1, |last| last.number + 1), content);
    let (request, inner) = (StatementRequest { statement: Some(signed), ..Default::default() }, world.clone());
    let work = async move { statement::submit(&shared, &caller, request).await.map(|()| inner.network.tap.now()) };
    world.scheduler.call(machine, work).await.unwrap()
}

async fn submit_all(world: World, fan_out: FanOut) {
    for number in 0..fan_out.exchanges {
        let request = SubmitRequest {
            request_id: format!("race-{number}"),
            agreement_id: SOME.to_owned(),
            measure: MEASURE.to_owned(),
            lane: convert::lane(fan_out.lane).into(),
            title: "Simulated".to_owned(),
            media_type: "text/plain".to_owned(),
            body: Bytes::from(format!("race {number}")),
            ..SubmitRequest::default()
        };
        let node = &world.nodes[fan_out.origin];
        let (context, agency) = (node.running().unwrap(), name(AGENCIES[0]));
        let queued = Queued { state: fan_out.origin, agency: 0, request: request.clone() };
        let work = async move { calls::submit(&context, &agency, request).await };
        // Its own node may have heard of the end by now, and refuse.
        if let Ok(response) = world.scheduler.call(node.machine, work).await.unwrap() {
            world.log().note(ExchangeId(Digest::from_slice(&response.exchange_id).unwrap()), queued);
        }
    }
    world.log().busy -= 1;
}

async fn at_rest(world: &World) {
    for _ in 0..DRAIN_SECONDS_MAX * 10 {
        if world.log().busy == 0 && judge::pending(&world.parties()).is_empty() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("I6: it does not come to rest: {}", judge::pending(&world.parties()));
}

fn reference(text: &AgreementText) -> AgreementRef {
    AgreementRef { id: text.id.clone(), version: text.version, digest: agreement_digest(&encode_text(text)) }
}

/// A lane of the origin, a consignment, and the index there.
type Place = (Lane, u64, u32);

/// An exchange as the hub's journal has it, and whether that was before the act.
struct Recorded {
    audience: Vec<ParticipantCode>,
    withdraws: Option<ExchangeId>,
    place: Place,
    before: bool,
    /// It was recorded when the one who left had come back.
    again: bool,
}

fn judge_race(world: &World, fan_out: &FanOut, step: u64, (ended, until): (usize, usize)) {
    let again = format!("{fan_out:?} with the act after step {step}");
    let heard = world.network.tap.heard();
    let withdrawn = world.log().withdrawn.clone();
    let recorded = recorded(world, fan_out);
    let loses = |state: usize, id: &ExchangeId| {
        let again = recorded.get(id).is_some_and(|one| one.again);
        fan_out.act.loses(fan_out.target, &withdrawn, (state, id, again))
    };

    // Sent means handed to the kernel: nothing more is handed once the act was answered.
    let mut on_their_way = [0; STATES.len()];
    for late in &heard[ended..until.min(heard.len())] {
        if let Some(id) = delivered(late)
            && loses(late.node, &id)
        {
            // No stream ends for a withdrawal: what had its permit goes out, and the notice follows.
            on_their_way[late.node] += 1;
            let is_permitted = fan_out.act == Act::Withdraw && on_their_way[late.node] <= DELIVERIES_PERMITTED_MAX + 1;
            assert!(is_permitted, "I2: {id} was handed to {} after the act was answered: {again}", STATES[late.node]);
        }
        let is_agency = late.stream == format!("agency {}", AGENCIES[0]) && late.node == fan_out.target;
        assert!(
            fan_out.act != Act::Revoke || !is_agency,
            "I2: an agency was given what it may not have any more: {again}"
        );
    }

    let mut handed: BTreeMap<usize, BTreeSet<ExchangeId>> = BTreeMap::new();
    for one in &heard {
        handed.entry(one.node).or_default().extend(delivered(one));
    }
    let told = told(&heard, fan_out.origin);
    let parties = world.parties();
    for (id, exchange) in &recorded {
        let withdrawn = exchange.withdraws.map(|withdrawn| recorded.get(&withdrawn));
        for (state, code) in STATES.into_iter().enumerate() {
            let is_loser = loses(state, id);
            let again = format!("{id} and {code}: {again}");
            let was_meant = exchange.audience.iter().any(|one| one.as_str() == code);
            let had_right = match withdrawn {
                // What was withdrawn before it was recorded nobody has, and nobody is told.
                Some(withdrawn) => withdrawn.is_some_and(|one| one.audience == exchange.audience) && was_meant,
                None => {
                    let before = exchange.before || !is_loser || matches!(fan_out.act, Act::Hold | Act::Withdraw);
                    state < SOME_PARTIES && state != fan_out.origin && before
                }
            };
            assert_eq!(was_meant, had_right, "I2: who is meant by what was recorded when: {again}");
            let was_handed = handed.get(&state).is_some_and(|ids| ids.contains(id));
            assert!(was_meant || !was_handed, "I2: handed to one who is not meant: {again}");
            let has = judge::accepted(&parties.nodes[state]).contains_key(id);
            assert!(was_handed || !has, "I2: it has what was never handed: {again}");
            if !was_meant {
                continue;
            }
            let outcome = told.get(&(code.to_owned(), exchange.place));
            if !is_loser || fan_out.act == Act::Hold {
                assert!(has, "I1: it lost nothing, and does not have it: {again}");
            }
            match outcome {
                Some((ReceiptState::Withheld, reason)) => {
                    assert!(!has, "withheld, and it has it: {again}");
                    assert_eq!(reason, fan_out.act.reason(), "the reason why it was withheld: {again}");
                    assert!(is_loser, "withheld from one who lost nothing: {again}");
                }
                Some((ReceiptState::SetAside, _)) => assert!(was_handed && is_loser, "set aside: {again}"),
                Some((ReceiptState::Delivered | ReceiptState::Taken, _)) => assert!(has, "told delivered: {again}"),
                other => panic!("its origin was told {other:?}: {again}"),
            }
        }
    }
}

/// The exchange that was handed, if it is one of those.
fn delivered(heard: &Heard) -> Option<ExchangeId> {
    let What::Message { kind: "concord.exchange.v1.ReceiveResponse", bytes } = &heard.what else { return None };
    match ReceiveResponse::decode(bytes.as_slice()).unwrap().message {
        Some(receive_response::Message::Delivery(delivery)) if heard.stage == Stage::Handed => {
            Some(exchange_id(&delivery.header))
        }
        _ => None,
    }
}

/// What the origin was told last of each exchange at each recipient.
fn told(heard: &[Heard], origin: usize) -> BTreeMap<(String, Place), (ReceiptState, String)> {
    let mut told = BTreeMap::new();
    for one in heard.iter().filter(|one| one.node == origin && one.stage == Stage::Arrived) {
        let What::Message { kind: "concord.feed.v1.FollowResponse", bytes } = &one.what else { continue };
        let Some(follow_response::Message::Item(item)) = FollowResponse::decode(bytes.as_slice()).unwrap().message
        else {
            continue;
        };
        let Some(feed_item::Content::Receipts(receipts)) = item.content else { continue };
        for receipt in receipts.receipts {
            let lane = convert::parse_lane(receipt.chain.as_ref().unwrap().lane).unwrap();
            for index in receipt.items.iter().flat_map(|range| range.first..range.first + range.count) {
                let place = (receipts.recipient.clone(), (lane, receipt.number, index));
                told.insert(place, (receipt.state(), receipt.reason.clone()));
            }
        }
    }
    told
}

/// What the hub's journal has of the fan-out, and which of it before the act.
fn recorded(world: &World, fan_out: &FanOut) -> BTreeMap<ExchangeId, Recorded> {
    let journal = world.hub.disk.durable();
    let (mut before, mut again, mut recorded) = (true, false, BTreeMap::new());
    let some = AgreementId::parse(SOME).unwrap();
    let acts = |content: &StatementContent| match (fan_out.act, content) {
        (Act::Leave | Act::Return, StatementContent::Leave(_)) | (Act::Hold, StatementContent::Hold { .. }) => true,
        (Act::Amend, StatementContent::Consent(reference)) => reference.id == some && reference.version == 2,
        (Act::End, StatementContent::End(_)) => true,
        _ => false,
    };
    let target = STATES[fan_out.target];
    let mut entries = judge::entries(&journal);
    for entry in entries.drain(..) {
        match read(&entry).unwrap() {
            HubEntry::Statement(fact, _) => {
                let by = fact.statement.participant.as_str();
                let is_it = acts(&fact.statement.content) && (by == target || fan_out.act == Act::Hold);
                before &= !is_it;
                again |= matches!(fact.statement.content, StatementContent::Return(..));
            }
            HubEntry::Lapsed(_) => before = false,
            HubEntry::Consignment(fact, kept) => {
                for (index, header) in (0..).zip(&kept.sealed.headers) {
                    let mut groups = fact.groups.iter();
                    let group = groups.find(|group| group.items.iter().any(|items| items.indices().contains(&index)));
                    let Some(group) = group else { continue };
                    let withdraws = withdraws(header).map(|withdrawal| withdrawal.exchange);
                    let (audience, place) = (group.recipients.clone(), (fact.chain.lane, fact.number, index));
                    recorded.insert(exchange_id(header), Recorded { audience, withdraws, place, before, again });
                }
            }
            _ => {}
        }
    }
    recorded
}
