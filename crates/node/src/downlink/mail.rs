//! One mailbox: received without a gap, judged, journaled, acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use concord_journal::{Blob, HistoryId, MendError, NONCE_SIZE_BYTES, ReadError};
use concord_model::{Lane, Reason, Refusal};
use concord_server::traces::{self, Span, Step};
use concord_wire::consignment::blob_from_bytes;
use concord_wire::convert;
use concord_wire::proto::exchange::v1::{
    AcknowledgementRecorded, Delivery, MailboxResume, ReceiveHello, ReceiveRequest, ReceiveResponse, ReceiveWelcome,
    receive_request, receive_response,
};
use concord_wire::stored::node::Verdict;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::acknowledge::{compose, has_news};
use super::judge::judge;
use super::shape::{DELIVERY_OVERHEAD_BYTES, check_shape, size_of};
use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::link::{Attempt, HubLink, Incoming, LinkEnd, keep_up, welcomed};
use crate::projection::InboxRow;
use crate::services::{SET_ASIDE_NEXT, SET_ASIDE_NOTE};
use crate::state::NodeState;
use crate::uplink::{broken, histories, unexpected};
use crate::writer::Judged;

/// Deliveries that are judged and journaled together.
const DELIVERIES_TOGETHER_MAX: usize = 1024;
/// Their bytes; a single delivery may have more.
const DELIVERIES_TOGETHER_MAX_BYTES: u64 = 1024 * 1024;
/// Acknowledgements on their way into the connection: one waits for its answer at a time, so there is always room.
const OUTGOING_WAITING_MAX: usize = 4;
/// A delivery that names feed items which did not come for so long is alarmed.
const FEED_WAIT_ALARM_SECONDS: u64 = 30;

/// The alarms of one lane.
struct Alarms {
    link: &'static str,
    feed: &'static str,
}

const fn alarms(lane: Lane) -> Alarms {
    match lane {
        Lane::Flash => Alarms { link: "mailbox-flash", feed: "mailbox-flash-feed" },
        Lane::Priority => Alarms { link: "mailbox-priority", feed: "mailbox-priority-feed" },
        Lane::Routine => Alarms { link: "mailbox-routine", feed: "mailbox-routine-feed" },
    }
}

pub(super) async fn run(context: Context, link: Arc<dyn HubLink>, lane: Lane) {
    let attempt = || {
        let attempt = async {
            let mut stood = false;
            let end = receive(&context, link.as_ref(), lane, &mut stood).await;
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood }
        };
        attempt.boxed()
    };
    keep_up(&context, alarms(lane).link, attempt).await;
}

async fn receive(context: &Context, link: &dyn HubLink, lane: Lane, stood: &mut bool) -> Result<(), LinkEnd> {
    let (outgoing, to_send) = mpsc::channel(OUTGOING_WAITING_MAX);
    let mailbox = context.now_state().mailbox(lane).clone();
    // Watched before it is asked what is wanted, so that nothing more is missed.
    let mut wanted = context.index.damaged().watch_wanted();
    // What this stream has asked for and has not been answered. Invariant: what is wanted and is not in it is asked for by a new stream.
    let mut asked = context.index.damaged().asked(lane);
    let hello = ReceiveHello {
        limits: Some(concord_wire::limits()),
        lane: convert::lane(lane).into(),
        history: mailbox.history.map(|history| Bytes::copy_from_slice(history.as_bytes())).unwrap_or_default(),
        last_number: mailbox.received_through,
        acknowledged_through: mailbox.acknowledged_through,
        run: Bytes::copy_from_slice(&context.run),
        last_digest: mailbox.last_id.map(|id| convert::digest_bytes(&id.0)).unwrap_or_default(),
        damaged: asked.iter().copied().collect(),
    };
    send(&outgoing, receive_request::Message::Hello(hello)).await?;
    let mut incoming = link.receive(lane, ReceiverStream::new(to_send).boxed()).await?;
    let receive_response::Message::Welcome(welcome) = welcomed(next(&mut incoming)).await? else {
        return Err(unexpected("a delivery came before the welcome"));
    };
    concord_wire::check_limits(welcome.limits.as_ref()).map_err(LinkEnd::Refused)?;
    if let Some(resume) = welcome.resume {
        resume_mailbox(context, lane, &welcome, resume).await?;
    }
    let (history, mut recorded) = check_welcome(&context.now_state(), lane, &welcome)?;
    *stood = true;
    context.readiness.clear(alarms(lane).link);

    concord_faults::point("node.mail.welcomed");
    let mut published = context.state.clone();
    let mut unanswered = false;
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        // One at a time: what comes meanwhile goes into the next, which begins where the hub says.
        if !unanswered && has_news(&state, lane, &recorded) {
            let context = context.clone();
            let composed = concord_server::blocking(move || compose(&context, &state, lane, history, &recorded)).await;
            let acknowledgement = composed
                .map_err(|error| LinkEnd::Lost(error.to_string()))?
                .map_err(|error| LinkEnd::Refused(Refusal::new(Reason::Internal, error.to_string())))?;
            concord_faults::point("node.acknowledge.composed");
            send(&outgoing, receive_request::Message::Acknowledgement(acknowledgement)).await?;
            concord_faults::point("node.acknowledge.sent");
            unanswered = true;
        }
        tokio::select! {
            biased;
            Ok(()) = wanted.changed() => {
                if !context.index.damaged().asked(lane).is_subset(&asked) {
                    return Err(LinkEnd::Lost("deliveries that are damaged here are asked for again".to_owned()));
                }
            }
            message = next(&mut incoming) => {
                let mut gathered = gather(message?, &mut incoming);
                concord_faults::point("node.mail.arrived");
                gathered.probes.iter().for_each(|nonce| context.probes.came(lane, nonce));
                if let Some(now_recorded) = gathered.recorded {
                    recorded = now_recorded;
                    concord_faults::point("node.acknowledge.recorded");
                    unanswered = false;
                }
                let (again, mail) = gathered.split(&asked, context.now_state().mailbox(lane).received_through);
                for item in again {
                    let number = item.number();
                    // Answered, also where nobody wants it just now: who does again asks again.
                    if put_back(context, lane, item).await? {
                        asked.remove(&number);
                    }
                }
                if !mail.is_empty() {
                    keep(context, lane, history, mail).await?;
                }
                context.contact.heard(context.clock.now());
                gathered.ended?;
            }
            changed = published.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The hub lost data, and the mailbox goes on under later numbers.
async fn resume_mailbox(
    context: &Context,
    lane: Lane,
    welcome: &ReceiveWelcome,
    resume: MailboxResume,
) -> Result<(), LinkEnd> {
    let (current, _) = histories(&welcome.history, 0, &[])?;
    let taken_count = welcome.recorded.unwrap_or_default().taken_count;
    tracing::warn!(%lane, at = resume.at, common = resume.common, "the hub lost data: the mailbox goes on under later numbers");
    context.writer.resume_mailbox(lane, current.0, resume, taken_count).await.map_err(LinkEnd::not_kept)?;
    context.index.damaged().forget_asked(&context.readiness, lane);
    concord_faults::point("node.heal.mailbox");
    Ok(())
}

/// What the hub has recorded of this mailbox must lie within what stands here.
fn check_welcome(
    state: &NodeState,
    lane: Lane,
    welcome: &ReceiveWelcome,
) -> Result<(HistoryId, AcknowledgementRecorded), LinkEnd> {
    let mailbox = state.mailbox(lane);
    // How far the current history goes the hub judged by the hello.
    let (current, past) = histories(&welcome.history, u64::MAX, &welcome.past)?;
    let position = mailbox.history.map(|history| (history, mailbox.received_through));
    let recorded = welcome.recorded.unwrap_or_default();
    // What a restored node had acknowledged comes again; more than that only another copy of it acknowledged.
    let stands_through = mailbox.received_through.max(mailbox.acknowledged_through);
    let ahead = recorded.delivered_through > stands_through || recorded.taken_count > mailbox.taken_count;
    if ahead || !NodeState::position_stands(position, current, past) {
        return Err(LinkEnd::Stopped(format!(
            "mailbox {lane} stands at {} here and at {} at the hub, in pasts that do not fit: one side was restored or lost data. \
             Keep both folders and call the secretariat",
            mailbox.received_through, recorded.delivered_through
        )));
    }
    Ok((current.0, recorded))
}

enum Mail {
    Delivery(Box<Delivery>),
    Withheld(u64),
}

impl Mail {
    fn number(&self) -> u64 {
        match self {
            Self::Delivery(delivery) => delivery.number,
            Self::Withheld(number) => *number,
        }
    }
}

struct Gathered {
    mail: Vec<Mail>,
    recorded: Option<AcknowledgementRecorded>,
    /// Own probes that came back.
    probes: Vec<Bytes>,
    /// What came behind them.
    ended: Result<(), LinkEnd>,
}

impl Gathered {
    /// What was asked for again, and what is new.
    fn split(&mut self, asked: &BTreeSet<u64>, received_through: u64) -> (Vec<Mail>, Vec<Mail>) {
        let mail = std::mem::take(&mut self.mail).into_iter();
        mail.partition(|item| item.number() <= received_through && asked.contains(&item.number()))
    }
}

/// A message and those that are there already.
fn gather(first: receive_response::Message, incoming: &mut Incoming<ReceiveResponse>) -> Gathered {
    let mut gathered = Gathered { mail: Vec::new(), recorded: None, probes: Vec::new(), ended: Ok(()) };
    let (mut message, mut size) = (Some(Ok(first)), 0);
    while let Some(received) = message.take() {
        match received {
            Ok(receive_response::Message::Delivery(delivery)) => {
                if let Err(refusal) = check_shape(&delivery) {
                    gathered.ended = Err(LinkEnd::Refused(refusal));
                    return gathered;
                }
                size += size_of(&delivery);
                gathered.mail.push(Mail::Delivery(Box::new(delivery)));
            }
            Ok(receive_response::Message::Withheld(notice)) => gathered.mail.push(Mail::Withheld(notice.number)),
            Ok(receive_response::Message::Recorded(recorded)) => gathered.recorded = Some(recorded),
            Ok(receive_response::Message::Probe(probe)) => gathered.probes.push(probe.nonce),
            Ok(receive_response::Message::Welcome(_)) => {
                gathered.ended = Err(unexpected("a second welcome came"));
                return gathered;
            }
            Err(end) => {
                gathered.ended = Err(end);
                return gathered;
            }
        }
        if gathered.mail.len() + gathered.probes.len() < DELIVERIES_TOGETHER_MAX && size < DELIVERIES_TOGETHER_MAX_BYTES
        {
            message = next(incoming).now_or_never();
        }
    }
    gathered
}

/// Puts the content of a delivery that came again back in its place. What it is, its commitment says, which was judged when it came first.
///
/// Refuses with `BLOB_MISMATCH` what is not the content of the exchange that was asked for.
async fn put_back(context: &Context, lane: Lane, again: Mail) -> Result<bool, LinkEnd> {
    let (asked, damaged) = (again.number(), context.index.damaged());
    let Some(number) = damaged.number(lane, asked) else { return Ok(true) };
    let (index, state) = (context.index.clone(), context.now_state());
    let found = concord_server::blocking(move || {
        // Asked for by the numbers of before the hub lost data: what came under it now says nothing of what is wanted.
        if index.known_to_hub_as(&state, lane, number)? != Some(asked) {
            return Ok(None);
        }
        let row = index.inbox(lane, number, 1)?.pop().filter(|(found, _)| *found == number);
        let (_, row) = row.ok_or(IndexError::Row("a delivery"))?;
        let came = match again {
            Mail::Withheld(_) => None,
            Mail::Delivery(delivery) => Some(content(&delivery, &row)),
        };
        Ok(Some((row, came)))
    });
    let found = found.await.map_err(|error| LinkEnd::Lost(error.to_string()))?;
    let Some((row, came)) = found.map_err(broken)? else {
        damaged.forget_asked(&context.readiness, lane);
        return Ok(true);
    };
    concord_faults::point("node.mend.found");
    let Some(came) = came else {
        damaged.list_gone(&context.readiness, lane, number, &row.exchange_id);
        return Ok(true);
    };
    let first = usize::try_from(row.first_blob).unwrap_or(usize::MAX);
    for (position, body) in (first..).zip(came.map_err(LinkEnd::Refused)?) {
        match context.index.journal().mend(row.sequence, position, body).await {
            Ok(()) => metrics::counter!("concord_bodies_mended_total").increment(1),
            Err(MendError::Other { .. }) => return Err(LinkEnd::Refused(mismatch())),
            // The retention took it meanwhile: whoever waits finds that out.
            Err(MendError::NoPlace(ReadError::Redacted { .. })) => {}
            Err(error) => {
                // It stays wanted, and the alarm stands: asking again at once would bring the same.
                tracing::error!(%lane, number, %error, "content that came again could not be put in its place");
                return Ok(false);
            }
        }
    }
    damaged.settle(&context.readiness, lane, number);
    concord_faults::point("node.mend.done");
    Ok(true)
}

/// The content of a delivery that came again, as much as its header says.
fn content(delivery: &Delivery, row: &InboxRow) -> Result<Vec<Blob>, Refusal> {
    let id = concord_wire::header::exchange_id(&delivery.header);
    let parts = concord_wire::header::parse(&delivery.header)?.parts.len();
    let came: Vec<Blob> = delivery.blobs.iter().cloned().map_while(blob_from_bytes).collect();
    if id.0.as_bytes() == &row.exchange_id && came.len() == 1 + parts { Ok(came) } else { Err(mismatch()) }
}

fn mismatch() -> Refusal {
    Refusal::new(
        Reason::BlobMismatch,
        "the hub gave another content than that of the exchange that was asked for again",
    )
}

/// Judges and journals; durable when this returns.
async fn keep(context: &Context, lane: Lane, history: HistoryId, mail: Vec<Mail>) -> Result<(), LinkEnd> {
    let mut expected = context.now_state().mailbox(lane).received_through;
    for item in &mail {
        expected += 1;
        if item.number() != expected {
            let gap = format!(
                "number {} of mailbox {lane} came where {expected} is next; asking again from there. If it stays, the hub lost data",
                item.number()
            );
            return Err(LinkEnd::Refused(Refusal::new(Reason::NumberOutOfOrder, gap)));
        }
    }
    let needed = mail.iter().map(|item| match item {
        Mail::Delivery(delivery) => delivery.feed_number,
        Mail::Withheld(_) => 0,
    });
    let needed = if concord_faults::planted("judge-before-the-feed") { None } else { needed.max() };
    let state = feed_applied(context, lane, history, needed.unwrap_or(0)).await?;
    let own = context.participant.clone();
    let index = context.index.clone();
    let begun = SystemTime::now();
    let judged = concord_server::blocking(move || {
        let judged = mail.into_iter().map(|item| judge_unless_known(&state, &index, &own, lane, item));
        judged.collect::<Result<Option<Vec<_>>, IndexError>>()
    });
    let judged = judged.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
    let judged = judged.ok_or_else(LinkEnd::closed)?;
    let accepted = judged.iter().filter(|item| traces::is_traced() && matches!(item.verdict, Verdict::Accepted(_)));
    let traced: Vec<_> = accepted.filter_map(|item| item.id).collect();
    for item in &judged {
        if let Verdict::SetAside(delivery, reason) = &item.verdict {
            let number = delivery.number;
            tracing::warn!(%lane, number, reason, "a delivery was set aside; its evidence is in the journal");
            // The lane goes on, and what to do about it is for people: the node stays ready. How many there are is counted later.
            context.readiness.note(
                SET_ASIDE_NOTE,
                format!("number {number} of mailbox {lane} was set aside: {reason}; {SET_ASIDE_NEXT}"),
            );
            metrics::counter!("concord_deliveries_set_aside_total", "lane" => lane.as_str()).increment(1);
        }
    }
    concord_faults::point("node.mail.judged");
    let count = judged.len() as u64;
    context.writer.mail(lane, history, judged).await.map_err(LinkEnd::not_kept)?;
    context.index.damaged().mail_came(&context.readiness, lane);
    concord_faults::point("node.mail.kept");
    for exchange in traced {
        let participant = context.participant.to_string();
        let step = Step::Receive(participant.clone());
        traces::trace(Span { exchange, step, lane, participant, begun, caller: None });
    }
    metrics::counter!("concord_deliveries_received_total", "lane" => lane.as_str()).increment(count);
    Ok(())
}

/// Waits until the feed is applied up to a number; only this lane waits.
///
/// Invariant: a delivery is judged only by the feed that its number speaks of. A hub that was put back meanwhile never tells that
/// number, or tells something else under it; so the wait ends with the stream, and the hub names another number to who asks again.
async fn feed_applied(
    context: &Context,
    lane: Lane,
    history: HistoryId,
    number: u64,
) -> Result<Arc<NodeState>, LinkEnd> {
    let mut published = context.state.clone();
    let before = published.borrow().feed().history;
    let applied = |state: &Arc<NodeState>| state.feed().number >= number;
    let alarm_after = Duration::from_secs(FEED_WAIT_ALARM_SECONDS);
    let Ok(state) = tokio::time::timeout(alarm_after, published.wait_for(applied)).await else {
        let what = format!("mailbox {lane} waits for item {number} of the feed since {FEED_WAIT_ALARM_SECONDS} s");
        context.readiness.raise(alarms(lane).feed, what.clone());
        return Err(LinkEnd::Lost(what));
    };
    let state = state.map(|state| Arc::clone(&state)).map_err(|_| LinkEnd::closed())?;
    let now = state.feed().history;
    if now != before && now != Some(history) {
        return Err(LinkEnd::Lost(format!("the feed went on in another history while mailbox {lane} waited for it")));
    }
    context.readiness.clear(alarms(lane).feed);
    Ok(state)
}

/// What was accepted before is not judged by what holds now: it comes again from a hub that lost data, and has no effect of its own.
fn judge_unless_known(
    state: &NodeState,
    index: &Index,
    own: &concord_model::ParticipantCode,
    lane: Lane,
    item: Mail,
) -> Result<Option<Judged>, IndexError> {
    if let Mail::Delivery(delivery) = &item {
        let id = concord_wire::header::exchange_id(&delivery.header);
        if index.received_as(&id)?.is_some() {
            let bare = Delivery { blobs: Vec::new(), ..Delivery::clone(delivery) };
            let (verdict, size_bytes) = (Verdict::Accepted(bare), DELIVERY_OVERHEAD_BYTES);
            return Ok(Some(Judged { verdict, id: Some(id), blobs: Vec::new(), size_bytes }));
        }
    }
    Ok(judge_one(state, own, lane, item))
}

/// None only before a hub was joined, when there is no link.
fn judge_one(state: &NodeState, own: &concord_model::ParticipantCode, lane: Lane, item: Mail) -> Option<Judged> {
    let hub = state.hub()?;
    let delivery = match item {
        Mail::Withheld(number) => {
            let verdict = Verdict::Withheld(number);
            return Some(Judged { verdict, id: None, blobs: Vec::new(), size_bytes: DELIVERY_OVERHEAD_BYTES });
        }
        Mail::Delivery(delivery) => *delivery,
    };
    let size_bytes = size_of(&delivery);
    let id = Some(concord_wire::header::exchange_id(&delivery.header));
    let verdict = judge(state.directory(), hub, own, lane, &delivery);
    let raw = delivery.blobs.clone();
    let bare = Delivery { blobs: Vec::new(), ..delivery };
    Some(match verdict {
        Ok(verified) => Judged { verdict: Verdict::Accepted(bare), id, blobs: verified.blobs, size_bytes },
        Err(reason) => Judged {
            verdict: Verdict::SetAside(bare, reason.to_string()),
            id,
            blobs: raw.into_iter().map(evidence).collect(),
            size_bytes,
        },
    })
}

/// What came, whatever it is; too short for a nonce, it is kept under one of zeros.
fn evidence(raw: Bytes) -> Blob {
    blob_from_bytes(raw.clone()).unwrap_or_else(|| Blob::seal([0; NONCE_SIZE_BYTES], raw))
}

async fn send(outgoing: &mpsc::Sender<ReceiveRequest>, message: receive_request::Message) -> Result<(), LinkEnd> {
    let request = ReceiveRequest { message: Some(message) };
    outgoing.send(request).await.map_err(|_| LinkEnd::closed())
}

async fn next(incoming: &mut Incoming<ReceiveResponse>) -> Result<receive_response::Message, LinkEnd> {
    let response = incoming.next().await.ok_or_else(LinkEnd::closed)?;
    let response = response.map_err(|status| LinkEnd::from_status(&status))?;
    response.message.ok_or_else(|| unexpected("a message came that this version does not know"))
}
