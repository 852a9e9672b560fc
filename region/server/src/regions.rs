//! What a node has to do with the other regions: the directory, replication, the port between nodes.

use std::{
    path::Path,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_directory::{
    Dial, Dialer, Directory, DirectoryFollower, DirectoryNode, LeaseKeeper, NodeOptions, NodeTls, Route, TableWatch,
    domain::{Addresses, Policy, RegionId},
    serve_nodes,
};
use antiphon_feed::Topics;
use antiphon_kv::Kv;
use antiphon_message::Salvager;
use antiphon_nodes::{NodeId, NodeRow, Registry, RegistryOptions, Share};
use antiphon_replication::{Followers, Homing, Propose, ReplicationHome, ReplicationOptions};
use antiphon_slot::{Lease, ReplicaLog, Slots};
use antiphon_types::Clock;
use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    deployment::{Membership, Start},
    stamp::Opener,
};

/// How long the slots may take to finish what they have begun before other nodes of the region take them as they are.
const LETTING_GO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the directory may take to hand its leadership over when this node ends.
const LEADERSHIP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests of other nodes may take to end once nothing new is begun.
const SERVING_TIMEOUT: Duration = Duration::from_secs(2);

/// The directory and the port between nodes: what a node of several regions has before it knows whether its store is the right one.
pub(crate) struct Opened {
    pub(crate) directory: Directory,
    name: String,
    announces: String,
    node: NodeId,
    started_at_ms: u64,
    dialer: Dialer,
    keeper: LeaseKeeper,
    tls: NodeTls,
    listener: TcpListener,
    start: Start,
    policy: Policy,
}

/// The parts that a node of several regions has besides those that every node has.
pub(crate) struct Regions {
    pub(crate) directory: Directory,
    pub(crate) route: Route,
    pub(crate) home: ReplicationHome,
    pub(crate) lease: Lease,
    followers: Followers,
    registry: Option<Registry>,
    keeper: LeaseKeeper,
    tls: NodeTls,
    listener: TcpListener,
    start: Start,
    policy: Policy,
    options: ReplicationOptions,
}

/// As [`Regions`], at work.
pub(crate) struct RegionsRunning {
    directory: Directory,
    _keeper: LeaseKeeper,
    home: ReplicationHome,
    followers: Followers,
    registry: Option<Registry>,
    slots: Slots,
    feed: Arc<Topics>,
    stop_homing: CancellationToken,
    homing: JoinHandle<()>,
    stop_serving: CancellationToken,
    serving: JoinHandle<()>,
}

impl Opened {
    /// Opens the port between nodes, and the directory: its store in `folder`, at the node that has the region's voter.
    ///
    /// # Errors
    /// What could not be opened.
    pub(crate) async fn open(membership: Membership, folder: &Path, clock: &Clock) -> Result<Self> {
        let Membership {
            deployment,
            name,
            id,
            node,
            listens,
            announces,
            tls,
            detour,
            names,
            start,
            policy,
        } = membership;
        let dialer = Dialer::new(tls.clone(), detour);
        // Of the directory that is about to start: regions that come later have their names there.
        let table = Arc::new(OnceLock::<TableWatch>::new());
        let dial: Dial = {
            let (dialer, table) = (dialer.clone(), table.clone());
            Arc::new(move |region: &RegionId, addresses: &Addresses| {
                // Those first: before the founding the table has a region without a name.
                let name = names.get(region).cloned().or_else(|| {
                    let table = table.get()?.load();
                    Some(table.region(*region)?.name.to_string())
                });
                let name = name.unwrap_or_else(|| format!("region-{}", region.0));
                let nowhere = || tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
                // Votes and leases do not stand behind messages and copies.
                dialer.dial(&name, &addresses.rpc).unwrap_or_else(nowhere)
            })
        };
        let listener = TcpListener::bind(listens)
            .await
            .with_context(|| format!("the port between nodes {listens} cannot be opened"))?;
        let options = NodeOptions::new(&deployment);
        let directory: Directory = match &start {
            Start::Founds(_) | Start::Joins(_) => DirectoryNode::start(options, id, folder, dial).await?.into(),
            Start::Follows(voters) => DirectoryFollower::start(options, id, voters.clone(), dial)?.into(),
        };
        let _ = table.set(directory.table());
        // A node without a voter keeps nothing to count its starts in.
        let started_at_ms = clock.now_ms();
        let starts = directory.voter().map_or(started_at_ms, DirectoryNode::starts);
        let keeper = directory.keep_lease(&node, starts);
        Ok(Self {
            node: NodeId::try_from(node).context("the setting `node.id`")?,
            directory,
            name,
            announces,
            started_at_ms,
            dialer,
            keeper,
            tls,
            listener,
            start,
            policy,
        })
    }

    /// As whom the store of slots is opened. Without a voter here that is known once one of them has told it.
    ///
    /// # Errors
    /// When the directory was closed meanwhile.
    pub(crate) async fn opener(&self) -> Result<Opener> {
        let closed = "the directory was closed before it told whose store this is";
        let directory = self.directory.store_id().await.context(closed)?;
        Ok(match &self.start {
            Start::Founds(_) | Start::Joins(_) => Opener::Member {
                directory,
                is_founded: !self.directory.state().deployment.is_empty(),
            },
            Start::Follows(_) => Opener::Beside { directory },
        })
    }

    /// Takes the node's place in its region, whose store `kv` is. In a store that several nodes can open it announces itself.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub(crate) async fn join(self, kv: &Kv, is_shared: bool) -> Result<Regions> {
        let (registry, share) = if is_shared {
            let own = NodeRow {
                id: self.node,
                rpc: self.announces,
                started_at_ms: self.started_at_ms,
            };
            let (registry, share) = Registry::start(kv.clone(), own, RegistryOptions::default())
                .await
                .context("the node cannot announce itself in the store")?;
            (Some(registry), share)
        } else {
            (None, Share::alone())
        };
        let lease = {
            let keeper = self.keeper.clone();
            let changes = keeper.watch();
            Lease::new(move || keeper.is_valid(), changes)
        };
        let log = ReplicaLog::new(kv.clone());
        let route = Route::of_node(&self.name, self.directory.table(), self.dialer, share);
        let options = ReplicationOptions::default();
        let id = self.directory.region().0;
        Ok(Regions {
            home: ReplicationHome::new(log.clone(), &options),
            followers: Followers::new(id, route.clone(), log, propose(&route), options.clone()),
            directory: self.directory,
            route,
            lease,
            registry,
            keeper: self.keeper,
            tls: self.tls,
            listener: self.listener,
            start: self.start,
            policy: self.policy,
            options,
        })
    }
}

impl Regions {
    /// Serves the other nodes, founds the deployment or finds it, and takes up what the directory gives this region.
    ///
    /// # Errors
    /// When the deployment was founded otherwise.
    pub(crate) async fn run(self, (slots, feed): (Slots, Arc<Topics>), services: Routes) -> Result<RegionsRunning> {
        let mut services = services.add_service(self.home.clone().into_server());
        if let Some(voter) = self.directory.voter() {
            let (raft, directory) = voter.clone().into_server();
            services = services.add_service(raft).add_service(directory);
        }
        self.home.serve(slots.clone(), self.directory.table());
        let stop_serving = CancellationToken::new();
        let serving = tokio::spawn({
            let (stop, tls, listener) = (stop_serving.clone(), self.tls.clone(), self.listener);
            async move {
                if let Err(error) = serve_nodes(listener, services, &tls, stop.cancelled_owned()).await {
                    tracing::error!(%error, "the port between nodes failed");
                }
            }
        });
        match (&self.start, self.directory.voter()) {
            (Start::Founds(founding), Some(voter)) => voter.found(founding, &self.policy).await?,
            (Start::Joins(seeds), Some(voter)) => voter.join(seeds).await?,
            (Start::Follows(_), _) | (_, None) => {}
        }
        // A node that votes has the group's log, and not yet what it says.
        self.directory.state_when(|state| !state.deployment.is_empty()).await;
        let stop_homing = CancellationToken::new();
        let homing = Homing::new(
            self.directory.clone(),
            slots.clone(),
            self.home.clone(),
            self.followers.clone(),
            self.options,
        )
        .sharing(self.route.share().clone());
        let homing = tokio::spawn(homing.run(stop_homing.clone()));
        // Without a lease nothing that is homed here is answered.
        let mut lease = self.keeper.watch();
        let _ = lease.wait_for(|valid| *valid).await;
        Ok(RegionsRunning {
            directory: self.directory,
            _keeper: self.keeper,
            home: self.home,
            followers: self.followers,
            registry: self.registry,
            slots,
            feed,
            stop_homing,
            homing,
            stop_serving,
            serving,
        })
    }
}

impl RegionsRunning {
    /// Ends what takes part in other regions' work, and the slots, after the region's other nodes have taken over what is this one's. What
    /// is returned is closed after it.
    pub(crate) async fn stop(self) -> Option<Registry> {
        if let Some(registry) = &self.registry
            && !registry.is_alone()
        {
            registry.let_go().await;
            if timeout(LETTING_GO_TIMEOUT, self.slots.vacated()).await.is_err() {
                tracing::warn!("slots go to other nodes with something under way");
            }
            registry.leave().await;
        }
        if let Some(voter) = self.directory.voter() {
            let mut handing_over = pin!(voter.hand_over(None));
            let _ = timeout(LEADERSHIP_TIMEOUT, &mut handing_over).await;
        }
        self.stop_homing.cancel();
        let _ = self.homing.await;
        self.followers.close().await;
        self.home.close().await;
        // What other regions have sent here, and cannot become durable any more, is refused while there is somebody to tell them.
        self.slots.close().await;
        self.feed.close();
        self.directory.close().await;
        self.stop_serving.cancel();
        let abort = self.serving.abort_handle();
        if timeout(SERVING_TIMEOUT, self.serving).await.is_err() {
            tracing::warn!("requests of other nodes did not end and were cut");
            abort.abort();
        }
        self.registry
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
