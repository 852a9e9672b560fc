//! What this region is to each slot, as the directory says: home, follower, or neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{
    Directory, DirectoryError, Owner, Placement, Table, TableRegion,
    domain::{Applied, Command, Durability, RegionId},
};
use antiphon_nodes::Share;
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

use crate::{Followers, ReplicationHome, ReplicationOptions, asking::Asking, sharing::Departures};

/// Slots that are handed over at once.
const HAND_OVERS_AT_ONCE: usize = 64;
/// How long a slot may take to finish what it began before it goes on here.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a proposal is made again whose outcome is not known.
const PROPOSE_PAUSE: Duration = Duration::from_millis(200);

/// Follows the directory's table and the share of this node, and asks the directory for changes on behalf of the region.
pub struct Homing {
    pub(crate) directory: Directory,
    pub(crate) slots: Slots,
    pub(crate) home: ReplicationHome,
    followers: Followers,
    pub(crate) options: ReplicationOptions,
    pub(crate) looked_after: Vec<Slot>,
    pub(crate) share: Share,
    pub(crate) departures: Departures,
    pub(crate) asking: Asking,
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
            // One after the other: whom a question names counts until it is known what became of it.
            tokio::select! {
                _ = look.tick() => self.keep().await,
                () = self.home.inner.unsettled.changed() => self.settle().await,
            }
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

pub(crate) fn copies(placement: &Placement) -> impl Iterator<Item = &Arc<TableRegion>> {
    placement.in_sync.iter().chain(&placement.observers)
}

pub(crate) fn log_refused(what: &str, applied: &Applied) {
    if let Some((slot, rejection)) = applied.refused.first() {
        debug!(what, refused = applied.refused.len(), %slot, %rejection, "the directory refuses some");
    }
}
