//! How commands change the state: one file for each family of them.

mod found;
mod homes;
mod in_sync;
mod nodes;
mod policy;
mod regions;
mod status;
mod successor;
mod wishes;

use antiphon_types::Slot;
use serde::{Deserialize, Serialize};

use super::{Command, Placement, RegionId, Rejection, State};

/// What a command has brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Applied {
    /// The state's version now.
    pub version: u64,
    /// Whether anything is other than before.
    pub changed: bool,
    /// The id of the region that [`Command::AddRegion`] names.
    pub region: Option<RegionId>,
    /// How many placements have changed.
    pub slots_changed: usize,
    /// What was refused of a command about several slots, and why; the rest was done.
    pub refused: Vec<(Slot, Rejection)>,
}

impl State {
    /// Does what the command says: wholly, or not at all when it is refused. The slots of [`Command::ChangeInSync`],
    /// [`Command::MoveHome`], [`Command::FailOver`], [`Command::ForceHome`] and [`Command::Plan`] are judged one by one.
    ///
    /// # Errors
    /// Why it is refused. Nothing has changed then.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejection> {
        if self.deployment.is_empty() && !matches!(command, Command::Found { .. }) {
            return Err(Rejection::Refused("the deployment is not founded yet".to_owned()));
        }
        let mut applied = match command {
            Command::Found {
                deployment,
                regions,
                policy,
            } => self.found(deployment, regions, policy),
            Command::AddRegion { name, addresses } => self.add_region(name, addresses),
            Command::RemoveRegion { region } => self.remove_region(*region),
            Command::SetAddresses { region, addresses } => self.set_addresses(*region, addresses),
            Command::SetStatus { region, status } => self.set_status(*region, *status),
            Command::ChangeInSync { home, changes } => self.change_in_sync(*home, changes),
            Command::MoveHome { home, moves } => self.move_home(*home, moves),
            Command::FailOver { slots, to } => self.fail_over(slots, *to),
            Command::ForceHome { slots, to } => self.force_home(slots, *to),
            Command::Plan { moves } => self.set_wishes(moves),
            Command::SetPolicy { policy } => self.set_policy(policy),
            Command::SetNodes { region, nodes } => self.set_nodes(*region, nodes),
        }?;
        if applied.changed {
            self.raise_min_in_sync();
            self.version += 1;
        }
        applied.version = self.version;
        Ok(applied)
    }

    /// See [`State::min_in_sync`].
    fn raise_min_in_sync(&mut self) {
        if self.min_in_sync >= self.policy.min_in_sync {
            return;
        }
        let copies = self.placements.iter().map(|placement| placement.in_sync.len()).min();
        let copies = u8::try_from(copies.unwrap_or(0)).unwrap_or(u8::MAX);
        self.min_in_sync = self.min_in_sync.max(copies.min(self.policy.min_in_sync));
    }
}

impl Applied {
    fn changed() -> Self {
        Self {
            changed: true,
            ..Self::default()
        }
    }

    fn slots_changed(slots_changed: usize) -> Self {
        Self {
            changed: slots_changed > 0,
            slots_changed,
            ..Self::default()
        }
    }
}

/// Judges each slot alone; `judge` says whether it has changed the placement and leaves it as it is when it refuses.
fn each_slot<T>(
    placements: &mut [Placement],
    parts: impl IntoIterator<Item = (Slot, T)>,
    mut judge: impl FnMut(Slot, &mut Placement, T) -> Result<bool, Rejection>,
) -> Applied {
    let mut slots_changed = 0;
    let mut refused = Vec::new();
    for (slot, part) in parts {
        let judged = match placements.get_mut(usize::from(slot.number())) {
            Some(placement) => judge(slot, placement, part),
            None => Err(Rejection::Refused(format!("slot {slot} has no placement"))),
        };
        match judged {
            Ok(changed) => slots_changed += usize::from(changed),
            Err(rejection) => refused.push((slot, rejection)),
        }
    }
    Applied {
        refused,
        ..Applied::slots_changed(slots_changed)
    }
}

/// Refuses what was decided at another leader epoch.
fn check_epoch(slot: Slot, placement: &Placement, expected: u64) -> Result<(), Rejection> {
    if placement.epoch == expected {
        return Ok(());
    }
    Err(Rejection::Stale {
        what: format!("the epoch of slot {slot}"),
        expected,
        found: placement.epoch,
    })
}

/// Refuses what another than the home asks.
fn check_home(slot: Slot, placement: &Placement, home: RegionId) -> Result<(), Rejection> {
    if placement.home == home {
        return Ok(());
    }
    Err(Rejection::Refused(format!(
        "the home of slot {slot} is region {} and not {}",
        placement.home.0, home.0
    )))
}

fn no_region(region: RegionId) -> Rejection {
    Rejection::NoRegion(region.0.to_string())
}
