//! Who is to be in sync with the slots that are homed here: looked at again and again, and asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{
    DirectoryError, Placement, TableRegion,
    domain::{Command, InSyncChange, RegionId, RegionStatus, State, wanted_in_sync},
};
use antiphon_types::{LogIndex, Slot};
use tokio::{
    task::coop::consume_budget,
    time::{Instant, sleep},
};
use tracing::debug;

use crate::{
    Homing,
    asking::Change,
    homing::{copies, log_refused},
    keeping::{Copy, Rules, nearest, wanted},
};

/// Slots that are looked at, and changes of in-sync sets in one command.
const CHANGES_AT_ONCE: usize = 512;
/// Slots that nobody has used yet and that one look opens.
const OPENED_AT_ONCE: usize = 256;
/// How long the writers get to count those who are to come, before it is looked who of them is level.
const COUNTED_AFTER: Duration = Duration::from_millis(20);

/// One look at all slots of a home.
struct Look {
    state: Arc<State>,
    now: Instant,
    /// Which set to aim at: the same for all slots with this set, the home left out, that move to this region.
    targets: HashMap<(Vec<RegionId>, Option<RegionId>), Vec<RegionId>>,
}

impl Homing {
    /// Asks the directory for other in-sync sets where members lag, are missing, or are not the ones wanted.
    pub(crate) async fn keep(&self) {
        let table = self.directory.table().load();
        for (region, round_trip) in self.home.inner.progress.round_trips() {
            if let Some(region) = table.region(RegionId(region)) {
                let gauge =
                    metrics::gauge!("antiphon_replication_round_trip_seconds", "region" => region.name.to_string());
                gauge.set(round_trip.as_secs_f64());
            }
        }
        let ours = |slot: &Slot| table.placement(*slot).home_region.id == self.me() && self.share.is_mine(*slot);
        let ours = self.looked_after.iter().copied().filter(ours);
        let (mut slots, unused): (Vec<Slot>, Vec<Slot>) = ours.partition(|slot| self.slots.is_open(*slot));
        // To open thousands at once keeps those waiting that are used.
        slots.extend(unused.into_iter().take(OPENED_AT_ONCE));
        for slots in slots.chunks(CHANGES_AT_ONCE) {
            self.settle().await;
            self.look_at(slots).await;
        }
    }

    /// Lets the directory hear of slots that were opened a moment ago, those first that have something to commit.
    pub(crate) async fn settle(&self) {
        let unsettled = &self.home.inner.unsettled;
        let mut slots = unsettled.take();
        if slots.is_empty() {
            return;
        }
        slots.sort_by_cached_key(|slot| !self.has_uncommitted(*slot));
        let (first, others) = slots.split_at(slots.len().min(CHANGES_AT_ONCE));
        unsettled.give_back(others);
        self.look_at(first).await;
    }

    fn has_uncommitted(&self, slot: Slot) -> bool {
        let Ok(log) = self.slots.log_state(slot) else {
            return false;
        };
        let log = log.borrow();
        log.high_watermark < log.last_index
    }

    /// Asks for what these slots need.
    async fn look_at(&self, slots: &[Slot]) {
        let (state, table) = (self.directory.state(), self.directory.table().load());
        let mut look = Look {
            state,
            now: Instant::now(),
            targets: HashMap::new(),
        };
        let mut changes = Vec::new();
        for &slot in slots {
            changes.extend(self.consider(slot, table.placement(slot), &mut look));
            // There are many slots, and messages wait for this thread.
            consume_budget().await;
        }
        if changes.iter().any(|change| !change.new.is_empty()) {
            sleep(COUNTED_AFTER).await;
        }
        let changes: Vec<Change> = changes.into_iter().filter_map(|change| self.allowed(change)).collect();
        if !changes.is_empty() {
            debug!(slots = changes.len(), "asking for other in-sync sets");
            self.ask(&changes).await;
        }
    }

    /// What may have to be asked for one slot.
    fn consider(&self, slot: Slot, placement: &Placement, look: &mut Look) -> Option<Change> {
        if placement.home_region.id != self.me() || !self.share.is_mine(slot) {
            return None;
        }
        let log = self.slots.log_state(slot).ok()?;
        let (last_index, is_settled) = {
            let log = log.borrow();
            (log.epoch == placement.epoch).then_some((log.last_index, log.is_settled))?
        };
        if copies(placement).count() < 2 && is_settled {
            return None;
        }
        let wanted = self.wanted(slot, placement, last_index, look);
        self.want((slot, is_settled), placement, wanted)
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
        slot: Slot,
        placement: &Placement,
        last_index: LogIndex,
        look: &mut Look,
    ) -> Option<Vec<RegionId>> {
        let now = look.now;
        let copy = |region: &Arc<TableRegion>| {
            let progress = &self.home.inner.progress;
            let held = progress.look((slot, placement.epoch), region.id.0, last_index, now);
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
        let moving_to = placement.moving_to.as_ref().map(|region| region.id);
        let target = look
            .targets
            .entry((present, moving_to))
            .or_insert_with_key(|(present, _)| {
                let nearest = nearest(&self.home.inner.progress.round_trips(), present);
                let mut target = wanted_in_sync(&look.state, slot, &nearest);
                target.retain(|region| *region != self.me());
                target
            });
        wanted(&members, &observers, target, rules, now)
    }
}
