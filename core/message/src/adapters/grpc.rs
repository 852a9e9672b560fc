use std::time::Instant;

use antiphon_feed::Topic;
use antiphon_proto::{
    refusal,
    rpc::{
        HistoryRequest, HistoryResponse, InboxMove, InboxMoved, MoveInboxResult, MoveInboxesRequest,
        MoveInboxesResponse, NewMessage, NotDone, SendRequest, SendResponse, SendResult, Stored, SummariesRequest,
        SummariesResponse, TypingRequest, TypingResponse,
        message_server::{Message, MessageServer},
        move_inbox_result, send_result,
    },
};
use antiphon_slot::{Opening, Slots};
use antiphon_types::{ClientMsgId, Clock, ConversationId, ErrorCode, UserId};
use futures_util::future::join_all;
use metrics::{Counter, Histogram};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::{
    FeedHome, MessageError, MessageOptions, Rejection,
    app::{self, Asked, Move, Sending},
    domain,
};

/// Conversations of one request for summaries.
const SUMMARIES_MAX: usize = 100;

/// Messages of one request to send.
const SENDS_MAX: usize = 1_000;

/// Moves of one request.
const MOVES_MAX: usize = 512;

/// Bytes of a message of this service's, in and out: a page of history and its envelope.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The service `rpc.v1.Message`.
pub struct MessageService {
    slots: Slots,
    clock: Clock,
    options: MessageOptions,
    feed: FeedHome,
    meters: Meters,
}

/// What is counted of messages. The handles are made once: to look them up would be a part of what a message costs.
struct Meters {
    write_seconds: Histogram,
    stored: Counter,
    duplicates: Counter,
}

impl MessageService {
    /// The service over the slots of this node; `feed` is where typing goes.
    #[must_use]
    pub fn new(slots: Slots, clock: Clock, options: MessageOptions, feed: FeedHome) -> Self {
        Self {
            slots,
            clock,
            options,
            feed,
            meters: Meters {
                write_seconds: metrics::histogram!("antiphon_write_seconds"),
                stored: metrics::counter!("antiphon_messages_total"),
                duplicates: metrics::counter!("antiphon_sends_duplicate_total"),
            },
        }
    }

    async fn store(
        &self,
        opening: &Opening,
        conversation: ConversationId,
        sender: UserId,
        message: NewMessage,
    ) -> Result<Stored, MessageError> {
        let started = Instant::now();
        domain::check_text(&message.text, self.options.text_bytes_max)?;
        let sending = Sending {
            conversation,
            sender,
            client_msg_id: ClientMsgId::parse(&message.client_msg_id)?,
            text_hash: Sha256::digest(&message.text).into(),
            text: message.text,
            now_ms: self.clock.now_ms(),
        };
        let sent = app::send(opening, sending).await?;
        self.meters.write_seconds.record(started.elapsed().as_secs_f64());
        let counter = if sent.is_duplicate {
            &self.meters.duplicates
        } else {
            &self.meters.stored
        };
        counter.increment(1);
        Ok(Stored {
            seq: sent.seq,
            sent_at_ms: sent.sent_at_ms,
            duplicate: sent.is_duplicate,
        })
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
        let SendRequest {
            conversation_id,
            sender_id,
            messages,
        } = request.into_inner();
        let (conversation, sender) = (conversation(&conversation_id)?, user("senderId", &sender_id)?);
        if messages.len() > SENDS_MAX {
            return Err(refused(Rejection::TooManyMessages {
                count: messages.len(),
                limit: SENDS_MAX,
            }));
        }
        // Each is in the queue of one opening before the next is looked at: where the slot goes or comes meanwhile, nothing is stored behind
        // what was refused for that.
        let opening = self.slots.opening(conversation.slot()).map_err(refused)?;
        let sends = messages
            .into_iter()
            .map(|message| self.store(&opening, conversation, sender, message));
        let mut results = Vec::new();
        for stored in join_all(sends).await {
            results.push(SendResult {
                result: Some(match stored {
                    Ok(stored) => send_result::Result::Stored(stored),
                    // Whoever asks finds the home, and sends all again.
                    Err(error) if error.code() == ErrorCode::NotHome => return Err(refused(error)),
                    Err(error) => send_result::Result::NotDone(not_done(error)),
                }),
            });
        }
        Ok(Response::new(SendResponse { results }))
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

    async fn move_inboxes(
        &self,
        request: Request<MoveInboxesRequest>,
    ) -> Result<Response<MoveInboxesResponse>, Status> {
        let asked = request.into_inner().moves;
        if asked.len() > MOVES_MAX {
            return Err(refused(Rejection::TooManyMoves {
                count: asked.len(),
                limit: MOVES_MAX,
            }));
        }
        let moves: Vec<Move> = asked.iter().map(move_of).collect::<Result<_, _>>()?;
        if !share_slot(moves.iter().map(|moves| moves.conversation)) {
            return Err(refused(Rejection::MixedSlots));
        }
        // Each is in the slot's queue before the next is looked at.
        let moves = moves
            .into_iter()
            .map(|moves| app::move_inbox(&self.slots, moves, self.options.receipts_members_max));
        let mut results = Vec::new();
        for moved in join_all(moves).await {
            results.push(MoveInboxResult {
                result: Some(match moved {
                    Ok(inbox) => move_inbox_result::Result::Moved(InboxMoved {
                        delivered_seq: inbox.delivered_seq,
                        read_seq: inbox.read_seq,
                    }),
                    // Whoever asks finds the home, and moves all again.
                    Err(error) if error.code() == ErrorCode::NotHome => return Err(refused(error)),
                    Err(error) => move_inbox_result::Result::NotDone(not_done(error)),
                }),
            });
        }
        Ok(Response::new(MoveInboxesResponse { results }))
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
        if !share_slot(conversations.iter().copied()) {
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

fn not_done(error: MessageError) -> NotDone {
    let status = refused(error);
    NotDone {
        refusal: Some(refusal::of(&status)),
        message: status.message().to_owned(),
    }
}

/// Whether all of them are in one slot.
fn share_slot(conversations: impl IntoIterator<Item = ConversationId>) -> bool {
    let mut slots = conversations.into_iter().map(|conversation| conversation.slot());
    let first = slots.next();
    slots.all(|slot| Some(slot) == first)
}

fn move_of(asked: &InboxMove) -> Result<Move, Status> {
    Ok(Move {
        conversation: conversation(&asked.conversation_id)?,
        user: user("userId", &asked.user_id)?,
        delivered: asked.delivered_seq,
        read: asked.read_seq,
    })
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
