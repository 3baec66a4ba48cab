//! Probes on their way back to the node that sent them.
//!
//! A probe goes the way of an exchange (the stream of a lane, the sequencer behind what is being made durable, the stream of that
//! participant's mailbox) and is recorded nowhere, so that it shows that the way is open and leaves nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use concord_model::{ChainKey, Lane, ParticipantCode};
use concord_wire::proto::exchange::v1 as pb;
use tokio::sync::watch;

use crate::delivery::{MailboxWriter, StreamGone};
use crate::sequencer::Proposal;
use crate::shared::Shared;

/// What tells a probe from another.
pub type Nonce = [u8; 16];

/// The newest probe of each participant and lane; bounded by the registry, since only enrolled nodes have streams.
#[derive(Default)]
pub struct Probes(Mutex<BTreeMap<(ParticipantCode, Lane), OnItsWay>>);

type OnItsWay = watch::Sender<Option<Nonce>>;

impl Probes {
    /// Hands a probe to the mailbox stream of the one that sent it. Where none is open it is forgotten: the way back is not there.
    pub fn hand(&self, participant: &ParticipantCode, lane: Lane, nonce: Nonce) {
        self.of(participant, lane).send_replace(Some(nonce));
    }

    /// What is handed from now on.
    pub fn watch(&self, participant: &ParticipantCode, lane: Lane) -> watch::Receiver<Option<Nonce>> {
        self.of(participant, lane).subscribe()
    }

    fn of(&self, participant: &ParticipantCode, lane: Lane) -> OnItsWay {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((participant.clone(), lane)).or_insert_with(|| watch::Sender::new(None)).clone()
    }
}

/// A probe waits for what is being made durable, as an exchange does, and goes back by the stream of its lane's mailbox.
pub async fn pass_on(shared: &Shared, chain: &ChainKey, nonce: Nonce) {
    let (origin, lane) = (&chain.origin, chain.lane);
    let is_within = shared.shares.take(origin, lane, 1, 0).is_ok();
    if is_within
        && shared.sequencer.decide(Proposal::Pulse(lane)).await.is_ok()
        && concord_faults::failure("hub.probe.goes-back").is_ok()
    {
        shared.probes.hand(origin, lane, nonce);
    }
}

/// Gives each probe back that comes through while the stream lives.
pub async fn give_back(mut probes: watch::Receiver<Option<Nonce>>, writer: &MailboxWriter) -> StreamGone {
    loop {
        if probes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let Some(nonce) = *probes.borrow_and_update() else { continue };
        let probe = pb::Probe { nonce: Bytes::copy_from_slice(&nonce) };
        if let Err(gone) = writer.send(pb::receive_response::Message::Probe(probe)).await {
            return gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_comes_to_the_stream_of_its_own_lane_and_participant_that_is_open_then() {
        let (probes, kaz, irn) =
            (Probes::default(), ParticipantCode::parse("KAZ").unwrap(), ParticipantCode::parse("IRN").unwrap());
        probes.hand(&kaz, Lane::Flash, [1; 16]);
        let mut mine = probes.watch(&kaz, Lane::Flash);
        let others = [probes.watch(&irn, Lane::Flash), probes.watch(&kaz, Lane::Routine)];
        assert!(!mine.has_changed().unwrap(), "of before the stream");
        probes.hand(&kaz, Lane::Flash, [2; 16]);
        assert_eq!(*mine.borrow_and_update(), Some([2; 16]));
        assert!(others.iter().all(|other| !other.has_changed().unwrap()));
    }
}
