//! A home region of two nodes: topics follow the owners of their slots.

use std::{io, sync::Arc};

use antiphon_directory::{Dialer, Route, Table, TableWatch, Wire, serve_wires};
use antiphon_feed::FeedOptions;
use antiphon_nodes::{NodeId, NodeRow, Nodes, Share};
use antiphon_proto::rpc::{feed_item::Body, feed_server::FeedServer};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use crate::support::{Home, World, message, topic};

fn id(number: u8) -> NodeId {
    NodeId::parse(&number.to_string()).unwrap()
}

fn row(number: u8) -> Arc<NodeRow> {
    Arc::new(NodeRow {
        id: id(number),
        rpc: format!("{number}:1"),
        started_at_ms: 0,
    })
}

/// Node 1 with the worker and a home of its own, node 2 with another home.
struct Region {
    world: World,
    other: Home,
    nodes: watch::Sender<Arc<Nodes>>,
}

impl Region {
    fn start() -> Self {
        let other = Home::new(None);
        let (connections, incoming) = mpsc::channel::<io::Result<DuplexStream>>(16);
        tokio::spawn(serve_wires(
            ReceiverStream::new(incoming),
            Routes::new(FeedServer::new(other.clone())),
            std::future::pending(),
        ));
        let dialer = Dialer::over(Arc::new(move |_: &str| {
            let connections = connections.clone();
            Box::pin(async move {
                let (near, far) = tokio::io::duplex(1 << 16);
                let _ = connections.send(Ok(far)).await;
                Ok(Box::new(near) as Box<dyn Wire>)
            })
        }));
        let both = Nodes::none(id(1)).next([row(1), row(2)]).unwrap();
        let (nodes, share) = watch::channel(Arc::new(both));
        let table = TableWatch::new(Table::single("r0"));
        let route = Route::of_node("r0", table, dialer, Share::of(share));
        let world = World::over(route, Home::new(None), FeedOptions::default());
        Self { world, other, nodes }
    }

    fn live(&self, numbers: &[u8]) {
        let next = self.nodes.borrow().next(numbers.iter().map(|number| row(*number)));
        self.nodes.send_replace(Arc::new(next.unwrap()));
    }

    /// The number of a topic that is this node's as long as both live.
    fn of(&self, number: u8) -> u16 {
        let nodes = self.nodes.borrow();
        let is_there = |of: &u16| nodes.owner(topic(*of).slot()).unwrap().id == id(number);
        (0..).find(is_there).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topic_is_followed_at_the_owner_of_its_slot() {
    let region = Region::start();
    let (one, two) = (topic(region.of(1)), topic(region.of(2)));
    let mut edge = region.world.edge().await;
    edge.subscribe([one]).await;
    edge.expect(one, Body::Tail(0)).await;
    edge.subscribe([two]).await;
    edge.expect(two, Body::Tail(0)).await;
    region.world.home.send(one, 1);
    edge.expect(one, message(1)).await;
    region.other.send(two, 1);
    edge.expect(two, message(1)).await;
    assert_eq!((region.world.home.joins(two), region.other.joins(one)), (0, 0));
    region.world.worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_follows_its_slot_to_another_node_and_hears_what_it_missed() {
    let region = Region::start();
    let two = topic(region.of(2));
    let mut edge = region.world.edge().await;
    edge.subscribe([two]).await;
    edge.expect(two, Body::Tail(0)).await;
    region.other.send(two, 1);
    edge.expect(two, message(1)).await;

    // The new owner commits before anybody follows it there.
    region.world.home.send(two, 2);
    region.live(&[1]);
    edge.expect(two, Body::Tail(2)).await;
    region.world.home.send(two, 3);
    edge.expect(two, message(3)).await;
    region.other.is_followed(two, false).await;

    // Nobody is known to live: the topic stays where it is, and goes on.
    region.live(&[]);
    region.world.home.send(two, 4);
    edge.expect(two, message(4)).await;
    region.other.send(two, 5);
    region.live(&[1, 2]);
    edge.expect(two, Body::Tail(5)).await;
    region.world.worker.close().await;
}
