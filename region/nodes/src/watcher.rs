//! The one task of a node that counts up in its row and looks at the others'.

use std::sync::Arc;

use antiphon_types::Slot;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Announcement, Liveness, NodeRow, Nodes, RegistryOptions, announcement::Beat, rows::Row};

/// Heartbeats until the others have seen what this node has written, and have done about it what they have to.
const BEATS_UNTIL_SEEN: u32 = 2;

/// Where the node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its row is there; its share begins after so many heartbeats.
    Joining(u32),
    Serving,
    /// It claims nothing any more, and finishes what it has begun; the others do not know yet, and leave it what it had.
    LettingGo,
    /// Its row says that it ends; the others have seen that after so many heartbeats.
    Leaving(u32),
    Left,
    /// Another process has taken its place.
    Replaced,
}

/// The steps in which a node ends: it is asked to, and says that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    /// Its share is to end.
    pub(crate) let_go: CancellationToken,
    /// What it had begun is finished: the others are to know.
    pub(crate) leave: CancellationToken,
    /// They do.
    pub(crate) left: CancellationToken,
}

pub(crate) struct Watcher {
    announcement: Announcement,
    options: RegistryOptions,
    nodes: watch::Sender<Arc<Nodes>>,
    end: End,
    liveness: Liveness,
    stage: Stage,
    heartbeat: u64,
    /// When the store was reached last.
    reached_at: Instant,
}

impl Watcher {
    /// For a node that has announced itself and found these rows.
    pub(crate) fn new(
        announcement: Announcement,
        options: RegistryOptions,
        nodes: watch::Sender<Arc<Nodes>>,
        end: End,
        found: &[Row],
    ) -> Self {
        let mut watcher = Self {
            liveness: Liveness::new(options.dead_after),
            announcement,
            options,
            nodes,
            end,
            stage: Stage::Joining(BEATS_UNTIL_SEEN),
            heartbeat: 0,
            reached_at: Instant::now(),
        };
        watcher.see(found);
        watcher
    }

    /// Runs until the node is replaced.
    pub(crate) async fn run(mut self) {
        let period = self.options.heartbeat;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stage != Stage::Replaced {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.end.let_go.cancelled(), if matches!(self.stage, Stage::Joining(_) | Stage::Serving) => {
                    self.let_go();
                    continue;
                }
                () = self.end.leave.cancelled(), if self.stage == Stage::LettingGo => {
                    self.stage = Stage::Leaving(BEATS_UNTIL_SEEN);
                    ticks.reset();
                }
            }
            self.beat().await;
        }
        // It has nobody to tell.
        self.end.left.cancel();
    }

    fn let_go(&mut self) {
        self.stage = Stage::LettingGo;
        let known = self.nodes.borrow().clone();
        let others = known.live().filter(|node| node.id != self.announcement.own.id);
        self.publish(others.cloned().collect());
    }

    async fn beat(&mut self) {
        let is_leaving = matches!(self.stage, Stage::Leaving(_) | Stage::Left);
        // Also after one that failed: it may be in the store.
        self.heartbeat += 1;
        let until = self.is_missed_at().max(Instant::now() + self.options.heartbeat);
        let beating = self.announcement.beat(self.heartbeat, is_leaving);
        let beaten = timeout_at(until, beating).await;
        let was_missed = Instant::now() >= self.is_missed_at();
        self.stage = match self.stage {
            Stage::Joining(beats) if !was_missed => Stage::Joining(beats.saturating_sub(1)),
            Stage::Joining(_) | Stage::Serving if was_missed => Stage::Joining(BEATS_UNTIL_SEEN),
            Stage::Leaving(0) => Stage::Left,
            Stage::Leaving(beats) => Stage::Leaving(beats - 1),
            stage @ (Stage::Joining(_) | Stage::Serving | Stage::LettingGo | Stage::Left | Stage::Replaced) => stage,
        };
        if self.stage == Stage::Left {
            self.end.left.cancel();
        }
        match beaten {
            Ok(Ok(Beat::Rows(rows))) => {
                self.reached_at = Instant::now();
                self.see(&rows);
                self.forget(&rows).await;
            }
            Ok(Ok(Beat::Replaced)) => {
                warn!(node = %self.announcement.own.id, "another process has taken this node's place, and its slots with it");
                self.stage = Stage::Replaced;
                self.publish(Vec::new());
            }
            Ok(Err(error)) => self.missed(&error.to_string(), was_missed),
            Err(_) => self.missed("it does not answer", was_missed),
        }
    }

    /// When the others take this node for dead that has not reached the store meanwhile.
    fn is_missed_at(&self) -> Instant {
        self.reached_at + self.options.dead_after
    }

    /// A node that is taken for dead claims nothing: what it would commit is refused in any case.
    fn missed(&self, reason: &str, was_missed: bool) {
        debug!(reason, "the store was not reached to say that this node lives");
        if was_missed {
            self.publish(Vec::new());
        }
    }

    fn see(&mut self, rows: &[Row]) {
        let signs = rows.iter().map(|row| (row.node.id.clone(), row.sign));
        self.liveness.look(Instant::now(), signs);
        let own = &self.announcement.own;
        let others = rows.iter().filter(|row| row.node.id != own.id && !row.is_leaving);
        let live = others.filter(|row| self.liveness.is_alive(&row.node.id));
        let mut live: Vec<Arc<NodeRow>> = live.map(|row| row.node.clone()).collect();
        let is_only = live.is_empty();
        if matches!(self.stage, Stage::Joining(0)) || is_only && matches!(self.stage, Stage::Joining(_)) {
            self.stage = Stage::Serving;
        }
        if self.stage == Stage::Serving {
            live.push(own.clone());
        }
        self.publish(live);
    }

    /// Removes the rows of the long dead.
    async fn forget(&self, rows: &[Row]) {
        let is_long_dead = |row: &&Row| {
            let stands_still = self.liveness.stands_still(&row.node.id);
            stands_still.is_some_and(|time| time >= self.options.forget_after)
        };
        for row in rows.iter().filter(is_long_dead) {
            match self.announcement.forget(row).await {
                Ok(()) => info!(node = %row.node.id, "a node that has been dead for long is forgotten"),
                Err(error) => debug!(node = %row.node.id, %error, "a dead node is not forgotten yet"),
            }
        }
    }

    fn publish(&self, live: Vec<Arc<NodeRow>>) {
        let before = self.nodes.borrow().clone();
        let next = match self.stage {
            Stage::LettingGo | Stage::Leaving(_) | Stage::Left => before.leaving(live),
            Stage::Joining(_) | Stage::Serving | Stage::Replaced => before.next(live),
        };
        let Some(next) = next else {
            return;
        };
        let moved =
            Slot::all().filter(|slot| before.owner(*slot).map(|row| &row.id) != next.owner(*slot).map(|row| &row.id));
        let (moved, mine) = (moved.count(), Slot::all().filter(|slot| next.is_mine(*slot)).count());
        let live: Vec<&str> = next.live().map(|row| row.id.as_str()).collect();
        info!(?live, mine, moved, "the region's nodes have changed");
        #[allow(clippy::cast_precision_loss, reason = "counts of nodes and slots")]
        {
            metrics::gauge!("antiphon_nodes_live").set(live.len() as f64);
            metrics::gauge!("antiphon_node_slots").set(mine as f64);
        }
        metrics::counter!("antiphon_node_slots_moved_total").increment(moved as u64);
        self.nodes.send_replace(Arc::new(next));
    }
}
