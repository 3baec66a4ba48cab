//! Agencies: gRPC clients of their nodes, which ask again until they are answered. All of them are on one host.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use concord_identity::{Anchors, Application, Credentials, ExpectedServer, client_config};
use concord_model::{Digest, ExchangeId, Identity, Lane, Role};
use concord_server::{MESSAGE_SIZE_MAX_BYTES, connect_over};
use concord_wire::convert;
use concord_wire::proto::agency::v1::agency_service_client::AgencyServiceClient;
use concord_wire::proto::agency::v1::{AcknowledgeRequest, ReceiveRequest, ReceiveResponse, SubmitRequest};
use concord_wire::status::from_status;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use turmoil::Sim;

use super::Stack;
use super::machines::PORT;
use super::network::Simulated;
use crate::chance::Chance;
use crate::clients::{self, LOAD_MILLISECONDS};
use crate::forum::{AGENCIES, STATES, name};
use crate::log::Queued;

pub(super) const AGENCIES_HOST: &str = "agencies";
/// Of each agency on each lane.
const SUBMISSIONS: u64 = 2;
/// An agency that was given nothing for so long acknowledges what it holds.
const IDLE_SECONDS: u64 = 2;
/// The bodies that are not small: of many frames, where the lane takes so much.
const LARGE_BODY_SIZE_BYTES: usize = 300_000;

type Client = AgencyServiceClient<Channel>;

/// Puts the agencies' host into the network.
pub(super) fn register(simulation: &mut Sim<'_>, stack: &Arc<Stack>) {
    let stack = Arc::clone(stack);
    simulation.host(AGENCIES_HOST, move || run(Arc::clone(&stack)));
}

async fn run(stack: Arc<Stack>) -> turmoil::Result {
    let mut clients = JoinSet::new();
    for state in 0..STATES.len() {
        for agency in 0..AGENCIES.len() {
            let purpose = 100 + (state * AGENCIES.len() + agency) as u64;
            clients.spawn(Agency::new(&stack, (state, agency), purpose).submit_all());
            clients.spawn(Agency::new(&stack, (state, agency), purpose + 50).receive());
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    Ok(())
}

/// One program of an agency, with a connection of its own.
struct Agency {
    stack: Arc<Stack>,
    who: (usize, usize),
    credentials: Credentials,
    chance: Chance,
    client: Option<Client>,
}

impl Agency {
    fn new(stack: &Arc<Stack>, who: (usize, usize), purpose: u64) -> Self {
        let credentials = stack.nodes[who.0].member.credentials(Role::Agency, AGENCIES[who.1]);
        Self { stack: Arc::clone(stack), who, credentials, chance: Chance::of(stack.seed, purpose), client: None }
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.chance.within(milliseconds))).await;
    }

    /// Connects once; from then on the channel makes its connections again by itself.
    async fn client(&mut self) -> Client {
        loop {
            if let Some(client) = &self.client {
                return client.clone();
            }
            let node = &self.stack.nodes[self.who.0];
            let code = node.member.code.clone();
            let anchors = Anchors::pinned(code.clone(), node.member.anchor().clone());
            let node_itself = Identity { participant: code, role: Role::Node, name: name("main") };
            let expected = ExpectedServer::Exactly(node_itself);
            let tls = client_config(&self.credentials, &anchors, expected, Application::Grpc).unwrap();
            match connect_over(Simulated, &format!("{}:{PORT}", node.host), tls, None).await {
                Ok(channel) => {
                    let client = Client::new(channel).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
                    self.client = Some(client);
                }
                Err(_) => self.pause(100..1_500).await,
            }
        }
    }

    /// Submits on every lane, now and then, each time until it is answered.
    async fn submit_all(mut self) {
        let (state, agency) = self.who;
        let lanes = Lane::ALL.into_iter().cycle().take(Lane::ALL.len() * SUBMISSIONS as usize);
        for (number, lane) in (0..).zip(lanes) {
            self.pause(0..LOAD_MILLISECONDS / (SUBMISSIONS * Lane::ALL.len() as u64)).await;
            let mut request = clients::request(state, agency, number, &mut self.chance);
            request.lane = convert::lane(lane).into();
            if self.chance.one_in(3) {
                let size = LARGE_BODY_SIZE_BYTES.min(lane.body_size_max_bytes());
                request.body = request.body.iter().copied().cycle().take(size).collect();
            }
            let id = self.submit(&request).await;
            self.stack.tell(format_args!("{} {} {lane} {number}: queued", STATES[state], AGENCIES[agency]));
            self.stack.log().note(id, Queued { state, agency, request });
        }
        self.stack.log().busy -= 1;
    }

    /// Until there is an answer; whoever asks again hears the same.
    async fn submit(&mut self, request: &SubmitRequest) -> ExchangeId {
        let mut answered = None;
        loop {
            let mut client = self.client().await;
            // Some do not wait long, and some answers do not reach the agency.
            let patience = Duration::from_millis(*self.chance.pick(&[20, 200, 60_000, 60_000]));
            match timeout(patience, client.submit(request.clone())).await {
                Ok(Ok(response)) => {
                    let id = ExchangeId(Digest::from_slice(&response.into_inner().exchange_id).unwrap());
                    let before = answered.replace(id);
                    assert!(before.is_none_or(|before| before == id), "I3: a repeated request got another exchange");
                    if !self.chance.one_in(6) {
                        return id;
                    }
                }
                Ok(Err(status)) => expect_passing(&status),
                Err(_) => {}
            }
            self.pause(100..1_500).await;
        }
    }

    /// Follows what it is given, acknowledges now or later, and now and then begins again.
    async fn receive(mut self) {
        loop {
            let mut client = self.client().await;
            match client.receive(ReceiveRequest { follow: true, without_bodies: false }).await {
                Ok(given) => self.follow(client, given.into_inner()).await,
                Err(status) => expect_passing(&status),
            }
            self.pause(100..2_000).await;
        }
    }

    async fn follow(&mut self, mut client: Client, mut given: Streaming<ReceiveResponse>) {
        let (state, agency) = self.who;
        let mut last: Option<Bytes> = None;
        loop {
            let item = match timeout(Duration::from_secs(IDLE_SECONDS), given.message()).await {
                Ok(Ok(Some(item))) => Some(item),
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => None,
            };
            let idle = item.is_none();
            if let Some(item) = item {
                let (lane, number) = self.stack.log().keep(self.who, &self.stack.nodes[state].member, &item);
                self.stack.tell(format_args!("{} {} is given {lane} {number}", STATES[state], AGENCIES[agency]));
                last = Some(item.cursor);
            }
            let healed = self.stack.log().healed;
            if let Some(cursor) = &last
                && (healed || idle || self.chance.one_in(2))
                && client.acknowledge(AcknowledgeRequest { cursor: cursor.clone() }).await.is_ok()
            {
                self.stack.log().acknowledged(self.who, &self.stack.nodes[state].member, cursor);
                last = None;
            }
            if !healed && self.chance.one_in(12) {
                return;
            }
        }
    }
}

/// Nothing here is refused but for a while.
fn expect_passing(status: &Status) {
    let refusal = from_status(status).filter(|refusal| !clients::is_passing(refusal));
    assert!(refusal.is_none(), "an agency was refused, and nothing explains it: {refusal:?}");
}
