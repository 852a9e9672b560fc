//! Carries out the requests of a session.

use std::{future::Future, sync::Arc};

use antiphon_proto::{
    client::{Ok as Done, Page, PresenceList, Sent, server_frame::Body},
    rpc::{NewMessage, Stored},
};
use antiphon_session::{Refusal, Request};
use antiphon_types::{ConversationId, ErrorCode, UserId};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::{calls::HistoryRange, hub::SessionHandle, listing, shared::Shared};

/// Who asks, if they may ask now.
pub(super) fn admit(shared: &Shared, handle: &SessionHandle) -> Result<UserId, Refusal> {
    let owner = handle.owner().map(|owner| owner.user_id);
    let who = owner.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the session has no user"))?;
    shared.limits.sessions.take(&handle.key)?;
    shared.limits.users.take(&who)?;
    Ok(who)
}

/// As [`admit`], for a message, with room for it.
pub(super) fn admit_send(shared: &Shared, handle: &SessionHandle) -> Result<(UserId, OwnedSemaphorePermit), Refusal> {
    let who = admit(shared, handle)?;
    Ok((who, shared.limits.sends.take()?))
}

/// The answers to messages of one conversation, in their order.
pub(super) fn send<T: Send + 'static>(
    shared: &Arc<Shared>,
    who: UserId,
    conversation: ConversationId,
    sends: Vec<(T, NewMessage)>,
) -> impl Future<Output = Vec<(T, Result<Body, Refusal>)>> + Send + 'static {
    let shared = shared.clone();
    let (tickets, messages): (Vec<T>, Vec<NewMessage>) = sends.into_iter().unzip();
    let span = tracing::info_span!("request", name = "send");
    async move {
        let count = messages.len();
        let results = shared.calls.send(conversation, who, messages).await;
        let results = results.unwrap_or_else(|refusal| vec![Err(refusal); count]);
        let sent = |stored: Stored| {
            Body::Sent(Sent {
                seq: stored.seq,
                sent_at_ms: stored.sent_at_ms,
            })
        };
        tickets
            .into_iter()
            .zip(results.into_iter().map(|result| result.map(sent)))
            .collect()
    }
    .instrument(span)
}

/// The answer to any other request; nothing is done before it is polled.
pub(super) fn carry_out(
    shared: &Arc<Shared>,
    handle: &Arc<SessionHandle>,
    who: UserId,
    request: Request,
) -> impl Future<Output = Result<Body, Refusal>> + Send + 'static {
    let (shared, handle) = (shared.clone(), handle.clone());
    let name = request.name();
    let span = tracing::info_span!("request", name);
    async move { answer(&shared, &handle, who, request).await }.instrument(span)
}

async fn answer(shared: &Shared, handle: &Arc<SessionHandle>, who: UserId, request: Request) -> Result<Body, Refusal> {
    let calls = &shared.calls;
    match request {
        Request::Ack {
            conversation_id,
            delivered_seq,
        } => {
            shared.acks.delivered(conversation_id, who, delivered_seq).await?;
            Ok(Body::Ok(Done {}))
        }
        Request::Read { conversation_id, seq } => {
            calls.read(conversation_id, who, seq).await?;
            Ok(Body::Ok(Done {}))
        }
        Request::Fetch {
            conversation_id,
            after_seq,
            before_seq,
            limit,
        } => {
            let range = match (after_seq, before_seq) {
                (Some(seq), _) => HistoryRange::After(seq),
                (None, Some(seq)) => HistoryRange::Before(seq),
                (None, None) => HistoryRange::Newest,
            };
            let page = calls.history(conversation_id, Some(who), range, limit).await?;
            let conversation_id = conversation_id.to_string();
            Ok(Body::Page(Page {
                conversation_id,
                messages: page.messages,
                tail_seq: page.tail_seq,
            }))
        }
        Request::Sync { limit, cursor } => {
            let page = listing::page(calls, who, limit, &cursor, shared.options.conversations_max).await?;
            Ok(Body::Conversations(page))
        }
        Request::Typing { conversation_id } => {
            calls.typing(conversation_id, who).await?;
            Ok(Body::Ok(Done {}))
        }
        Request::Presence { user_ids } => {
            // Only who may be seen is watched; asked again behind the watch, so that no change between the two is missed.
            let seen = calls.presences(who, user_ids).await?;
            let user_ids: Vec<UserId> = seen
                .iter()
                .filter_map(|seen| UserId::parse(&seen.user_id).ok())
                .collect();
            shared.hub.watch(handle, &user_ids)?;
            let presences = calls.presences(who, user_ids).await?;
            Ok(Body::Presences(PresenceList { presences }))
        }
    }
}
