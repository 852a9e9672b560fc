//! The delivery worker between edges and a home that a test can hold, break and publish at.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::{collections::HashMap, sync::Arc, time::Duration};

use antiphon_delivery::{DeliveryOptions, DeliveryWorker};
use antiphon_directory::{Route, Table, TableWatch};
use antiphon_feed::{FeedOptions, Followed, Hop, Subscriber, Topic, Topics, follow};
use antiphon_proto::{
    log::MembershipChanged,
    refusal,
    rpc::{
        FeedBatch, FeedItem, Interest, PushedMessage,
        delivery_client::DeliveryClient,
        feed_item::Body,
        feed_server::{Feed, FeedServer},
    },
};
use antiphon_types::{Clock, ConversationId, Seq, Slot};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

fn topic(number: u16) -> Topic {
    let slot = Slot::new(number * 41 % 4096).unwrap();
    ConversationId::new(slot, 1, u64::from(number)).into()
}

fn item(topic: Topic, body: Body) -> FeedItem {
    FeedItem {
        topic: topic.to_bytes(),
        body: Some(body),
        traceparent: String::new(),
    }
}

fn message(seq: Seq) -> Body {
    Body::Message(PushedMessage {
        seq,
        ..PushedMessage::default()
    })
}

#[derive(Clone)]
struct Home {
    inner: Arc<Inner>,
}

struct Inner {
    topics: Arc<Topics>,
    tails: Mutex<HashMap<Topic, Seq>>,
    joins: Mutex<Vec<Topic>>,
    /// The first tail of this topic never comes.
    held: Option<Topic>,
    broken: Mutex<CancellationToken>,
}

impl Home {
    fn new(held: Option<Topic>) -> Self {
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
    fn send(&self, topic: Topic, seq: Seq) {
        self.inner.tails.lock().insert(topic, seq);
        self.inner.topics.publish(topic, item(topic, message(seq)));
    }

    /// Ends every stream; `meanwhile` happens before a new one can come.
    fn restart(&self, meanwhile: impl FnOnce(&Self)) {
        let mut broken = self.inner.broken.lock();
        broken.cancel();
        meanwhile(self);
        *broken = CancellationToken::new();
    }

    fn joins(&self, topic: Topic) -> usize {
        self.inner
            .joins
            .lock()
            .iter()
            .filter(|joined| **joined == topic)
            .count()
    }

    async fn is_followed(&self, topic: Topic, expected: bool) {
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

struct World {
    home: Home,
    worker: DeliveryWorker,
    route: Route,
}

impl World {
    fn start(home: Home, feed: FeedOptions) -> Self {
        let route = Route::new("r0", TableWatch::new(Table::single("r0")));
        let options = DeliveryOptions {
            feed,
            reconnect_base_ms: 5,
            reconnect_max_ms: 20,
        };
        let worker = DeliveryWorker::new(route.clone(), Clock::manual(1_000), options);
        route.serve(Routes::new(FeedServer::new(home.clone())).add_service(worker.clone().into_server()));
        Self { home, worker, route }
    }

    async fn edge(&self) -> Edge {
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

struct Edge {
    interest: mpsc::Sender<Interest>,
    batches: Streaming<FeedBatch>,
    waiting: std::vec::IntoIter<FeedItem>,
}

impl Edge {
    async fn subscribe(&self, topics: impl IntoIterator<Item = Topic>) {
        let interest = Interest {
            subscribe: topics.into_iter().map(Topic::to_bytes).collect(),
            unsubscribe: Vec::new(),
        };
        self.interest.send(interest).await.unwrap();
    }

    async fn unsubscribe(&self, topic: Topic) {
        let interest = Interest {
            subscribe: Vec::new(),
            unsubscribe: vec![topic.to_bytes()],
        };
        self.interest.send(interest).await.unwrap();
    }

    async fn next(&mut self) -> Result<(Topic, Body), Status> {
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

    async fn expect(&mut self, topic: Topic, body: Body) {
        assert_eq!(self.next().await.unwrap(), (topic, body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_followed_once_however_many_edges_want_it() {
    let world = World::start(Home::new(None), FeedOptions::default());
    let (mut one, mut other) = (world.edge().await, world.edge().await);
    one.subscribe([topic(1)]).await;
    one.expect(topic(1), Body::Tail(0)).await;
    other.subscribe([topic(1)]).await;
    other.expect(topic(1), Body::Tail(0)).await;
    world.home.send(topic(1), 1);
    one.expect(topic(1), message(1)).await;
    other.expect(topic(1), message(1)).await;
    assert_eq!(world.home.joins(topic(1)), 1);

    one.unsubscribe(topic(1)).await;
    drop(one);
    world.home.send(topic(1), 2);
    other.expect(topic(1), message(2)).await;
    drop(other);
    world.home.is_followed(topic(1), false).await;
    world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_joins_later_is_told_what_has_passed() {
    let world = World::start(Home::new(None), FeedOptions::default());
    let mut one = world.edge().await;
    one.subscribe([topic(1)]).await;
    one.expect(topic(1), Body::Tail(0)).await;
    world.home.send(topic(1), 1);
    one.expect(topic(1), message(1)).await;

    let mut other = world.edge().await;
    other.subscribe([topic(1)]).await;
    other.expect(topic(1), Body::Tail(1)).await;
    world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_broken_link_edges_are_told_what_they_missed() {
    let world = World::start(Home::new(None), FeedOptions::default());
    let mut edge = world.edge().await;
    edge.subscribe([topic(1)]).await;
    edge.expect(topic(1), Body::Tail(0)).await;
    for round in 1..=3 {
        world.home.restart(|home| {
            home.inner.tails.lock().insert(topic(1), 10 * round);
        });
        edge.expect(topic(1), Body::Tail(10 * round)).await;
        world.home.send(topic(1), 10 * round + 1);
        edge.expect(topic(1), message(10 * round + 1)).await;
    }
    world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_comes_between_the_messages_around_it() {
    let world = World::start(Home::new(None), FeedOptions::default());
    let mut edge = world.edge().await;
    edge.subscribe([topic(1)]).await;
    edge.expect(topic(1), Body::Tail(0)).await;
    let removal = Body::Membership(MembershipChanged::default());
    world.home.send(topic(1), 1);
    world
        .home
        .inner
        .topics
        .publish(topic(1), item(topic(1), removal.clone()));
    world.home.send(topic(1), 2);
    edge.expect(topic(1), message(1)).await;
    edge.expect(topic(1), removal).await;
    edge.expect(topic(1), message(2)).await;
    world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_takes_long_holds_up_nothing_else() {
    let world = World::start(Home::new(Some(topic(2))), FeedOptions::default());
    let mut edge = world.edge().await;
    edge.subscribe([topic(1)]).await;
    edge.expect(topic(1), Body::Tail(0)).await;
    edge.subscribe([topic(2)]).await;
    edge.subscribe([topic(3)]).await;
    edge.expect(topic(3), Body::Tail(0)).await;
    assert_eq!(world.home.joins(topic(2)), 1);
    world.home.send(topic(1), 1);
    edge.expect(topic(1), message(1)).await;
    world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_refused_takes_nothing_from_the_others() {
    let feed = FeedOptions {
        topics_per_subscriber_max: 1,
        ..FeedOptions::default()
    };
    let world = World::start(Home::new(None), feed);
    let mut good = world.edge().await;
    good.subscribe([topic(1)]).await;
    good.expect(topic(1), Body::Tail(0)).await;

    let (mut greedy, mut malformed) = (world.edge().await, world.edge().await);
    greedy.subscribe([topic(1), topic(2)]).await;
    let nonsense = vec![topic(1).to_bytes(), b"nonsense".as_slice().into()];
    let interest = Interest {
        subscribe: nonsense,
        unsubscribe: Vec::new(),
    };
    malformed.interest.send(interest).await.unwrap();
    for (edge, code) in [
        (&mut greedy, "RESOURCE_EXHAUSTED"),
        (&mut malformed, "INVALID_ARGUMENT"),
    ] {
        let refused = loop {
            if let Err(refused) = edge.next().await {
                break refused;
            }
        };
        assert_eq!(refusal::of(&refused).code, code);
    }

    // What the refused ones leave behind has reached the home before this does.
    let mut later = world.edge().await;
    later.subscribe([topic(3)]).await;
    later.expect(topic(3), Body::Tail(0)).await;
    world.home.send(topic(1), 1);
    good.expect(topic(1), message(1)).await;
    world.worker.close().await;
}
