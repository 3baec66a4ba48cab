//! Agencies under load, in this process: they submit on every lane, receive, acknowledge and track over connections that they
//! make again whenever a node dies, and write down what they see.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use concord_identity::Profile;
use concord_model::Lane;
use concord_server::MESSAGE_SIZE_MAX_BYTES;
use concord_wire::convert;
use concord_wire::proto::agency::v1::agency_service_client::AgencyServiceClient;
use concord_wire::proto::agency::v1::{
    AcknowledgeRequest, ReceiveRequest, ReceiveResponse, SubmitRequest, TrackRequest, TrackResponse, TrackState,
    TrackUntil,
};
use concord_wire::proto::exchange::v1::Narrowing;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::{RwLock, Semaphore};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::battery::Chance;
use crate::command::DEADLINE;
use crate::raw::reason_of;
use crate::witness::{Heard, Id, Records, Sent, Tracked, Witness, hex};

/// Before an agency tries again what a dying node did not answer.
const AGAIN: Duration = Duration::from_millis(20);
/// Between two submissions of one agency on one lane: the load is light, so that kills are what the time goes into.
const PACE: Duration = Duration::from_millis(15);
/// A call that nobody answered for so long is made again.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Tracks that are open at once.
const TRACKS_TOGETHER: usize = 32;

/// One agency of one participant.
#[derive(Debug, Clone)]
pub struct AgencyAt {
    /// The participant.
    pub code: String,
    /// The agency.
    pub name: String,
    /// Its profile.
    pub profile: PathBuf,
}

impl AgencyAt {
    /// `KAZ/agency`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.code, self.name)
    }
}

/// What one submitting agency sends.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who.
    pub agency: AgencyAt,
    /// The agreement that stands all the time, and its measure.
    pub agreement: (String, String),
    /// Those to whom some exchanges are narrowed.
    pub narrow_to: Vec<String>,
    /// What its choices follow from.
    pub seed: u64,
}

/// The agreement beside the standing one that a part of the exchanges goes under, if there is one now.
pub type Passing = Arc<Mutex<Option<String>>>;

/// The load while it runs. Dropped, it ends.
pub struct Load {
    runtime: Runtime,
    /// What is seen.
    pub witness: Arc<Witness>,
    /// Holds submissions back while somebody writes.
    gate: Arc<RwLock<()>>,
    /// Set by whoever brings agreements about.
    pub passing: Passing,
    tasks: Vec<JoinHandle<()>>,
    tracked: BTreeSet<Id>,
}

impl Load {
    /// Starts submitting by these plans on every lane, and receiving at these agencies.
    pub fn start(witness: Arc<Witness>, plans: &[Plan], receivers: &[AgencyAt]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (gate, passing) = (Arc::new(RwLock::new(())), Passing::default());
        let mut tasks = Vec::new();
        for plan in plans {
            for lane in Lane::ALL {
                let (plan, gate, passing) = (plan.clone(), Arc::clone(&gate), Arc::clone(&passing));
                tasks.push(runtime.spawn(submit(plan, lane, gate, passing, Arc::clone(&witness))));
            }
        }
        for agency in receivers {
            witness.note(|records| {
                records.heard.entry(agency.full_name()).or_default();
            });
            tasks.push(runtime.spawn(receive(agency.clone(), Arc::clone(&witness))));
        }
        Self { runtime, witness, gate, passing, tasks, tracked: BTreeSet::new() }
    }

    /// Submits so many small exchanges for all on the lane routine, one after another, and returns when they are queued.
    pub fn submit(&self, agency: &AgencyAt, agreement: &str, measure: &str, count: u64) {
        let mut link = Link::new(&agency.profile);
        let before = self.witness.look(|records| records.sent.len() as u64);
        self.runtime.block_on(async {
            for number in before..before + count {
                let request = SubmitRequest {
                    request_id: format!("fan-{number}"),
                    agreement_id: agreement.to_owned(),
                    measure: measure.to_owned(),
                    lane: convert::lane(Lane::Routine).into(),
                    title: "T".to_owned(),
                    media_type: "text/plain".to_owned(),
                    body: Bytes::from(format!("body {number}")),
                    ..SubmitRequest::default()
                };
                until_queued(&mut link, &agency.code, Lane::Routine, request, &self.witness).await;
            }
        });
    }

    /// Runs something beside the load, until the load ends.
    pub fn beside(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(self.runtime.spawn(task));
    }

    /// Waits until nothing waits for an answer any more, and holds everything back while `then` runs.
    pub fn held<T>(&mut self, then: impl FnOnce(&mut Self) -> T) -> T {
        let gate = Arc::clone(&self.gate);
        let held = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, gate.write_owned()).await });
        let held = held.expect("every submission is answered when all servers run");
        let outcome = then(self);
        drop(held);
        outcome
    }

    /// Waits until every agency has acknowledged what is for its state, and every sender was told about each: also that it was taken.
    pub fn drain(&mut self, origins: &BTreeMap<String, AgencyAt>) -> Result<(), Vec<String>> {
        self.witness.wait(DEADLINE, |records| {
            let mut missing = Vec::new();
            for (agency, heard) in &records.heard {
                let code = agency.split('/').next().unwrap_or_default();
                let acknowledged = heard.iter().filter_map(|event| match event {
                    Heard::Acknowledged(ids) => Some(ids),
                    _ => None,
                });
                let acknowledged: BTreeSet<&Id> = acknowledged.flatten().collect();
                let due = records.sent.iter().filter(|sent| !acknowledged.contains(&sent.id));
                let due = due.filter(|sent| records.audience(sent).must.contains(code));
                missing.extend(due.map(|sent| format!("{agency} waits for {} of {}", sent.request, sent.origin)));
            }
            missing
        })?;
        let (sent, takers) = self.witness.look(|records| (records.sent.clone(), takers(records)));
        let takers = Arc::new(takers);
        let untold: Vec<Sent> = sent.into_iter().filter(|sent| self.tracked.insert(sent.id)).collect();
        let open = Arc::new(Semaphore::new(TRACKS_TOGETHER));
        let tracks = untold.into_iter().map(|sent| {
            let agency = origins.get(&sent.origin).cloned();
            let (open, witness, takers) = (Arc::clone(&open), Arc::clone(&self.witness), Arc::clone(&takers));
            self.runtime.spawn(async move {
                let _open = open.acquire_owned().await;
                let agency = agency.ok_or_else(|| format!("{} has no agency that tracks", sent.origin))?;
                let nobody = BTreeSet::new();
                let takers = takers.get(&sent.id).unwrap_or(&nobody);
                let tracked = tokio::time::timeout(DEADLINE, track(&agency, &sent, takers)).await;
                let tracked = tracked.map_err(|_| format!("{} was never told of {}", sent.origin, hex(&sent.id)))??;
                witness.note(|records| records.tracked.push(tracked));
                Ok(())
            })
        });
        let tracks: Vec<_> = tracks.collect();
        let outcomes = self.runtime.block_on(async {
            let mut outcomes: Vec<Result<(), String>> = Vec::new();
            for track in tracks {
                outcomes.push(track.await.unwrap_or_else(|error| Err(error.to_string())));
            }
            outcomes
        });
        let missing: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A connection to an agency's node that is made again when it is gone.
struct Link {
    profile: PathBuf,
    client: Option<AgencyServiceClient<Channel>>,
}

impl Link {
    fn new(profile: &Path) -> Self {
        Self { profile: profile.to_owned(), client: None }
    }

    /// Waits until the node takes the connection.
    async fn client(&mut self) -> AgencyServiceClient<Channel> {
        loop {
            if let Some(client) = &self.client {
                return client.clone();
            }
            // Read again each time: a node that comes back may have another port.
            // A machine without power does not show the folder either.
            if let Ok(profile) = Profile::load(&self.profile)
                && let (Ok(address), Ok(tls)) = (profile.address(), profile.client_config())
                && let Ok(channel) = concord_server::connect(&address, tls).await
            {
                let client = AgencyServiceClient::new(channel).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
                self.client = Some(client);
            } else {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// What a call ended with may pass: the connection is made anew. Otherwise the reason.
    async fn lost(&mut self, status: &Status) -> Result<(), String> {
        self.client = None;
        match reason_of(status).as_deref() {
            None | Some("SHUTTING_DOWN" | "QUEUE_FULL" | "STREAM_REPLACED") => {}
            Some(reason) => return Err(format!("{reason}: {}", status.message())),
        }
        tokio::time::sleep(AGAIN).await;
        Ok(())
    }
}

async fn submit(plan: Plan, lane: Lane, gate: Arc<RwLock<()>>, passing: Passing, witness: Arc<Witness>) {
    let mut link = Link::new(&plan.agency.profile);
    let mut chance = Chance::of(plan.seed ^ (lane as u64) << 32);
    for number in 0_u64.. {
        let answered = gate.read().await;
        let request = next_request(&plan, lane, number, &passing, &mut chance);
        until_queued(&mut link, &plan.agency.code, lane, request, &witness).await;
        drop(answered);
        tokio::time::sleep(PACE).await;
    }
}

/// Submits, under the same request id, until it is answered; writes down what was.
async fn until_queued(link: &mut Link, origin: &str, lane: Lane, request: SubmitRequest, witness: &Witness) {
    let body: Id = Sha256::digest(&request.body).into();
    loop {
        let mut call = tonic::Request::new(request.clone());
        call.set_timeout(CALL_TIMEOUT);
        match link.client().await.submit(call).await.map(tonic::Response::into_inner) {
            Ok(answer) => {
                let id = Id::try_from(&answer.exchange_id[..]).unwrap();
                return witness.note(|records| {
                    records.sent.push(Sent {
                        origin: origin.to_owned(),
                        request: request.request_id.clone(),
                        lane,
                        agreement: answer.agreement_id.clone(),
                        to: request.to.as_ref().map(|to| to.participants.iter().cloned().collect()),
                        body,
                        id,
                    });
                });
            }
            Err(status) => {
                if let Err(why) = link.lost(&status).await {
                    // An agreement that comes and goes may not have come to this node yet, or this state has left it.
                    let passes = |records: &Records| {
                        records.agreements.get(&request.agreement_id).is_some_and(|agreed| !agreed.words.is_empty())
                    };
                    if why.starts_with("AGREEMENT_") && witness.look(passes) {
                        return;
                    }
                    let what = format!("{origin} {} was refused with {why}", request.request_id);
                    return witness.note(|records| records.surprises.push(what));
                }
            }
        }
    }
}

fn next_request(plan: &Plan, lane: Lane, number: u64, passing: &Passing, chance: &mut Chance) -> SubmitRequest {
    const LARGE_BODY_BYTES: usize = 24 * 1024;
    let now_passing = passing.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let agreement = match now_passing {
        Some(agreement) if chance.one_in(2) => agreement,
        _ => plan.agreement.0.clone(),
    };
    let mut body = format!("{} {lane} {number} {}", plan.agency.code, chance.any()).into_bytes();
    if chance.one_in(10) {
        body.resize(LARGE_BODY_BYTES, b'.');
    }
    let is_narrowed = !plan.narrow_to.is_empty() && agreement == plan.agreement.0 && chance.one_in(4);
    let to = is_narrowed.then(|| {
        let which = chance.below(plan.narrow_to.len() as u64) as usize;
        Narrowing { participants: vec![plan.narrow_to[which].clone()] }
    });
    SubmitRequest {
        request_id: format!("{lane}-{number}"),
        agreement_id: agreement,
        measure: plan.agreement.1.clone(),
        lane: convert::lane(lane).into(),
        title: "T".to_owned(),
        media_type: "text/plain".to_owned(),
        to,
        body: Bytes::from(body),
        ..SubmitRequest::default()
    }
}

/// Follows, and acknowledges after some; what was given and not acknowledged comes again on the next stream.
async fn receive(agency: AgencyAt, witness: Arc<Witness>) {
    const ACKNOWLEDGED_TOGETHER_MAX: u64 = 4;
    let mut receiver = Receiver {
        name: agency.full_name(),
        link: Link::new(&agency.profile),
        witness,
        pending: BTreeMap::new(),
        unanswered: Vec::new(),
    };
    let mut chance = Chance::of(u64::from(agency.code.as_bytes()[0]));
    loop {
        receiver.pending.clear();
        // First what had no answer: on an open stream something of it may be under way already.
        if let Err(status) = receiver.acknowledge().await {
            receiver.lost(&status).await;
            continue;
        }
        let request = ReceiveRequest { follow: true, without_bodies: false };
        let opened = receiver.link.client().await.receive(request).await;
        let mut stream = match opened {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                receiver.lost(&status).await;
                continue;
            }
        };
        let status = loop {
            let waiting = if receiver.pending.is_empty() { CALL_TIMEOUT } else { AGAIN };
            let acknowledges = match tokio::time::timeout(waiting, stream.message()).await {
                Ok(Ok(Some(item))) => {
                    receiver.given(item);
                    chance.one_in(ACKNOWLEDGED_TOGETHER_MAX)
                }
                Ok(Ok(None)) => break Status::new(Code::Unavailable, "the stream ended"),
                Ok(Err(status)) => break status,
                Err(_nothing_more_came) => true,
            };
            if acknowledges && let Err(status) = receiver.acknowledge().await {
                break status;
            }
        };
        receiver.lost(&status).await;
    }
}

struct Receiver {
    name: String,
    link: Link,
    witness: Arc<Witness>,
    /// Of each lane what was given and not acknowledged, with the cursor behind the last.
    pending: BTreeMap<Lane, (Vec<Id>, Bytes)>,
    /// Acknowledged without an answer so far: said again, since it may have been taken, and then nothing of it ever comes again.
    unanswered: Vec<(Vec<Id>, Bytes)>,
}

impl Receiver {
    fn hear(&self, event: Heard) {
        self.witness.note(|records| records.heard.entry(self.name.clone()).or_default().push(event));
    }

    fn given(&mut self, item: ReceiveResponse) {
        let header = concord_wire::header::parse(&item.header).unwrap();
        let id = Id::try_from(&item.exchange_id[..]).unwrap();
        let body = Sha256::digest(&item.body).into();
        self.hear(Heard::Given { id, lane: header.lane, origin: header.origin.to_string(), body });
        let (ids, cursor) = self.pending.entry(header.lane).or_default();
        ids.push(id);
        *cursor = item.cursor;
    }

    async fn acknowledge(&mut self) -> Result<(), Status> {
        while let Some((_, (ids, cursor))) = self.pending.pop_first() {
            self.hear(Heard::Acknowledging(ids.clone()));
            self.unanswered.push((ids, cursor));
        }
        while let Some((ids, cursor)) = self.unanswered.first().cloned() {
            let mut call = tonic::Request::new(AcknowledgeRequest { cursor });
            call.set_timeout(CALL_TIMEOUT);
            self.link.client().await.acknowledge(call).await?;
            self.hear(Heard::Acknowledged(ids));
            self.unanswered.remove(0);
        }
        Ok(())
    }

    async fn lost(&mut self, status: &Status) {
        if let Err(why) = self.link.lost(status).await {
            let what = format!("{} was refused with {why}", self.name);
            self.witness.note(|records| records.surprises.push(what));
        }
    }
}

/// The participants of whose agencies one was answered that it acknowledged an exchange.
fn takers(records: &Records) -> BTreeMap<Id, BTreeSet<String>> {
    let mut takers: BTreeMap<Id, BTreeSet<String>> = BTreeMap::new();
    for (agency, heard) in &records.heard {
        let code = agency.split('/').next().unwrap_or_default();
        for event in heard {
            let Heard::Acknowledged(ids) = event else { continue };
            for id in ids {
                takers.entry(*id).or_default().insert(code.to_owned());
            }
        }
    }
    takers
}

/// Asks until every recipient is settled, and each of these is shown to have taken it.
async fn track(agency: &AgencyAt, sent: &Sent, takers: &BTreeSet<String>) -> Result<Tracked, String> {
    let mut link = Link::new(&agency.profile);
    loop {
        match settled(&mut link, &sent.id).await {
            Ok(Some(last)) => {
                let tracked = tracked(sent, &last);
                let is_taken = |code: &String| tracked.recipients.get(code).is_some_and(|(state, _)| state == "taken");
                if takers.iter().all(is_taken) {
                    return Ok(tracked);
                }
                // No call waits for it.
                tokio::time::sleep(AGAIN).await;
            }
            Ok(None) => {}
            Err(status) => link.lost(&status).await.map_err(|why| format!("track of {}: {why}", hex(&sent.id)))?,
        }
    }
}

/// The last word of a track that goes on until it is settled; none where the stream ended before.
async fn settled(link: &mut Link, id: &Id) -> Result<Option<TrackResponse>, Status> {
    let request = TrackRequest { exchange_id: hex(id), until: TrackUntil::Delivered.into() };
    let mut stream = link.client().await.track(request).await?.into_inner();
    let mut last = None;
    while let Some(response) = stream.message().await? {
        last = Some(response);
    }
    Ok(last)
}

fn tracked(sent: &Sent, last: &TrackResponse) -> Tracked {
    let spelled =
        |state: TrackState| state.as_str_name().trim_start_matches("TRACK_STATE_").to_lowercase().replace('_', "-");
    let recipients =
        last.recipients.iter().map(|one| (one.participant.clone(), (spelled(one.state()), one.reason.clone())));
    Tracked { origin: sent.origin.clone(), id: sent.id, recipients: recipients.collect() }
}
