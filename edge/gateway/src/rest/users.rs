//! `/v1/users`

use std::sync::Arc;

use antiphon_types::Username;
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Caller, InPath, user};
use crate::{problem::Problem, shared::Shared};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    #[schema(example = "u_00g1g3k2000000000000000004")]
    user_id: String,
    #[schema(example = "alice")]
    username: String,
}

/// Finds a user by name.
#[utoipa::path(
    get, path = "/v1/users/by-name/{username}", tag = "identity", security(("bearer" = [])),
    params(("username" = String, Path, example = "alice")),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "NOT_FOUND", body = Problem),
    )
)]
pub(super) async fn by_name(
    State(shared): State<Arc<Shared>>,
    _: Caller,
    InPath(username): InPath<String>,
) -> Result<Json<User>, Problem> {
    let username = Username::parse(&username)?;
    let user_id = shared.calls.resolve(&username).await?.to_string();
    Ok(Json(User {
        user_id,
        username: username.to_string(),
    }))
}

/// Finds a user by id.
#[utoipa::path(
    get, path = "/v1/users/{userId}", tag = "identity", security(("bearer" = [])),
    params(("userId" = String, Path)),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "NOT_FOUND", body = Problem),
    )
)]
pub(super) async fn by_id(
    State(shared): State<Arc<Shared>>,
    _: Caller,
    InPath(user_id): InPath<String>,
) -> Result<Json<User>, Problem> {
    let who = user(&user_id)?;
    let username = shared.calls.username(who).await?;
    Ok(Json(User { user_id, username }))
}
