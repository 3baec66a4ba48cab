//! Agencies that take back what they submitted: while it waits at their node, when it is under way, or when others have it.

use std::time::Duration;

use bytes::Bytes;
use concord_model::{Digest, ExchangeId, Reason, Refusal};
use concord_node::calls;
use concord_wire::proto::agency::v1::{SubmitRequest, WithdrawRequest};
use tokio::time::sleep;

use crate::chance::Chance;
use crate::clients::{LOAD_MILLISECONDS, is_passing};
use crate::forum::{AGENCIES, STATES, name};
use crate::log::Queued;
use crate::world::World;

/// An agency that now and then takes one back.
pub(crate) async fn take_back(world: World, state: usize, agency: usize, mut chance: Chance) {
    world.log().busy += 1;
    while chance.one_in(2) {
        sleep(Duration::from_millis(chance.below(LOAD_MILLISECONDS / 2))).await;
        let current = world.log().current((state, agency));
        if current.is_empty() {
            continue;
        }
        let (id, request) = chance.pick(&current).clone();
        let answer = withdraw(&world, (state, agency), id, &mut chance).await;
        let outcome = answer.as_ref().map_or_else(|refusal| refusal.reason.code(), |_| "queued");
        world.trace.line(format_args!("{} {} withdraws {id}: {outcome}", STATES[state], AGENCIES[agency]));
        match answer {
            Ok(by) => {
                let request = SubmitRequest { request_id: request_id(&id), body: Bytes::new(), ..request };
                let mut log = world.log();
                log.withdrawn.insert(id, by);
                log.note(by, Queued { state, agency, request });
            }
            // Whether that is so, the judgement says.
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::ExchangeNotCurrent, "a withdrawal was refused: {refusal}");
                world.log().not_current.insert(id);
            }
        }
    }
    world.log().busy -= 1;
}

fn request_id(of: &ExchangeId) -> String {
    format!("back-{}", &of.to_string()[..16])
}

/// Withdraws until there is an answer; whoever asks again hears the same.
pub(crate) async fn withdraw(
    world: &World,
    (state, agency): (usize, usize),
    id: ExchangeId,
    chance: &mut Chance,
) -> Result<ExchangeId, Refusal> {
    let node = &world.nodes[state];
    let request = WithdrawRequest { request_id: request_id(&id), exchange_id: id.to_string(), reason: String::new() };
    let mut answered = None;
    loop {
        if let Some(context) = node.running() {
            let (agency, request) = (name(AGENCIES[agency]), request.clone());
            let work = async move { calls::withdraw(&context, &agency, request).await };
            match world.scheduler.call(node.machine, work).await {
                Ok(Ok(response)) => {
                    assert_eq!(response.withdraws, id.0.as_bytes()[..], "another was withdrawn");
                    let by = ExchangeId(Digest::from_slice(&response.exchange_id).unwrap());
                    let before = answered.replace(by);
                    assert!(before.is_none_or(|before| before == by), "I3: a repeated withdrawal got another exchange");
                    // Sometimes the answer does not reach the agency.
                    if !chance.one_in(4) {
                        return Ok(by);
                    }
                }
                Ok(Err(refusal)) if !is_passing(&refusal) => {
                    assert_eq!(answered, None, "I3: a repeated withdrawal was refused: {refusal}");
                    return Err(refusal);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        sleep(Duration::from_millis(chance.within(100..1_500))).await;
    }
}
