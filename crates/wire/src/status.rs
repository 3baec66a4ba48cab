//! Refusals as rich gRPC statuses and back: `google.rpc` details with a stable `ErrorInfo.reason`.

use std::collections::HashMap;
use std::time::Duration;

use concord_model::{Class, Reason, Refusal};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `ErrorInfo.domain` of every refusal.
pub const ERROR_DOMAIN: &str = "concord";
/// When a caller that met a limit may try again, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 2;

/// A refusal as a status with `ErrorInfo`, help and, where it may pass later, `RetryInfo`.
pub fn to_status(refusal: &Refusal) -> Status {
    let class = refusal.reason.class();
    let mut details = ErrorDetails::new();
    details.set_error_info(refusal.reason.code(), ERROR_DOMAIN, HashMap::new());
    details.add_help_link(refusal.reason.help(), "");
    if matches!(class, Class::Exhausted | Class::Unavailable) {
        details.set_retry_info(Some(Duration::from_secs(RETRY_AFTER_SECONDS)));
    }
    Status::with_error_details(code(class), refusal.message.clone(), details)
}

/// The refusal that a status carries, if it is one of ours.
pub fn from_status(status: &Status) -> Option<Refusal> {
    let details = status.get_error_details();
    let info = details.error_info()?;
    if info.domain != ERROR_DOMAIN {
        return None;
    }
    Some(Refusal::new(Reason::from_code(&info.reason)?, status.message()))
}

/// The gRPC code of a class.
pub const fn code(class: Class) -> Code {
    match class {
        Class::Invalid => Code::InvalidArgument,
        Class::Unknown => Code::NotFound,
        Class::Denied => Code::PermissionDenied,
        Class::Precondition => Code::FailedPrecondition,
        Class::Conflict => Code::AlreadyExists,
        Class::Exhausted => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::Superseded => Code::Aborted,
        Class::DataLoss => Code::DataLoss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(*reason, "what happened");
            let status = to_status(&refusal);
            assert_eq!(from_status(&status), Some(refusal));
            let may_pass_later = matches!(reason.class(), Class::Exhausted | Class::Unavailable);
            assert_eq!(status.get_error_details().retry_info().is_some(), may_pass_later);
        }
        assert_eq!(from_status(&Status::internal("not ours")), None);
    }
}
