//! The home of conversations and users as the root of the delivery tree.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_feed::{Followed, Hop, Subscriber, Topic, Topics, follow};
use antiphon_proto::{
    client::{self, server_frame},
    log::{MessageSent, ReceiptMoved, StoredMessage, event},
    rpc::{
        FeedItem, Interest, OwnFrame, PushedMessage, feed_item,
        feed_server::{Feed, FeedServer},
    },
};
use antiphon_slot::{CommitObserver, CommittedEntry, SlotError, Slots};
use antiphon_types::{ConversationId, Seq, UserId};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use prost::Message as _;
use tokio::time::sleep;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::{keys, store};
use crate::{MessageError, app};

/// Tails read at once for one subscriber.
const TAILS_CONCURRENT_MAX: usize = 16;

/// The first pause before a tail that could not be read is read again; it doubles, up to the last one.
const TAIL_PAUSE_MIN: Duration = Duration::from_millis(50);
const TAIL_PAUSE_MAX: Duration = Duration::from_millis(1_600);

/// What the slots of this node commit, handed to the delivery workers that follow it.
///
/// It observes the slots, so it is made before them; [`FeedHome::serve`] gives it the slots to read tails from.
/// Cheap to clone.
#[derive(Clone)]
pub struct FeedHome {
    home: Arc<Home>,
}

struct Home {
    topics: Arc<Topics>,
    slots: OnceLock<Slots>,
}

impl FeedHome {
    /// A feed into `topics`.
    #[must_use]
    pub fn new(topics: Arc<Topics>) -> Self {
        Self {
            home: Arc::new(Home {
                topics,
                slots: OnceLock::new(),
            }),
        }
    }

    /// Sets the slots that tails are read from. Only the first call counts.
    pub fn serve(&self, slots: Slots) {
        let _ = self.home.slots.set(slots);
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> FeedServer<Self> {
        FeedServer::new(self)
    }

    /// Tells the others that `user` is typing.
    pub(crate) fn typing(&self, topic: Topic, conversation: ConversationId, user: UserId) {
        let typing = client::TypingEvent {
            conversation_id: conversation.to_string(),
            user_id: user.to_string(),
        };
        let frame = encoded(server_frame::Body::Typing(typing));
        self.home
            .topics
            .publish(topic, item(topic, feed_item::Body::Frame(frame), String::new()));
    }
}

impl Home {
    /// Tells a new follower where the conversation stands, so that it can see what it has missed. It follows already.
    async fn offer_tail(&self, subscriber: &Subscriber, topic: Topic) {
        let mut pause = TAIL_PAUSE_MIN;
        loop {
            let tail = match topic.conversation() {
                Some(conversation) => self.tail(conversation).await,
                None => Ok(0),
            };
            match tail {
                Ok(seq) => return subscriber.offer(item(topic, feed_item::Body::Tail(seq), String::new())),
                // Whatever is wrong, a follower without a tail would wait in silence: it is told one, or leaves.
                Err(error) => {
                    metrics::counter!("antiphon_feed_tails_failed_total").increment(1);
                    debug!(?topic, %error, "the tail of a followed conversation is read again");
                    sleep(pause).await;
                    pause = (pause * 2).min(TAIL_PAUSE_MAX);
                    if !subscriber.follows(&topic) {
                        return;
                    }
                }
            }
        }
    }

    async fn tail(&self, conversation: ConversationId) -> Result<Seq, MessageError> {
        let slot = conversation.slot();
        let slots = self.slots.get().ok_or(SlotError::Closed { slot })?;
        let tail = slots
            .read_filtered(slot, |read| async move { app::tail(&read, conversation).await })
            .await?;
        Ok(tail.last_seq)
    }

    fn message_sent(&self, entry: &CommittedEntry, sent: &MessageSent, traceparent: &str) {
        let Ok(conversation) = ConversationId::from_bytes(&sent.conversation_id) else {
            return;
        };
        let topic = Topic::from(conversation);
        if !self.topics.has_subscribers(&topic) {
            return;
        }
        let Some(message) = stored_message(entry, conversation, sent.seq) else {
            warn!(%conversation, seq = sent.seq, "an entry announces a message that it does not hold");
            self.topics
                .publish(topic, item(topic, feed_item::Body::Tail(sent.seq), String::new()));
            return;
        };
        let (sent_at_ms, sender_id) = (message.sent_at_ms, message.sender_id.clone());
        let Ok(shown) = store::shown(conversation, sent.seq, message) else {
            return;
        };
        let frame = encoded(server_frame::Body::Message(shown));
        let pushed = PushedMessage {
            seq: sent.seq,
            frame,
            sent_at_ms,
            sender_id,
        };
        self.topics.publish(
            topic,
            item(topic, feed_item::Body::Message(pushed), traceparent.to_owned()),
        );
    }

    fn receipt_moved(&self, moved: &ReceiptMoved, traceparent: &str) {
        let (Ok(conversation), Ok(user)) = (
            ConversationId::from_bytes(&moved.conversation_id),
            UserId::from_bytes(&moved.user_id),
        ) else {
            return;
        };
        let topic = Topic::from(conversation);
        if !self.topics.has_subscribers(&topic) {
            return;
        }
        let frame = encoded(server_frame::Body::Receipt(client::Receipt {
            conversation_id: conversation.to_string(),
            user_id: user.to_string(),
            delivered_seq: moved.delivered_seq,
            read_seq: moved.read_seq,
        }));
        let body = if moved.own_devices {
            feed_item::Body::OwnFrame(OwnFrame {
                user_id: moved.user_id.clone(),
                frame,
            })
        } else {
            feed_item::Body::Frame(frame)
        };
        self.topics.publish(topic, item(topic, body, traceparent.to_owned()));
    }

    fn publish(&self, id: &[u8], body: feed_item::Body, traceparent: &str) {
        if let Ok(topic) = Topic::try_from(id) {
            self.topics.publish(topic, item(topic, body, traceparent.to_owned()));
        }
    }
}

impl CommitObserver for FeedHome {
    fn committed(&self, entry: &CommittedEntry) {
        self.home.publish_entry(entry);
    }
}

impl Home {
    fn publish_entry(&self, entry: &CommittedEntry) {
        for event in entry.events.iter() {
            let traceparent = &event.traceparent;
            match &event.body {
                Some(event::Body::MessageSent(sent)) => self.message_sent(entry, sent, traceparent),
                Some(event::Body::ReceiptMoved(moved)) => self.receipt_moved(moved, traceparent),
                Some(event::Body::MembershipChanged(change)) => {
                    let body = feed_item::Body::Membership(change.clone());
                    self.publish(&change.conversation_id, body, traceparent);
                }
                Some(event::Body::MembershipListed(listed)) => {
                    if let Some(change) = &listed.change {
                        let body = feed_item::Body::Membership(change.clone());
                        self.publish(&change.user_id, body, traceparent);
                    }
                }
                Some(event::Body::FamilyRevoked(revoked)) => {
                    self.publish(&revoked.user_id, feed_item::Body::Revoked(revoked.clone()), traceparent);
                }
                Some(event::Body::AccountClaimed(_) | event::Body::DirectOpened(_)) | None => {}
            }
        }
    }
}

impl Hop for Home {
    fn joined(self: &Arc<Self>, subscriber: &Arc<Subscriber>, topics: Vec<Topic>) -> BoxFuture<'static, ()> {
        let (home, subscriber) = (self.clone(), subscriber.clone());
        let tails = async move {
            stream::iter(topics)
                .for_each_concurrent(TAILS_CONCURRENT_MAX, |topic| home.offer_tail(&subscriber, topic))
                .await;
        };
        tails.boxed()
    }

    fn left(self: &Arc<Self>, _: &[Topic]) {}
}

#[tonic::async_trait]
impl Feed for FeedHome {
    type FollowStream = Followed;

    async fn follow(&self, request: Request<Streaming<Interest>>) -> Result<Response<Followed>, Status> {
        Ok(Response::new(follow(
            self.home.clone(),
            &self.home.topics,
            request.into_inner(),
        )))
    }
}

fn stored_message(entry: &CommittedEntry, conversation: ConversationId, seq: Seq) -> Option<StoredMessage> {
    let value = entry.value(&keys::message(conversation, seq))?;
    StoredMessage::decode(value.clone()).ok()
}

fn encoded(body: server_frame::Body) -> Bytes {
    client::ServerFrame {
        id: String::new(),
        body: Some(body),
    }
    .encode_to_vec()
    .into()
}

fn item(topic: Topic, body: feed_item::Body, traceparent: String) -> FeedItem {
    FeedItem {
        topic: topic.to_bytes(),
        body: Some(body),
        traceparent,
    }
}
