//! What a region of several nodes has to do besides: slots go from node to node under the same leader epoch.

use std::{collections::BTreeMap, mem, time::Duration};

use antiphon_directory::{
    Table,
    domain::{Command, NodeAddress},
};
use antiphon_types::{Epoch, Slot};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, info, warn};

use crate::Homing;

/// Slots that are finished at once.
const DEPARTURES_AT_ONCE: usize = 256;
/// How long a slot may take to finish what it began before it goes to another node as it is.
const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks at the share after which it is looked who owns the slots.
const LOOKS_PER_CHECK: u32 = 4;

/// Slots that are other nodes' now, and have something to finish here.
#[derive(Default)]
pub(crate) struct Departures {
    slots: Mutex<BTreeMap<Slot, Epoch>>,
    changed: Notify,
}

impl Homing {
    /// The slot is another node's. One that is used here finishes first, so that nobody is refused whose command is in the log.
    pub(crate) fn let_go(&self, slot: Slot, epoch: Epoch) {
        if !self.slots.is_open(slot) {
            return self.slots.withdraw(slot, epoch);
        }
        self.departures.slots.lock().insert(slot, epoch);
        self.departures.changed.notify_one();
    }

    /// In a region of several nodes: finishes what goes to others, grants again what another node has taken by mistake, and opens what
    /// has something to carry.
    pub(crate) async fn keep_share(&self) {
        if self.share.nodes().is_none() {
            return;
        }
        tokio::join!(self.finish_departures(), self.look_after_share());
    }

    async fn finish_departures(&self) {
        loop {
            self.departures.changed.notified().await;
            let departing = mem::take(&mut *self.departures.slots.lock());
            info!(slots = departing.len(), "slots go to other nodes");
            stream::iter(departing)
                .for_each_concurrent(DEPARTURES_AT_ONCE, |(slot, epoch)| self.finish(slot, epoch))
                .await;
        }
    }

    async fn finish(&self, slot: Slot, epoch: Epoch) {
        let finished = timeout(DEPARTURE_TIMEOUT, self.slots.hand_over(slot, epoch)).await;
        if !matches!(finished, Ok(true)) {
            debug!(
                slot = slot.number(),
                "the slot goes to another node with something under way"
            );
        }
        // It may have come back meanwhile.
        if self.share.is_mine(slot) {
            return self.slots.resume(slot, epoch);
        }
        self.slots.withdraw(slot, epoch);
    }

    async fn look_after_share(&self) {
        let mut look = interval(self.options.keep_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut share, mut looks) = (None, 0);
        loop {
            look.tick().await;
            looks += 1;
            self.grant_again(&self.directory.table().load());
            let version = self.share.version();
            if share.replace(version) != Some(version) {
                self.recover().await;
            }
            if looks % LOOKS_PER_CHECK == 0
                && let Err(error) = self.slots.check_owners().await
            {
                debug!(%error, "the owners of the slots could not be read");
            }
        }
    }

    /// Two nodes that saw the region differently may have taken a slot from each other, and then left it to nobody.
    fn grant_again(&self, table: &Table) {
        if self.is_leaving() {
            return;
        }
        for &slot in &self.looked_after {
            let placement = table.placement(slot);
            let is_ours = placement.home_region.id == self.me() && self.share.is_mine(slot);
            if is_ours && !self.slots.is_granted(slot) && self.waits(slot, placement).is_none() {
                self.grant(slot, placement);
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.share.nodes().is_some_and(|nodes| nodes.is_leaving())
    }

    /// What its last owner had not carried to other slots waits for nobody's request.
    async fn recover(&self) {
        match self.slots.recover().await {
            Ok(opened) => debug!(opened, "slots with something to carry"),
            Err(error) => warn!(%error, "what the slots still have to carry cannot be read"),
        }
    }

    /// Tells the directory which nodes of the region are alive, so that other regions find the owners of its slots.
    pub(crate) async fn tell_nodes(&self) {
        let mut look = interval(self.options.keep_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.share.version();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                version = self.share.changed(seen) => seen = version,
            }
            let Some(nodes) = self.untold_nodes() else {
                continue;
            };
            info!(nodes = nodes.len(), "telling the directory which nodes are alive");
            let region = self.me();
            if let Err(error) = self.directory.propose(Command::SetNodes { region, nodes }).await {
                debug!(%error, "the directory was not told which nodes are alive");
            }
        }
    }

    /// What the directory ought to know of the region's nodes, where it knows otherwise and this node is the one to tell it: the first
    /// of those that are alive.
    fn untold_nodes(&self) -> Option<Vec<NodeAddress>> {
        let table = self.directory.table().load();
        let known = &table.region(self.me())?.nodes;
        let alive: Vec<NodeAddress> = match self.share.nodes() {
            None => Vec::new(),
            // Those who stay tell it.
            Some(nodes) if nodes.is_leaving() => return None,
            Some(nodes) => {
                nodes.live().next().filter(|first| first.id == *nodes.own())?;
                let address = |node: &antiphon_nodes::NodeRow| NodeAddress {
                    id: node.id.clone(),
                    rpc: node.rpc.clone(),
                };
                nodes.live().map(|node| address(node)).collect()
            }
        };
        (*known != alive).then_some(alive)
    }
}
