use std::{collections::HashMap, sync::Arc, time::Duration};

use antiphon_delivery::{DeliveryOptions, DeliveryWorker};
use antiphon_directory::{Route, Table, TableWatch};
use antiphon_feed::{FeedOptions, Followed, Hop, Subscriber, Topic, Topics, follow};
use antiphon_proto::rpc::{
    FeedBatch, FeedItem, Interest, PushedMessage,
    delivery_client::DeliveryClient,
    feed_item::Body,
    feed_server::{Feed, FeedServer},
};
use antiphon_types::{Clock, ConversationId, Seq, Slot};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

pub(crate) fn topic(number: u16) -> Topic {
    let slot = Slot::new(number * 41 % 4096).unwrap();
    ConversationId::new(slot, 1, u64::from(number)).into()
}

pub(crate) fn item(topic: Topic, body: Body) -> FeedItem {
    FeedItem {
        topic: topic.to_bytes(),
        body: Some(body),
        traceparent: String::new(),
    }
}

pub(crate) fn message(seq: Seq) -> Body {
    Body::Message(PushedMessage {
        seq,
        ..PushedMessage::default()
    })
}

#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) topics: Arc<Topics>,
    pub(crate) tails: Mutex<HashMap<Topic, Seq>>,
    joins: Mutex<Vec<Topic>>,
    /// The first tail of this topic never comes.
    held: Option<Topic>,
    broken: Mutex<CancellationToken>,
}

impl Home {
    pub(crate) fn new(held: Option<Topic>) -> Self {
        let inner = Inner {
            topics: Topics::new(FeedOptions::default()),
            tails: Mutex::default(),
            joins: Mutex::default(),
            held,
            broken: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Commits a message, and tells those who follow.
    pub(crate) fn send(&self, topic: Topic, seq: Seq) {
        self.inner.tails.lock().insert(topic, seq);
        self.inner.topics.publish(topic, item(topic, message(seq)));
    }

    /// Ends every stream; `meanwhile` happens before a new one can come.
    pub(crate) fn restart(&self, meanwhile: impl FnOnce(&Self)) {
        let mut broken = self.inner.broken.lock();
        broken.cancel();
        meanwhile(self);
        *broken = CancellationToken::new();
    }

    pub(crate) fn joins(&self, topic: Topic) -> usize {
        self.inner
            .joins
            .lock()
            .iter()
            .filter(|joined| **joined == topic)
            .count()
    }

    pub(crate) async fn is_followed(&self, topic: Topic, expected: bool) {
        for _ in 0..500 {
            if self.inner.topics.has_subscribers(&topic) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the home's following of {topic:?} is not {expected}");
    }
}

impl Hop for Inner {
    fn joined(self: &Arc<Self>, subscriber: &Arc<Subscriber>, topics: Vec<Topic>) -> BoxFuture<'static, ()> {
        self.joins.lock().extend(&topics);
        let (inner, subscriber) = (self.clone(), subscriber.clone());
        let tails = async move {
            // The worker may ask for several topics at once; a home reads their tails beside each other.
            for topic in topics.iter().filter(|topic| inner.held != Some(**topic)) {
                let seq = inner.tails.lock().get(topic).copied().unwrap_or_default();
                subscriber.offer(item(*topic, Body::Tail(seq)));
            }
            if inner.held.is_some_and(|held| topics.contains(&held)) {
                std::future::pending::<()>().await;
            }
        };
        tails.boxed()
    }

    fn left(self: &Arc<Self>, _: &[Topic]) {}
}

#[tonic::async_trait]
impl Feed for Home {
    type FollowStream = Followed;

    async fn follow(&self, request: Request<Streaming<Interest>>) -> Result<Response<Followed>, Status> {
        let broken = self.inner.broken.lock().clone();
        let followed = follow(self.inner.clone(), &self.inner.topics, request.into_inner());
        Ok(Response::new(followed.take_until(broken.cancelled_owned()).boxed()))
    }
}

pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) worker: DeliveryWorker,
    pub(crate) route: Route,
}

impl World {
    pub(crate) fn start(home: Home, feed: FeedOptions) -> Self {
        Self::over(Route::new("r0", TableWatch::new(Table::single("r0"))), home, feed)
    }

    /// With `home` in the same process as the worker.
    pub(crate) fn over(route: Route, home: Home, feed: FeedOptions) -> Self {
        let options = DeliveryOptions {
            feed,
            reconnect_base_ms: 5,
            reconnect_max_ms: 20,
        };
        let worker = DeliveryWorker::new(route.clone(), Clock::manual(1_000), options);
        route.serve(Routes::new(FeedServer::new(home.clone())).add_service(worker.clone().into_server()));
        Self { home, worker, route }
    }

    pub(crate) async fn edge(&self) -> Edge {
        let (interest, sent) = mpsc::channel(16);
        let mut client = DeliveryClient::new(self.route.here());
        let batches = client.follow(ReceiverStream::new(sent)).await.unwrap().into_inner();
        Edge {
            interest,
            batches,
            waiting: Vec::new().into_iter(),
        }
    }
}

pub(crate) struct Edge {
    pub(crate) interest: mpsc::Sender<Interest>,
    batches: Streaming<FeedBatch>,
    waiting: std::vec::IntoIter<FeedItem>,
}

impl Edge {
    pub(crate) async fn subscribe(&self, topics: impl IntoIterator<Item = Topic>) {
        let interest = Interest {
            subscribe: topics.into_iter().map(Topic::to_bytes).collect(),
            unsubscribe: Vec::new(),
        };
        self.interest.send(interest).await.unwrap();
    }

    pub(crate) async fn unsubscribe(&self, topic: Topic) {
        let interest = Interest {
            subscribe: Vec::new(),
            unsubscribe: vec![topic.to_bytes()],
        };
        self.interest.send(interest).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<(Topic, Body), Status> {
        loop {
            if let Some(item) = self.waiting.next() {
                return Ok((Topic::try_from(item.topic.as_ref()).unwrap(), item.body.unwrap()));
            }
            let batch = timeout(Duration::from_secs(10), self.batches.next()).await;
            self.waiting = batch
                .expect("nothing comes")
                .expect("the stream ended")?
                .items
                .into_iter();
        }
    }

    pub(crate) async fn expect(&mut self, topic: Topic, body: Body) {
        assert_eq!(self.next().await.unwrap(), (topic, body));
    }
}
