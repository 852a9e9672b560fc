use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_directory::{
    Directory, DirectoryFollower, DirectoryNode, NodeOptions, RaftOptions,
    domain::{Addresses, Policy, RegionId},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::links::{Cut, Links};

/// Generous: the machine may be busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Regions in one process. Each has a port of its own, that stays its own when its node is away.
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<u64, Running>,
    listeners: BTreeMap<u64, SocketAddr>,
    folder: TempDir,
    pub(crate) options: NodeOptions,
    pub(crate) links: Links,
}

pub(crate) struct Running {
    pub(crate) node: DirectoryNode,
    /// Has the server and its connections; shutting it down closes the sockets at once, as the death of a process does.
    sockets: Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut options = NodeOptions::new("test");
        options.raft = RaftOptions {
            heartbeat_ms: 100,
            election_timeout_ms_min: 300,
            election_timeout_ms_max: 600,
            ..RaftOptions::default()
        };
        // Most tests have nobody who renews.
        options.lease.lease_ms = 3_600_000;
        options.lease.margin_ms = 60_000;
        Self {
            nodes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            folder: tempfile::tempdir().unwrap(),
            options,
            links: Links::default(),
        }
    }

    /// Three regions that have been founded.
    pub(crate) async fn founded() -> Self {
        let mut world = Self::new();
        world.found(3).await;
        world
    }

    pub(crate) async fn found(&mut self, count: u64) {
        for id in 1..=count {
            self.start(id).await;
        }
        let regions = self.first_regions(count);
        let policy = Policy::default();
        let founding = self.nodes.values().map(|running| running.node.found(&regions, &policy));
        soon(futures_util::future::try_join_all(founding)).await.unwrap();
    }

    pub(crate) fn first_regions(&self, count: u64) -> Vec<(String, Addresses)> {
        (1..=count).map(|id| (format!("r{id}"), self.addresses(id))).collect()
    }

    /// Starts a node on the folder and the port of its region.
    pub(crate) async fn start(&mut self, id: u64) {
        let folder = self.folder(id);
        self.start_in(id, &folder).await;
    }

    pub(crate) async fn start_in(&mut self, id: u64, folder: &Path) {
        let wanted = self.listeners.get(&id).copied().unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = soon(async {
            loop {
                match TcpListener::bind(wanted).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
        self.listeners.insert(id, listener.local_addr().unwrap());
        let node = DirectoryNode::start(self.options.clone(), RegionId(id), folder, self.links.dial(id))
            .await
            .unwrap();
        let (raft, directory) = node.clone().into_server();
        let sockets = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = listener.into_std().unwrap();
        sockets.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let server = Server::builder().add_service(raft).add_service(directory);
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        self.nodes.insert(id, Running { node, sockets });
    }

    /// Starts a node of a region that has a voter elsewhere. For the links it is `100 + id`, so that it can be cut off by itself.
    pub(crate) fn start_outside(&self, id: u64) -> DirectoryFollower {
        let seeds = self.listeners.keys().map(|id| (RegionId(*id), self.addresses(*id)));
        let dial = self.links.dial(100 + id);
        DirectoryFollower::start(self.options.clone(), RegionId(id), seeds.collect(), dial).unwrap()
    }

    /// Ends a node without a word to the others.
    pub(crate) async fn kill(&mut self, id: u64) {
        let running = self.nodes.remove(&id).unwrap();
        running.sockets.shutdown_background();
        soon(running.node.close()).await;
    }

    pub(crate) fn node(&self, id: u64) -> &DirectoryNode {
        &self.nodes[&id].node
    }

    /// As an operator has it.
    pub(crate) fn directory(&self, id: u64) -> Directory {
        self.node(id).clone().into()
    }

    pub(crate) fn addresses(&self, id: u64) -> Addresses {
        Addresses {
            rpc: self.listeners[&id].to_string(),
            edge: format!("http://edge-{id}"),
        }
    }

    pub(crate) fn folder(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// Reserves the port of a region whose node does not run yet.
    pub(crate) async fn reserve(&mut self, id: u64) -> Addresses {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        self.listeners.insert(id, listener.local_addr().unwrap());
        self.addresses(id)
    }

    /// The region that leads, once all of the running nodes say the same.
    pub(crate) async fn leader(&self) -> u64 {
        soon(async {
            loop {
                let mut leaders: Vec<_> = self
                    .nodes
                    .values()
                    .map(|running| running.node.status().leader)
                    .collect();
                leaders.dedup();
                if let [Some(leader)] = leaders.as_slice()
                    && self.nodes.contains_key(&leader.0)
                {
                    return leader.0;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// A running region that does not lead.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// From now on nothing gets to a region and nothing from it; connections stay open and swallow everything.
    pub(crate) fn isolate(&self, id: u64) {
        self.links.cut.send_modify(|cut| {
            cut.nodes.insert(id);
        });
    }

    /// As if the region were isolated, but only from these.
    pub(crate) fn cut_off(&self, id: u64, from: &[u64]) {
        self.links
            .cut
            .send_modify(|cut| cut.ways.extend(from.iter().map(|from| [id, *from])));
    }

    /// What was swallowed arrives after all, and everything goes on.
    pub(crate) fn heal(&self) {
        self.links.cut.send_modify(|cut| *cut = Cut::default());
    }

    pub(crate) async fn close(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.kill(id).await;
        }
    }
}

/// Fails a test that hangs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap()
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(SOON, waiting).await.is_ok(),
        "did not come about: {what}"
    );
}
