//! What goes wrong, and when: drawn from the seed before the world begins.

use rand::{RngExt as _, rngs::SmallRng};

use crate::{host::Freeze, network::HostId};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between two regions.
    Part(HostId, HostId),
    /// Nothing passes in one direction.
    PartOneWay(HostId, HostId),
    /// A region reaches no other region, nor they it; nor clients, if so said.
    Isolate(HostId, bool),
    /// The way between two regions is long, in milliseconds, and loses of a thousand segments so many.
    Slow(HostId, HostId, u64, u32),
    /// A region's process ends; silently: its peers are told nothing.
    Crash(HostId, bool),
    /// A region stands still.
    Freeze(HostId, Freeze),
    /// An operator empties a region.
    Drain(HostId),
    /// An operator gives a slot away without asking its home.
    FailOver(usize),
}

/// A fault and its time, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
}

/// Draws the faults of a world of `regions` regions between two moments.
pub(crate) fn plan(random: &mut SmallRng, regions: usize, slots: usize, from_us: u64, to_us: u64) -> Vec<Planned> {
    let count = random.random_range(3..=7);
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            let (one, step) = (random.random_range(0..regions), random.random_range(1..regions));
            let other = (one + step) % regions;
            let fault = match random.random_range(0..17) {
                0 | 1 => Fault::Part(one, other),
                2 | 3 => Fault::PartOneWay(one, other),
                4..=6 => Fault::Isolate(one, random.random_bool(0.4)),
                7 => Fault::Slow(one, other, random.random_range(50..400), random.random_range(0..100)),
                8..=10 => Fault::Crash(one, random.random_bool(0.5)),
                11 | 12 => Fault::Freeze(one, Freeze::Process),
                13 => Fault::Freeze(one, Freeze::Machine),
                14 => Fault::Drain(one),
                _ => Fault::FailOver(random.random_range(0..slots)),
            };
            let begins_us = random.random_range(from_us..to_us);
            let lasts_us = random.random_range(200_000..5_000_000);
            Planned {
                fault,
                from_us: begins_us,
                to_us: (begins_us + lasts_us).min(to_us),
            }
        })
        .collect();
    planned.sort_by_key(|planned| planned.from_us);
    planned
}
