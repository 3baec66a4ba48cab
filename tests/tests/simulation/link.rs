//! A node's link to the hub through the simulated network: the hub's own entry points at the other end, and the manners of the
//! link over TLS (one connection for each stream of lane flash, one for the rest; an answer within twenty seconds).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use concord_hub::fetch::fetch;
use concord_hub::services::{exchange, feed, statement};
use concord_hub::shared::Shared;
use concord_identity::Caller;
use concord_model::{Lane, Refusal};
use concord_node::link::{HubLink, Incoming, LinkEnd, Outgoing, WELCOME_TIMEOUT_SECONDS};
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignResponse, FetchConsignmentsRequest, FetchConsignmentsResponse, ReceiveRequest,
    ReceiveResponse, consign_request, consign_response, receive_request, receive_response,
};
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, HandBackRequest, HandBackResponse, ReportRequest, ReportResponse, follow_response,
};
use concord_wire::status::to_status;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::Hub;
use crate::network::{Connection, Direction, Network};
use crate::tap::Stage;

const CONNECT_TIMEOUT_SECONDS: u64 = 10;

pub(crate) struct SimulatedLink {
    pub(crate) network: Arc<Network>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) node: usize,
    pub(crate) caller: Caller,
    shared: Mutex<Option<Arc<Connection>>>,
}

impl SimulatedLink {
    pub(crate) fn new(network: Arc<Network>, hub: Arc<Hub>, node: usize, caller: Caller) -> Self {
        Self { network, hub, node, caller, shared: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fresh(&self) -> Result<Arc<Connection>, LinkEnd> {
        let handshake = async {
            self.network.travel(self.node, Direction::Up).await;
            let up = self.hub.is_up();
            self.network.travel(self.node, Direction::Down).await;
            // Not the one that took the first message, if it ended meanwhile.
            if up && self.hub.is_up() { Ok(self.network.connected(self.node)) } else { Err(lost("refused")) }
        };
        let in_time = timeout(Duration::from_secs(CONNECT_TIMEOUT_SECONDS), handshake).await;
        in_time.unwrap_or_else(|_| Err(lost("no connection came about in time")))
    }

    async fn connection(&self, lane: Option<Lane>) -> Result<Arc<Connection>, LinkEnd> {
        if lane == Some(Lane::Flash) {
            return self.fresh().await;
        }
        let known = self.known().clone().filter(|connection| !connection.is_known_dead());
        if let Some(connection) = known {
            return Ok(connection);
        }
        let connection = self.fresh().await?;
        *self.known() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A stream of the hub's messages, as the tap hears it.
    fn heard<T: prost::Message + 'static>(
        &self,
        stage: Stage,
        stream: String,
        kind: &'static str,
        messages: Incoming<T>,
    ) -> Incoming<T> {
        let (network, node) = (Arc::clone(&self.network), self.node);
        messages.inspect(move |message| network.tap.hear(node, stage, &stream, kind, message)).boxed()
    }

    /// Calls the hub over a connection; a lost one says so, and a silent one is given up.
    async fn call<T: Send + 'static>(
        &self,
        connection: &Connection,
        work: impl FnOnce(Arc<Shared>, Caller) -> BoxFuture<'static, Result<T, Refusal>> + Send,
    ) -> Result<T, LinkEnd> {
        let caller = self.caller.clone();
        let calling = async {
            self.network.travel(self.node, Direction::Up).await;
            let Some((machine, shared)) = self.hub.running() else {
                return std::future::pending().await;
            };
            let answered = self.network.scheduler.call(machine, work(shared, caller)).await;
            let Ok(answered) = answered else {
                return std::future::pending().await;
            };
            self.network.travel(self.node, Direction::Down).await;
            answered.map_err(|refusal| LinkEnd::from_status(&to_status(&refusal)))
        };
        let ended = tokio::select! {
            biased;
            () = connection.lost() => Err(lost("the connection was lost")),
            called = timeout(Duration::from_secs(WELCOME_TIMEOUT_SECONDS), calling) => {
                called.unwrap_or_else(|_| Err(lost("the hub did not answer")))
            }
        };
        if matches!(ended, Err(LinkEnd::Lost(_))) {
            *self.known() = None;
        }
        ended
    }
}

fn lost(why: &str) -> LinkEnd {
    LinkEnd::Lost(why.to_owned())
}

/// A stream of statuses within the network's own: one level for whoever reads it.
fn flat<T: Send + 'static>(
    carried: futures::stream::BoxStream<'static, Result<Result<T, Status>, Status>>,
) -> Incoming<T> {
    carried.map(|carried| carried.and_then(|message| message)).boxed()
}

impl HubLink for SimulatedLink {
    fn consign(
        &self,
        lane: Lane,
        outgoing: Outgoing<ConsignRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ConsignResponse>, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(Some(lane)).await?;
            let reset = CancellationToken::new();
            let label = move |request: &ConsignRequest| match &request.message {
                Some(consign_request::Message::Hello(_)) => format!("consign {lane} hello"),
                Some(consign_request::Message::Consignment(consignment)) => {
                    format!("consignment {lane} of {}", consignment.headers.len())
                }
                _ => "consign".to_owned(),
            };
            let inbound = self.network.carry(&connection, Direction::Up, outgoing, &reset, label);
            let responses = self.call(&connection, |shared, caller| {
                Box::pin(async move { exchange::consign(&shared, caller, inbound) })
            });
            let responses = self.heard(
                Stage::Handed,
                format!("consign {lane}"),
                "concord.exchange.v1.ConsignResponse",
                responses.await?.boxed(),
            );
            let label = move |response: &Result<ConsignResponse, Status>| match response {
                Ok(ConsignResponse { message: Some(consign_response::Message::Welcome(welcome)) }) => {
                    format!("consign {lane} welcome after {}", welcome.last_number)
                }
                Ok(_) => format!("receipt {lane}"),
                Err(status) => format!("consign {lane} ends: {}", status.message()),
            };
            let carried = flat(self.network.carry(&connection, Direction::Down, responses, &reset, label));
            Ok(self.heard(Stage::Arrived, format!("consign {lane}"), "concord.exchange.v1.ConsignResponse", carried))
        })
    }

    fn receive(
        &self,
        lane: Lane,
        outgoing: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(Some(lane)).await?;
            let reset = CancellationToken::new();
            let label = move |request: &ReceiveRequest| match &request.message {
                Some(receive_request::Message::Hello(hello)) => format!("receive {lane} after {}", hello.last_number),
                _ => format!("acknowledgement {lane}"),
            };
            let inbound = self.network.carry(&connection, Direction::Up, outgoing, &reset, label);
            let responses = self.call(&connection, |shared, caller| {
                Box::pin(async move { exchange::receive(&shared, caller, inbound) })
            });
            let responses = self.heard(
                Stage::Handed,
                format!("receive {lane}"),
                "concord.exchange.v1.ReceiveResponse",
                responses.await?.boxed(),
            );
            let label = move |response: &Result<ReceiveResponse, Status>| match response {
                Ok(ReceiveResponse { message: Some(message) }) => match message {
                    receive_response::Message::Delivery(delivery) => format!("delivery {lane} {}", delivery.number),
                    receive_response::Message::Withheld(notice) => format!("withheld {lane} {}", notice.number),
                    receive_response::Message::Recorded(recorded) => {
                        format!("recorded {lane} {} {}", recorded.delivered_through, recorded.taken_count)
                    }
                    _ => format!("receive {lane} welcome"),
                },
                Ok(_) => "receive".to_owned(),
                Err(status) => format!("receive {lane} ends: {}", status.message()),
            };
            let carried = flat(self.network.carry(&connection, Direction::Down, responses, &reset, label));
            Ok(self.heard(Stage::Arrived, format!("receive {lane}"), "concord.exchange.v1.ReceiveResponse", carried))
        })
    }

    fn follow(&self, request: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(None).await?;
            let responses = self.call(&connection, |shared, caller| {
                Box::pin(async move { feed::follow(&shared, &caller, &request).await })
            });
            let responses = self.heard(
                Stage::Handed,
                "feed".to_owned(),
                "concord.feed.v1.FollowResponse",
                responses.await?.boxed(),
            );
            let label = |response: &Result<FollowResponse, Status>| match response {
                Ok(FollowResponse { message: Some(follow_response::Message::Item(item)) }) => {
                    format!("feed item {}", item.number)
                }
                Ok(_) => "feed welcome".to_owned(),
                Err(status) => format!("feed ends: {}", status.message()),
            };
            let reset = CancellationToken::new();
            let carried = flat(self.network.carry(&connection, Direction::Down, responses, &reset, label));
            Ok(self.heard(Stage::Arrived, "feed".to_owned(), "concord.feed.v1.FollowResponse", carried))
        })
    }

    fn hand_back(&self, outgoing: Outgoing<HandBackRequest>) -> BoxFuture<'_, Result<HandBackResponse, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(None).await?;
            let reset = CancellationToken::new();
            let label = |_: &HandBackRequest| "handed back".to_owned();
            let inbound = self.network.carry(&connection, Direction::Up, outgoing, &reset, label);
            let answer = self.call(&connection, |shared, caller| {
                Box::pin(async move { feed::hand_back(&shared, &caller, inbound).await })
            });
            answer.await
        })
    }

    fn fetch(
        &self,
        request: FetchConsignmentsRequest,
    ) -> BoxFuture<'_, Result<Incoming<FetchConsignmentsResponse>, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(None).await?;
            let responses = self
                .call(&connection, |shared, caller| Box::pin(async move { fetch(&shared, &caller, request).await }));
            let responses = self.heard(
                Stage::Handed,
                "fetch".to_owned(),
                "concord.exchange.v1.FetchConsignmentsResponse",
                responses.await?.boxed(),
            );
            let label = |_: &Result<FetchConsignmentsResponse, Status>| "given back".to_owned();
            let reset = CancellationToken::new();
            let carried = flat(self.network.carry(&connection, Direction::Down, responses, &reset, label));
            Ok(self.heard(Stage::Arrived, "fetch".to_owned(), "concord.exchange.v1.FetchConsignmentsResponse", carried))
        })
    }

    fn report(&self, request: ReportRequest) -> BoxFuture<'_, Result<ReportResponse, LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(None).await?;
            let called = self
                .call(&connection, |shared, caller| Box::pin(async move { feed::report(&shared, &caller, &request) }));
            called.await
        })
    }

    fn submit(&self, request: SubmitRequest) -> BoxFuture<'_, Result<(), LinkEnd>> {
        Box::pin(async move {
            let connection = self.connection(None).await?;
            self.network.trace.line(format_args!("node {} forwards a statement", self.node));
            let called = self.call(&connection, |shared, caller| {
                Box::pin(async move { statement::submit(&shared, &caller, request).await })
            });
            let called = called.await;
            self.network.tap.note(self.node, "statement", || match &called {
                Ok(()) => "accepted".to_owned(),
                Err(LinkEnd::Lost(why)) => format!("lost: {why}"),
                Err(refused) => format!("refused: {refused:?}"),
            });
            called
        })
    }
}
