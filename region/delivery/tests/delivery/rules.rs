use antiphon_feed::FeedOptions;
use antiphon_proto::{
    log::MembershipChanged,
    refusal,
    rpc::{Interest, feed_item::Body},
};

use crate::support::{Home, World, item, message, topic};

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
