//! Calls to the services: one function a call, with its deadline, ids as types and refusals as clients read them.

mod conversation;
mod identity;
mod message;
mod presence;
mod throttle;

use std::{future::Future, sync::Arc, time::Duration};

use antiphon_directory::Route;
use antiphon_proto::{refusal, rpc};
use antiphon_session::Refusal;
use antiphon_types::{ConversationId, ErrorCode, IdError, UserId};
use bytes::Bytes;
use tonic::{Response, Status};

use self::throttle::Throttle;
pub(crate) use conversation::Membership;
pub(crate) use message::{HistoryRange, Summaries};

/// Largest answer of a service that is read: a page of history with texts at their limit.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The services, wherever they are.
#[derive(Clone)]
pub(crate) struct Calls {
    route: Route,
    timeout: Duration,
    /// How long one slot may take to say how its conversations stand.
    summary_timeout: Duration,
    throttle: Arc<Throttle>,
}

impl Calls {
    pub(crate) fn new(route: Route, timeout: Duration, summary_timeout: Duration) -> Self {
        Self {
            route,
            timeout,
            summary_timeout,
            throttle: Arc::new(Throttle::new()),
        }
    }

    pub(crate) const fn route(&self) -> &Route {
        &self.route
    }

    /// Waits for an answer until the deadline.
    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refusal> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(refusal_of(&status)),
            Err(_) => {
                let message = format!(
                    "no answer came within {} ms; the outcome is unknown",
                    self.timeout.as_millis()
                );
                Err(Refusal::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }
}

fn refusal_of(status: &Status) -> Refusal {
    as_clients_read(&refusal::of(status), status.message())
}

/// A refusal as clients read it: where a slot lives and what went wrong inside is not for them.
fn as_clients_read(refusal: &rpc::Refusal, message: &str) -> Refusal {
    let code = ErrorCode::parse(&refusal.code);
    if code == ErrorCode::NotHome {
        let message = "the place where this is kept is moving; try again";
        return Refusal::new(ErrorCode::Unavailable, message).retry_after(refusal.retry_after_ms.unwrap_or(200));
    }
    if code == ErrorCode::Internal {
        tracing::error!(code = refusal.code, message, "a service failed");
        return Refusal::new(ErrorCode::Internal, "the request failed inside the server");
    }
    Refusal {
        code,
        message: message.to_owned(),
        retry_after_ms: refusal.retry_after_ms,
    }
}

fn user(bytes: &[u8]) -> Result<UserId, Refusal> {
    UserId::from_bytes(bytes).map_err(|error| corrupt(&error))
}

fn conversation(bytes: &[u8]) -> Result<ConversationId, Refusal> {
    ConversationId::from_bytes(bytes).map_err(|error| corrupt(&error))
}

fn corrupt(error: &IdError) -> Refusal {
    tracing::error!(%error, "a service answered with something that is no id");
    Refusal::new(ErrorCode::Internal, "the request failed inside the server")
}

fn user_bytes(users: &[UserId]) -> Vec<Bytes> {
    users.iter().map(UserId::to_bytes).collect()
}
