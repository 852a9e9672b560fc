use antiphon_directory::Route;
use antiphon_proto::{
    log::{Entry, StoredMessage, event},
    refusal,
    rpc::{NewMessage, NotDone, Refusal, SendRequest, SendResponse, message_client::MessageClient, send_result},
};
use antiphon_types::{ConversationId, ErrorCode};
use prost::Message as _;
use tonic::Status;

use super::keys;

/// Proposes messages again that a region had stored as home and had to cut when it returned. None of them was acknowledged, but
/// their senders may have gone before they could send again.
#[derive(Clone)]
pub struct Salvager {
    route: Route,
}

impl Salvager {
    /// Proposes by `route`: to whoever is home now.
    #[must_use]
    pub const fn new(route: Route) -> Self {
        Self { route }
    }

    /// Proposes every message of a cut entry under its own idempotency key, so that one which was sent again is not doubled (I5).
    /// Returns how many the home has now. What the home refuses for good (the sender is no member any more) is left out.
    ///
    /// # Errors
    /// What may go away: the entry is to be tried again.
    pub async fn salvage(&self, entry: &Entry) -> Result<usize, Status> {
        let mut salvaged = 0;
        for request in requests(entry) {
            let Ok(conversation) = ConversationId::from_bytes(&request.conversation_id) else {
                continue;
            };
            let mut home = MessageClient::new(self.route.to(conversation.slot()));
            let refused = match home.send(request).await {
                Ok(response) => not_stored(response.into_inner()),
                Err(status) => Some((refusal::of(&status), status.message().to_owned())),
            };
            let Some((refused, message)) = refused else {
                salvaged += 1;
                continue;
            };
            let code = ErrorCode::parse(&refused.code);
            if code.is_retryable() || code == ErrorCode::NotHome {
                return Err(refusal::status(&refused.code, message, refused.retry_after_ms));
            }
            tracing::warn!(%conversation, %code, "a message that was cut is not taken again");
            metrics::counter!("antiphon_salvage_refused_total").increment(1);
        }
        metrics::counter!("antiphon_salvaged_total").increment(salvaged as u64);
        Ok(salvaged)
    }
}

/// Why the one message was not stored.
fn not_stored(response: SendResponse) -> Option<(Refusal, String)> {
    match response.results.into_iter().next()?.result? {
        send_result::Result::Stored(_) => None,
        send_result::Result::NotDone(NotDone { refusal, message }) => Some((refusal.unwrap_or_default(), message)),
    }
}

fn requests(entry: &Entry) -> impl Iterator<Item = SendRequest> + '_ {
    let sent = entry.events.iter().filter_map(|event| match &event.body {
        Some(event::Body::MessageSent(sent)) => Some(sent),
        _ => None,
    });
    sent.filter_map(|sent| {
        let conversation = ConversationId::from_bytes(&sent.conversation_id).ok()?;
        let key = keys::message(conversation, sent.seq);
        let write = entry.writes.iter().find(|write| write.key == key)?;
        let stored = StoredMessage::decode(write.value.clone()?).ok()?;
        Some(SendRequest {
            conversation_id: sent.conversation_id.clone(),
            sender_id: stored.sender_id,
            messages: vec![NewMessage {
                client_msg_id: stored.client_msg_id,
                text: stored.text,
            }],
        })
    })
}
