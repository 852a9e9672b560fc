//! A node among the others of its region.

use std::sync::Arc;

use antiphon_kv::{Kv, KvError};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{Announcement, NodeRow, Nodes, RegistryOptions, Share, watcher::Watcher};

/// Announces this node in the region's store, and sees who else is alive. Dropped without an orderly end, it is as if the process died:
/// the others notice that it counts no more.
#[derive(Debug)]
pub struct Registry {
    announcement: Announcement,
    options: RegistryOptions,
    nodes: watch::Receiver<Arc<Nodes>>,
    leaving: CancellationToken,
    watching: JoinHandle<()>,
    closing: DropGuard,
}

impl Registry {
    /// Writes this node's row into `kv`, and keeps it up from now on. A process that has announced itself under the same id before ends
    /// its share when it sees that.
    ///
    /// With others alive, the share begins once they have had the time to see this node and to hand its slots over.
    ///
    /// # Errors
    /// What the store fails with.
    pub async fn start(kv: Kv, own: NodeRow, options: RegistryOptions) -> Result<(Self, Share), KvError> {
        let (sender, nodes) = watch::channel(Arc::new(Nodes::none(own.id.clone())));
        let announcement = Announcement::new(kv, own);
        let found = announcement.announce().await?;
        let (leaving, closing) = (CancellationToken::new(), CancellationToken::new());
        let watcher = Watcher::new(announcement.clone(), options.clone(), sender, leaving.clone(), &found);
        let stop = closing.clone();
        let watching = tokio::spawn(async move {
            stop.run_until_cancelled(watcher.run()).await;
        });
        let registry = Self {
            announcement,
            options,
            nodes: nodes.clone(),
            leaving,
            watching,
            closing: closing.drop_guard(),
        };
        Ok((registry, Share::of(nodes)))
    }

    /// Tells the others that this node ends, and gives its share up once they have had the time to see that: what it still serves then
    /// is theirs.
    pub async fn leave(&self) {
        self.leaving.cancel();
        let mut nodes = self.nodes.clone();
        let left = nodes.wait_for(|nodes| nodes.node(nodes.own()).is_none());
        // Two heartbeats, when the store answers.
        if timeout(self.options.dead_after * 2, left).await.is_err() {
            warn!("the others could not be told that this node ends; they will notice");
        }
    }

    /// Removes this node's row: after [`Registry::leave`], and once its slots are closed.
    pub async fn close(self) {
        drop(self.closing);
        let _ = self.watching.await;
        if let Err(error) = self.announcement.remove().await {
            debug!(%error, "this node's row stays until the others forget it");
        }
    }
}
