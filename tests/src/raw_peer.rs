//! The raw node's other calls: its mailbox, its feed, its officers' statements.

use std::path::Path;

use bytes::Bytes;
use concord_identity::Profile;
use concord_model::{AgreementDigest, AgreementId, AgreementRef, Digest, Lane, Name};
use concord_wire::acknowledgement::{Said, sign};
use concord_wire::agreement::{Draft, DraftContent, encode_statement};
use concord_wire::proto::agreement::v1 as agreement;
use concord_wire::proto::agreement::v1::statement_service_client::StatementServiceClient;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::exchange_service_client::ExchangeServiceClient;
use concord_wire::proto::feed::v1::feed_service_client::FeedServiceClient;
use concord_wire::proto::feed::v1::{
    FeedPosition, FollowRequest, FollowResponse, HandBackHello, HandBackRequest, follow_response, hand_back_request,
};
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use concord_wire::proto::operations::v1::registry_service_client::RegistryServiceClient;
use concord_wire::proto::operations::v1::{GetStatusRequest, ListMeasuresRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::command::DEADLINE;
use crate::raw::{RawNode, from_hex, now, reason_of};

/// What came out of a mailbox's stream.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// The hub's history, from its welcome.
    pub history: Vec<u8>,
    /// What was delivered.
    pub deliveries: Vec<pb::Delivery>,
    /// The numbers that notices came for in place of deliveries.
    pub withheld: Vec<u64>,
    /// How far acknowledgements were recorded, each time it was told.
    pub recorded: Vec<pb::AcknowledgementRecorded>,
    /// How the stream ended, if the hub ended it: code and stable reason.
    pub refused: Option<(Code, String)>,
}

/// Streams of one run of a node that have nothing to say, each behind its welcome.
pub struct IdleStreams {
    mailbox: (mpsc::Sender<pb::ReceiveRequest>, Streaming<pb::ReceiveResponse>),
    chain: (mpsc::Sender<pb::ConsignRequest>, Streaming<pb::ConsignResponse>),
    feed: Streaming<FollowResponse>,
}

/// A feed that is left open.
pub struct IdleFeed {
    _open: Streaming<FollowResponse>,
}

impl RawNode {
    /// Opens the mailbox of a lane after `last`, its chain, and the feed after `told`, and leaves them open.
    pub fn idle(&self, lane: Lane, history: &[u8], last: u64, told: u64) -> IdleStreams {
        self.block_on(async {
            let position =
                FeedPosition { history: Bytes::copy_from_slice(history), last_number: told, ..Default::default() };
            let mut client = FeedServiceClient::new(self.connect().await.unwrap());
            let mut feed = client.follow(self.following(position)).await.unwrap().into_inner();
            feed.message().await.unwrap().unwrap();
            let mut mailbox = self.open_mailbox(lane, history, last, Vec::new()).await.unwrap();
            mailbox.1.message().await.unwrap().unwrap();
            let mut chain = self.open_chain(lane).await.unwrap();
            chain.1.message().await.unwrap().unwrap();
            IdleStreams { mailbox, chain, feed }
        })
    }

    /// How each of them ended: mailbox, chain, feed; or, as the last, one that still told something.
    pub fn ends(&self, idle: IdleStreams) -> Vec<(Code, String)> {
        let IdleStreams { mailbox: (_mailbox_open, mut mailbox), chain: (_chain_open, mut chain), mut feed } = idle;
        self.block_on(async {
            let mut ends = vec![end_of(&mut mailbox).await];
            if ends[0].0 != Code::Ok {
                ends.push(end_of(&mut chain).await);
                ends.push(end_of(&mut feed).await);
            }
            ends
        })
    }

    /// How mailbox and chain ended; the feed stays open.
    pub fn ends_of_mail(&self, idle: IdleStreams) -> (Vec<(Code, String)>, IdleFeed) {
        let IdleStreams { mailbox: (_mailbox_open, mut mailbox), chain: (_chain_open, mut chain), feed } = idle;
        let ends = self.block_on(async { vec![end_of(&mut mailbox).await, end_of(&mut chain).await] });
        (ends, IdleFeed { _open: feed })
    }

    /// Hands nothing back, from where the node's feed stands, with a hello that announces these limits; what the hub knows again then.
    pub fn hand_back(&self, limits: Option<pb::Limits>, history: &[u8], told: u64) -> Result<u64, (Code, String)> {
        let position =
            FeedPosition { history: Bytes::copy_from_slice(history), last_number: told, ..Default::default() };
        let hello = HandBackHello { limits, position: Some(position), run: self.run() };
        let hello = HandBackRequest { message: Some(hand_back_request::Message::Hello(hello)) };
        self.block_on(async {
            let mut client = FeedServiceClient::new(self.connect().await.unwrap());
            let answer = client.hand_back(tokio_stream::once(hello)).await;
            answer.map(|answer| answer.into_inner().taken).map_err(|status| shown(&status))
        })
    }

    fn following(&self, position: FeedPosition) -> FollowRequest {
        FollowRequest {
            limits: Some(concord_wire::limits()),
            position: Some(position),
            journal: Some(self.journal.clone()),
            ..Default::default()
        }
    }

    /// Opens a mailbox after `last` of `history`, says these acknowledgements, and listens until so many deliveries,
    /// notices and records came, or the hub ended the stream.
    pub fn mailbox(
        &self,
        lane: Lane,
        history: &[u8],
        last: u64,
        said: Vec<pb::Acknowledgement>,
        until: usize,
    ) -> Mailbox {
        self.block_on(async {
            let mut heard = Mailbox::default();
            let (_open, mut responses) = match self.open_mailbox(lane, history, last, said).await {
                Ok(opened) => opened,
                Err(status) => return Mailbox { refused: Some(shown(&status)), ..heard },
            };
            loop {
                use pb::receive_response::Message;
                match responses.message().await.map(|response| response.and_then(|response| response.message)) {
                    Ok(Some(Message::Welcome(welcome))) => heard.history = welcome.history.to_vec(),
                    Ok(Some(Message::Delivery(delivery))) => heard.deliveries.push(delivery),
                    Ok(Some(Message::Recorded(recorded))) => heard.recorded.push(recorded),
                    Ok(Some(Message::Withheld(notice))) => heard.withheld.push(notice.number),
                    Ok(Some(Message::Probe(_))) => {}
                    Ok(None) => return heard,
                    Err(status) => return Mailbox { refused: Some(shown(&status)), ..heard },
                }
                if heard.deliveries.len() + heard.withheld.len() + heard.recorded.len() >= until {
                    return heard;
                }
            }
        })
    }

    /// Opens the same mailbox twice, and returns how the first stream ended.
    pub fn mailbox_twice(&self, lane: Lane) -> Option<(Code, String)> {
        self.block_on(async {
            let (_first_open, mut first) = self.open_mailbox(lane, &[], 0, Vec::new()).await.unwrap();
            first.message().await.unwrap();
            let (_second_open, mut second) = self.open_mailbox(lane, &[], 0, Vec::new()).await.unwrap();
            second.message().await.unwrap();
            loop {
                match first.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(shown(&status)),
                }
            }
        })
    }

    async fn open_mailbox(
        &self,
        lane: Lane,
        history: &[u8],
        last_number: u64,
        said: Vec<pb::Acknowledgement>,
    ) -> Result<(mpsc::Sender<pb::ReceiveRequest>, Streaming<pb::ReceiveResponse>), Status> {
        use pb::receive_request::Message;
        let hello = pb::ReceiveHello {
            limits: Some(concord_wire::limits()),
            lane: concord_wire::convert::lane(lane).into(),
            history: Bytes::copy_from_slice(history),
            last_number,
            run: self.run(),
            ..Default::default()
        };
        let (requests, outbound) = mpsc::channel(said.len() + 1);
        for message in std::iter::once(Message::Hello(hello)).chain(said.into_iter().map(Message::Acknowledgement)) {
            requests.send(pb::ReceiveRequest { message: Some(message) }).await.unwrap();
        }
        let mut client = ExchangeServiceClient::new(self.connect().await.unwrap());
        let responses = client.receive(ReceiverStream::new(outbound)).await?.into_inner();
        Ok((requests, responses))
    }

    /// An acknowledgement as an honest node would sign it, after a change.
    pub fn acknowledgement(
        &self,
        lane: Lane,
        history: &[u8],
        through: u64,
        change: impl FnOnce(&mut Said),
    ) -> pb::Acknowledgement {
        let main = Name::parse("main").unwrap();
        let mut said = Said {
            hub: main.clone(),
            history: concord_journal::HistoryId(history.try_into().unwrap()),
            recipient: self.code().clone(),
            node: main,
            lane,
            delivered_through: through,
            set_aside: Vec::new(),
            withheld: Vec::new(),
            taken_before: 0,
            taken: Vec::new(),
            ended: Vec::new(),
        };
        change(&mut said);
        sign(&said, self.signing_key.public().fingerprint, |message| self.signing_key.sign(message))
    }

    /// Follows the feed after `last` of `history`; returns its last number, or the refusal, or that the hub asks for healing.
    pub fn follow(&self, history: &[u8], last_number: u64) -> Result<u64, (Code, String)> {
        let position = FeedPosition { history: Bytes::copy_from_slice(history), last_number, ..Default::default() };
        let request = self.following(position);
        self.block_on(async {
            let mut client = FeedServiceClient::new(self.connect().await.unwrap());
            let refused = |status: Status| shown(&status);
            let mut responses = client.follow(request).await.map_err(refused)?.into_inner();
            match responses.message().await.map_err(refused)?.and_then(|response| response.message) {
                Some(follow_response::Message::Welcome(welcome)) => match welcome.healing {
                    None => Ok(welcome.last_number),
                    Some(_) => Err((Code::Ok, "healing".to_owned())),
                },
                other => panic!("no welcome: {other:?}"),
            }
        })
    }

    /// A statement signed with the profile of an officer.
    pub fn statement(&self, officer: &Path, number: u64, content: DraftContent) -> agreement::SignedStatement {
        let signer = Profile::load(officer).unwrap().statement_signer().unwrap();
        let statement = encode_statement(&Draft {
            participant: signer.identity().participant.clone(),
            officer: signer.identity().name.clone(),
            hub: Name::parse("main").unwrap(),
            number,
            made_at: now(),
            content,
        });
        agreement::SignedStatement {
            signature: Bytes::copy_from_slice(&signer.sign_statement(&statement)),
            statement,
            certificates: signer.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            suite: concord_wire::SUITE_ED25519,
        }
    }

    /// Hands in a statement with the node's certificate.
    pub fn state(&self, statement: agreement::SignedStatement) -> Result<(), (Code, String)> {
        let request = agreement::SubmitRequest { statement: Some(statement), wait: None, run: self.run() };
        self.block_on(async {
            let mut client = StatementServiceClient::new(self.connect().await.unwrap());
            client.submit(request).await.map(drop).map_err(|status| shown(&status))
        })
    }

    /// Hands in an officer's second statement: it leaves an agreement, as `agreement show` tells it.
    pub fn leave(&self, officer: &Path, agreement: &serde_json::Value) {
        let content = DraftContent::Leave(agreement_reference(agreement));
        self.state(self.statement(officer, 2, content)).unwrap();
    }

    /// Hands in an officer's first statement: it consents to an agreement, as `agreement show` tells it. The feed is followed
    /// first, as every node does.
    pub fn consent(&self, officer: &Path, agreement: &serde_json::Value) {
        self.follow(&[], 0).unwrap();
        self.state(self.statement(officer, 1, DraftContent::Consent(agreement_reference(agreement)))).unwrap();
    }

    /// Calls methods of the hub that are for others than nodes, and returns what each said.
    pub fn overreach(&self) -> Vec<(Code, String)> {
        self.block_on(async {
            let channel = self.connect().await.unwrap();
            let listed = RegistryServiceClient::new(channel.clone()).list_measures(ListMeasuresRequest {}).await;
            let status = OperationsServiceClient::new(channel.clone()).get_status(GetStatusRequest {}).await;
            let prepared = StatementServiceClient::new(channel).prepare(agreement::PrepareRequest {}).await;
            vec![shown(&listed.unwrap_err()), shown(&status.unwrap_err()), shown(&prepared.unwrap_err())]
        })
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(async { timeout(DEADLINE, work).await }).expect("the hub answers in time")
    }
}

/// The version that `agreement show` tells.
pub fn agreement_reference(agreement: &serde_json::Value) -> AgreementRef {
    AgreementRef {
        id: AgreementId::parse(agreement["id"].as_str().unwrap()).unwrap(),
        version: agreement["version"].as_u64().unwrap().try_into().unwrap(),
        digest: AgreementDigest(Digest::from_slice(&from_hex(agreement["digest"].as_str().unwrap())).unwrap()),
    }
}

/// How a stream ended, or `OK` where it still tells something.
async fn end_of<T>(stream: &mut Streaming<T>) -> (Code, String) {
    match stream.message().await {
        Ok(Some(_)) => (Code::Ok, "it tells something".to_owned()),
        Ok(None) => (Code::Ok, "it ended in order".to_owned()),
        Err(status) => shown(&status),
    }
}

fn shown(status: &Status) -> (Code, String) {
    (status.code(), reason_of(status).unwrap_or_else(|| status.message().to_owned()))
}
