//! Where slots ought to be. Nothing here changes the state: the directory's leader proposes what comes out, and a home aims at the
//! in-sync set that it is told.

use std::collections::BTreeMap;

use antiphon_types::{Epoch, Slot};

use super::{Command, Placement, RegionId, RegionStatus, State, rules::Rules};

/// Empties draining regions, evenly over the active ones, and takes back wishes that can no longer be carried out. Planning again
/// after it was applied plans nothing more.
#[must_use]
pub fn plan(state: &State) -> Vec<Command> {
    let rules = Rules::new(&state.regions, &state.policy);
    let mut homes = Homes::to_be(state, &rules);
    let mut moves = Vec::new();
    for (slot, placement) in state.slots() {
        let wish = placement.moving_to;
        let possible = wish.filter(|to| may_move(state, &rules, placement, *to));
        let planned = if state.is(placement.home, RegionStatus::Draining) {
            away(state, &rules, &mut homes, placement, possible)
        } else {
            possible
        };
        if planned != wish {
            moves.push((slot, placement.epoch, planned));
        }
    }
    command(moves)
}

/// Brings slots back to their preferred homes and evens out the homes of the active regions. At most `slots_at_once` are under way
/// at a time, those of earlier calls counted: it is to be called again until it returns nothing and no wish is left.
#[must_use]
pub fn plan_rebalance(state: &State, slots_at_once: usize) -> Vec<Command> {
    let rules = Rules::new(&state.regions, &state.policy);
    let mut homes = Homes::to_be(state, &rules);
    let active = |region| state.is(region, RegionStatus::Active);
    let free = |placement: &Placement| active(placement.home) && placement.moving_to.is_none();
    let moving = |placement: &Placement| placement.moving_to.is_some() && !state.is(placement.home, RegionStatus::Down);
    let under_way = state.slots().filter(|(_, placement)| moving(placement)).count();

    let (mut back, mut staying) = (Vec::new(), Vec::new());
    for (slot, placement) in state.slots().filter(|(_, placement)| free(placement)) {
        let preferred = placement.preferred_home;
        if preferred != placement.home && may_move(state, &rules, placement, preferred) {
            homes.shift(placement.home, preferred);
            back.push((slot, placement, preferred));
        } else {
            staying.push((slot, placement));
        }
    }
    let mut even = Vec::new();
    for in_sync_only in [true, false] {
        staying.retain(|(slot, placement)| {
            let to = evener(state, &rules, &homes, placement, in_sync_only);
            if let Some(to) = to {
                homes.shift(placement.home, to);
                even.push((*slot, *placement, to));
            }
            to.is_none()
        });
    }
    // Those whose next home is in sync already are moved in a moment; the others wait until it has caught up.
    back.sort_by_key(|(_, placement, to)| !placement.in_sync.contains(to));
    let moves = back.into_iter().chain(even);
    let moves = moves.map(|(slot, placement, to)| (slot, placement.epoch, Some(to)));
    command(moves.take(slots_at_once.saturating_sub(under_way)).collect())
}

/// The in-sync set that the home of `slot` should aim at, itself first. `nearest` are the other regions by their distance from the
/// home, as it has measured them.
///
/// Whoever the slot is to move to comes first, then the nearest; a region that is being emptied is taken only for want of others, and
/// one that could not give the slot back, because its own rule does not allow the home, before those only. Regions that have not been
/// measured come last of all, present members first, so that not having measured yet is no reason to shrink. A region that is down or
/// not allowed is never named. Whether they are level enough to be taken in is the home's to judge.
#[must_use]
pub fn wanted_in_sync(state: &State, slot: Slot, nearest: &[RegionId]) -> Vec<RegionId> {
    let Some(placement) = state.placement(slot) else {
        return Vec::new();
    };
    let rules = Rules::new(&state.regions, &state.policy);
    let unmeasured = placement.replicas.iter().filter(|region| !nearest.contains(region));
    let mut ranked: Vec<([bool; 5], RegionId)> = Vec::new();
    for region in nearest.iter().chain(unmeasured).copied() {
        let up = state
            .regions
            .get(&region)
            .is_some_and(|found| found.status != RegionStatus::Down);
        let seen = ranked.iter().any(|(_, other)| *other == region);
        if region == placement.home || seen || !up || !rules.allows(placement.home, region) {
            continue;
        }
        let rank = [
            placement.moving_to != Some(region),
            placement.moving_to.is_some_and(|next| !rules.allows(next, region)),
            !nearest.contains(&region),
            !state.is(region, RegionStatus::Active),
            !rules.allows(region, placement.home),
        ];
        ranked.push((rank, region));
    }
    // Stable: within a rank they stay in the order of nearness.
    ranked.sort_by_key(|(rank, _)| *rank);
    // Whoever is to take the slot over has to be in sync, even where the policy asks for the home's copy alone; and where its own rule
    // does not allow the home of now, so has another in the place of that one.
    let next = ranked.first().map(|(_, first)| *first);
    let next = next.filter(|first| placement.moving_to == Some(*first));
    let stays = next.is_none_or(|next| rules.allows(next, placement.home));
    let copies = usize::from(state.policy.in_sync_copies).max(1 + usize::from(next.is_some())) + usize::from(!stays);
    let others = ranked.into_iter().map(|(_, region)| region);
    [placement.home].into_iter().chain(others).take(copies).collect()
}

/// How many slots each region will be home of when every wish that can be has been carried out.
struct Homes(BTreeMap<RegionId, usize>);

impl Homes {
    fn to_be(state: &State, rules: &Rules) -> Self {
        let mut homes = Self(BTreeMap::new());
        for (_, placement) in state.slots() {
            let wish = placement.moving_to.filter(|to| may_move(state, rules, placement, *to));
            *homes.0.entry(wish.unwrap_or(placement.home)).or_default() += 1;
        }
        homes
    }

    fn of(&self, region: RegionId) -> usize {
        self.0.get(&region).copied().unwrap_or(0)
    }

    fn shift(&mut self, from: RegionId, to: RegionId) {
        if let Some(homes) = self.0.get_mut(&from) {
            *homes = homes.saturating_sub(1);
        }
        *self.0.entry(to).or_default() += 1;
    }
}

/// Where a slot of a draining region goes: where it is going already, unless that has to catch up and another would not.
fn away(
    state: &State,
    rules: &Rules,
    homes: &mut Homes,
    placement: &Placement,
    wish: Option<RegionId>,
) -> Option<RegionId> {
    let in_sync = |to: &RegionId| placement.in_sync.contains(to);
    if wish.is_some_and(|to| in_sync(&to)) {
        return wish;
    }
    let candidates = || {
        let others = placement.replicas.iter().copied();
        others.filter(|to| may_move(state, rules, placement, *to))
    };
    let level = candidates().filter(in_sync).min_by_key(|to| homes.of(*to));
    if let Some(to) = level {
        homes.shift(wish.unwrap_or(placement.home), to);
        return level;
    }
    if wish.is_some() {
        return wish;
    }
    let observer = candidates().min_by_key(|to| homes.of(*to))?;
    homes.shift(placement.home, observer);
    Some(observer)
}

/// To whom the slot can move so that homes are more even than before.
fn evener(state: &State, rules: &Rules, homes: &Homes, placement: &Placement, in_sync_only: bool) -> Option<RegionId> {
    let replicas = placement.replicas.iter().copied();
    let candidates = replicas.filter(|to| !in_sync_only || placement.in_sync.contains(to));
    let to = candidates
        .filter(|to| may_move(state, rules, placement, *to))
        .min_by_key(|to| homes.of(*to))?;
    (homes.of(placement.home) > homes.of(to) + 1).then_some(to)
}

fn may_move(state: &State, rules: &Rules, placement: &Placement, to: RegionId) -> bool {
    let up = |region: &&RegionId| !state.is(**region, RegionStatus::Down);
    let copies = rules.of(to).iter().filter(up).count();
    to != placement.home
        && state.is(to, RegionStatus::Active)
        && rules.allows(placement.home, to)
        && copies >= usize::from(state.min_in_sync()).min(placement.in_sync.len())
}

fn command(moves: Vec<(Slot, Epoch, Option<RegionId>)>) -> Vec<Command> {
    if moves.is_empty() {
        return Vec::new();
    }
    vec![Command::Plan { moves }]
}
