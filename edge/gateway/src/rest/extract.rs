//! What handlers take from a request, with refusals as problem documents.

use std::sync::Arc;

use antiphon_types::{ConversationId, ErrorCode, IdError, NameError, UserId};
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::{limits::counted, problem::Problem, serve::Peer, shared::Shared};

/// The user whose access token the request carries; takes a token of the user's bucket.
pub(super) struct Caller(pub(super) UserId);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = value
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(Problem::new(
                ErrorCode::Unauthenticated,
                "the header Authorization has to be Bearer and an access token",
            ));
        };
        let claims = shared.auth.verify(token.trim()).await?;
        shared.limits.users.take(&claims.user_id)?;
        Ok(Self(claims.user_id))
    }
}

/// Takes a token of the address for a request that costs a password hash.
pub(super) struct CredentialAttempt;

impl FromRequestParts<Arc<Shared>> for CredentialAttempt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_else(Peer::unknown);
        shared.limits.credentials.take(&counted(peer.address))?;
        std::future::ready(Ok(Self)).await
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        match Json::from_request(request, shared).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => {
                let status = rejection.status();
                let code = if status == http::StatusCode::PAYLOAD_TOO_LARGE {
                    ErrorCode::TooLarge
                } else {
                    ErrorCode::InvalidArgument
                };
                // 422 says that the JSON is well formed and wrong; to a client that is the same mistake as any other.
                let status = if status == http::StatusCode::UNPROCESSABLE_ENTITY {
                    http::StatusCode::BAD_REQUEST
                } else {
                    status
                };
                Err(Problem::with_status(status, code, rejection.body_text()))
            }
        }
    }
}

/// Parameters of the query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Shared>> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, shared).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::new(ErrorCode::InvalidArgument, rejection.body_text())),
        }
    }
}

/// Parts of the path, as text.
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Shared>> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, shared).await {
            Ok(Path(values)) => Ok(Self(values)),
            Err(rejection) => Err(Problem::new(ErrorCode::InvalidArgument, rejection.body_text())),
        }
    }
}

pub(super) fn conversation(text: &str) -> Result<ConversationId, Problem> {
    Ok(ConversationId::parse(text)?)
}

pub(super) fn user(text: &str) -> Result<UserId, Problem> {
    Ok(UserId::parse(text)?)
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
}
