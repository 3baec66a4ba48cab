//! What hub and node share as servers: data folder, listeners, limits, who may call what, admin listener, drain.
//!
//! The way of a call: `sockets` (the machine's, or a simulation's) → `accept` (TLS, limits) → `Connection` (can be closed at
//! once) → `methods` (who may call) → `in_flight` (how many at once) → `deadline` → the service. `GrpcServer` puts them together
//! and drains them.
//!
//! This crate must not know exchanges, agreements, ledger or journal: services come in as routes, their rules as rows of
//! the method table, what is wrong with them as alarms.

mod accept;
mod admin;
mod alarms;
pub mod audit;
mod bind;
mod certificates;
pub mod checks;
mod clock;
mod clock_offset;
mod clock_trust;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
mod connection;
mod connections;
mod cut;
mod deadline;
mod descriptors;
mod dialled;
mod drain;
mod ending;
mod expiry;
mod folder;
mod frames;
mod grpc;
mod hangup;
mod health;
pub mod holders;
mod in_flight;
mod lapsing;
mod logging;
mod methods;
mod metrics;
mod overdue;
mod proxy;
mod quota;
mod random;
mod readiness;
mod retention;
mod revocation;
mod room;
mod scrub;
#[cfg(any(debug_assertions, feature = "simulation"))]
pub mod simulation;
mod sockets;
mod stamp;
mod supervisor;
mod tasks;
mod throttle;
pub mod traces;
mod whereabouts;

pub use accept::{
    ACCEPTED_WAITING_MAX, Door, HANDSHAKE_TIMEOUT_SECONDS, HANDSHAKES_AT_ONCE_MAX, Incoming,
    REFUSALS_LOGGED_PER_SECOND_MAX, accept,
};
pub use admin::{
    ADMIN_CONNECTION_TIME_MAX_SECONDS, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_SIZE_MAX_BYTES,
    ADMIN_HEADER_TIMEOUT_SECONDS, ADMIN_PATHS, AdminError, AdminListener,
};
pub use alarms::{
    BODY_DAMAGED_ALARM, JOURNAL_BEHIND_VIEWS_ALARM, JOURNAL_CUT_ALARM, JOURNAL_DAMAGED_ALARM, LOWER_LIMITS_NOTE,
    NOT_HEALED_NOTE,
};
pub use bind::{BindError, bind};
pub use certificates::{CERTIFICATE_CHECK_MILLISECONDS, CERTIFICATE_PATIENCE_SECONDS, OwnCertificates, OwnFiles};
pub use clock::{Clock, SystemClock};
pub use clock_offset::{CLOCK_WRONG_SECONDS, ClockOffset, PeerClock};
pub use clock_trust::{CLOCK_CHECK_SECONDS, CLOCK_JUMP_SECONDS, ClockTrust, Monotonic};
pub use connect::{
    CONNECT_TIMEOUT_SECONDS, ConnectError, Reached, clock_offset_at, connect, connect_over, connect_through,
    offset_by_date,
};
pub use connection::{Connection, PREFACE_TIMEOUT_SECONDS};
pub use connections::{
    CONNECTIONS_MAX, CONNECTIONS_PER_CALLER_MAX, CONNECTIONS_PER_PARTICIPANT_MAX, ConnectedCaller, Connections,
    ConnectionsFull,
};
pub use cut::{Cut, CutEnd, CuttableDial, CuttableSocket};
pub use deadline::{DeadlineLayer, UNARY_TIME_MAX_SECONDS};
pub use descriptors::{Served, check_against_descriptors};
pub use dialled::{CertificateEnd, Dialled};
pub use drain::{DRAIN_TIMEOUT_SECONDS, Shutdown};
pub use ending::{End, Ending};
pub use expiry::{CERTIFICATE_STEPS_DAYS, Certificates, EXPIRY_CHECK_MILLISECONDS};
pub use folder::{Addresses, FOLDER_FORMAT, FileMode, Folder, FolderError, FolderKind, FolderLock, write_durably};
pub use frames::{CONTENT_OF_FRAME_MIN_BYTES, EMPTY_FRAMES_AT_ONCE_MAX, EMPTY_FRAMES_PER_SECOND_MAX};
pub use grpc::{
    CONNECTION_AGE_MAX_SECONDS, CONNECTION_WINDOW_BYTES, DEAD_PEER_NOTICED_MAX_SECONDS, FRAME_SIZE_MAX_BYTES,
    GrpcServer, HEADER_LIST_SIZE_MAX_BYTES, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_TIMEOUT_SECONDS,
    LOCAL_ERROR_RESETS_MAX, MESSAGE_SIZE_MAX_BYTES, PENDING_RESETS_MAX, STREAM_WINDOW_BYTES,
    STREAMS_PER_CONNECTION_MAX, ServeError,
};
pub use hangup::Hangup;
pub use health::{Health, ReflectionError, reflection};
pub use in_flight::{
    BYTES_IN_FLIGHT_PER_CALLER_MAX, BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX, CALLS_IN_FLIGHT_PER_CALLER_MAX,
    CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX,
};
pub use lapsing::{LAPSING_DAYS_MAX, Lapsing};
pub use logging::{LOG_VARIABLE, LoggingError, init_logging};
pub use methods::{Allow, Called, EVERYBODY, HEALTH_AND_REFLECTION, MethodLayer, MethodTable, Row, Whose, denied};
pub use metrics::{METRICS, Metric, MetricAt, MetricKind, MetricsError, metrics_recorder};
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use overdue::Overdue;
pub use proxy::{PROXY_ANSWER_SIZE_MAX_BYTES, PROXY_ANSWER_TIMEOUT_SECONDS, Proxy, ProxyRefusal};
pub use quota::{QUOTA_MAX, QUOTA_SAVED_SECONDS, Quotas, Shares};
pub use random::{NoRandomness, fresh};
pub use readiness::{Alarm, Readiness, lost_before};
pub use retention::{AskedDays, CutOff, OldBy, RETENTION_DAYS_MAX, Retention, RetentionTally};
pub use revocation::{
    REVOCATION_CHECK_MILLISECONDS, REVOCATION_FILE_SIZE_MAX_BYTES, REVOCATION_FILES_MAX, REVOCATION_FOLDER,
    RevocationFolder,
};
pub use room::{DISK_MEASURE_INTERVAL_MILLISECONDS, DISK_RESERVE_DEFAULT_BYTES, DiskRoom};
pub use scrub::scrub;
pub use sockets::{Dial, Listener, Socket, Tcp};
pub use supervisor::Supervisor;
pub use tasks::{blocking, detach};
pub use throttle::Throttle;
pub use whereabouts::Whereabouts;
