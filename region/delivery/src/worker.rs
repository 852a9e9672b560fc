use std::{collections::HashMap, sync::Arc};

use antiphon_directory::{Owner, Route};
use antiphon_feed::{FeedOptions, Followed, Hop, Subscriber, Topic, Topics, follow};
use antiphon_proto::rpc::{
    FeedItem, Interest,
    delivery_server::{Delivery, DeliveryServer},
    feed_item::Body,
};
use antiphon_types::Clock;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::link::Link;

/// Settings of the delivery worker.
#[derive(Debug, Clone)]
pub struct DeliveryOptions {
    /// The queues of the edges.
    pub feed: FeedOptions,
    /// The longest first pause before a broken link is tried again.
    pub reconnect_base_ms: u64,
    /// The longest pause.
    pub reconnect_max_ms: u64,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            feed: FeedOptions::default(),
            reconnect_base_ms: 50,
            reconnect_max_ms: 5_000,
        }
    }
}

/// The delivery worker of a region. Cheap to clone.
#[derive(Clone)]
pub struct DeliveryWorker {
    worker: Arc<Worker>,
}

struct Worker {
    route: Route,
    clock: Clock,
    options: DeliveryOptions,
    topics: Arc<Topics>,
    links: Mutex<HashMap<Owner, Arc<Link>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl DeliveryWorker {
    /// A worker that reaches homes by `route`. Call it inside a tokio runtime.
    #[must_use]
    pub fn new(route: Route, clock: Clock, options: DeliveryOptions) -> Self {
        let topics = Topics::new(options.feed.clone());
        let links = Mutex::default();
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let worker = Arc::new(Worker {
            route,
            clock,
            options,
            topics,
            links,
            tasks,
            closing,
        });
        worker.tasks.spawn(follow_owners(worker.clone()));
        Self { worker }
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> DeliveryServer<Self> {
        DeliveryServer::new(self)
    }

    /// Ends every link.
    pub async fn close(&self) {
        self.worker.closing.cancel();
        self.worker.tasks.close();
        self.worker.tasks.wait().await;
    }
}

#[tonic::async_trait]
impl Delivery for DeliveryWorker {
    type FollowStream = Followed;

    async fn follow(&self, request: Request<Streaming<Interest>>) -> Result<Response<Followed>, Status> {
        Ok(Response::new(follow(
            self.worker.clone(),
            &self.worker.topics,
            request.into_inner(),
        )))
    }
}

impl Hop for Worker {
    fn joined(self: &Arc<Self>, subscriber: &Arc<Subscriber>, topics: Vec<Topic>) -> BoxFuture<'static, ()> {
        for topic in topics {
            let link = self.link_of(&topic);
            // The subscriber follows already, so what passes after this tail was read reaches it.
            let tail = link.interests.lock().join(topic);
            link.wake();
            if let Some(seq) = tail {
                let body = Some(Body::Tail(seq));
                subscriber.offer(FeedItem {
                    topic: topic.to_bytes(),
                    body,
                    traceparent: String::new(),
                });
            }
        }
        self.measure();
        ready(()).boxed()
    }

    fn left(self: &Arc<Self>, topics: &[Topic]) {
        for topic in topics {
            let now = self.link_of(topic);
            // The slot may have moved since the topic was joined.
            let links: Vec<Arc<Link>> = self.links.lock().values().cloned().collect();
            let link = std::iter::once(now)
                .chain(links)
                .find(|link| link.interests.lock().leave(*topic));
            if let Some(link) = link {
                link.wake();
            }
        }
        self.measure();
    }
}

impl Worker {
    fn link_of(&self, topic: &Topic) -> Arc<Link> {
        let home = self.route.owner(topic.slot()).unwrap_or_else(|| self.here());
        let mut links = self.links.lock();
        if let Some(link) = links.get(&home) {
            return link.clone();
        }
        let link = Arc::new(Link::new(home.clone()));
        links.insert(home, link.clone());
        let running = link.clone().run(
            self.route.clone(),
            self.topics.clone(),
            self.clock.clone(),
            self.options.clone(),
            self.closing.clone(),
        );
        self.tasks.spawn(running);
        link
    }

    /// This process: it keeps the topics of slots that nobody is known to serve, until somebody is.
    fn here(&self) -> Owner {
        Owner {
            region: self.route.region().into(),
            node: None,
        }
    }

    /// Follows each topic where its slot is served now.
    fn rehome(self: &Arc<Self>) {
        let links: Vec<Arc<Link>> = self.links.lock().values().cloned().collect();
        for link in links {
            let moved = link
                .interests
                .lock()
                .take_out(|topic| self.route.owner(topic.slot()).is_some_and(|owner| owner != link.home));
            if moved.is_empty() {
                continue;
            }
            link.wake();
            for (topic, edges) in moved {
                let now = self.link_of(&topic);
                now.interests.lock().take_in(topic, edges);
                now.wake();
            }
        }
    }

    fn measure(&self) {
        let count: usize = self.links.lock().values().map(|link| link.interests.lock().len()).sum();
        #[allow(clippy::cast_precision_loss, reason = "a count of topics")]
        metrics::gauge!("antiphon_delivery_topics").set(count as f64);
    }
}

/// Follows the slots to whoever serves them.
async fn follow_owners(worker: Arc<Worker>) {
    let following = async {
        let mut seen = worker.route.seen();
        loop {
            seen = worker.route.changed(seen).await;
            worker.rehome();
        }
    };
    let closing = worker.closing.clone();
    closing.run_until_cancelled(following).await;
}
