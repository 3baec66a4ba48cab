//! The hub over gRPC and mutual TLS.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use concord_model::Lane;
use concord_server::{ConnectError, Dial, MESSAGE_SIZE_MAX_BYTES, Proxy, Reached, connect_through};
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::proto::agreement::v1::statement_service_client::StatementServiceClient;
use concord_wire::proto::exchange::v1::exchange_service_client::ExchangeServiceClient;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignResponse, FetchConsignmentsRequest, FetchConsignmentsResponse, ReceiveRequest,
    ReceiveResponse,
};
use concord_wire::proto::feed::v1::feed_service_client::FeedServiceClient;
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, HandBackRequest, HandBackResponse, ReportRequest, ReportResponse,
};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tonic::transport::Channel;

use crate::context::Contact;

use super::{HubLink, Incoming, LinkEnd, Outgoing, WELCOME_TIMEOUT_SECONDS};

/// Connections to one hub: one for each stream of lane flash, one for all the rest.
pub struct TonicLink<D> {
    dial: D,
    addresses: Vec<String>,
    tls: Arc<ClientConfig>,
    reached: Option<Reached>,
    shared: Mutex<Option<Channel>>,
    proxy: Option<Arc<Proxy>>,
    contact: Option<Arc<Contact>>,
}

impl<D: Dial> TonicLink<D> {
    /// To the first of these addresses that answers under the pinned anchor.
    pub fn new(dial: D, addresses: Vec<String>, tls: Arc<ClientConfig>) -> Self {
        Self { dial, addresses, tls, reached: None, shared: Mutex::new(None), proxy: None, contact: None }
    }

    /// The same, telling of each connection whom it led to.
    #[must_use]
    pub fn telling(self, reached: Option<Reached>) -> Self {
        Self { reached, ..self }
    }

    /// The same, by way of a proxy, where there is one.
    #[must_use]
    pub fn through(self, proxy: Option<Arc<Proxy>>) -> Self {
        Self { proxy, ..self }
    }

    /// The same, with what hears of a clock by which the hub's certificate does not hold.
    #[must_use]
    pub fn telling_clock(self, contact: Arc<Contact>) -> Self {
        Self { contact: Some(contact), ..self }
    }

    async fn fresh(&self) -> Result<Channel, LinkEnd> {
        let mut why = "the bundle names no address of the hub".to_owned();
        for address in &self.addresses {
            let (tls, reached) = (Arc::clone(&self.tls), self.reached.clone());
            let connected = connect_through(self.dial.clone(), self.proxy.clone(), address, tls, reached);
            match connected.await {
                Ok(channel) => return Ok(channel),
                Err(error) => {
                    if let (ConnectError::ClockWrong { offset, .. }, Some(contact)) = (&error, &self.contact) {
                        contact.clock_keeps_out(*offset);
                    }
                    why = error.to_string();
                }
            }
        }
        Err(LinkEnd::Lost(why))
    }

    /// The connection that everything but flash shares; made by whoever needs it first.
    async fn shared(&self) -> Result<Channel, LinkEnd> {
        let mut shared = self.shared.lock().await;
        if let Some(channel) = &*shared {
            return Ok(channel.clone());
        }
        let channel = self.fresh().await?;
        *shared = Some(channel.clone());
        Ok(channel)
    }

    async fn channel(&self, lane: Lane) -> Result<Channel, LinkEnd> {
        match lane {
            Lane::Flash => self.fresh().await,
            Lane::Priority | Lane::Routine => self.shared().await,
        }
    }

    /// The answer to a call, in time. Making the connection has a time of its own.
    async fn answered<T>(&self, call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, LinkEnd> {
        match tokio::time::timeout(Duration::from_secs(WELCOME_TIMEOUT_SECONDS), call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.ended(status).await),
            Err(_) => Err(LinkEnd::silent()),
        }
    }

    /// After a loss the next caller begins with the first address again.
    async fn ended(&self, status: tonic::Status) -> LinkEnd {
        let end = LinkEnd::from_status(&status);
        if matches!(end, LinkEnd::Lost(_)) {
            *self.shared.lock().await = None;
        }
        end
    }
}

/// A boxed stream under a name: inside tonic's futures the compiler cannot prove the nameless one `Send`.
struct Named<T>(Outgoing<T>);

impl<T> Stream for Named<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(context)
    }
}

impl<D: Dial> HubLink for TonicLink<D> {
    fn consign(
        &self,
        lane: Lane,
        outgoing: Outgoing<ConsignRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ConsignResponse>, LinkEnd>> {
        Box::pin(async move {
            let mut client = ExchangeServiceClient::new(self.channel(lane).await?)
                .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
                .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
            Ok(self.answered(client.consign(Named(outgoing))).await?.into_inner().boxed())
        })
    }

    fn receive(
        &self,
        lane: Lane,
        outgoing: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>> {
        Box::pin(async move {
            let mut client = ExchangeServiceClient::new(self.channel(lane).await?)
                .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
                .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
            Ok(self.answered(client.receive(Named(outgoing))).await?.into_inner().boxed())
        })
    }

    fn follow(&self, request: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>> {
        Box::pin(async move {
            let mut client =
                FeedServiceClient::new(self.shared().await?).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
            Ok(self.answered(client.follow(request)).await?.into_inner().boxed())
        })
    }

    fn hand_back(&self, outgoing: Outgoing<HandBackRequest>) -> BoxFuture<'_, Result<HandBackResponse, LinkEnd>> {
        Box::pin(async move {
            let mut client = FeedServiceClient::new(self.shared().await?);
            match client.hand_back(Named(outgoing)).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.ended(status).await),
            }
        })
    }

    fn fetch(
        &self,
        request: FetchConsignmentsRequest,
    ) -> BoxFuture<'_, Result<Incoming<FetchConsignmentsResponse>, LinkEnd>> {
        Box::pin(async move {
            let mut client =
                ExchangeServiceClient::new(self.shared().await?).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
            Ok(self.answered(client.fetch_consignments(request)).await?.into_inner().boxed())
        })
    }

    fn report(&self, request: ReportRequest) -> BoxFuture<'_, Result<ReportResponse, LinkEnd>> {
        Box::pin(async move {
            let mut client = FeedServiceClient::new(self.shared().await?);
            Ok(self.answered(client.report(request)).await?.into_inner())
        })
    }

    fn submit(&self, request: SubmitRequest) -> BoxFuture<'_, Result<(), LinkEnd>> {
        Box::pin(async move {
            let mut client = StatementServiceClient::new(self.shared().await?);
            self.answered(client.submit(request)).await.map(|_| ())
        })
    }
}
