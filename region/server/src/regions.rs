//! What a node has to do with the other regions: the directory, replication, the port between nodes.

use std::{
    collections::HashMap,
    path::Path,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_directory::{
    DevelopmentCa, Dialer, DirectoryNode, LeaseKeeper, NodeOptions, NodeTls, Route, TableWatch,
    domain::{Addresses, Policy, RegionId},
    serve_nodes,
};
use antiphon_message::Salvager;
use antiphon_replication::{Followers, Homing, Propose, ReplicationHome, ReplicationOptions};
use antiphon_slot::{Lease, ReplicaLog, Slots};
use antiphon_types::Clock;
use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::world::Place;

/// How long the directory may take to hand its leadership over when this node ends.
const LEADERSHIP_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts that a node of several regions has besides those that every node has.
pub(crate) struct Regions {
    pub(crate) directory: DirectoryNode,
    pub(crate) route: Route,
    pub(crate) home: ReplicationHome,
    pub(crate) lease: Lease,
    followers: Followers,
    log: ReplicaLog,
    keeper: LeaseKeeper,
    tls: NodeTls,
    listener: TcpListener,
    start: Start,
    options: ReplicationOptions,
}

/// How a node comes into the directory's group.
enum Start {
    /// With the first ones: all of them, in the order of their ids.
    Founds(Vec<(String, Addresses)>),
    /// Later, by way of these.
    Joins(Vec<(RegionId, Addresses)>),
}

/// As [`Regions`], at work.
pub(crate) struct RegionsRunning {
    directory: DirectoryNode,
    _keeper: LeaseKeeper,
    home: ReplicationHome,
    followers: Followers,
    stop_homing: CancellationToken,
    homing: JoinHandle<()>,
    stop_serving: CancellationToken,
    serving: JoinHandle<()>,
}

impl Regions {
    /// Opens the directory's store in `folder` and the port between nodes.
    ///
    /// # Errors
    /// What could not be opened.
    pub(crate) async fn open(place: &Place, folder: &Path, log: ReplicaLog, clock: &Clock) -> Result<Self> {
        let tls = DevelopmentCa::in_folder(&place.data.join("tls")).node(&place.name)?;
        let dialer = Dialer::new(tls.clone(), Some(Arc::new(place.detour())));
        let me = RegionId(place.id);
        let at_start: HashMap<RegionId, String> = place
            .peers
            .iter()
            .map(|peer| (RegionId(peer.id), peer.name.clone()))
            .collect();
        // Of the directory that is about to start: regions that come later have their names there.
        let table = Arc::new(OnceLock::<TableWatch>::new());
        let dial = {
            let (dialer, table) = (dialer.clone(), table.clone());
            Arc::new(move |region: &RegionId, addresses: &Addresses| {
                // Those first: before the founding the table has a region without a name.
                let name = at_start.get(region).cloned().or_else(|| {
                    let table = table.get()?.load();
                    Some(table.region(*region)?.name.to_string())
                });
                let name = name.unwrap_or_else(|| format!("region-{}", region.0));
                let nowhere = || tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
                dialer.channel(&name, &addresses.rpc).unwrap_or_else(nowhere)
            })
        };
        let listener = TcpListener::bind(place.rpc)
            .await
            .with_context(|| format!("the port between nodes {} cannot be opened", place.rpc))?;
        let directory = DirectoryNode::start(NodeOptions::new("development"), me, folder, dial).await?;
        let _ = table.set(directory.table());
        let keeper = directory.keep_lease(clock.now_ms());
        let lease = {
            let keeper = keeper.clone();
            let changes = keeper.watch();
            Lease::new(move || keeper.is_valid(), changes)
        };
        let route = Route::between(&place.name, directory.table(), dialer);
        let options = ReplicationOptions::default();
        let start = start(place);
        Ok(Self {
            home: ReplicationHome::new(log.clone(), &options),
            followers: Followers::new(me.0, route.clone(), log.clone(), propose(&route), options.clone()),
            start,
            directory,
            route,
            lease,
            log,
            keeper,
            tls,
            listener,
            options,
        })
    }

    /// Serves the other nodes, founds the deployment or finds it, and takes up what the directory gives this region.
    ///
    /// # Errors
    /// When the deployment was founded otherwise.
    pub(crate) async fn run(self, slots: Slots, services: Routes) -> Result<RegionsRunning> {
        let (raft, directory) = self.directory.clone().into_server();
        let services = services
            .add_service(raft)
            .add_service(directory)
            .add_service(self.home.clone().into_server());
        self.home.serve(slots.clone());
        let stop_serving = CancellationToken::new();
        let serving = tokio::spawn({
            let (stop, tls, listener) = (stop_serving.clone(), self.tls.clone(), self.listener);
            async move {
                if let Err(error) = serve_nodes(listener, services, &tls, stop.cancelled_owned()).await {
                    tracing::error!(%error, "the port between nodes failed");
                }
            }
        });
        match &self.start {
            Start::Founds(founded) => {
                let regions = u8::try_from(founded.len()).unwrap_or(u8::MAX);
                let policy = Policy {
                    in_sync_copies: regions.min(2),
                    min_in_sync: regions.min(2),
                    ..Policy::default()
                };
                self.directory.found(founded, &policy).await?;
            }
            Start::Joins(seeds) => {
                self.directory.join(seeds).await?;
                // A node that votes has the group's log, and not yet what it says.
                self.directory.state_when(|state| !state.deployment.is_empty()).await;
            }
        }
        let stop_homing = CancellationToken::new();
        let homing = Homing::new(
            self.directory.clone(),
            slots,
            self.home.clone(),
            self.followers.clone(),
            self.options,
        );
        let homing = tokio::spawn(homing.run(stop_homing.clone()));
        // Without a lease nothing that is homed here is answered.
        let mut lease = self.keeper.watch();
        let _ = lease.wait_for(|valid| *valid).await;
        drop(self.log);
        Ok(RegionsRunning {
            directory: self.directory,
            _keeper: self.keeper,
            home: self.home,
            followers: self.followers,
            stop_homing,
            homing,
            stop_serving,
            serving,
        })
    }
}

impl RegionsRunning {
    /// Ends what takes part in other regions' work. The slots are closed after it.
    pub(crate) async fn stop(self) {
        let mut handing_over = pin!(self.directory.hand_over(None));
        let _ = tokio::time::timeout(LEADERSHIP_TIMEOUT, &mut handing_over).await;
        self.stop_homing.cancel();
        let _ = self.homing.await;
        self.followers.close().await;
        self.home.close().await;
        self.directory.close().await;
        self.stop_serving.cancel();
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(LEADERSHIP_TIMEOUT, self.serving).await.is_err() {
            abort.abort();
        }
    }
}

/// What a returning region had to cut is proposed again by the service whose it is.
fn propose(route: &Route) -> Propose {
    let salvager = Salvager::new(route.clone());
    Arc::new(move |entry| {
        let salvager = salvager.clone();
        Box::pin(async move { salvager.salvage(&entry).await })
    })
}

fn start(place: &Place) -> Start {
    let addresses = |rpc: std::net::SocketAddr, edge: &str| Addresses {
        rpc: rpc.to_string(),
        edge: edge.to_owned(),
    };
    let peers = place
        .peers
        .iter()
        .map(|peer| (peer.id, peer.joins, &peer.name, addresses(peer.rpc, &peer.edge)));
    if place.joins {
        return Start::Joins(peers.map(|(id, _, _, addresses)| (RegionId(id), addresses)).collect());
    }
    let edge = format!("http://127.0.0.1:{}", place.http_port);
    let own = (place.id, false, &place.name, addresses(place.rpc, &edge));
    let mut founders: Vec<_> = peers.chain([own]).filter(|(_, joins, ..)| !joins).collect();
    founders.sort_by_key(|(id, ..)| *id);
    let founders = founders.into_iter();
    Start::Founds(
        founders
            .map(|(_, _, name, addresses)| (name.clone(), addresses))
            .collect(),
    )
}
