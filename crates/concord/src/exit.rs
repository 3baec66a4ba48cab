//! How a command ends: the exit codes, and the one shape of every failure that reaches a person.

mod servers;

use std::error::Error;
use std::process::ExitCode;

use concord_identity::{HandshakeRefusal, ProfileError};
use concord_model::{Class, ParseError, Reason, Refusal};
use concord_server::ConnectError;
use tonic::{Code, Status};

/// The exit codes; a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Unavailable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong and why, what to do next, and a stable reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, reason: &str, message: impl Into<String>) -> Self {
        Self { exit, reason: reason.to_owned(), message: message.into(), help: String::new() }
    }

    pub(crate) fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, reason, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message).help("see --help of the command")
    }

    /// An answer that the protocol does not allow: one side is broken or of another version.
    pub(crate) fn answer(what: impl std::fmt::Display) -> Self {
        Self::failed("ANSWER_MALFORMED", format!("the answer cannot be read: {what}"))
            .help("compare the versions of both sides with `concord status`")
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Whether the same call may pass later as it is.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.exit == Exit::Unavailable
    }
}

/// The exit code of a refusal: a rule said no, or somebody was not there, or something is broken.
pub(crate) const fn exit_of(reason: Reason) -> Exit {
    match reason.class() {
        Class::Invalid | Class::Unknown | Class::Denied | Class::Precondition | Class::Conflict | Class::Superseded => {
            Exit::Refused
        }
        Class::Exhausted => Exit::Unavailable,
        // The answering process failed inside: trying again is no advice.
        Class::Unavailable if matches!(reason, Reason::Internal) => Exit::Failed,
        Class::Unavailable => Exit::Unavailable,
        Class::DataLoss => Exit::Failed,
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(exit_of(refusal.reason), refusal.reason.code(), refusal.message).help(refusal.reason.help())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some(refusal) = concord_wire::status::from_status(&status) {
            return refusal.into();
        }
        if let Some(error) = connect_error(&status) {
            return error.into();
        }
        let message = match deepest_source(&status) {
            Some(source) => format!("{}: {source}", status.message()),
            None => status.message().to_owned(),
        };
        match status.code() {
            Code::Unimplemented => {
                Self::new(Exit::Refused, Reason::CallerNotAllowed.code(), "this server does not do that")
                    .help("secretariat's commands take a profile of the hub, all others one of your own node")
            }
            Code::DeadlineExceeded => Self::new(Exit::Unavailable, "DEADLINE_EXCEEDED", "no answer came in time")
                .help("try again; nothing that was answered before is lost"),
            Code::Unavailable | Code::ResourceExhausted => {
                Self::new(Exit::Unavailable, "UNAVAILABLE", message).help("see whether the server runs, then try again")
            }
            // tonic says so when the connection broke in the middle of a call.
            Code::Unknown | Code::Cancelled | Code::Internal if status.source().is_some() => {
                Self::new(Exit::Unavailable, "UNAVAILABLE", message).help("see whether the server runs, then try again")
            }
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::OutOfRange => Self::new(Exit::Refused, &format!("{:?}", status.code()).to_uppercase(), message),
            code => Self::failed(&format!("{code:?}").to_uppercase(), message),
        }
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let message = error.to_string();
        match &error {
            ProfileError::NotAProfile(_) => Self::new(Exit::Usage, "PROFILE_UNKNOWN", message)
                .help("give --profile a folder of a profile: NODEDIR/officer, NODEDIR/operator, NODEDIR/agencies/NAME, or of a hub HUBDIR/officer, HUBDIR/operator"),
            ProfileError::NoAddress { settings, .. } => {
                let settings = std::path::absolute(settings).unwrap_or_else(|_| settings.clone());
                let line = format!("write the line `address = \"HOST:PORT\"`, where the server is reached from here, into {}", settings.display());
                Self::new(Exit::Unavailable, "ADDRESS_UNKNOWN", message).help(format!("start the server if it never ran; else {line}"))
            }
            ProfileError::Statement(_) => Self::new(Exit::Refused, Reason::CallerNotAllowed.code(), message)
                .help("use an officer's profile, such as NODEDIR/officer"),
            ProfileError::NoKey(_) => Self::failed("PROFILE_UNUSABLE", message)
                .help("it is with whoever made the request; where it is lost, have the certificate made anew for a new request"),
            _ => Self::failed("PROFILE_UNUSABLE", message).help("have the profile made again by the node's operator"),
        }
    }
}

impl From<&ConnectError> for Failure {
    fn from(error: &ConnectError) -> Self {
        let message = error.to_string();
        match error {
            ConnectError::TlsRefused { refusal, .. } => match refusal {
                HandshakeRefusal::Connection(_) => Self::new(Exit::Unavailable, refusal.code(), message)
                    .help("see whether the server runs, then try again"),
                HandshakeRefusal::Protocol(_) => Self::failed(refusal.code(), message)
                    .help("check that the address in the profile is that of a Concord server"),
                _ => Self::new(Exit::Refused, refusal.code(), message)
                    .help("check that the profile belongs to this server and that its certificate has not expired"),
            },
            ConnectError::ClockWrong { .. } => Self::new(Exit::Failed, "CLOCK_WRONG", message)
                .help("set the clock of this machine (`timedatectl` shows it), then try again"),
            ConnectError::OwnCertificateOver { .. } => Self::new(Exit::Refused, "CERTIFICATE_EXPIRED", message)
                .help("have the profile made again by the node's operator, or set this machine's clock if it is wrong"),
            ConnectError::Proxy { why, .. } => Self::new(Exit::Unavailable, why.code(), message).help(
                "correct `proxy` and `proxy_credentials` in the profile's profile.toml, or ask who runs the proxy",
            ),
            ConnectError::AddressMalformed { .. } => {
                Self::failed("ADDRESS_MALFORMED", message).help("correct the address in the profile's profile.toml")
            }
            _ => Self::new(Exit::Unavailable, "UNAVAILABLE", message).help("start the server, or correct the address"),
        }
    }
}

/// Our connector's own error somewhere below a status: a channel that made its connection anew.
fn connect_error(status: &Status) -> Option<&ConnectError> {
    let mut next = status.source();
    while let Some(current) = next {
        if let Some(error) = current.downcast_ref::<ConnectError>() {
            return Some(error);
        }
        next = current.source();
    }
    None
}

fn deepest_source(error: &dyn Error) -> Option<String> {
    let mut deepest = error.source()?;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    Some(deepest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_rule_ends_with_3_and_absence_with_4() {
        let check = |reason: Reason, exit: Exit| {
            let status = concord_wire::status::to_status(&Refusal::new(reason, "because"));
            let failure = Failure::from(status);
            assert_eq!((failure.exit, failure.reason.as_str()), (exit, reason.code()));
            assert_eq!(failure.message, "because");
            assert_eq!(failure.help, reason.help());
        };
        check(Reason::AgreementUnknown, Exit::Refused);
        check(Reason::BodyEmpty, Exit::Refused);
        check(Reason::CallerNotAllowed, Exit::Refused);
        check(Reason::RequestIdConflict, Exit::Refused);
        check(Reason::AgreementNotInForce, Exit::Refused);
        check(Reason::WaitExpired, Exit::Unavailable);
        check(Reason::QueueFull, Exit::Unavailable);
        check(Reason::ShuttingDown, Exit::Unavailable);
        check(Reason::Internal, Exit::Failed);
        check(Reason::HistoryUnknown, Exit::Failed);
    }

    #[test]
    fn a_server_that_is_not_there_is_unavailable() {
        assert_eq!(Failure::from(Status::unavailable("refused")).exit, Exit::Unavailable);
        assert_eq!(Failure::from(Status::deadline_exceeded("late")).exit, Exit::Unavailable);
        assert_eq!(Failure::from(Status::unimplemented("")).exit, Exit::Refused);
        assert_eq!(Failure::from(Status::internal("bug")).exit, Exit::Failed);
    }
}
