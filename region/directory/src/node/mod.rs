//! One node of the directory.

pub(crate) mod ask;
pub(crate) mod calls;
mod duties;
pub(crate) mod follow;
mod join;
pub(crate) mod lease;
pub(crate) mod propose;
mod read;
mod service;
mod status;
pub(crate) mod voters;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use antiphon_kv::Kv;
use antiphon_proto::rpc::{directory_server::DirectoryServer, raft_server::RaftServer};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use lease::Grants;

use crate::{
    Dial, RaftOptions, RaftService, StartError, TableWatch,
    domain::{LeaseTerms, RegionId, State},
    raft::{
        Raft,
        dialer::Peers,
        network::Network,
        store::{self, Identity, Image, LogStore, Machine},
    },
};

pub use lease::{LeaseKeeper, LeaseOptions};
pub use service::DirectoryService;
pub(crate) use service::check_peer;
pub use status::{PeerStatus, Role, Status};

/// How a node of the directory runs; the same at every node of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// Names the deployment: nodes of two deployments refuse each other.
    pub deployment: String,
    /// Times and bounds of the Raft group.
    pub raft: RaftOptions,
    /// Times of the regions' leases.
    pub lease: LeaseOptions,
    /// How long a request to the directory may take, passing on and trying again included.
    pub request_timeout_ms: u64,
    /// How long a change of the voters may take, catching up of a new one included.
    pub voters_timeout_ms: u64,
}

impl NodeOptions {
    /// The defaults for a deployment.
    #[must_use]
    pub fn new(deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            raft: RaftOptions::default(),
            lease: LeaseOptions::default(),
            request_timeout_ms: 10_000,
            voters_timeout_ms: 60_000,
        }
    }
}

/// A region's voter of the directory, and the way to the leader. Cheap to clone.
#[derive(Clone)]
pub struct DirectoryNode {
    shared: Arc<Shared>,
}

struct Shared {
    region: RegionId,
    starts: u64,
    options: NodeOptions,
    raft: Raft,
    peers: Arc<Peers>,
    images: watch::Receiver<Arc<Image>>,
    table: TableWatch,
    terms: LeaseTerms,
    grants: Grants,
    started: Instant,
    kv: Kv,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Shared {
    /// The clock of the leases. It goes on while the process is stopped.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl DirectoryNode {
    /// Starts the node of `region` with its store in `<folder>/directory`, on what is there. A node that is new waits to be founded
    /// ([`DirectoryNode::found`]) or to join ([`DirectoryNode::join`]).
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: NodeOptions, region: RegionId, folder: &Path, dial: Dial) -> Result<Self, StartError> {
        let kv = store::open(&folder.join("directory")).await?;
        Self::start_on(options, region, kv, dial).await
    }

    /// As [`DirectoryNode::start`], with `kv` for its store: one of its own, that nobody else writes to.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(options: NodeOptions, region: RegionId, kv: Kv, dial: Dial) -> Result<Self, StartError> {
        let terms = options.lease.terms()?;
        let config = Arc::new(options.raft.to_openraft(&options.deployment)?);
        let kv = store::with_limits(kv);
        let identity = Identity::take(&kv, &options.deployment, region).await?;
        let starts = store::count_start(&kv).await?;
        let (machine, images, table) = Machine::open(kv.clone()).await?;
        let peers = Arc::new(Peers::open(identity, dial, kv.clone(), images.clone()).await?);
        let network = Network {
            peers: peers.clone(),
            append_timeout: Duration::from_millis(options.raft.append_timeout_ms),
        };
        let raft = Raft::new(region.0, config, network.clone(), LogStore::new(kv.clone()), machine).await;
        let raft = raft.map_err(|error| StartError::Store(error.to_string()))?;
        let shared = Shared {
            region,
            starts,
            options,
            raft,
            peers,
            images,
            table,
            terms,
            grants: Grants::default(),
            started: Instant::now(),
            kv,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        let shared = Arc::new(shared);
        shared.tasks.spawn(duties::run(shared.clone()));
        let greeting = network.greet(shared.raft.clone());
        shared
            .tasks
            .spawn(shared.closing.clone().run_until_cancelled_owned(greeting));
        Ok(Self { shared })
    }

    /// The tonic services: for the other voters, and for whoever asks the directory.
    #[must_use]
    pub fn into_server(self) -> (RaftServer<RaftService>, DirectoryServer<DirectoryService>) {
        let raft = RaftService::new(self.shared.raft.clone(), self.shared.peers.clone());
        (raft.into_server(), DirectoryService::new(self).into_server())
    }

    /// The region whose node this is.
    #[must_use]
    pub fn region(&self) -> RegionId {
        self.shared.region
    }

    /// After this long nobody holds a lease any more that was granted before.
    #[must_use]
    pub fn lease_wait(&self) -> Duration {
        Duration::from_millis(self.shared.terms.waited_ms())
    }

    /// The number that this node's store drew when it was made: another one means another store.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.shared.peers.identity.store
    }

    /// How often a node was started on this node's store, this time among them: what tells a newer process of the region from an
    /// older one. No clock would: it may be set back between the two.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.shared.starts
    }

    /// The placements, as far as this node has applied the log. Until the deployment is founded a region without a name is home.
    #[must_use]
    pub fn table(&self) -> TableWatch {
        self.shared.table.clone()
    }

    /// The state, as far as this node has applied the log.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.shared.state()
    }

    /// Waits for the local state to be such as `wanted` says, and returns it; `None` once the node is closed.
    pub async fn state_when(&self, mut wanted: impl FnMut(&State) -> bool) -> Option<Arc<State>> {
        let mut images = self.shared.images.clone();
        let found = images.wait_for(|image| wanted(&image.state));
        tokio::select! {
            () = self.shared.closing.cancelled() => None,
            found = found => found.ok().map(|image| image.state.clone()),
        }
    }

    /// Ends everything that this node has started, and waits for it. What is asked of it afterwards fails with
    /// [`DirectoryError::Stopped`](crate::DirectoryError::Stopped).
    ///
    /// A leader that has the time hands over first: see [`DirectoryNode::hand_over`].
    pub async fn close(&self) {
        let shared = &self.shared;
        shared.closing.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        if let Err(error) = shared.raft.shutdown().await {
            tracing::warn!(region = shared.region.0, %error, "the directory's raft did not end well");
        }
        if let Err(error) = shared.kv.close().await {
            tracing::warn!(region = shared.region.0, %error, "the directory's store did not close well");
        }
    }
}

impl fmt::Debug for DirectoryNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryNode({})", self.shared.region.0)
    }
}
