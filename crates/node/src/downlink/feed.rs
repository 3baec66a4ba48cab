//! The feed: verified item by item, applied without a gap.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::{Anchor, verify, verify_statement};
use concord_journal::HistoryId;
use concord_ledger::{Statement, that_count};
use concord_model::{Digest, Lane, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::{LOWER_LIMITS_NOTE, NOT_HEALED_NOTE};
use concord_wire::agreement::{keys, parse_statement};
use concord_wire::convert::{digest_bytes, lane, optional_timestamp, timestamp};
use concord_wire::feed::parse_receipt;
use concord_wire::lower_limits;
use concord_wire::proto::agreement::v1 as agreement;
use concord_wire::proto::exchange::v1::PastHistory;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::proto::feed::v1::{
    FeedItem, FeedPosition, FeedResume, FollowRequest, FollowResponse, Healing, LanePosition, NodeJournal,
    OfficerPosition, Receipts, follow_response,
};
use concord_wire::stored::node::FeedResumed;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;

use super::healing::hand_back;
use crate::context::Context;
use crate::link::{Attempt, HubLink, Incoming, LinkEnd, keep_up, welcomed};
use crate::state::{Directory, HubKeys, NodeState};
use crate::uplink::{histories, unexpected};

const ALARM: &str = "feed";
const HUB_LOST_NOTE: &str = "hub-lost-data";
/// Items that are journaled together.
const ITEMS_TOGETHER_MAX: usize = 512;
/// Their bytes; a single item may have more.
const ITEMS_TOGETHER_MAX_BYTES: u64 = 1024 * 1024;

pub(super) async fn run(context: Context, link: Arc<dyn HubLink>) {
    // The process before this one may have heard it, and the hub may be away now.
    context.tell_fence();
    let attempt = || {
        let attempt = async {
            let mut stood = false;
            let end = follow(&context, link.as_ref(), &mut stood).await;
            context.contact.lost();
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood }
        };
        attempt.boxed()
    };
    keep_up(&context, ALARM, attempt).await;
}

async fn follow(context: &Context, link: &dyn HubLink, stood: &mut bool) -> Result<(), LinkEnd> {
    // Before the first word to the hub, so that no other copy of this journal has it.
    context.writer.begin_run(context.run).await.map_err(LinkEnd::not_kept)?;
    let mut heard = context.contact.refusals_heard();
    let state = context.now_state();
    let hub = state.hub().ok_or_else(LinkEnd::closed)?;
    let cursor = state.feed();
    let request = FollowRequest {
        limits: Some(concord_wire::limits()),
        position: Some(position_of(&state)),
        sent_at: Some(timestamp(context.clock.shown())),
        journal: Some(journal_of(context, &state)),
    };
    let mut incoming = link.follow(request).await?;
    let follow_response::Message::Welcome(welcome) = welcomed(next(&mut incoming)).await? else {
        return Err(unexpected("a feed item came before the welcome"));
    };
    concord_wire::check_limits(welcome.limits.as_ref()).map_err(LinkEnd::Refused)?;
    match welcome.limits.as_ref().and_then(lower_limits) {
        Some(lower) => {
            let what = format!(
                "the hub takes {lower}: what is queued here and larger is refused by it until it has a newer version"
            );
            context.readiness.note(LOWER_LIMITS_NOTE, what);
        }
        None => context.readiness.clear(LOWER_LIMITS_NOTE),
    }
    if !context.welcomed(&heard).await.map_err(LinkEnd::not_kept)? {
        return Err(other_word());
    }
    if let Some(peer) = optional_timestamp(welcome.sent_at.as_ref()) {
        context.clock.heard(peer);
        context.contact.heard_clock(peer);
        context.contact.tell_clock(context.clock.shown(), &context.readiness);
    }
    let (current, past) = histories(&welcome.history, welcome.last_number, &welcome.past)?;
    if let Some(healing) = &welcome.healing {
        return Err(heal(context, link, &state, healing).await);
    }
    // Before the first item the hub is known by the history that its bundle named.
    let position = (cursor.history.unwrap_or(hub.history), cursor.number);
    let stands = NodeState::position_stands(Some(position), current, past);
    if let Some(resume) = &welcome.resume {
        resume_feed(context, current.0, resume).await?;
    } else if !stands && cursor.number > 0 {
        return Err(unexpected("it says that this feed stands, and names no past in which it does"));
    } else if !stands {
        // Nothing of it is known here, so nothing can be handed back; who it is, its certificate and its anchor say.
        let what = "the hub does not know the history that its bundle named: it was set up anew or restored";
        context.readiness.note(HUB_LOST_NOTE, what);
    }
    *stood = true;
    context.readiness.clear(ALARM);
    context.contact.connected(context.clock.now());

    concord_faults::point("node.feed.welcomed");
    loop {
        let (items, size, ended) = tokio::select! {
            biased;
            () = heard.again() => return Err(other_word()),
            gathered = gather(&mut incoming) => gathered?,
        };
        concord_faults::point("node.feed.arrived");
        let count = items.len() as u64;
        apply(context, current.0, items, size).await?;
        concord_faults::point("node.feed.kept");
        metrics::counter!("concord_feed_items_total").increment(count);
        context.contact.heard(context.clock.now());
        ended?;
    }
}

/// Hands everything back to a hub that lost data. The feed is followed anew afterwards.
async fn heal(context: &Context, link: &dyn HubLink, state: &NodeState, healing: &Healing) -> LinkEnd {
    let what = format!(
        "the hub lost data or was restored: it knows {} of the {} items of this participant's feed that are here. They are being handed back",
        healing.known_number,
        state.feed().number
    );
    context.readiness.raise(HUB_LOST_NOTE, what);
    concord_faults::point("node.heal.begin");
    let answer = match hand_back(context, link, position_of(state), healing.known_number).await {
        Ok(answer) => answer,
        Err(end) => return end,
    };
    concord_faults::point("node.heal.handed");
    let own = context.participant.as_str();
    for refused in answer.not_taken.iter().filter(|refused| refused.participant == own) {
        let what = format!(
            "statement {} of the officer {} was handed back and the hub cannot take it: {}",
            refused.number, refused.officer, refused.reason
        );
        context.readiness.note_also(NOT_HEALED_NOTE, &what);
    }
    LinkEnd::Lost("what the hub had lost is handed back; the feed is followed anew".to_owned())
}

/// The feed goes on where the hub says.
async fn resume_feed(context: &Context, history: HistoryId, resume: &FeedResume) -> Result<(), LinkEnd> {
    let digest = match &resume.digest[..] {
        [] => None,
        digest => Some(Digest::from_slice(digest).map_err(|_| unexpected("a digest does not have 32 bytes"))?),
    };
    let resumed = FeedResumed { history: *history.as_bytes(), at: resume.at, digest };
    context.writer.resume_feed(resumed).await.map_err(LinkEnd::not_kept)?;
    concord_faults::point("node.heal.resumed");
    let healed = "the hub lost data or was restored: what this node has of it was handed back, and the feed goes on";
    context.readiness.note(HUB_LOST_NOTE, healed);
    Ok(())
}

/// Where this node stands, with what tells two pasts apart.
fn position_of(state: &NodeState) -> FeedPosition {
    let cursor = state.feed();
    let officers = state.officers().iter().filter_map(|(name, officer)| {
        let (number, statement) = officer.last_decided()?;
        Some(OfficerPosition { officer: name.to_string(), number, digest: digest_bytes(&statement.digest) })
    });
    FeedPosition {
        history: cursor.history.map(|history| Bytes::copy_from_slice(history.as_bytes())).unwrap_or_default(),
        last_number: cursor.number,
        last_digest: cursor.digest.as_ref().map(digest_bytes).unwrap_or_default(),
        officers: officers.collect(),
    }
}

/// What tells this journal from its copies, and how far it goes.
fn journal_of(context: &Context, state: &NodeState) -> NodeJournal {
    let (line, tail) = (state.line(), context.index.journal().tail());
    let word = |bytes: &[u8; 16]| Bytes::copy_from_slice(bytes);
    let lanes = Lane::ALL.map(|of| {
        let (mailbox, chain) = (state.mailbox(of), state.newest_chain(of));
        LanePosition {
            lane: lane(of).into(),
            epoch: chain.epoch,
            chain_last: chain.last_number.max(chain.recorded_through),
            received_through: mailbox.received_through.max(mailbox.acknowledged_through),
            taken_count: mailbox.taken_count,
        }
    });
    NodeJournal {
        history: line.history.map(|history| word(history.as_bytes())).unwrap_or_default(),
        ancestors: line
            .ancestors
            .iter()
            .map(|(history, last)| PastHistory { history: word(history.as_bytes()), last_number: *last })
            .collect(),
        runs: line.runs.iter().map(word).collect(),
        restored_in: line.restored_in.map(|history| word(history.as_bytes())).unwrap_or_default(),
        rebuilt_in: line.rebuilt_in.map(|history| word(history.as_bytes())).unwrap_or_default(),
        recovering: state.is_recovering(),
        tail_sequence: tail.sequence,
        tail_digest: Bytes::copy_from_slice(tail.digest.as_bytes()),
        lanes: lanes.into(),
    }
}

fn other_word() -> LinkEnd {
    LinkEnd::Lost(
        "another link heard that the hub does not serve this copy of the node; the feed asks again".to_owned(),
    )
}

/// The next item and those that are there already, their size, and whether the stream ended behind them.
async fn gather(incoming: &mut Incoming<FollowResponse>) -> Result<(Vec<FeedItem>, u64, Result<(), LinkEnd>), LinkEnd> {
    let (mut items, mut size) = (Vec::new(), 0);
    let mut message = Some(next(incoming).await);
    while let Some(received) = message.take() {
        match received {
            Ok(follow_response::Message::Item(item)) => {
                size += item.encoded_len() as u64;
                items.push(item);
            }
            Ok(follow_response::Message::Welcome(_)) => return Err(unexpected("a second welcome came")),
            Err(end) if items.is_empty() => return Err(end),
            Err(end) => return Ok((items, size, Err(end))),
        }
        if items.len() < ITEMS_TOGETHER_MAX && size < ITEMS_TOGETHER_MAX_BYTES {
            message = next(incoming).now_or_never();
        }
    }
    Ok((items, size, Ok(())))
}

async fn apply(context: &Context, history: HistoryId, items: Vec<FeedItem>, size: u64) -> Result<(), LinkEnd> {
    let state = context.now_state();
    let hub = state.hub().cloned().ok_or_else(LinkEnd::closed)?;
    let (own, now) = (context.participant.clone(), context.clock.shown());
    let verified = concord_server::blocking(move || {
        let known = Directory::clone(state.directory());
        verify_items(known, &hub, &own, &items, now).map(|()| items)
    });
    let items = verified.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(LinkEnd::Refused)?;
    concord_faults::point("node.feed.verified");
    context.writer.feed(history, items, size).await.map_err(LinkEnd::not_kept)
}

/// Whether every statement among these items is its participant's to say and was signed by an officer of it, as this directory knows its
/// anchor, and every receipt can be read.
///
/// Items build on each other: an enrolment counts for the statements behind it. `now` bounds what the hub says of its time.
pub fn verify_items(
    mut directory: Directory,
    hub: &HubKeys,
    own: &ParticipantCode,
    items: &[FeedItem],
    now: Timestamp,
) -> Result<(), Refusal> {
    for item in items {
        let false_item = |what: String| {
            let what = format!("item {} of the hub's feed does not hold: {what}", item.number);
            Refusal::new(Reason::StatementSignatureInvalid, what)
        };
        if let Some(Content::Statement(signed)) = &item.content {
            let recorded_at = optional_timestamp(item.recorded_at.as_ref()).unwrap_or(now).min(now);
            let statement = parse_statement(signed).map_err(|refusal| false_item(refusal.message))?;
            if !directory.has_taken_in(&statement) {
                verify_one(&directory, signed, &statement, recorded_at).map_err(false_item)?;
                verify_approvals(&directory, &statement, &item.approvals, recorded_at).map_err(false_item)?;
            }
        } else if !item.approvals.is_empty() {
            return Err(false_item("it has approvals of nothing".to_owned()));
        }
        if let Some(Content::Receipts(receipts)) = &item.content {
            verify_receipts(receipts).map_err(false_item)?;
        }
        directory.apply(hub, own, item).map_err(|error| false_item(error.to_string()))?;
    }
    Ok(())
}

/// Whether each approval that comes with a statement is one of that statement, signed by another officer of its participant. How many
/// the hub asks for is a setting of the hub's; who signed is shown with the participant.
fn verify_approvals(
    directory: &Directory,
    statement: &Statement,
    approvals: &[agreement::SignedStatement],
    at: Timestamp,
) -> Result<(), String> {
    let mut parsed = Vec::with_capacity(approvals.len());
    for signed in approvals {
        let approval = parse_statement(signed).map_err(|refusal| refusal.message)?;
        verify_one(directory, signed, &approval, at)?;
        parsed.push(approval);
    }
    if that_count(statement, &parsed).len() != parsed.len() {
        return Err("an approval is of another statement, or of an officer who signed it already".to_owned());
    }
    Ok(())
}

/// Receipts are only read where they are shown: one that cannot be read must not get into the journal.
fn verify_receipts(receipts: &Receipts) -> Result<(), String> {
    ParticipantCode::parse(&receipts.recipient).map_err(|error| error.to_string())?;
    receipts.receipts.iter().try_for_each(|receipt| {
        parse_receipt(receipt)
            .map(|_| ())
            .map_err(|refusal| format!("{}; a newer version of concord may know it", refusal.message))
    })
}

fn verify_one(
    directory: &Directory,
    signed: &agreement::SignedStatement,
    statement: &Statement,
    at: Timestamp,
) -> Result<(), String> {
    let participant = &statement.participant;
    if !statement.is_its_to_say() {
        return Err(format!("{participant} says what only the secretariat may say, or the one whom it is about"));
    }
    // What was said under an anchor that was replaced since stands, and may be told late by a hub that lost data.
    let anchors =
        directory.registry.anchors_for(statement).into_iter().map(Anchor::from_der).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(|error| error.to_string())?;
    if anchors.is_empty() {
        return Err(format!("{participant} is not enrolled"));
    }
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let verify = |at| verify_statement(participant, &anchors, &chain, &signed.statement, &signed.signature, at);
    // A hub that lost data records again what was said before, when a certificate may have ended: then it counts when it was made.
    let made_at = statement.made_at.min(at);
    let officer =
        verify(at).or_else(|refused| verify(made_at).map_err(|_| refused)).map_err(|error| error.to_string())?;
    if officer.name != statement.officer {
        return Err(format!("it names the officer {} and is signed by {}", statement.officer, officer.name));
    }
    verify_proofs(signed)
}

/// The hub checked it when it took the statement in; a hub that did not is found out here.
fn verify_proofs(signed: &agreement::SignedStatement) -> Result<(), String> {
    for proof in keys::proofs(signed).map_err(|refusal| refusal.message)? {
        verify(&proof.key.bytes, &proof.signed_message, &proof.signature).map_err(|_| {
            format!("the signing key {} that it names did not sign for it", proof.key.fingerprint.grouped())
        })?;
    }
    Ok(())
}

async fn next(incoming: &mut Incoming<FollowResponse>) -> Result<follow_response::Message, LinkEnd> {
    let response = incoming.next().await.ok_or_else(LinkEnd::closed)?;
    let response = response.map_err(|status| LinkEnd::from_status(&status))?;
    response.message.ok_or_else(|| unexpected("a message came that this version does not know"))
}
