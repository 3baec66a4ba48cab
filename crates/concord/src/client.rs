//! From a profile folder to a connected, typed client. Every call has a deadline.

use std::time::Duration;

use concord_identity::Profile;
use concord_server::MESSAGE_SIZE_MAX_BYTES;
use concord_wire::proto::agency::v1::agency_service_client::AgencyServiceClient;
use concord_wire::proto::agreement::v1::agreement_service_client::AgreementServiceClient;
use concord_wire::proto::agreement::v1::statement_service_client::StatementServiceClient;
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use concord_wire::proto::operations::v1::registry_service_client::RegistryServiceClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::cli::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output;

/// One answer. Later: DEADLINE_EXCEEDED, and the command ends as unavailable.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is added to a wait that the server keeps, so that its own answer comes first.
pub(crate) const WAIT_MARGIN: Duration = Duration::from_secs(5);

/// A connection to the one server of a profile.
pub(crate) struct Client {
    profile: Profile,
    channel: Channel,
}

impl Client {
    /// Reads the profile whole, then connects.
    pub(crate) async fn connect(args: &ClientArgs) -> Result<Self, Failure> {
        let profile = Profile::load(&args.profile)?;
        let own = profile.own();
        if own.not_after < output::now() {
            let message = format!("the certificate of {} expired on {}", own.identity, output::time(own.not_after));
            return Err(Failure::new(Exit::Refused, "CERTIFICATE_EXPIRED", message)
                .help("have the profile made again by the node's operator"));
        }
        let address = profile.address()?;
        let channel = concord_server::connect(&address, profile.client_config()?).await;
        let channel = channel.map_err(|error| Failure::from(&error))?;
        Ok(Self { profile, channel })
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn agency(&self) -> AgencyServiceClient<Channel> {
        AgencyServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn agreements(&self) -> AgreementServiceClient<Channel> {
        AgreementServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn statements(&self) -> StatementServiceClient<Channel> {
        StatementServiceClient::new(self.channel.clone())
    }

    pub(crate) fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }

    pub(crate) fn operations(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
    }
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
