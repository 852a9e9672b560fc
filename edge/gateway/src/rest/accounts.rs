//! `/v1/accounts`

use std::sync::Arc;

use antiphon_types::Username;
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, CredentialAttempt};
use crate::{problem::Problem, shared::Shared};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Register {
    /// 3 to 32 of a-z, 0-9, dot, dash, underscore; begins with a letter; upper case is folded.
    #[schema(example = "alice")]
    username: String,
    #[schema(example = "correct horse battery staple")]
    password: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    #[schema(example = "u_00g1g3k2000000000000000004")]
    user_id: String,
}

/// Registers an account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "identity", request_body = Register,
    responses(
        (status = 201, description = "The account is there", body = Registered),
        (status = 400, description = "INVALID_ARGUMENT", body = Problem),
        (status = 409, description = "ALREADY_EXISTS: the name is taken", body = Problem),
        (status = 429, description = "RATE_LIMITED", body = Problem),
    )
)]
pub(super) async fn register(
    State(shared): State<Arc<Shared>>,
    _: CredentialAttempt,
    Body(body): Body<Register>,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    let username = Username::parse(&body.username)?;
    let user_id = shared.calls.register(&username, body.password).await?;
    Ok((
        StatusCode::CREATED,
        Json(Registered {
            user_id: user_id.to_string(),
        }),
    ))
}
