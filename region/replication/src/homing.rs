//! What this region is to each slot, as the directory says: home, follower, or neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{
    Directory, DirectoryError, Placement, Table, TableRegion,
    domain::{Applied, Command, Durability, RegionId, RegionStatus, State, wanted_in_sync},
};
use antiphon_slot::{
    Slots,
    protocol::{self, InSync},
};
use antiphon_types::{Epoch, Slot};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Followers, ReplicationHome, ReplicationOptions,
    keeping::{Copy, Rules, nearest, wanted},
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
    directory: Directory,
    slots: Slots,
    home: ReplicationHome,
    followers: Followers,
    options: ReplicationOptions,
    looked_after: Vec<Slot>,
    /// Regions that the home has asked the directory to add to an in-sync set: they count until it is known what became of that.
    adding: Mutex<HashMap<Slot, Adding>>,
    /// Slots that were given here by force: under which epoch, and until when another may hold a lease for them.
    waiting: Mutex<HashMap<Slot, (Epoch, Instant)>>,
}

struct Adding {
    epoch: Epoch,
    version: u64,
    regions: BTreeSet<u64>,
}

impl Homing {
    /// For the region whose directory this is.
    #[must_use]
    pub fn new(
        directory: Directory,
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
            looked_after: Slot::all().collect(),
            adding: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Looks after these slots and no others: the others have no home. For simulations, where 4096 slots are much work and show
    /// nothing that a few do not.
    #[must_use]
    pub fn only(mut self, slots: Vec<Slot>) -> Self {
        self.looked_after = slots;
        self
    }

    /// Runs until `closing`. The table is followed whatever the directory takes its time to answer.
    pub async fn run(self, closing: CancellationToken) {
        let work = async { tokio::join!(self.follow_table(), self.keep_in_sync(), self.hand_over_asked()) };
        closing.run_until_cancelled(work).await;
    }

    async fn follow_table(&self) {
        let watch = self.directory.table();
        let mut table = watch.load();
        loop {
            match self.take(&table) {
                Some(due) => {
                    tokio::select! {
                        newer = watch.changed(table.version()) => table = newer,
                        () = sleep_until(due) => {}
                    }
                }
                None => table = watch.changed(table.version()).await,
            }
        }
    }

    async fn keep_in_sync(&self) {
        let mut look = interval(self.options.keep_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.keep().await;
        }
    }

    async fn hand_over_asked(&self) {
        let mut look = interval(self.options.keep_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.hand_over().await;
        }
    }

    fn me(&self) -> RegionId {
        self.directory.region()
    }

    /// Grants, withdraws and follows slots as the table says. Returns when to look again at those that have to wait.
    fn take(&self, table: &Table) -> Option<Instant> {
        let me = self.me();
        let mut follow: BTreeMap<Arc<str>, BTreeMap<Slot, Epoch>> = BTreeMap::new();
        let (mut homed, mut followed, mut due) = (0_u32, 0_u32, None::<Instant>);
        for &slot in &self.looked_after {
            let placement = table.placement(slot);
            if placement.home_region.id == me {
                homed += 1;
                if let Some(until) = self.waits(slot, placement) {
                    self.slots.withdraw(slot, placement.epoch);
                    due = due.into_iter().chain([until]).min();
                } else {
                    self.grant(slot, placement);
                }
                continue;
            }
            self.waiting.lock().remove(&slot);
            self.adding.lock().remove(&slot);
            self.slots.withdraw(slot, placement.epoch);
            if copies(placement).any(|region| region.id == me) {
                followed += 1;
                follow
                    .entry(placement.home.clone())
                    .or_default()
                    .insert(slot, placement.epoch);
            }
        }
        metrics::gauge!("antiphon_slots_homed").set(homed);
        metrics::gauge!("antiphon_slots_followed").set(followed);
        self.followers.follow(follow);
        due
    }

    /// Until when a slot has to wait that was taken from a home which was up: its lease is not known to have ended. It cannot renew it
    /// without learning that it is home no more.
    fn waits(&self, slot: Slot, placement: &Placement) -> Option<Instant> {
        if !placement.forced {
            return None;
        }
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        let (epoch, until) = waiting
            .entry(slot)
            .or_insert((placement.epoch, now + self.directory.lease_wait()));
        if *epoch != placement.epoch {
            (*epoch, *until) = (placement.epoch, now + self.directory.lease_wait());
        }
        (*until > now).then_some(*until)
    }

    fn grant(&self, slot: Slot, placement: &Placement) {
        let mut others: BTreeSet<u64> = placement.in_sync.iter().map(|region| region.id.0).collect();
        others.remove(&self.me().0);
        let mut all_adding = self.adding.lock();
        if let Some(adding) = all_adding.get(&slot) {
            if (adding.epoch, adding.version) == (placement.epoch, placement.version) {
                others.extend(&adding.regions);
            } else {
                all_adding.remove(&slot);
            }
        }
        drop(all_adding);
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

    /// Asks the directory for other in-sync sets where members lag, are missing, or are not the ones wanted.
    async fn keep(&self) {
        let (me, now) = (self.me(), Instant::now());
        let (state, table) = (self.directory.state(), self.directory.table().load());
        for (region, round_trip) in self.home.inner.progress.round_trips() {
            if let Some(region) = table.region(RegionId(region)) {
                let gauge =
                    metrics::gauge!("antiphon_replication_round_trip_seconds", "region" => region.name.to_string());
                gauge.set(round_trip.as_secs_f64());
            }
        }
        let mut changes = Vec::new();
        for &slot in &self.looked_after {
            let placement = table.placement(slot);
            if placement.home_region.id != me || copies(placement).count() < 2 {
                continue;
            }
            let Some(set) = self.wanted(&state, slot, placement, now) else {
                continue;
            };
            let known: BTreeSet<RegionId> = placement.in_sync.iter().map(|region| region.id).collect();
            let new = set.iter().filter(|region| !known.contains(region));
            let (epoch, version) = (placement.epoch, placement.version);
            {
                let mut all_adding = self.adding.lock();
                // Those of an earlier proposal of the same version may have been added.
                let adding = all_adding.entry(slot).or_insert(Adding {
                    epoch,
                    version,
                    regions: BTreeSet::new(),
                });
                (adding.epoch, adding.version) = (epoch, version);
                adding.regions.extend(new.map(|region| region.0));
            }
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

    fn wanted(&self, state: &State, slot: Slot, placement: &Placement, now: Instant) -> Option<Vec<RegionId>> {
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
            }
        };
        let others = placement.in_sync.iter().filter(|region| region.id != self.me());
        let members: Vec<Copy> = others.map(copy).collect();
        let observers: Vec<Copy> = placement.observers.iter().map(copy).collect();
        let rules = Rules {
            in_sync_copies: placement.in_sync_copies.into(),
            min_in_sync: placement.min_in_sync.into(),
            lag_max: self.options.lag_max,
        };
        let present: Vec<RegionId> = members.iter().map(|copy| copy.region).collect();
        let nearest = nearest(&self.home.inner.progress.round_trips(), &present);
        let mut target = wanted_in_sync(state, slot, &nearest);
        target.retain(|region| *region != self.me());
        wanted(&members, &observers, &target, rules, now)
    }

    /// Hands over what the directory asks for.
    async fn hand_over(&self) {
        let (me, table) = (self.me(), self.directory.table().load());
        let asked = self.looked_after.iter().copied().filter_map(|slot| {
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
