//! A node's keys in the hand of somebody who can say anything: it speaks the protocol itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use concord_identity::{
    Anchor, Anchors, Application, Credentials, ExpectedServer, SigningKey, client_config, read_text,
};
use concord_journal::Blob;
use concord_model::{
    ChainKey, ConsignmentDigest, Description, ExchangeUuid, Lane, Name, ParticipantCode, Timestamp, Title,
};
use concord_server::{ConnectError, MESSAGE_SIZE_MAX_BYTES};
use concord_wire::consignment::{Sealed, blob_to_bytes, chain_key, seal, to_message};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::exchange_service_client::ExchangeServiceClient;
use concord_wire::proto::feed::v1::NodeJournal;
use concord_wire::tree::Seed;
use prost::Message as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::command::{DEADLINE, concord};
use crate::forum::Forum;
use crate::words;

/// Makes what has to differ differ.
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// The run of a node that never ran.
const FIRST_RUN: [u8; 16] = [0x5a; 16];
/// The run of a process that was started later on the same journal.
const LATER_RUN: [u8; 16] = [0x5b; 16];

/// The hub's address, a node's certificate and its signing key.
pub struct RawNode {
    code: ParticipantCode,
    address: String,
    hub_anchor: Anchor,
    credentials: Arc<Credentials>,
    /// The line of the node's journal, whose last run this one goes on as: whoever has the keys has the journal too.
    pub(crate) journal: NodeJournal,
    /// The node's signing key, or another one.
    pub signing_key: SigningKey,
    runtime: Runtime,
}

/// One exchange before it is sealed; every field of its header may be changed.
#[derive(Clone)]
pub struct Draft {
    /// The header as it will be serialised.
    pub header: pb::Header,
    /// Added to the serialised header.
    pub appended: Vec<u8>,
    /// The description, then the body, each nonce ‖ bytes.
    pub blobs: Vec<Bytes>,
}

/// What the hub answered to a stream of consignments.
#[derive(Debug)]
pub struct Answer {
    /// The hub's history, as it welcomed; empty where it did not.
    pub history: Bytes,
    /// The receipts, in order.
    pub receipts: Vec<pb::RecordedReceipt>,
    /// How the stream ended, if not well.
    pub refused: Option<Status>,
}

impl RawNode {
    /// Takes the certificate, the keys and the line of the journal of a node's folder.
    pub fn of(forum: &Forum, code: &str) -> Self {
        let dir = forum.node_dir(code);
        let credentials = Credentials::load(&dir.join("tls/certificate.pem"), &dir.join("tls/key.pem")).unwrap();
        let signing_key = SigningKey::load(&dir.join("signing/key.pem")).unwrap();
        Self { journal: line_of(&dir), ..Self::with(forum, code, credentials, signing_key) }
    }

    /// Takes any certificate and key.
    pub fn with(forum: &Forum, code: &str, credentials: Credentials, signing_key: SigningKey) -> Self {
        Self {
            code: ParticipantCode::parse(code).unwrap(),
            address: forum.address(&forum.hub_dir(), "listen"),
            hub_anchor: hub_anchor(&forum.hub_dir()),
            credentials: Arc::new(credentials),
            journal: NodeJournal::default(),
            signing_key,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
        }
    }

    /// Goes on as a process that was started later on the same journal.
    pub fn begin_run(&mut self) {
        self.journal.runs.push(Bytes::from_static(&LATER_RUN));
    }

    /// Connects, and says why the connection did not come about.
    pub fn try_connect(&self) -> Result<(), ConnectError> {
        self.runtime.block_on(self.connect()).map(drop)
    }

    pub(crate) async fn connect(&self) -> Result<Channel, ConnectError> {
        let anchors = Anchors::pinned(ParticipantCode::secretariat(), self.hub_anchor.clone());
        let tls = client_config(&self.credentials, &anchors, ExpectedServer::AnyHub, Application::Grpc).unwrap();
        concord_server::connect(&self.address, tls).await
    }

    /// The node's own chain of a lane.
    pub fn chain(&self, lane: Lane) -> ChainKey {
        let main = Name::parse("main").unwrap();
        ChainKey { origin: self.code.clone(), hub: main.clone(), node: main, epoch: 1, lane }
    }

    /// An exchange as an honest node would make it. `agreement` is what `agreement show` tells.
    pub fn draft(&self, agreement: &Value, measure: &str, lane: Lane, body: &[u8]) -> Draft {
        let title = Description { title: Title::parse("From a raw node").unwrap(), caveats: Vec::new() };
        let description = Blob::seal(fresh(), concord_wire::header::encode_description(&title));
        let body = Blob::seal(fresh(), Bytes::copy_from_slice(body));
        let now = now();
        let header = pb::Header {
            origin: self.code.to_string(),
            node: "main".to_owned(),
            uuid: Bytes::copy_from_slice(ExchangeUuid::from_parts(now, &fresh()).as_bytes()),
            agreement: Some(pb::AgreementRef {
                id: agreement["id"].as_str().unwrap().to_owned(),
                version: agreement["version"].as_u64().unwrap().try_into().unwrap(),
                digest: from_hex(agreement["digest"].as_str().unwrap()),
            }),
            measure: measure.to_owned(),
            lane: concord_wire::convert::lane(lane).into(),
            created: Some(concord_wire::convert::timestamp(now)),
            parts: vec![pb::Part {
                media_type: "text/plain".to_owned(),
                size_bytes: body.bytes().len() as u64,
                commitment: Bytes::copy_from_slice(body.commitment().as_bytes()),
            }],
            description: Bytes::copy_from_slice(description.commitment().as_bytes()),
            handling: pb::HandlingCode::Amber.into(),
            ..Default::default()
        };
        Draft { header, appended: Vec::new(), blobs: vec![blob_to_bytes(&description), blob_to_bytes(&body)] }
    }

    /// Seals and signs exchanges as the consignment of this chain, number and predecessor.
    pub fn seal(&self, chain: ChainKey, number: u64, previous: ConsignmentDigest, drafts: &[Draft]) -> Sealed {
        let headers = drafts.iter().map(Draft::serialised).collect();
        let key = self.signing_key.public().fingerprint;
        seal(chain, number, previous, Seed::new(fresh()), headers, key, |message| self.signing_key.sign(message))
    }

    /// The consignment as an honest node would send it.
    pub fn consignment(
        &self,
        lane: Lane,
        number: u64,
        previous: ConsignmentDigest,
        drafts: &[Draft],
    ) -> (pb::Consignment, ConsignmentDigest) {
        let sealed = self.seal(self.chain(lane), number, previous, drafts);
        (message(&sealed, drafts), sealed.digest)
    }

    /// Opens the lane's stream with the right hello, sends these, and returns what came back.
    pub fn consign(&self, lane: Lane, consignments: Vec<pb::Consignment>) -> Answer {
        self.consign_as(&self.chain(lane), consignments)
    }

    /// The same with a hello that names any chain.
    pub fn consign_as(&self, chain: &ChainKey, consignments: Vec<pb::Consignment>) -> Answer {
        let consignments = consignments.into_iter().map(pb::consign_request::Message::Consignment);
        self.say(std::iter::once(self.hello_as(chain)).chain(consignments).collect())
    }

    /// The right hello of a lane's stream.
    pub fn hello(&self, lane: Lane) -> pb::consign_request::Message {
        self.hello_as(&self.chain(lane))
    }

    fn hello_as(&self, chain: &ChainKey) -> pb::consign_request::Message {
        let (limits, chain) = (Some(concord_wire::limits()), Some(chain_key(chain)));
        pb::consign_request::Message::Hello(pb::ConsignHello { limits, chain, run: self.run() })
    }

    /// The run that every hello names.
    pub fn run(&self) -> Bytes {
        self.journal.runs.last().cloned().unwrap_or_default()
    }

    pub(crate) fn code(&self) -> &ParticipantCode {
        &self.code
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Says any messages on a consign stream, then closes its side.
    pub fn say(&self, messages: Vec<pb::consign_request::Message>) -> Answer {
        let request = |message| pb::ConsignRequest { message: Some(message), ..Default::default() };
        self.request(messages.into_iter().map(request).collect())
    }

    /// Opens the lane's stream with the right hello, and sends these, each with what is said beside it of its withdrawals.
    pub fn consign_withdrawing(
        &self,
        lane: Lane,
        consignments: Vec<(pb::Consignment, Vec<pb::WithdrawnPlace>)>,
    ) -> Answer {
        let beside = |(consignment, withdrawn)| (consignment, pb::ConsignRequest { withdrawn, ..Default::default() });
        self.consign_beside(lane, consignments.into_iter().map(beside).collect())
    }

    /// The same with anything beside each.
    pub fn consign_beside(&self, lane: Lane, consignments: Vec<(pb::Consignment, pb::ConsignRequest)>) -> Answer {
        use pb::consign_request::Message;
        let chain = Some(chain_key(&self.chain(lane)));
        let hello = pb::ConsignHello { limits: Some(concord_wire::limits()), chain, run: self.run() };
        let hello = pb::ConsignRequest { message: Some(Message::Hello(hello)), ..Default::default() };
        let request =
            |(consignment, beside)| pb::ConsignRequest { message: Some(Message::Consignment(consignment)), ..beside };
        self.request(std::iter::once(hello).chain(consignments.into_iter().map(request)).collect())
    }

    fn request(&self, requests: Vec<pb::ConsignRequest>) -> Answer {
        let answered = self.runtime.block_on(async { timeout(DEADLINE, self.say_and_hear(requests)).await });
        answered.expect("the hub answers in time")
    }

    /// Opens a lane's stream with the right hello, and leaves it open.
    pub(crate) async fn open_chain(
        &self,
        lane: Lane,
    ) -> Result<(mpsc::Sender<pb::ConsignRequest>, tonic::Streaming<pb::ConsignResponse>), Status> {
        let chain = Some(chain_key(&self.chain(lane)));
        let hello = pb::ConsignHello { limits: Some(concord_wire::limits()), chain, run: self.run() };
        let (requests, outbound) = mpsc::channel(1);
        let hello =
            pb::ConsignRequest { message: Some(pb::consign_request::Message::Hello(hello)), ..Default::default() };
        requests.send(hello).await.unwrap();
        let mut client = ExchangeServiceClient::new(self.connect().await.unwrap());
        let responses = client.consign(ReceiverStream::new(outbound)).await?.into_inner();
        Ok((requests, responses))
    }

    async fn say_and_hear(&self, said: Vec<pb::ConsignRequest>) -> Answer {
        let mut answer = Answer { history: Bytes::new(), receipts: Vec::new(), refused: None };
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => return Answer { refused: Some(Status::unavailable(error.to_string())), ..answer },
        };
        let mut client = ExchangeServiceClient::new(channel)
            .max_encoding_message_size(2 * MESSAGE_SIZE_MAX_BYTES)
            .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
        let (requests, outbound) = mpsc::channel(said.len().max(1));
        for request in said {
            requests.send(request).await.unwrap();
        }
        drop(requests);
        let mut responses = match client.consign(ReceiverStream::new(outbound)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return Answer { refused: Some(status), ..answer },
        };
        loop {
            match responses.message().await {
                Ok(Some(response)) => match response.message {
                    Some(pb::consign_response::Message::Receipt(receipt)) => answer.receipts.push(receipt),
                    Some(pb::consign_response::Message::Welcome(welcome)) => answer.history = welcome.history,
                    None => {}
                },
                Ok(None) => return answer,
                Err(status) => return Answer { refused: Some(status), ..answer },
            }
        }
    }
}

impl Draft {
    /// The header's bytes.
    pub fn serialised(&self) -> Bytes {
        let mut bytes = self.header.encode_to_vec();
        bytes.extend_from_slice(&self.appended);
        bytes.into()
    }

    /// The exchange id, 64 hexadecimal digits.
    pub fn id(&self) -> String {
        concord_wire::header::exchange_id(&self.serialised()).to_string()
    }

    /// The same with another header.
    #[must_use]
    pub fn with(&self, change: impl FnOnce(&mut pb::Header)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.header);
        changed
    }
}

impl Answer {
    /// The stable reason of the refusal and its gRPC code.
    pub fn refusal(&self) -> Option<(tonic::Code, String)> {
        self.refused.as_ref().map(|status| (status.code(), reason_of(status).unwrap_or_else(|| format!("{status:?}"))))
    }

    /// The outcome of each exchange of the only receipt: its audience, or the reason of its refusal.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<String> {
        let [outcomes] = self.all_outcomes().try_into().unwrap_or_else(|_| panic!("not one receipt: {self:?}"));
        outcomes
    }

    /// The same of each receipt.
    #[track_caller]
    pub fn all_outcomes(&self) -> Vec<Vec<String>> {
        assert!(self.refused.is_none(), "{self:?}");
        self.receipts.iter().map(outcomes).collect()
    }
}

fn outcomes(receipt: &pb::RecordedReceipt) -> Vec<String> {
    let statement = pb::RecordedStatement::decode(receipt.statement.clone()).unwrap();
    let outcome = |outcome: &pb::ExchangeOutcome| match outcome.refused.as_str() {
        "" => outcome.audience.join(" "),
        reason => reason.to_owned(),
    };
    statement.outcomes.iter().map(outcome).collect()
}

/// The wire's form of a sealed consignment of these exchanges.
pub(crate) fn message(sealed: &Sealed, drafts: &[Draft]) -> pb::Consignment {
    to_message(sealed, drafts.iter().map(|draft| draft.blobs.clone()))
}

/// The stable reason in a status, as any gRPC client reads it.
pub fn reason_of(status: &Status) -> Option<String> {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason)
}

/// What a node would show of its journal; of one that never ran, with a run made up.
fn line_of(dir: &Path) -> NodeJournal {
    let entries = concord(words!["journal", "show", dir]).ok().lines();
    let about = |kind: &'static str| {
        let of_kind = entries.iter().filter(move |entry| entry["kind"] == kind);
        of_kind.map(|entry| from_hex(&entry["about"].as_str().unwrap()[..32])).collect::<Vec<_>>()
    };
    let (mut histories, mut runs) = (about("history"), about("run"));
    if runs.is_empty() {
        runs.push(Bytes::from_static(&FIRST_RUN));
    }
    let history = histories.pop().unwrap();
    let ancestors = histories.into_iter().map(|history| pb::PastHistory { history, ..Default::default() }).collect();
    NodeJournal { history, ancestors, runs, ..Default::default() }
}

fn hub_anchor(hub: &Path) -> Anchor {
    Anchor::from_pem(&read_text(&hub.join("anchor/certificate.pem")).unwrap()).unwrap()
}

/// The time by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

/// Bytes that were not used before; a test needs no secrets.
fn fresh<const LENGTH: usize>() -> [u8; LENGTH] {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed) ^ (now().as_micros() as u64) << 20;
    let digest = concord_journal::Digest::of("concord tests", &[&number.to_le_bytes()]);
    std::array::from_fn(|index| digest.0[index % 32])
}

pub(crate) fn from_hex(text: &str) -> Bytes {
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
    pairs.collect()
}
