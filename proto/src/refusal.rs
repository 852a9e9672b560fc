//! A refusal as it crosses the network: a gRPC status whose details hold an encoded [`Refusal`].

use prost::Message as _;
use tonic::{Code, Status};

use crate::rpc::Refusal;

/// Builds the status of a refusal. `code` is a stable upper-snake-case code, as clients see it.
#[must_use]
pub fn status(code: &str, message: impl Into<String>, retry_after_ms: Option<u64>) -> Status {
    with_details(
        &Refusal {
            code: code.to_owned(),
            retry_after_ms,
            home: None,
            epoch: None,
        },
        message,
    )
}

/// Builds the status NOT_HOME: the slot lives in `home` (as far as is known), under leader epoch `epoch`.
#[must_use]
pub fn not_home(message: impl Into<String>, home: Option<String>, epoch: u64) -> Status {
    let refusal = Refusal {
        code: "NOT_HOME".to_owned(),
        retry_after_ms: None,
        home,
        epoch: Some(epoch),
    };
    with_details(&refusal, message)
}

/// As [`status`], of a request to a slot that may have another home, under leader epoch `epoch` or a later one, which may have done
/// what was asked for or not.
#[must_use]
pub fn unsettled(code: &str, message: impl Into<String>, retry_after_ms: Option<u64>, epoch: u64) -> Status {
    let refusal = Refusal {
        code: code.to_owned(),
        retry_after_ms,
        home: None,
        epoch: Some(epoch),
    };
    with_details(&refusal, message)
}

/// Reads the refusal of a status. A status that carries none (made by the transport) is mapped by its gRPC code.
#[must_use]
pub fn of(status: &Status) -> Refusal {
    if !status.details().is_empty()
        && let Ok(refusal) = Refusal::decode(status.details())
        && !refusal.code.is_empty()
    {
        return refusal;
    }
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => "INVALID_ARGUMENT",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "FORBIDDEN",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable | Code::Cancelled | Code::Aborted => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => "INTERNAL",
    };
    Refusal {
        code: code.to_owned(),
        retry_after_ms: None,
        home: None,
        epoch: None,
    }
}

fn with_details(refusal: &Refusal, message: impl Into<String>) -> Status {
    let grpc_code = match refusal.code.as_str() {
        "INVALID_ARGUMENT" | "MALFORMED_FRAME" | "TOO_LARGE" => Code::InvalidArgument,
        "UNAUTHENTICATED" | "TOKEN_EXPIRED" => Code::Unauthenticated,
        "FORBIDDEN" => Code::PermissionDenied,
        "NOT_FOUND" => Code::NotFound,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "RATE_LIMITED" | "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "UNAVAILABLE" => Code::Unavailable,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "NOT_HOME" | "FAILED_PRECONDITION" | "IDEMPOTENCY_MISMATCH" => Code::FailedPrecondition,
        _ => Code::Internal,
    };
    Status::with_details(grpc_code, message, refusal.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_status() {
        let status = status("RATE_LIMITED", "too many", Some(250));
        let refusal = of(&status);
        assert_eq!(
            (refusal.code.as_str(), refusal.retry_after_ms),
            ("RATE_LIMITED", Some(250))
        );
    }

    #[test]
    fn a_status_of_the_transport_has_a_code_too() {
        assert_eq!(of(&Status::unavailable("gone")).code, "UNAVAILABLE");
    }
}
