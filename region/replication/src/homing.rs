//! What this region is to each slot, as the directory says: home, follower, or neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_directory::{
    DirectoryError, DirectoryNode, Placement, Table, TableRegion,
    domain::{Applied, Command, Durability, RegionId, RegionStatus},
};
use antiphon_slot::{
    Slots,
    protocol::{self, InSync},
};
use antiphon_types::{Epoch, Slot};
use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Followers, ReplicationHome, ReplicationOptions,
    keeping::{Copy, Rules, wanted},
};

/// Slots that are handed over at once.
const HAND_OVERS_AT_ONCE: usize = 64;
/// Changes of in-sync sets in one command.
const CHANGES_AT_ONCE: usize = 512;
/// How long a slot may take to finish what it began before it goes on here.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a proposal is made again whose outcome is not known.
const PROPOSE_PAUSE: Duration = Duration::from_millis(200);

/// Follows the directory's table, and asks it for changes, on behalf of one region.
pub struct Homing {
    directory: DirectoryNode,
    slots: Slots,
    home: ReplicationHome,
    followers: Followers,
    options: ReplicationOptions,
    /// Regions that the home has asked the directory to add to an in-sync set: they count until it is known what became of that.
    adding: HashMap<Slot, Adding>,
}

struct Adding {
    epoch: Epoch,
    version: u64,
    regions: BTreeSet<u64>,
}

impl Homing {
    /// For the region whose node of the directory this is.
    #[must_use]
    pub fn new(
        directory: DirectoryNode,
        slots: Slots,
        home: ReplicationHome,
        followers: Followers,
        options: ReplicationOptions,
    ) -> Self {
        Self {
            directory,
            slots,
            home,
            followers,
            options,
            adding: HashMap::new(),
        }
    }

    /// Runs until `closing`.
    pub async fn run(mut self, closing: CancellationToken) {
        let watch = self.directory.table();
        let (mut table, mut seen) = (watch.load(), None);
        let mut look = tokio::time::interval(self.options.keep_interval);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if seen != Some(table.version()) {
                seen = Some(table.version());
                self.take(&table);
            }
            tokio::select! {
                () = closing.cancelled() => return,
                newer = watch.changed(table.version()) => table = newer,
                _ = look.tick() => {
                    tokio::select! {
                        () = closing.cancelled() => return,
                        () = self.keep(&table) => {}
                    }
                    tokio::select! {
                        () = closing.cancelled() => return,
                        () = self.hand_over(&table) => {}
                    }
                    table = watch.load();
                }
            }
        }
    }

    fn me(&self) -> RegionId {
        self.directory.region()
    }

    /// Grants, withdraws and follows slots as the table says.
    fn take(&mut self, table: &Table) {
        let me = self.me();
        let mut follow: BTreeMap<Arc<str>, BTreeMap<Slot, Epoch>> = BTreeMap::new();
        let mut homed = 0_u32;
        for slot in Slot::all() {
            let placement = table.placement(slot);
            if placement.home_region.id == me {
                homed += 1;
                self.grant(slot, placement);
                continue;
            }
            self.adding.remove(&slot);
            self.slots.withdraw(slot, placement.epoch);
            if copies(placement).any(|region| region.id == me) {
                follow
                    .entry(placement.home.clone())
                    .or_default()
                    .insert(slot, placement.epoch);
            }
        }
        metrics::gauge!("antiphon_slots_homed").set(homed);
        self.followers.follow(follow);
    }

    fn grant(&mut self, slot: Slot, placement: &Placement) {
        let mut others: BTreeSet<u64> = placement.in_sync.iter().map(|region| region.id.0).collect();
        others.remove(&self.me().0);
        match self.adding.get(&slot) {
            Some(adding) if (adding.epoch, adding.version) == (placement.epoch, placement.version) => {
                others.extend(&adding.regions);
            }
            Some(_) => {
                self.adding.remove(&slot);
            }
            None => {}
        }
        let in_sync = InSync {
            others,
            confirmed: placement.in_sync.len(),
            min_in_sync: placement.min_in_sync.into(),
            durability: match placement.durability {
                Durability::Global => protocol::Durability::Global,
                Durability::Regional => protocol::Durability::Regional,
            },
        };
        self.slots.grant(slot, placement.epoch, in_sync);
    }

    /// Asks the directory for other in-sync sets where members lag or are missing.
    async fn keep(&mut self, table: &Table) {
        let (me, now) = (self.me(), Instant::now());
        let mut changes = Vec::new();
        for slot in Slot::all() {
            let placement = table.placement(slot);
            if placement.home_region.id != me || copies(placement).count() < 2 {
                continue;
            }
            let Some(set) = self.wanted(slot, placement, now) else {
                continue;
            };
            let known: BTreeSet<RegionId> = placement.in_sync.iter().map(|region| region.id).collect();
            let regions: BTreeSet<u64> = set
                .iter()
                .filter(|region| !known.contains(region))
                .map(|region| region.0)
                .collect();
            let (epoch, version) = (placement.epoch, placement.version);
            // Those of an earlier proposal of the same version may have been added.
            let adding = self.adding.entry(slot).or_insert(Adding {
                epoch,
                version,
                regions: BTreeSet::new(),
            });
            (adding.epoch, adding.version) = (epoch, version);
            adding.regions.extend(regions);
            self.grant(slot, placement);
            let set = std::iter::once(me).chain(set).collect();
            changes.push((slot, epoch, version, set));
        }
        if changes.is_empty() {
            return;
        }
        debug!(slots = changes.len(), "asking for other in-sync sets");
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            let command = Command::ChangeInSync {
                home: me,
                changes: changes.to_vec(),
            };
            match self.directory.propose(command).await {
                Ok(applied) => log_refused("in-sync sets", &applied),
                Err(error) => debug!(%error, "the directory was not told of other in-sync sets"),
            }
        }
    }

    fn wanted(&self, slot: Slot, placement: &Placement, now: Instant) -> Option<Vec<RegionId>> {
        let log = self.slots.log_state(slot).ok()?.borrow().clone();
        if log.epoch != placement.epoch {
            return None;
        }
        let copy = |region: &Arc<TableRegion>| {
            let progress = &self.home.inner.progress;
            let held = progress.look((slot, placement.epoch), region.id.0, log.last_index, now);
            Copy {
                region: region.id,
                level_at: held.level_at,
                is_level: held.is_level(now) && region.status != RegionStatus::Down,
                leaves: region.status == RegionStatus::Draining,
            }
        };
        let members: Vec<Copy> = placement
            .in_sync
            .iter()
            .filter(|region| region.id != self.me())
            .map(copy)
            .collect();
        let observers: Vec<Copy> = placement.observers.iter().map(copy).collect();
        let rules = Rules {
            in_sync_copies: placement.in_sync_copies.into(),
            min_in_sync: placement.min_in_sync.into(),
            lag_max: self.options.lag_max,
        };
        let wanted = wanted(&members, &observers, rules, now);
        let to = placement.moving_to.as_ref().map(|region| region.id);
        let joins = observers.iter().find(|copy| Some(copy.region) == to && copy.is_level);
        match (wanted, joins) {
            (wanted, None) => wanted,
            (Some(set), Some(joins)) if set.contains(&joins.region) => Some(set),
            (wanted, Some(joins)) => {
                let mut set = wanted.unwrap_or_else(|| members.iter().map(|copy| copy.region).collect());
                set.push(joins.region);
                Some(set)
            }
        }
    }

    /// Hands over what the directory asks for.
    async fn hand_over(&self, table: &Table) {
        let me = self.me();
        let asked = Slot::all().filter_map(|slot| {
            let placement = table.placement(slot);
            let to = placement.moving_to.as_ref()?;
            // One that is not in sync yet is brought in first.
            let can_take = placement.in_sync.iter().any(|region| region.id == to.id);
            (placement.home_region.id == me && can_take).then_some((slot, placement.epoch, to.id))
        });
        let asked: Vec<_> = asked.take(HAND_OVERS_AT_ONCE).collect();
        if asked.is_empty() {
            return;
        }
        let stopped: Vec<(Slot, Epoch, RegionId)> = stream::iter(asked)
            .map(|(slot, epoch, to)| async move {
                match timeout(HAND_OVER_TIMEOUT, self.slots.hand_over(slot, epoch)).await {
                    Ok(true) => Some((slot, epoch, to)),
                    Ok(false) | Err(_) => {
                        warn!(
                            slot = slot.number(),
                            "the slot did not finish in time; it stays for now"
                        );
                        self.slots.resume(slot, epoch);
                        None
                    }
                }
            })
            .buffer_unordered(HAND_OVERS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if stopped.is_empty() {
            return;
        }
        info!(slots = stopped.len(), "handing over");
        let command = Command::MoveHome {
            home: me,
            moves: stopped.clone(),
        };
        // While it is not known what became of it, the slots serve nobody: another region may be home already.
        let decided = loop {
            match self.directory.propose(command.clone()).await {
                Ok(applied) => {
                    log_refused("hand-overs", &applied);
                    break applied.version;
                }
                Err(DirectoryError::Rejected(rejection)) => {
                    debug!(%rejection, "no slot is handed over");
                    break 0;
                }
                Err(error) => {
                    debug!(%error, "the directory has not answered the hand-over; asking again");
                    sleep(PROPOSE_PAUSE).await;
                }
            }
        };
        let watch = self.directory.table();
        let mut table = watch.load();
        while table.version() < decided {
            table = watch.changed(table.version()).await;
        }
        // The others are withdrawn with the table.
        for (slot, epoch, _) in stopped {
            let placement = table.placement(slot);
            if placement.epoch == epoch && placement.home_region.id == me {
                self.slots.resume(slot, epoch);
            }
        }
    }
}

fn copies(placement: &Placement) -> impl Iterator<Item = &Arc<TableRegion>> {
    placement.in_sync.iter().chain(&placement.observers)
}

fn log_refused(what: &str, applied: &Applied) {
    if let Some((slot, rejection)) = applied.refused.first() {
        debug!(what, refused = applied.refused.len(), %slot, %rejection, "the directory refuses some");
    }
}
