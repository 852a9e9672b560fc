//! `/v1/conversations/{id}/members`

use std::sync::Arc;

use antiphon_types::{TimestampMs, UserId};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Body, Caller, InPath, Parameters, conversation, user},
    values::Role,
};
use crate::{
    hub::{kind_name, role_name},
    problem::Problem,
    shared::Shared,
};

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Members on the page.
    #[serde(default)]
    limit: u32,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Members {
    /// `direct` or `group`.
    kind: String,
    title: String,
    members: Vec<Member>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    user_id: String,
    /// `owner`, `admin` or `member`.
    role: String,
    joined_at_ms: TimestampMs,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Add {
    user_id: String,
    /// `member` when absent.
    role: Option<Role>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SetRole {
    role: Role,
}

/// Lists the members of a conversation of the caller.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/members", tag = "conversations", security(("bearer" = [])),
    params(("id" = String, Path), List),
    responses(
        (status = 200, description = "A page", body = Members),
        (status = 404, description = "NOT_FOUND, for those who are no members too", body = Problem),
    )
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath(id): InPath<String>,
    Parameters(List { limit, cursor }): Parameters<List>,
) -> Result<Json<Members>, Problem> {
    let id = conversation(&id)?;
    let after = cursor.as_deref().map(user).transpose()?;
    let page = shared.calls.list_members(id, who, after, limit).await?;
    let (kind, more) = (kind_name(page.kind()).to_owned(), page.more);
    let members = page.members.into_iter().map(|member| {
        Ok(Member {
            user_id: UserId::from_bytes(&member.user_id)?.to_string(),
            role: role_name(member.role()).to_owned(),
            joined_at_ms: member.joined_at_ms,
        })
    });
    let members = members.collect::<Result<Vec<_>, Problem>>()?;
    let next = members.last().filter(|_| more).map(|member| member.user_id.clone());
    Ok(Json(Members {
        kind,
        title: page.title,
        members,
        next,
    }))
}

/// Adds a member to a group.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/members", tag = "conversations", security(("bearer" = [])),
    params(("id" = String, Path)), request_body = Add,
    responses(
        (status = 204, description = "The user is a member"),
        (status = 403, description = "FORBIDDEN: the caller's role does not allow it", body = Problem),
        (status = 404, description = "NOT_FOUND", body = Problem),
    )
)]
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath(id): InPath<String>,
    Body(body): Body<Add>,
) -> Result<StatusCode, Problem> {
    let role = body.role.unwrap_or(Role::Member);
    shared
        .calls
        .add_member(conversation(&id)?, who, user(&body.user_id)?, role.into())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member from a group; removing oneself is leaving.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/members/{userId}", tag = "conversations", security(("bearer" = [])),
    params(("id" = String, Path), ("userId" = String, Path)),
    responses(
        (status = 204, description = "The user is no member"),
        (status = 403, description = "FORBIDDEN: the caller's role does not allow it", body = Problem),
        (status = 404, description = "NOT_FOUND", body = Problem),
    )
)]
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath((id, user_id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    shared
        .calls
        .remove_member(conversation(&id)?, who, user(&user_id)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a member of a group another role.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}/members/{userId}", tag = "conversations", security(("bearer" = [])),
    params(("id" = String, Path), ("userId" = String, Path)), request_body = SetRole,
    responses(
        (status = 204, description = "The member has the role"),
        (status = 403, description = "FORBIDDEN: the caller's role does not allow it", body = Problem),
        (status = 404, description = "NOT_FOUND", body = Problem),
    )
)]
pub(super) async fn set_role(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath((id, user_id)): InPath<(String, String)>,
    Body(body): Body<SetRole>,
) -> Result<StatusCode, Problem> {
    shared
        .calls
        .set_role(conversation(&id)?, who, user(&user_id)?, body.role.into())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
