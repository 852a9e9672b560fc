//! A home of two nodes over one store, and a follower of two nodes over another: a slot goes from node to node at either end.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{
    Dialer, Owner, Route, Table, TableWatch, Wire,
    domain::{Addresses, Command, NodeAddress, Policy, RegionId, State},
    serve_wires,
};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_nodes::NodeId;
use antiphon_replication::{Followers, ReplicationHome, ReplicationOptions};
use antiphon_slot::{
    Hooks, ReplicaLog, SlotError, SlotOptions, SlotTxn, Slots,
    protocol::{Durability, InSync},
};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

const SLOT: Slot = Slot::DEPLOYMENT;
const EPOCH: u64 = 1;
/// Longer than anything takes here, busy machines included.
const PATIENCE: Duration = Duration::from_secs(30);

fn id(number: u8) -> NodeId {
    NodeId::parse(&number.to_string()).unwrap()
}

fn key(name: &str) -> Bytes {
    pack(&(SLOT.number(), kind::TAIL, name)).into()
}

async fn store() -> (tempfile::TempDir, Kv) {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        path: folder.path().to_owned(),
        ..EmbeddedOptions::default()
    };
    let kv = Kv::open_embedded(options).await.unwrap();
    (folder, kv)
}

/// The slot's home is region `h`, and `f` is in sync.
fn table() -> TableWatch {
    let region = |name: &str| (name.to_owned(), Addresses::default());
    let mut state = State::default();
    let found = Command::Found {
        deployment: "test".to_owned(),
        regions: vec![region("h"), region("f")],
        policy: Policy::default(),
    };
    state.apply(&found).unwrap();
    let node = |number: u8| NodeAddress {
        id: id(number),
        rpc: format!("h{number}:1"),
    };
    let tell = Command::SetNodes {
        region: RegionId(1),
        nodes: vec![node(1), node(2)],
    };
    state.apply(&tell).unwrap();
    let table = Table::from_state(&state).unwrap();
    assert_eq!(&*table.placement(SLOT).home, "h");
    TableWatch::new(table)
}

struct World {
    homes: [Slots; 2],
    followers: [Followers; 2],
    stores: [Kv; 2],
    sent: u64,
    _folders: [tempfile::TempDir; 2],
}

impl World {
    async fn new() -> Self {
        let table = table();
        let ((folder_h, home_kv), (folder_f, follower_kv)) = tokio::join!(store(), store());
        let options = ReplicationOptions {
            reconnect_base: Duration::from_millis(5),
            ..ReplicationOptions::default()
        };
        let mut listeners = BTreeMap::new();
        let homes = [1_u8, 2].map(|number| {
            let home = ReplicationHome::new(ReplicaLog::new(home_kv.clone()), &options);
            let hooks = Hooks {
                shipping: Some(home.shipping()),
                ..Hooks::default()
            };
            let slots = Slots::start(home_kv.clone(), SlotOptions::default(), [number; 16], hooks);
            home.serve(slots.clone(), table.clone());
            let (connections, incoming) = mpsc::channel::<io::Result<DuplexStream>>(16);
            tokio::spawn(serve_wires(
                ReceiverStream::new(incoming),
                Routes::new(home.into_server()),
                std::future::pending(),
            ));
            listeners.insert(format!("h{number}:1"), connections);
            slots
        });
        let dialer = Dialer::over(Arc::new(move |address: &str| {
            let listener = listeners.get(address).cloned();
            Box::pin(async move {
                let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(1 << 18);
                let _ = listener.send(Ok(far)).await;
                Ok(Box::new(near) as Box<dyn Wire>)
            })
        }));
        let route = Route::between("f", table, dialer);
        let followers = [(); 2].map(|()| {
            let log = ReplicaLog::new(follower_kv.clone());
            let propose = Arc::new(|_| -> futures_util::future::BoxFuture<'static, _> { Box::pin(async { Ok(0) }) });
            Followers::new(2, route.clone(), log, propose, options.clone())
        });
        Self {
            homes,
            followers,
            stores: [home_kv, follower_kv],
            sent: 0,
            _folders: [folder_h, folder_f],
        }
    }

    fn grant(&self, home: usize) {
        let in_sync = InSync {
            others: BTreeSet::from([2]),
            confirmed: 2,
            min_in_sync: 2,
            durability: Durability::Global,
            opening: u64::MAX,
        };
        self.homes[home].grant(SLOT, EPOCH, in_sync);
    }

    /// This follower takes the slot from that home, or from none.
    fn follow(&self, follower: usize, home: Option<u8>) {
        let wanted = home.map(|number| {
            let owner = Owner {
                region: "h".into(),
                node: Some(id(number)),
            };
            (owner, BTreeMap::from([(SLOT, EPOCH)]))
        });
        self.followers[follower].follow(wanted.into_iter().collect());
    }

    /// Sends so many messages, which are acknowledged when the follower's region holds them.
    async fn send(&mut self, home: usize, count: u64) {
        for _ in 0..count {
            let sent = timeout(PATIENCE, send(&self.homes[home])).await;
            self.sent += 1;
            assert_eq!(sent.expect("it is acknowledged").unwrap(), self.sent);
        }
    }

    async fn log(&self, store: usize) -> Vec<Bytes> {
        let log = ReplicaLog::new(self.stores[store].clone());
        log.entries(SLOT, 1, u64::MAX - 1, usize::MAX).await.unwrap()
    }
}

async fn send(home: &Slots) -> Result<u64, SlotError> {
    let sent = home.write(SLOT, |txn: SlotTxn| async move {
        let last = txn.get(&key("last")).await?;
        let next = last.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap())) + 1;
        txn.set(key("last"), next.to_be_bytes().to_vec());
        Ok(next)
    });
    sent.await.map(|committed| committed.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_goes_from_node_to_node_at_either_end_and_nothing_is_lost() {
    let mut world = World::new().await;
    world.grant(0);
    world.follow(0, Some(1));
    world.send(0, 10).await;

    // To another node of the follower; for a while both follow.
    world.follow(1, Some(1));
    world.send(0, 10).await;
    world.follow(0, None);
    world.send(0, 10).await;

    // To another node of the home: its end and the follower's turn come in any order.
    for (turn, (from, to)) in [(0_usize, 1_usize), (1, 0), (0, 1)].into_iter().enumerate() {
        let number = u8::try_from(to).unwrap() + 1;
        if turn == 1 {
            world.follow(1, Some(number));
        }
        world.homes[from].withdraw(SLOT, EPOCH);
        world.grant(to);
        if turn != 1 {
            world.follow(1, Some(number));
        }
        world.send(to, 10).await;
    }

    // Both ends at once.
    world.follow(0, Some(1));
    world.homes[1].withdraw(SLOT, EPOCH);
    world.grant(0);
    world.follow(1, None);
    world.send(0, 10).await;

    assert_eq!(world.log(0).await.len(), 70);
    assert_eq!(world.log(1).await, world.log(0).await);
    for followers in &world.followers {
        followers.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_home_held_when_its_node_died_is_kept_by_the_next() {
    let mut world = World::new().await;
    world.grant(0);
    world.follow(0, Some(1));
    world.send(0, 5).await;

    // In the home's log, and at no follower.
    world.follow(0, None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let unanswered = timeout(Duration::from_millis(300), send(&world.homes[0])).await;
    assert!(
        unanswered.is_err(),
        "it is acknowledged and nobody else holds it: {unanswered:?}"
    );
    world.sent += 1;

    world.grant(1);
    world.follow(1, Some(2));
    world.send(1, 5).await;
    assert_eq!(world.log(0).await.len(), 11);
    assert_eq!(world.log(1).await, world.log(0).await);
    for followers in &world.followers {
        followers.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_watermark_that_no_entry_tells_comes_by_itself() {
    let mut world = World::new().await;
    world.grant(0);
    world.follow(0, Some(1));
    world.send(0, 3).await;
    let log = ReplicaLog::new(world.stores[1].clone());
    let applied = async {
        while log.header(SLOT).await.unwrap().applied_index < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, applied).await.expect("all of it is applied");
    world.followers[0].close().await;
}
