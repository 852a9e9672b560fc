//! `/v1/conversations`

use std::sync::Arc;

use antiphon_conversation::new_conversation_id;
use antiphon_proto::client;
use antiphon_types::{ErrorCode, Seq, Title, UserId};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Body, Caller, Parameters, user},
    values::Message,
};
use crate::{listing, problem::Problem, shared::Shared};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Create {
    kind: Kind,
    /// The other members; for a direct conversation exactly one.
    member_ids: Vec<String>,
    /// Of a group; at most 128 characters.
    title: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Direct,
    Group,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    #[schema(example = "c_00g2g3k2000000000000000004")]
    conversation_id: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Conversations on the page; 100 by default, 500 at most.
    #[serde(default)]
    limit: u32,
    /// `next` of the page before.
    #[serde(default)]
    cursor: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conversations {
    /// Most recently active first.
    conversations: Vec<Conversation>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conversation {
    conversation_id: String,
    /// `direct` or `group`.
    kind: String,
    title: String,
    /// The other member of a direct conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
    /// The caller's role.
    role: String,
    /// Absent, as are the other numbers, while the conversation is unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
    /// `null` while there is none, or while it is not known.
    last_message: Option<Message>,
    /// `true` while the conversation's home cannot be reached, so that its state is not known; it stands where it was joined then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unavailable: bool,
}

/// Lists the caller's conversations, most recently active first.
#[utoipa::path(
    get, path = "/v1/conversations", tag = "conversations", security(("bearer" = [])), params(List),
    responses(
        (status = 200, description = "A page", body = Conversations),
        (status = 401, description = "UNAUTHENTICATED or TOKEN_EXPIRED", body = Problem),
    )
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    Parameters(List { limit, cursor }): Parameters<List>,
) -> Result<Json<Conversations>, Problem> {
    let page = listing::page(&shared.calls, who, limit, &cursor, shared.options.conversations_max).await?;
    let next = Some(page.next).filter(|next| !next.is_empty());
    Ok(Json(Conversations {
        conversations: page.conversations.into_iter().map(value).collect(),
        next,
    }))
}

/// Opens a direct conversation, or creates a group. Two users have one direct conversation, whoever opens it and how often.
#[utoipa::path(
    post, path = "/v1/conversations", tag = "conversations", security(("bearer" = [])), request_body = Create,
    responses(
        (status = 201, description = "It is new", body = Created),
        (status = 200, description = "The direct conversation was there before", body = Created),
        (status = 400, description = "INVALID_ARGUMENT", body = Problem),
        (status = 404, description = "NOT_FOUND: one of the users is not there", body = Problem),
    )
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    Body(body): Body<Create>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let members = body
        .member_ids
        .iter()
        .map(|id| user(id))
        .collect::<Result<Vec<UserId>, Problem>>()?;
    let (id, is_new) = match body.kind {
        Kind::Direct => {
            let [peer] = members[..] else {
                let detail = format!(
                    "a direct conversation has one other member, and memberIds has {}",
                    members.len()
                );
                return Err(Problem::new(ErrorCode::InvalidArgument, detail));
            };
            shared.calls.open_direct(who, peer).await?
        }
        Kind::Group => {
            let title = Title::parse(body.title.as_deref().unwrap_or_default())?;
            let id = new_conversation_id(shared.calls.route(), shared.clock.now_ms(), rand::random());
            shared.calls.create_group(id, who, &members, &title).await?;
            (id, true)
        }
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((
        status,
        Json(Created {
            conversation_id: id.to_string(),
        }),
    ))
}

fn value(summary: client::ConversationSummary) -> Conversation {
    let known = |number: u64| (!summary.unavailable).then_some(number);
    Conversation {
        conversation_id: summary.conversation_id,
        kind: summary.kind,
        title: summary.title,
        peer_id: Some(summary.peer_id).filter(|peer| !peer.is_empty()),
        role: summary.role,
        last_seq: known(summary.last_seq),
        read_seq: known(summary.read_seq),
        delivered_seq: known(summary.delivered_seq),
        unread: known(summary.unread),
        unavailable: summary.unavailable,
        last_message: summary.last_message.map(Message::from),
    }
}
