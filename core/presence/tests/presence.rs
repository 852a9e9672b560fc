//! Presence over real slots and the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::{path::Path, sync::Arc, time::Duration};

use antiphon_feed::{FeedOptions, FeedStream, Subscriber, Topics};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_presence::{MaySee, PresenceOptions, PresenceService};
use antiphon_proto::{
    client::{Presence as Shown, ServerFrame, server_frame},
    refusal,
    rpc::{
        PresenceQueryRequest, PresenceQueryResponse, PresenceReport, feed_item, presence_client::PresenceClient,
        presence_server::PresenceServer,
    },
};
use antiphon_slot::{Hooks, SlotOptions, Slots, protocol::InSync};
use antiphon_types::{Clock, Slot, UserId};
use futures_util::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use tonic::Status;

const GRACE_MS: u64 = 30_000;
const LEASE_MS: u64 = 90_000;

fn user(number: u16) -> UserId {
    UserId::new(Slot::new(number * 37 % 4096).unwrap(), 1_000, u64::from(number))
}

fn everybody() -> Option<MaySee> {
    Some(Arc::new(|_, _| std::future::ready(true).boxed()))
}

/// One node with presence.
struct World {
    kv: Kv,
    slots: Slots,
    topics: Arc<Topics>,
    clock: Clock,
    service: PresenceService,
    client: PresenceClient<PresenceServer<PresenceService>>,
}

impl World {
    async fn start(path: &Path, clock: Clock, owner: u8, may_see: Option<MaySee>) -> Self {
        let options = EmbeddedOptions {
            path: path.to_owned(),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        let slots = Slots::start(kv.clone(), SlotOptions::default(), [owner; 16], Hooks::default());
        for slot in Slot::all() {
            slots.grant(slot, 1, InSync::alone());
        }
        let topics = Topics::new(FeedOptions::default());
        let options = PresenceOptions {
            sweep_interval: Duration::from_millis(5),
            ..PresenceOptions::default()
        };
        let service = PresenceService::start(slots.clone(), topics.clone(), clock.clone(), options, may_see);
        let client = PresenceClient::new(service.clone().into_server());
        Self {
            kv,
            slots,
            topics,
            clock,
            service,
            client,
        }
    }

    /// As a node that is told to stop.
    async fn close(self) {
        self.service.close().await;
        self.slots.close().await;
        self.kv.close().await.unwrap();
    }

    async fn report(&self, user: UserId, session: &str, online: bool) {
        let report = PresenceReport {
            user_id: user.to_bytes(),
            edge: "edge-0".to_owned(),
            session_id: session.to_owned(),
            device_id: "phone".to_owned(),
            online,
        };
        self.client.clone().report(report).await.unwrap();
    }

    async fn query(&self, asker: UserId, user: UserId) -> Result<PresenceQueryResponse, Status> {
        let request = PresenceQueryRequest {
            asker_id: asker.to_bytes(),
            user_id: user.to_bytes(),
        };
        Ok(self.client.clone().query(request).await?.into_inner())
    }

    async fn is_online(&self, user: UserId) -> bool {
        self.query(user, user).await.unwrap().online
    }

    fn watch(&self, user: UserId) -> Watcher {
        let (subscriber, stream) = self.topics.subscriber();
        subscriber.subscribe(user.into()).unwrap();
        Watcher {
            _subscriber: subscriber,
            stream,
        }
    }
}

struct Watcher {
    _subscriber: Subscriber,
    stream: FeedStream,
}

impl Watcher {
    async fn next(&mut self) -> Shown {
        let batch = tokio::time::timeout(Duration::from_secs(10), self.stream.next());
        let batch = batch.await.expect("nobody is told").unwrap().unwrap();
        let [item] = &batch.items[..] else {
            panic!("told more than once: {batch:?}")
        };
        let Some(feed_item::Body::Frame(frame)) = &item.body else {
            panic!("not a frame: {item:?}")
        };
        let Some(server_frame::Body::Presence(shown)) = ServerFrame::decode(frame.clone()).unwrap().body else {
            panic!("not presence")
        };
        shown
    }

    /// Nothing is told during many sweeps.
    async fn is_told_nothing(&mut self) {
        let told = tokio::time::timeout(Duration::from_millis(100), self.stream.next()).await;
        assert!(told.is_err(), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_each_change_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Clock::manual(1_000), 1, None).await;
    let mut watcher = world.watch(user(1));
    world.report(user(1), "one", true).await;
    world.report(user(1), "two", true).await;
    let online = watcher.next().await;
    assert_eq!((online.user_id, online.online), (user(1).to_string(), true));

    world.report(user(1), "one", false).await;
    world.clock.advance(GRACE_MS);
    watcher.is_told_nothing().await;
    world.report(user(1), "two", false).await;
    world.clock.advance(GRACE_MS - 1);
    watcher.is_told_nothing().await;
    assert!(world.is_online(user(1)).await);
    world.clock.advance(1);
    let offline = watcher.next().await;
    assert_eq!((offline.online, offline.last_seen_ms), (false, 1_000 + GRACE_MS));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_reported_no_more_ends_with_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Clock::manual(1_000), 1, None).await;
    let mut watcher = world.watch(user(1));
    world.report(user(1), "one", true).await;
    assert!(watcher.next().await.online);
    world.clock.advance(LEASE_MS - 1);
    watcher.is_told_nothing().await;
    world.clock.advance(1);
    let offline = watcher.next().await;
    assert_eq!((offline.online, offline.last_seen_ms), (false, 1_000));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_node_shows_nobody_offline_who_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let world = World::start(folder.path(), clock.clone(), 1, None).await;
    world.report(user(1), "one", true).await;
    // Nothing is due to be written yet: closing does it.
    world.close().await;

    clock.advance(20_000);
    let world = World::start(folder.path(), clock, 2, None).await;
    let mut watcher = world.watch(user(1));
    assert!(world.is_online(user(1)).await);
    world.clock.advance(20_000);
    watcher.is_told_nothing().await;
    world.report(user(1), "one", true).await;
    world.clock.advance(LEASE_MS - 1);
    watcher.is_told_nothing().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_node_lets_go_of_who_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let world = World::start(folder.path(), clock.clone(), 1, None).await;
    world.report(user(1), "one", true).await;
    world.close().await;

    let world = World::start(folder.path(), clock, 2, None).await;
    let mut watcher = world.watch(user(1));
    assert!(world.is_online(user(1)).await);
    world.clock.advance(60_000);
    let offline = watcher.next().await;
    assert_eq!((offline.online, offline.last_seen_ms), (false, 1_000));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_after_a_restart_counts() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let world = World::start(folder.path(), clock.clone(), 1, None).await;
    world.report(user(1), "one", true).await;
    world.close().await;

    let world = World::start(folder.path(), clock, 2, None).await;
    let mut watcher = world.watch(user(1));
    world.clock.advance(5_000);
    world.report(user(1), "one", false).await;
    world.clock.advance(GRACE_MS);
    let offline = watcher.next().await;
    assert_eq!((offline.online, offline.last_seen_ms), (false, 6_000));
    world.close().await;
}

/// The record is written without a close, so that a kill loses some seconds alone.
#[tokio::test(flavor = "multi_thread")]
async fn last_seen_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let world = World::start(folder.path(), clock.clone(), 1, None).await;
    let mut watcher = world.watch(user(1));
    world.report(user(1), "one", true).await;
    assert!(watcher.next().await.online);
    world.report(user(1), "one", false).await;
    clock.advance(GRACE_MS);
    assert!(!watcher.next().await.online);
    clock.advance(5_000);
    let mut left = 500;
    while stored_bytes(&world, user(1)).await != offline_record(1_000) && left > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        left -= 1;
    }
    // The store is cut off before the presence can write at its leisure.
    world.kv.close().await.unwrap();
    world.slots.close().await;
    world.service.close().await;
    drop(world);

    let world = World::start(folder.path(), clock, 2, None).await;
    let shown = world.query(user(1), user(1)).await.unwrap();
    assert_eq!((shown.online, shown.last_seen_ms), (false, 1_000));
    world.close().await;
}

fn offline_record(last_seen_ms: u64) -> Option<Vec<u8>> {
    let record = antiphon_proto::log::StoredPresence {
        last_seen_ms,
        ..Default::default()
    };
    Some(record.encode_to_vec())
}

async fn stored_bytes(world: &World, user: UserId) -> Option<Vec<u8>> {
    let slot = user.slot().number();
    let key = foundationdb_tuple::pack(&(slot, antiphon_types::kind::PRESENCE, user.as_bytes().as_slice()));
    let read = world.slots.read(user.slot(), |read| {
        let key = key.clone();
        async move { read.get(&key).await }
    });
    read.await.unwrap().map(|value| value.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_shown_to_nobody_unless_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Clock::manual(1_000), 1, None).await;
    world.report(user(1), "one", true).await;
    let refused = world.query(user(2), user(1)).await.unwrap_err();
    assert_eq!(refusal::of(&refused).code, "FORBIDDEN");
    assert!(world.query(user(1), user(1)).await.unwrap().online);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_shown_to_those_who_may_see_it() {
    let folder = tempfile::tempdir().unwrap();
    let friends: MaySee = Arc::new(|asker, _| std::future::ready(asker == user(2)).boxed());
    let world = World::start(folder.path(), Clock::manual(1_000), 1, Some(friends)).await;
    world.report(user(1), "one", true).await;
    assert!(world.query(user(2), user(1)).await.unwrap().online);
    let refused = world.query(user(3), user(1)).await.unwrap_err();
    assert_eq!(refusal::of(&refused).code, "FORBIDDEN");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_never_seen_is_offline_since_ever() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Clock::manual(1_000), 1, everybody()).await;
    let shown = world.query(user(2), user(1)).await.unwrap();
    assert_eq!((shown.online, shown.last_seen_ms), (false, 0));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Clock::manual(1_000), 1, everybody()).await;
    let malformed = [
        PresenceReport {
            user_id: vec![1; 3].into(),
            ..PresenceReport::default()
        },
        PresenceReport {
            user_id: user(1).to_bytes(),
            ..PresenceReport::default()
        },
    ];
    for report in malformed {
        let refused = world.client.clone().report(report).await.unwrap_err();
        assert_eq!(refusal::of(&refused).code, "INVALID_ARGUMENT");
    }
    world.close().await;
}
