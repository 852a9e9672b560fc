//! `/v1/tokens`

use std::sync::Arc;

use antiphon_identity::decoy_user;
use antiphon_proto::rpc;
use antiphon_types::{DeviceId, ErrorCode, UserId, Username};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, CredentialAttempt};
use crate::{problem::Problem, shared::Shared};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogIn {
    #[schema(example = "alice")]
    username: String,
    password: String,
    /// 1 to 64 visible ASCII characters, chosen by the device and kept.
    #[schema(example = "phone-1")]
    device_id: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RefreshToken {
    refresh_token: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tokens {
    /// For the header Authorization and for Hello.
    access_token: String,
    /// For one refresh; the answer holds the next.
    refresh_token: String,
    /// How long the access token lives, in seconds.
    #[schema(example = 900)]
    expires_in_s: u32,
    #[schema(example = "u_00g1g3k2000000000000000004")]
    user_id: String,
}

/// Logs a device in.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "identity", request_body = LogIn,
    responses(
        (status = 200, description = "Tokens of the device", body = Tokens),
        (status = 401, description = "UNAUTHENTICATED: no such name, or another password", body = Problem),
        (status = 429, description = "RATE_LIMITED", body = Problem),
        (status = 503, description = "UNAVAILABLE: such as while the account of a new name is being made", body = Problem),
    )
)]
pub(super) async fn log_in(
    State(shared): State<Arc<Shared>>,
    _: CredentialAttempt,
    Body(body): Body<LogIn>,
) -> Result<Json<Tokens>, Problem> {
    let device_id = DeviceId::parse(&body.device_id)?;
    // A name that cannot be is a name that is not there.
    let wrong = || Problem::new(ErrorCode::Unauthenticated, "the username or the password is wrong");
    let username = Username::parse(&body.username).map_err(|_| wrong())?;
    let who = match shared.calls.resolve(&username).await {
        // Nobody's password is checked all the same, so that the time it takes tells nothing.
        Err(refusal) if refusal.code == ErrorCode::NotFound => (decoy_user(&username), false),
        holder => (holder?, true),
    };
    match shared.calls.log_in(who, body.password, &device_id).await {
        Err(refusal) if matches!(refusal.code, ErrorCode::NotFound | ErrorCode::Unauthenticated) => Err(wrong()),
        tokens => Ok(Json(value(tokens?)?)),
    }
}

/// Exchanges a refresh token for new tokens. One that was used before revokes the whole login.
#[utoipa::path(
    post, path = "/v1/tokens/refresh", tag = "identity", request_body = RefreshToken,
    responses(
        (status = 200, description = "The next tokens", body = Tokens),
        (status = 401, description = "UNAUTHENTICATED: unknown, expired, revoked or used before", body = Problem),
        (status = 429, description = "RATE_LIMITED", body = Problem),
    )
)]
pub(super) async fn refresh(
    State(shared): State<Arc<Shared>>,
    _: CredentialAttempt,
    Body(body): Body<RefreshToken>,
) -> Result<Json<Tokens>, Problem> {
    Ok(Json(value(shared.calls.refresh(body.refresh_token).await?)?))
}

/// Logs a device out: its refresh tokens are revoked and its sessions end.
#[utoipa::path(
    delete, path = "/v1/tokens", tag = "identity", request_body = RefreshToken,
    responses(
        (status = 204, description = "Logged out, or was before"),
        (status = 401, description = "UNAUTHENTICATED: not a refresh token", body = Problem),
    )
)]
pub(super) async fn log_out(
    State(shared): State<Arc<Shared>>,
    _: CredentialAttempt,
    Body(body): Body<RefreshToken>,
) -> Result<StatusCode, Problem> {
    shared.calls.log_out(body.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn value(tokens: rpc::Tokens) -> Result<Tokens, Problem> {
    Ok(Tokens {
        user_id: UserId::from_bytes(&tokens.user_id)?.to_string(),
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        expires_in_s: tokens.expires_in_s,
    })
}
