//! From a profile folder to a connected, typed client. Every call has a deadline.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use concord_identity::{Anchor, Caller, Profile, ProfileError};
use concord_model::{Identity, ParticipantCode, Role, Timestamp};
use concord_server::{
    CERTIFICATE_STEPS_DAYS, ClockOffset, ConnectError, MESSAGE_SIZE_MAX_BYTES, Proxy, clock_offset_at, offset_by_date,
};
use concord_wire::proto::agency::v1::agency_service_client::AgencyServiceClient;
use concord_wire::proto::agreement::v1::agreement_service_client::AgreementServiceClient;
use concord_wire::proto::agreement::v1::statement_service_client::StatementServiceClient;
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use concord_wire::proto::operations::v1::registry_service_client::RegistryServiceClient;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;

use crate::cli::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output;

/// One answer. Later: DEADLINE_EXCEEDED, and the command ends as unavailable.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is added to a wait that the server keeps, so that its own answer comes first.
pub(crate) const WAIT_MARGIN: Duration = Duration::from_secs(5);

const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// A connection to the one server of a profile.
pub(crate) struct Client {
    profile: Profile,
    channel: Heeding,
}

impl Client {
    /// Whether the server shows a certificate under this anchor now, whoever else it is known by.
    pub(crate) async fn sees_server_under(&self, anchor: &Anchor, folder: &Path) -> Result<bool, Failure> {
        let (address, tls) = (self.profile.address()?, self.profile.client_config_by(vec![anchor.clone()])?);
        let proxy = proxy(&self.profile, folder)?;
        Ok(concord_server::connect_through(concord_server::Tcp, proxy, &address, tls, None).await.is_ok())
    }

    /// Reads the profile whole, then connects.
    pub(crate) async fn connect(args: &ClientArgs) -> Result<Self, Failure> {
        let profile = Profile::load(&args.profile)?;
        let (address, tls) = (profile.address()?, profile.client_config()?);
        let proxy = proxy(&profile, &args.profile)?;
        let own = profile.own();
        if own.not_after < output::now() {
            // A moment before its end: what the server's clock says of it the server decides.
            let moment = Timestamp::from_micros(own.not_after.as_micros().saturating_sub(1_000_000));
            if let Some(offset) =
                clock_offset_at(proxy, &address, &tls, moment).await.filter(|offset| offset.is_wrong())
            {
                return Err((&ConnectError::ClockWrong { address, offset }).into());
            }
            let message = format!(
                "the certificate of {} expired on {}, and this machine's clock shows {}",
                own.identity,
                output::time(own.not_after),
                output::time(output::now())
            );
            return Err(Failure::new(Exit::Refused, "CERTIFICATE_EXPIRED", message).help(
                "have the profile made again by the node's operator, or set this machine's clock if it is wrong",
            ));
        }
        tell_end(own);
        let channel = concord_server::connect_through(concord_server::Tcp, proxy, &address, tls, None).await;
        let channel = channel.map_err(|error| Failure::from(&error))?;
        Ok(Self { profile, channel: Heeding { channel, is_told: Arc::default() } })
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn agency(&self) -> AgencyServiceClient<Heeding> {
        AgencyServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn agreements(&self) -> AgreementServiceClient<Heeding> {
        AgreementServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn statements(&self) -> StatementServiceClient<Heeding> {
        StatementServiceClient::new(self.channel.clone())
    }

    pub(crate) fn registry(&self) -> RegistryServiceClient<Heeding> {
        RegistryServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn operations(&self) -> OperationsServiceClient<Heeding> {
        OperationsServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }
}

/// A certificate that ends soon is told of to whoever uses it: where the register of its anchor lies in a safe, nobody else can.
fn tell_end(own: &Caller) {
    let left = own.not_after.as_micros().saturating_sub(output::now().as_micros());
    let days = left / MICROS_PER_DAY;
    if days >= i64::from(CERTIFICATE_STEPS_DAYS[0]) {
        return;
    }
    let Identity { participant, role, name } = &own.identity;
    let server =
        if participant == &ParticipantCode::secretariat() && *role != Role::Agency { "the hub" } else { "the node" };
    let end = output::time(own.not_after);
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(
        std::io::stderr().lock(),
        "note: the certificate of {} ends in {days} days, {end}: who keeps the folder of {server} of {participant} makes the next one with `concord {role} renew {name}`",
        own.identity
    );
}

/// The proxy that the profile names, if it does.
fn proxy(profile: &Profile, folder: &Path) -> Result<Option<Arc<Proxy>>, Failure> {
    let way = profile.way();
    let path = folder.join("profile.toml");
    Proxy::load(way.proxy.as_deref(), way.proxy_credentials.as_deref())
        .map_err(|why| ProfileError::Settings { path, why }.into())
}

/// A channel that looks at the time which the server's first answer says, and tells once of a clock that is wrong. The command goes on.
#[derive(Clone)]
pub(crate) struct Heeding {
    channel: Channel,
    is_told: Arc<AtomicBool>,
}

impl Service<http::Request<Body>> for Heeding {
    type Response = http::Response<Body>;
    type Error = <Channel as Service<http::Request<Body>>>::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, is_told) = (self.channel.call(request), Arc::clone(&self.is_told));
        async move {
            let answer = answer.await?;
            let offset = offset_by_date(answer.headers().get(http::header::DATE).map(|date| date.as_bytes()));
            if let Some(offset) = offset.filter(|offset| offset.is_wrong() && !is_told.swap(true, Ordering::Relaxed)) {
                tell(offset);
            }
            Ok(answer)
        }
        .boxed()
    }
}

fn tell(offset: ClockOffset) {
    // On stderr in either form of output.
    output::Output::new(false).say(&format!(
        "concord: this machine's clock is {offset} that of the server; set the clock of this machine, or have the other one set"
    ));
}

/// A call that is answered at once.
pub(crate) fn call<T>(message: T) -> Request<T> {
    call_within(message, CALL_TIMEOUT)
}

/// A call with a deadline of its own, which the server is told too.
pub(crate) fn call_within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A duration as protobuf says it.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
