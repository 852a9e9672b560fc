use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use antiphon_proto::rpc::{FeedBatch, FeedItem};
use futures_util::Stream;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    Topic,
    queue::{FeedOptions, Pushed, Queue},
};

/// Why a subscriber cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The subscriber follows as many topics as it may.
    #[error("a subscriber may follow {limit} topics")]
    TooManyTopics {
        /// The bound.
        limit: usize,
    },
    /// What may not be left out found no room.
    #[error("the subscriber is too slow: {limit} items that may not be left out wait")]
    Overflow {
        /// The bound.
        limit: usize,
    },
}

/// The topics of one hop, and who follows them.
pub struct Topics {
    options: FeedOptions,
    shards: Box<[Shard]>,
    hasher: RandomState,
    closed: CancellationToken,
}

type Shard = RwLock<HashMap<Topic, Vec<Arc<Waiting>>>>;

const SHARD_COUNT: usize = 64;

/// What waits for one subscriber, shared between those who publish and its stream.
struct Waiting {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    waker: Option<Waker>,
    /// The subscriber is gone, or has to go.
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Left,
    Overflow,
}

impl Topics {
    /// A hop nobody follows yet.
    #[must_use]
    pub fn new(options: FeedOptions) -> Arc<Self> {
        let shards = (0..SHARD_COUNT).map(|_| Shard::default()).collect();
        Arc::new(Self {
            options,
            shards,
            hasher: RandomState::new(),
            closed: CancellationToken::new(),
        })
    }

    /// A new subscriber and the stream of what it follows. The stream ends when the subscriber is dropped, or with
    /// [`FeedError::Overflow`].
    #[must_use]
    pub fn subscriber(self: &Arc<Self>) -> (Subscriber, FeedStream) {
        let waiting = Arc::new(Waiting {
            state: Mutex::default(),
        });
        let subscriber = Subscriber {
            topics: self.clone(),
            waiting: waiting.clone(),
            followed: Mutex::default(),
        };
        let options = self.options.clone();
        (subscriber, FeedStream { waiting, options })
    }

    /// Hands an item to everyone who follows `topic`. Never blocks.
    pub fn publish(&self, topic: Topic, item: FeedItem) {
        let shard = self.shard(&topic).read();
        let Some((last, others)) = shard.get(&topic).and_then(|waiting| waiting.split_last()) else {
            return;
        };
        for waiting in others {
            waiting.push(item.clone(), &self.options);
        }
        last.push(item, &self.options);
    }

    /// Whether anyone follows `topic`.
    #[must_use]
    pub fn has_subscribers(&self, topic: &Topic) -> bool {
        self.shard(topic).read().contains_key(topic)
    }

    /// Ends what [`follow`](crate::follow) serves, now and from now on: whoever follows asks again, and reaches the next home.
    pub fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// How many topics are followed.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
    fn shard(&self, topic: &Topic) -> &Shard {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARD_COUNT]
    }
}

/// One who follows topics; dropping it leaves them all.
pub struct Subscriber {
    topics: Arc<Topics>,
    waiting: Arc<Waiting>,
    followed: Mutex<HashSet<Topic>>,
}

impl Subscriber {
    /// Follows `topic` from now on; following it already changes nothing. True when it is new.
    ///
    /// # Errors
    /// [`FeedError::TooManyTopics`] over the bound.
    pub fn subscribe(&self, topic: Topic) -> Result<bool, FeedError> {
        let limit = self.topics.options.topics_per_subscriber_max;
        let mut followed = self.followed.lock();
        if followed.len() >= limit && !followed.contains(&topic) {
            return Err(FeedError::TooManyTopics { limit });
        }
        if !followed.insert(topic) {
            return Ok(false);
        }
        self.topics
            .shard(&topic)
            .write()
            .entry(topic)
            .or_default()
            .push(self.waiting.clone());
        Ok(true)
    }

    /// Follows `topic` no more. True when it was followed.
    pub fn unsubscribe(&self, topic: &Topic) -> bool {
        let was_followed = self.followed.lock().remove(topic);
        if was_followed {
            self.leave(topic);
        }
        was_followed
    }

    /// Hands an item to this subscriber alone.
    pub fn offer(&self, item: FeedItem) {
        self.waiting.push(item, &self.topics.options);
    }

    /// Whether `topic` is followed.
    #[must_use]
    pub fn follows(&self, topic: &Topic) -> bool {
        self.followed.lock().contains(topic)
    }

    /// The topics followed.
    #[must_use]
    pub fn followed(&self) -> Vec<Topic> {
        self.followed.lock().iter().copied().collect()
    }

    fn leave(&self, topic: &Topic) {
        let mut shard = self.topics.shard(topic).write();
        if let Some(waiting) = shard.get_mut(topic) {
            waiting.retain(|other| !Arc::ptr_eq(other, &self.waiting));
            if waiting.is_empty() {
                shard.remove(topic);
            }
        }
        drop(shard);
        self.waiting.state.lock().queue.forget(topic.as_bytes());
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let followed = std::mem::take(&mut *self.followed.lock());
        for topic in &followed {
            self.leave(topic);
        }
        self.waiting.end(Ended::Left);
    }
}

impl Waiting {
    fn push(&self, item: FeedItem, options: &FeedOptions) {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return;
        }
        match state.queue.push(item, options) {
            Pushed::Queued => {}
            Pushed::LeftOut => metrics::counter!("antiphon_feed_left_out_total").increment(1),
            Pushed::Overflow => state.ended = Some(Ended::Overflow),
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn end(&self, how: Ended) {
        let mut state = self.state.lock();
        state.ended.get_or_insert(how);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// What a subscriber follows, in batches of whatever waits.
pub struct FeedStream {
    waiting: Arc<Waiting>,
    options: FeedOptions,
}

impl Stream for FeedStream {
    type Item = Result<FeedBatch, FeedError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.waiting.state.lock();
        match state.ended {
            Some(Ended::Left) => return Poll::Ready(None),
            Some(Ended::Overflow) => {
                state.ended = Some(Ended::Left);
                let limit = self.options.queue_len_max + self.options.reserve_len_max;
                return Poll::Ready(Some(Err(FeedError::Overflow { limit })));
            }
            None => {}
        }
        let items = state.queue.take(self.options.batch_len_max);
        if items.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(FeedBatch { items })))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::rpc::feed_item::Body;
    use antiphon_types::{ConversationId, Slot};
    use futures_util::StreamExt as _;

    use super::*;

    fn topic(number: u64) -> Topic {
        ConversationId::new(Slot::DEPLOYMENT, 1, number).into()
    }

    fn frame(topic: Topic, frame: &'static [u8]) -> FeedItem {
        FeedItem {
            topic: topic.to_bytes(),
            body: Some(Body::Frame(frame.into())),
            traceparent: String::new(),
        }
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_it_follows_and_nothing_else() {
        let topics = Topics::new(FeedOptions::default());
        let (subscriber, mut stream) = topics.subscriber();
        assert_eq!(subscriber.subscribe(topic(1)), Ok(true));
        assert_eq!(subscriber.subscribe(topic(1)), Ok(false));
        topics.publish(topic(1), frame(topic(1), b"a"));
        topics.publish(topic(2), frame(topic(2), b"b"));
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(batch.items, [frame(topic(1), b"a")]);

        assert!(subscriber.unsubscribe(&topic(1)));
        assert!(!topics.has_subscribers(&topic(1)));
        topics.publish(topic(1), frame(topic(1), b"c"));
        drop(subscriber);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_stream_wakes_up() {
        let topics = Topics::new(FeedOptions::default());
        let (subscriber, mut stream) = topics.subscriber();
        subscriber.subscribe(topic(1)).unwrap();
        let publisher = topics.clone();
        let publishing = async move {
            tokio::task::yield_now().await;
            publisher.publish(topic(1), frame(topic(1), b"a"));
        };
        let (received, ()) = tokio::join!(stream.next(), publishing);
        assert_eq!(received.unwrap().unwrap().items.len(), 1);
    }

    #[test]
    fn topics_are_bounded() {
        let topics = Topics::new(FeedOptions {
            topics_per_subscriber_max: 1,
            ..FeedOptions::default()
        });
        let (subscriber, _stream) = topics.subscriber();
        subscriber.subscribe(topic(1)).unwrap();
        assert_eq!(
            subscriber.subscribe(topic(2)),
            Err(FeedError::TooManyTopics { limit: 1 })
        );
    }
}
