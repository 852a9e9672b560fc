//! A whole region as a host of the simulation: what `region/server` wires, over a store in memory and a simulated network.

use std::{io, sync::Arc, time::Duration};

use antiphon_conversation::{ConversationOptions, ConversationService};
use antiphon_directory::{
    Dialer, DirectoryNode, LeaseOptions, NodeOptions, RaftOptions, Route,
    domain::{Addresses, Command, Policy, RegionId},
    serve_wires,
};
use antiphon_feed::{FeedOptions, Topics};
use antiphon_kv::Kv;
use antiphon_message::{FeedHome, MessageOptions, MessageService, Salvager};
use antiphon_replication::{Followers, Homing, ReplicationHome, ReplicationOptions};
use antiphon_slot::{CommitObserver, CommittedEntry, Hooks, Lease, ReplicaLog, SlotOptions, Slots};
use antiphon_types::{Clock, Slot};
use rand::random;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    edge::Edge,
    engine::Store,
    ledger::Ledger,
    network::{End, HostId},
};

/// Where other nodes are taken.
pub(crate) const NODE_PORT: u16 = 7404;
/// Where clients are taken.
pub(crate) const EDGE_PORT: u16 = 7400;

/// What a region starts with.
pub(crate) struct Seat {
    pub(crate) host: HostId,
    /// All regions' names, in the order of their ids.
    pub(crate) names: Vec<String>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) directory: Arc<Store>,
    pub(crate) store: Arc<Store>,
    pub(crate) dialer: Dialer,
    pub(crate) nodes: mpsc::Receiver<io::Result<End>>,
    pub(crate) clients: mpsc::Receiver<io::Result<End>>,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    /// What an operator asks of the directory by way of this region.
    pub(crate) commands: mpsc::Receiver<Command>,
}

/// Times that are shorter than the product's, in the same proportions, so that a run is short.
pub(crate) fn node_options() -> NodeOptions {
    NodeOptions {
        raft: RaftOptions {
            heartbeat_ms: 200,
            election_timeout_ms_min: 450,
            election_timeout_ms_max: 600,
            append_timeout_ms: 1_500,
            ..RaftOptions::default()
        },
        lease: LeaseOptions {
            lease_ms: 2_000,
            margin_ms: 250,
            renewal_ms: 500,
        },
        request_timeout_ms: 5_000,
        ..NodeOptions::new("simulation")
    }
}

fn replication_options() -> ReplicationOptions {
    ReplicationOptions {
        lag_max: Duration::from_millis(1_500),
        ..ReplicationOptions::default()
    }
}

/// Runs the region until its host is stopped.
pub(crate) async fn run(seat: Seat) {
    let me = RegionId(seat.host as u64 + 1);
    let name = seat.names[seat.host].clone();
    let kv = Kv::over(seat.store);
    let log = ReplicaLog::new(kv.clone());
    let dial = {
        let (dialer, names) = (seat.dialer.clone(), seat.names.clone());
        Arc::new(move |region: &RegionId, addresses: &Addresses| {
            let at = usize::try_from(region.0 - 1).unwrap();
            dialer.channel(&names[at], &addresses.rpc).unwrap()
        })
    };
    let directory = DirectoryNode::start_on(node_options(), me, Kv::over(seat.directory), dial);
    let directory = directory.await.expect("the directory starts on what it has stored");
    let keeper = directory.keep_lease("1", directory.starts());
    let lease = {
        let keeper = keeper.clone();
        let changes = keeper.watch();
        Lease::new(move || keeper.is_valid(), changes)
    };
    let route = Route::between(&name, directory.table(), seat.dialer.clone());
    let options = replication_options();
    let home = ReplicationHome::new(log.clone(), &options);
    let salvager = Salvager::new(route.clone());
    let propose = Arc::new(move |entry| {
        let salvager = salvager.clone();
        let salvaged: futures_util::future::BoxFuture<'static, _> =
            Box::pin(async move { salvager.salvage(&entry).await });
        salvaged
    });
    let followers = Followers::new(me.0, route.clone(), log, propose, options.clone());

    let feed = FeedHome::new(Topics::new(FeedOptions::default()));
    let observers: Vec<Arc<dyn CommitObserver>> = vec![
        Arc::new(feed.clone()),
        Arc::new(Witness {
            host: seat.host,
            ledger: seat.ledger.clone(),
        }),
    ];
    let slot_options = SlotOptions {
        write_timeout: Duration::from_secs(4),
        log_entries_kept: 8,
        log_entries_behind_max: 60,
        ..SlotOptions::default()
    };
    let hooks = Hooks {
        observers,
        carriers: vec![antiphon_conversation::carrier(route.clone())],
        shipping: Some(home.shipping()),
        lease,
    };
    let slots = Slots::start(kv, slot_options, random(), hooks);
    feed.serve(slots.clone());
    let conversation = ConversationService::new(
        slots.clone(),
        route.clone(),
        seat.clock.clone(),
        ConversationOptions::default(),
    );
    let message = MessageService::new(
        slots.clone(),
        seat.clock.clone(),
        MessageOptions::default(),
        feed.clone(),
    );
    let services = Routes::new(conversation.into_server())
        .add_service(message.into_server())
        .add_service(feed.into_server());
    route.serve(services.clone());
    home.serve(slots.clone(), directory.table());
    let (raft, asked) = directory.clone().into_server();
    let services = services
        .add_service(raft)
        .add_service(asked)
        .add_service(home.clone().into_server());
    tokio::spawn(serve(seat.nodes, services));
    tokio::spawn(serve(seat.clients, Edge::routes(&route)));
    tokio::spawn(watch_table(
        seat.host,
        directory.clone(),
        seat.slots.clone(),
        seat.ledger.clone(),
    ));
    tokio::spawn(obey(seat.host, directory.clone(), seat.commands, seat.ledger));

    let founded: Vec<(String, Addresses)> = seat
        .names
        .iter()
        .map(|name| {
            let addresses = Addresses {
                rpc: format!("{name}:{NODE_PORT}"),
                edge: String::new(),
            };
            (name.clone(), addresses)
        })
        .collect();
    let copies = 2;
    let policy = Policy {
        in_sync_copies: copies,
        min_in_sync: copies,
        ..Policy::default()
    };
    directory
        .found(&founded, &policy)
        .await
        .expect("the deployment is founded or found");
    let homing = Homing::new(directory.into(), slots, home, followers, options).only(seat.slots);
    homing.run(CancellationToken::new()).await;
    drop(keeper);
}

async fn serve(incoming: mpsc::Receiver<io::Result<End>>, services: Routes) {
    let incoming: Box<dyn Stream<Item = io::Result<End>> + Send + Unpin> = Box::new(ReceiverStream::new(incoming));
    serve_wires(incoming, services, std::future::pending())
        .await
        .expect("a simulated port does not fail");
}

/// Writes down what this region acknowledges as home.
struct Witness {
    host: HostId,
    ledger: Ledger,
}

impl CommitObserver for Witness {
    fn committed(&self, entry: &CommittedEntry) {
        self.ledger.acknowledged_at_home(self.host, entry);
    }
}

/// Writes down what the directory says of the slots, as this region learns it.
async fn watch_table(host: HostId, directory: DirectoryNode, slots: Vec<Slot>, ledger: Ledger) {
    let watch = directory.table();
    let mut table = watch.load();
    loop {
        for slot in &slots {
            ledger.placed(host, *slot, table.placement(*slot));
        }
        table = watch.changed(table.version()).await;
    }
}

/// Asks the directory for what the operator wants.
async fn obey(host: HostId, directory: DirectoryNode, mut commands: mpsc::Receiver<Command>, ledger: Ledger) {
    while let Some(command) = commands.recv().await {
        let answer = match directory.propose(command).await {
            Ok(applied) => format!("{} slots, {} refused", applied.slots_changed, applied.refused.len()),
            Err(error) => format!("refused: {error}"),
        };
        ledger.note(host, &format!("the directory answers the operator: {answer}"));
    }
}
