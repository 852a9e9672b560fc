//! One stream to one process that serves slots at their home, kept up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_directory::{Owner, Route};
use antiphon_feed::{INTEREST_LEN_MAX, Topic, Topics};
use antiphon_proto::rpc::{FeedBatch, FeedItem, Interest, feed_client::FeedClient, feed_item::Body};
use antiphon_types::{Clock, Seq, trace};
use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug_span, info, warn};

use crate::{DeliveryOptions, interest::Interests};

/// Bytes of one batch at the most.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// A link that lived this long starts its pauses from the shortest again.
const HEALTHY: Duration = Duration::from_secs(10);

pub(crate) struct Link {
    pub(crate) home: Owner,
    pub(crate) interests: Mutex<Interests>,
    changed: Notify,
}

impl Link {
    pub(crate) fn new(home: Owner) -> Self {
        Self {
            home,
            interests: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Says upstream what has changed.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Keeps the link up until `closing`.
    pub(crate) async fn run(
        self: Arc<Self>,
        route: Route,
        topics: Arc<Topics>,
        clock: Clock,
        options: DeliveryOptions,
        closing: CancellationToken,
    ) {
        let mut attempt = 0;
        loop {
            let started = Instant::now();
            tokio::select! {
                () = closing.cancelled() => return,
                status = self.follow(&route, &topics, &clock) => {
                    info!(home = %self.home, %status, "the link to the home broke; following again");
                }
            }
            metrics::counter!("antiphon_delivery_link_reconnects_total").increment(1);
            attempt = if started.elapsed() > HEALTHY { 0 } else { attempt + 1 };
            let ceiling_ms = options
                .reconnect_base_ms
                .saturating_mul(1 << attempt.min(10))
                .min(options.reconnect_max_ms);
            let pause = Duration::from_millis(rand::random_range(0..=ceiling_ms));
            tokio::select! {
                () = closing.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Follows the home until the stream ends; returns why.
    async fn follow(self: &Arc<Self>, route: &Route, topics: &Topics, clock: &Clock) -> Status {
        while self.interests.lock().is_empty() {
            self.changed.notified().await;
        }
        let number = self.interests.lock().link_is_new();
        let mut client = FeedClient::new(route.to_owner(&self.home)).max_decoding_message_size(BATCH_BYTES_MAX);
        let mut batches = match client.follow(self.clone().outgoing(number)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            match batches.next().await {
                Some(Ok(batch)) => self.pass(batch, topics, clock),
                Some(Err(status)) => return status,
                None => return Status::unavailable("the home ended the stream"),
            }
        }
    }

    /// What is said upstream on the link of this number. The transport may hold the stream for a while after the link broke;
    /// by then what is to be said belongs to the next one.
    fn outgoing(self: Arc<Self>, number: u64) -> impl Stream<Item = Interest> + Send + 'static {
        stream::unfold(self, move |link| async move {
            loop {
                let (subscribe, unsubscribe) = {
                    let mut interests = link.interests.lock();
                    if !interests.is_link(number) {
                        link.changed.notify_one();
                        return None;
                    }
                    interests.take(INTEREST_LEN_MAX)
                };
                if subscribe.is_empty() && unsubscribe.is_empty() {
                    link.changed.notified().await;
                    continue;
                }
                let bytes = |topics: Vec<Topic>| topics.into_iter().map(Topic::to_bytes).collect();
                let interest = Interest {
                    subscribe: bytes(subscribe),
                    unsubscribe: bytes(unsubscribe),
                };
                return Some((interest, link));
            }
        })
    }

    fn pass(&self, batch: FeedBatch, topics: &Topics, clock: &Clock) {
        let items: Vec<(Topic, FeedItem)> = batch
            .items
            .into_iter()
            .filter_map(|item| match Topic::try_from(item.topic.as_ref()) {
                Ok(topic) => Some((topic, item)),
                Err(error) => {
                    warn!(home = %self.home, %error, "the home feeds what is no topic");
                    None
                }
            })
            .collect();
        // Before the items go out: an edge that joins meanwhile is told a tail that covers what it does not get.
        {
            let mut interests = self.interests.lock();
            for (topic, item) in &items {
                if let Some(seq) = seq_of(item) {
                    interests.passed(*topic, seq);
                }
            }
        }
        let now_ms = clock.now_ms();
        for (topic, mut item) in items {
            if let Some(Body::Message(message)) = &item.body {
                #[allow(clippy::cast_precision_loss, reason = "a lag is short")]
                let lag_s = now_ms.saturating_sub(message.sent_at_ms) as f64 / 1_000.0;
                metrics::histogram!("antiphon_delivery_lag_seconds").record(lag_s);
            }
            if !item.traceparent.is_empty() {
                let span = debug_span!("delivery.pass", ?topic);
                trace::continue_from(&span, &item.traceparent);
                item.traceparent = trace::of(&span);
            }
            topics.publish(topic, item);
        }
    }
}

const fn seq_of(item: &FeedItem) -> Option<Seq> {
    match &item.body {
        Some(Body::Message(message)) => Some(message.seq),
        Some(Body::Tail(seq)) => Some(*seq),
        Some(Body::Frame(_) | Body::OwnFrame(_) | Body::Membership(_) | Body::Revoked(_)) | None => None,
    }
}
