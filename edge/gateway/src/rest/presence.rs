//! `/v1/presence`

use std::sync::Arc;

use antiphon_types::{ErrorCode, TimestampMs, UserId};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Caller, Parameters, user};
use crate::{problem::Problem, shared::Shared};

/// Users that one request may ask for.
const USERS_MAX: usize = 100;

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// Ids, separated by commas; at most 100.
    user_ids: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Presences {
    presences: Vec<Presence>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Presence {
    user_id: String,
    online: bool,
    /// Milliseconds since the Unix epoch; 0 when never seen.
    last_seen_ms: TimestampMs,
}

/// Tells which users are online.
#[utoipa::path(
    get, path = "/v1/presence", tag = "session", security(("bearer" = [])), params(Query),
    responses(
        (status = 200, description = "In the order asked", body = Presences),
        (status = 400, description = "INVALID_ARGUMENT", body = Problem),
    )
)]
pub(super) async fn query(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    Parameters(Query { user_ids }): Parameters<Query>,
) -> Result<Json<Presences>, Problem> {
    let users = user_ids
        .split(',')
        .map(user)
        .collect::<Result<Vec<UserId>, Problem>>()?;
    if users.len() > USERS_MAX {
        let detail = format!("presence of {} users asked, the limit is {USERS_MAX}", users.len());
        return Err(Problem::new(ErrorCode::InvalidArgument, detail));
    }
    let presences = shared
        .calls
        .presences(who, users)
        .await?
        .into_iter()
        .map(|presence| Presence {
            user_id: presence.user_id,
            online: presence.online,
            last_seen_ms: presence.last_seen_ms,
        });
    Ok(Json(Presences {
        presences: presences.collect(),
    }))
}
