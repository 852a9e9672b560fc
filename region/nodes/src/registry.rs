//! A node among the others of its region.

use std::sync::Arc;

use antiphon_kv::{Kv, KvError};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{
    Announcement, NodeRow, Nodes, RegistryOptions, Share,
    watcher::{End, Watcher},
};

/// Announces this node in the region's store, and sees who else is alive. Dropped without an orderly end, it is as if the process died:
/// the others notice that it counts no more.
#[derive(Debug)]
pub struct Registry {
    announcement: Announcement,
    options: RegistryOptions,
    nodes: watch::Receiver<Arc<Nodes>>,
    end: End,
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
        let (end, closing) = (End::default(), CancellationToken::new());
        let watcher = Watcher::new(announcement.clone(), options.clone(), sender, end.clone(), &found);
        let stop = closing.clone();
        let watching = tokio::spawn(async move {
            stop.run_until_cancelled(watcher.run()).await;
        });
        let registry = Self {
            announcement,
            options,
            nodes: nodes.clone(),
            end,
            watching,
            closing: closing.drop_guard(),
        };
        Ok((registry, Share::of(nodes)))
    }

    /// Whether no other node of the region is known to live.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let nodes = self.nodes.borrow();
        nodes.live().all(|node| node.id == *nodes.own())
    }

    /// Ends the share of this node. The others do not take it yet: first it finishes what it has begun.
    pub async fn let_go(&self) {
        self.end.let_go.cancel();
        let mut nodes = self.nodes.clone();
        // Whoever watches has ended otherwise, and claims nothing either.
        let _ = nodes.wait_for(|nodes| nodes.node(nodes.own()).is_none()).await;
    }

    /// Tells the others that this node ends, after [`Registry::let_go`], and waits until they have had the time to see that: what it had
    /// is theirs.
    pub async fn leave(&self) {
        self.end.leave.cancel();
        // Two heartbeats, when the store answers.
        if timeout(self.options.dead_after * 2, self.end.left.cancelled())
            .await
            .is_err()
        {
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
