//! What this region is to each slot, as the directory says: home, follower, or neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{
    Directory, DirectoryError, Owner, Placement, Table, TableRegion,
    domain::{Applied, Command, Durability, InSyncChange, RegionId, RegionStatus, State, wanted_in_sync},
};
use antiphon_nodes::Share;
use antiphon_slot::{
    Slots,
    protocol::{self, InSync, LogState},
};
use antiphon_types::{Epoch, Slot};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Followers, ReplicationHome, ReplicationOptions,
    asking::{Asking, Change},
    keeping::{Copy, Rules, nearest, wanted},
    sharing::Departures,
};

/// Slots that are handed over at once.
const HAND_OVERS_AT_ONCE: usize = 64;
/// Changes of in-sync sets in one command.
const CHANGES_AT_ONCE: usize = 512;
/// How long a slot may take to finish what it began before it goes on here.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the writers get to count those who are to come, before it is looked who of them is level.
const COUNTED_AFTER: Duration = Duration::from_millis(20);
/// How long to wait before a proposal is made again whose outcome is not known.
const PROPOSE_PAUSE: Duration = Duration::from_millis(200);

/// Follows the directory's table and the share of this node, and asks the directory for changes on behalf of the region.
pub struct Homing {
    pub(crate) directory: Directory,
    pub(crate) slots: Slots,
    home: ReplicationHome,
    followers: Followers,
    pub(crate) options: ReplicationOptions,
    pub(crate) looked_after: Vec<Slot>,
    pub(crate) share: Share,
    pub(crate) departures: Departures,
    asking: Asking,
    /// Slots that were given here by force: under which epoch, and until when another may hold a lease for them.
    waiting: Mutex<HashMap<Slot, (Epoch, Instant)>>,
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
            asking: Asking::default(),
            share: Share::alone(),
            departures: Departures::default(),
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

    /// Looks after the slots of this share alone: the others are those of other nodes of the region.
    #[must_use]
    pub fn sharing(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Runs until `closing`. The table is followed whatever the directory takes its time to answer.
    pub async fn run(self, closing: CancellationToken) {
        let work = async {
            tokio::join!(
                self.follow_table(),
                self.keep_in_sync(),
                self.hand_over_asked(),
                self.keep_share(),
                self.tell_nodes(),
            )
        };
        closing.run_until_cancelled(work).await;
    }

    async fn follow_table(&self) {
        let watch = self.directory.table();
        let (mut table, mut share) = (watch.load(), self.share.version());
        loop {
            let due = self.take(&table);
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                newer = watch.changed(table.version()) => table = newer,
                version = self.share.changed(share) => share = version,
                () = is_due => {}
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

    pub(crate) fn me(&self) -> RegionId {
        self.directory.region()
    }

    /// Grants, withdraws and follows slots as the table and the share say. Returns when to look again at those that have to wait.
    fn take(&self, table: &Table) -> Option<Instant> {
        let me = self.me();
        let mut follow: BTreeMap<Owner, BTreeMap<Slot, Epoch>> = BTreeMap::new();
        let (mut homed, mut followed, mut due) = (0_u32, 0_u32, None::<Instant>);
        for &slot in &self.looked_after {
            let (placement, is_mine) = (table.placement(slot), self.share.is_mine(slot));
            if placement.home_region.id == me {
                // Also for those of other nodes: what has waited once need not wait again when it comes here.
                let waits = self.waits(slot, placement);
                if !is_mine {
                    self.let_go(slot, placement.epoch);
                    continue;
                }
                homed += 1;
                if let Some(until) = waits {
                    self.slots.withdraw(slot, placement.epoch);
                    due = due.into_iter().chain([until]).min();
                } else {
                    self.grant(slot, placement);
                }
                continue;
            }
            self.waiting.lock().remove(&slot);
            self.asking.forget(slot);
            self.slots.withdraw(slot, placement.epoch);
            if is_mine && copies(placement).any(|region| region.id == me) {
                followed += 1;
                follow
                    .entry(Owner::of(placement, slot))
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
    pub(crate) fn waits(&self, slot: Slot, placement: &Placement) -> Option<Instant> {
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

    pub(crate) fn grant(&self, slot: Slot, placement: &Placement) {
        let mut others: BTreeSet<u64> = placement.in_sync.iter().map(|region| region.id.0).collect();
        others.remove(&self.me().0);
        others.extend(self.asking.adding(slot, (placement.epoch, placement.version)));
        let in_sync = InSync {
            others,
            confirmed: placement.in_sync.len(),
            min_in_sync: placement.min_in_sync.into(),
            durability: match placement.durability {
                Durability::Global => protocol::Durability::Global,
                Durability::Regional => protocol::Durability::Regional,
            },
            opening: placement.opening,
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
            if placement.home_region.id != me || !self.share.is_mine(slot) {
                continue;
            }
            let log = self.slots.log_state(slot).ok().map(|log| log.borrow().clone());
            let Some(log) = log.filter(|log| log.epoch == placement.epoch) else {
                continue;
            };
            if copies(placement).count() < 2 && log.is_settled {
                continue;
            }
            let wanted = self.wanted(&state, slot, placement, &log, now);
            changes.extend(self.want((slot, log.is_settled), placement, wanted));
        }
        if changes.iter().any(|change| !change.new.is_empty()) {
            sleep(COUNTED_AFTER).await;
        }
        let changes: Vec<Change> = changes.into_iter().filter_map(|change| self.allowed(change)).collect();
        if !changes.is_empty() {
            debug!(slots = changes.len(), "asking for other in-sync sets");
        }
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            self.ask(changes).await;
        }
    }

    /// Lets those count who are to come.
    fn want(
        &self,
        (slot, is_settled): (Slot, bool),
        placement: &Placement,
        wanted: Option<Vec<RegionId>>,
    ) -> Option<Change> {
        let known = placement.in_sync.iter().map(|region| region.id);
        let present = known.filter(|region| *region != self.me()).collect();
        let moment = (placement.epoch, placement.version);
        let (is_news, change) = self.asking.want((slot, is_settled), moment, present, wanted);
        if is_news {
            self.grant(slot, placement);
        }
        change
    }

    fn allowed(&self, change: Change) -> Option<Change> {
        let log = self.slots.log_state(change.slot).ok()?;
        let log = log.borrow();
        change.allowed(&log)
    }

    async fn ask(&self, changes: &[Change]) {
        self.asking.opened(changes);
        let me = self.me();
        let asked = changes.iter().map(|change| InSyncChange {
            slot: change.slot,
            epoch: change.moment.0,
            version: change.moment.1,
            opening: change.opening,
            set: std::iter::once(me).chain(change.set.iter().copied()).collect(),
        });
        let command = Command::ChangeInSync {
            home: me,
            changes: asked.collect(),
        };
        match self.directory.propose(command).await {
            Ok(applied) => {
                log_refused("in-sync sets", &applied);
                let refused: BTreeSet<Slot> = applied.refused.iter().map(|(slot, _)| *slot).collect();
                let of_refused = |change: &&Change| refused.contains(&change.slot);
                self.asking.refused(changes.iter().filter(of_refused));
            }
            Err(DirectoryError::Rejected(rejection)) => {
                debug!(%rejection, "no in-sync set is changed");
                self.asking.refused(changes);
            }
            Err(error) => debug!(%error, "whether the directory was told of other in-sync sets is not known"),
        }
    }

    fn wanted(
        &self,
        state: &State,
        slot: Slot,
        placement: &Placement,
        log: &LogState,
        now: Instant,
    ) -> Option<Vec<RegionId>> {
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
        let (me, table, state) = (self.me(), self.directory.table().load(), self.directory.state());
        let asked = self.looked_after.iter().copied().filter_map(|slot| {
            let placement = table.placement(slot);
            let to = placement.moving_to.as_ref()?;
            let is_ours = placement.home_region.id == me && self.share.is_mine(slot);
            // One that is not in sync yet is brought in first, and so is who may keep copies for it.
            (is_ours && state.can_move(slot, to.id)).then_some((slot, placement.epoch, to.id))
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
            if placement.epoch == epoch && placement.home_region.id == me && self.share.is_mine(slot) {
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
