use std::time::Instant;

use antiphon_feed::Topic;
use antiphon_proto::rpc::{
    HistoryRequest, HistoryResponse, MoveInboxRequest, MoveInboxResponse, SendRequest, SendResponse, SummariesRequest,
    SummariesResponse, TypingRequest, TypingResponse,
    message_server::{Message, MessageServer},
};
use antiphon_slot::Slots;
use antiphon_types::{ClientMsgId, Clock, ConversationId, UserId};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::{
    FeedHome, MessageError, MessageOptions, Rejection,
    app::{self, Asked, Sending},
    domain,
};

/// Conversations of one request for summaries.
const SUMMARIES_MAX: usize = 100;

/// Bytes of a message of this service's, in and out: a page of history and its envelope.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The service `rpc.v1.Message`.
pub struct MessageService {
    slots: Slots,
    clock: Clock,
    options: MessageOptions,
    feed: FeedHome,
}

impl MessageService {
    /// The service over the slots of this node; `feed` is where typing goes.
    #[must_use]
    pub const fn new(slots: Slots, clock: Clock, options: MessageOptions, feed: FeedHome) -> Self {
        Self {
            slots,
            clock,
            options,
            feed,
        }
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> MessageServer<Self> {
        MessageServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Message for MessageService {
    #[tracing::instrument(name = "message.send", level = "debug", skip_all)]
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let started = Instant::now();
        let request = request.into_inner();
        domain::check_text(&request.text, self.options.text_bytes_max).map_err(refused)?;
        let sending = Sending {
            conversation: conversation(&request.conversation_id)?,
            sender: user("senderId", &request.sender_id)?,
            client_msg_id: ClientMsgId::parse(&request.client_msg_id).map_err(refused)?,
            text_hash: Sha256::digest(&request.text).into(),
            text: request.text,
            now_ms: self.clock.now_ms(),
        };
        let sent = app::send(&self.slots, sending).await.map_err(refused)?;
        metrics::histogram!("antiphon_write_seconds").record(started.elapsed().as_secs_f64());
        let counter = if sent.is_duplicate {
            "antiphon_sends_duplicate_total"
        } else {
            "antiphon_messages_total"
        };
        metrics::counter!(counter).increment(1);
        Ok(Response::new(SendResponse {
            seq: sent.seq,
            sent_at_ms: sent.sent_at_ms,
            duplicate: sent.is_duplicate,
        }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let request = request.into_inner();
        let member = if request.user_id.is_empty() {
            None
        } else {
            Some(user("userId", &request.user_id)?)
        };
        let asked = Asked {
            conversation: conversation(&request.conversation_id)?,
            member,
            after_seq: request.after_seq,
            before_seq: request.before_seq,
            limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
        };
        let page = app::history(&self.slots, &self.options, asked).await.map_err(refused)?;
        Ok(Response::new(page))
    }

    async fn move_inbox(&self, request: Request<MoveInboxRequest>) -> Result<Response<MoveInboxResponse>, Status> {
        let request = request.into_inner();
        let (conversation, user) = (
            conversation(&request.conversation_id)?,
            user("userId", &request.user_id)?,
        );
        let (delivered, read) = (request.delivered_seq, request.read_seq);
        let inbox = app::move_inbox(&self.slots, conversation, user, delivered, read)
            .await
            .map_err(refused)?;
        Ok(Response::new(MoveInboxResponse {
            delivered_seq: inbox.delivered_seq,
            read_seq: inbox.read_seq,
        }))
    }

    async fn summaries(&self, request: Request<SummariesRequest>) -> Result<Response<SummariesResponse>, Status> {
        let request = request.into_inner();
        let count = request.conversation_ids.len();
        if count > SUMMARIES_MAX {
            return Err(refused(Rejection::TooManyConversations {
                count,
                limit: SUMMARIES_MAX,
            }));
        }
        let user = user("userId", &request.user_id)?;
        let conversations: Vec<ConversationId> = request
            .conversation_ids
            .iter()
            .map(|id| conversation(id))
            .collect::<Result<_, _>>()?;
        let Some(slot) = conversations.first().map(ConversationId::slot) else {
            return Ok(Response::new(SummariesResponse::default()));
        };
        if conversations.iter().any(|conversation| conversation.slot() != slot) {
            return Err(refused(Rejection::MixedSlots));
        }
        let summaries = app::summaries(&self.slots, slot, user, &conversations)
            .await
            .map_err(refused)?;
        Ok(Response::new(SummariesResponse { summaries }))
    }

    async fn typing(&self, request: Request<TypingRequest>) -> Result<Response<TypingResponse>, Status> {
        let request = request.into_inner();
        let (conversation, user) = (
            conversation(&request.conversation_id)?,
            user("userId", &request.user_id)?,
        );
        let topic = Topic::from(conversation);
        app::check_typist(&self.slots, conversation, user)
            .await
            .map_err(refused)?;
        self.feed.typing(topic, conversation, user);
        Ok(Response::new(TypingResponse {}))
    }
}

fn refused(error: impl Into<MessageError>) -> Status {
    let error = error.into();
    metrics::counter!("antiphon_rejections_total", "code" => error.code().as_str()).increment(1);
    error.to_status()
}

fn conversation(bytes: &[u8]) -> Result<ConversationId, Status> {
    ConversationId::from_bytes(bytes).map_err(|reason| {
        refused(MessageError::Id {
            field: "conversationId",
            reason,
        })
    })
}

fn user(field: &'static str, bytes: &[u8]) -> Result<UserId, Status> {
    UserId::from_bytes(bytes).map_err(|reason| refused(MessageError::Id { field, reason }))
}
