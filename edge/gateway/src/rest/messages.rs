//! `/v1/conversations/{id}/messages` and `/v1/conversations/{id}/read`

use std::sync::Arc;

use antiphon_proto::rpc::NewMessage;
use antiphon_types::{ClientMsgId, ErrorCode, Seq, TimestampMs};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Body, Caller, InPath, Parameters, conversation},
    values::Message,
};
use crate::{calls::HistoryRange, problem::Problem, shared::Shared};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Send {
    /// The idempotency key: 1 to 64 visible ASCII characters. Sending again with it returns the first answer.
    #[schema(example = "0193-1")]
    client_msg_id: String,
    #[schema(example = "hello")]
    text: String,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    #[schema(example = 17)]
    seq: Seq,
    #[schema(example = 1_700_000_000_000_u64)]
    sent_at_ms: TimestampMs,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct History {
    /// What follows this seq.
    after_seq: Option<Seq>,
    /// What comes before this seq; without either the newest page.
    before_seq: Option<Seq>,
    /// Messages on the page.
    #[serde(default)]
    limit: u32,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    /// In ascending seq.
    messages: Vec<Message>,
    /// The conversation's last seq.
    tail_seq: Seq,
    /// The first seq that retention has kept.
    first_seq: Seq,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Read {
    /// Every message up to here was read.
    seq: Seq,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inbox {
    delivered_seq: Seq,
    read_seq: Seq,
}

/// Sends a message. The answer comes when it is durable.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/messages", tag = "messages", security(("bearer" = [])),
    params(("id" = String, Path)), request_body = Send,
    responses(
        (status = 201, description = "It was sent", body = Sent),
        (status = 200, description = "It was sent before with this clientMsgId", body = Sent),
        (status = 404, description = "NOT_FOUND, for those who are no members too", body = Problem),
        (status = 409, description = "IDEMPOTENCY_MISMATCH: the clientMsgId was used for another text", body = Problem),
        (status = 413, description = "TOO_LARGE", body = Problem),
    )
)]
pub(super) async fn send(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath(id): InPath<String>,
    Body(body): Body<Send>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let id = conversation(&id)?;
    let client_msg_id = ClientMsgId::parse(&body.client_msg_id)?;
    let text_bytes_max = shared.options.session.text_bytes_max;
    if body.text.len() > text_bytes_max {
        let detail = format!(
            "a text of {} bytes is over the limit of {text_bytes_max} bytes",
            body.text.len()
        );
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    }
    let message = NewMessage {
        client_msg_id: client_msg_id.to_string(),
        text: body.text,
    };
    let mut results = shared.calls.send(id, who, vec![message]).await?;
    let sent = results.remove(0)?;
    let status = if sent.duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        Json(Sent {
            seq: sent.seq,
            sent_at_ms: sent.sent_at_ms,
        }),
    ))
}

/// Reads history.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/messages", tag = "messages", security(("bearer" = [])),
    params(("id" = String, Path), History),
    responses(
        (status = 200, description = "A page", body = Page),
        (status = 404, description = "NOT_FOUND, for those who are no members too", body = Problem),
    )
)]
pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath(id): InPath<String>,
    Parameters(parameters): Parameters<History>,
) -> Result<Json<Page>, Problem> {
    let id = conversation(&id)?;
    let range = match (parameters.after_seq, parameters.before_seq) {
        (Some(_), Some(_)) => {
            return Err(Problem::new(
                ErrorCode::InvalidArgument,
                "history takes afterSeq or beforeSeq, not both",
            ));
        }
        (Some(seq), None) => HistoryRange::After(seq),
        (None, Some(seq)) => HistoryRange::Before(seq),
        (None, None) => HistoryRange::Newest,
    };
    let page = shared.calls.history(id, Some(who), range, parameters.limit).await?;
    let messages = page.messages.into_iter().map(Message::from).collect();
    Ok(Json(Page {
        messages,
        tail_seq: page.tail_seq,
        first_seq: page.first_seq,
    }))
}

/// Marks everything up to a seq as read. It only ever grows.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/read", tag = "messages", security(("bearer" = [])),
    params(("id" = String, Path)), request_body = Read,
    responses(
        (status = 200, description = "Where the caller stands now", body = Inbox),
        (status = 404, description = "NOT_FOUND, for those who are no members too", body = Problem),
    )
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Caller(who): Caller,
    InPath(id): InPath<String>,
    Body(body): Body<Read>,
) -> Result<Json<Inbox>, Problem> {
    let inbox = shared.calls.read(conversation(&id)?, who, body.seq).await?;
    Ok(Json(Inbox {
        delivered_seq: inbox.delivered_seq,
        read_seq: inbox.read_seq,
    }))
}
