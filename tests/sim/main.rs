//! A deterministic simulation of whole regions: directory, slots, message service, replication and routing as they are, several regions
//! in one thread, on a simulated network, with simulated clocks and stores. A seed decides everything: the same seed, the same trace.
//!
//! `just sim --seeds 1000` tries many worlds, `just sim --seed 17 --trace` shows one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod client;
mod edge;
mod engine;
mod faults;
mod host;
mod judge;
mod ledger;
mod network;
mod region;
mod runner;
mod world;

/// Worlds that are tried when nobody says how many.
const SEEDS: u64 = 200;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4] {
        let (one, other) = (runner::trace(seed), runner::trace(seed));
        assert!(one.lines().count() > 100, "seed {seed} shows nothing:\n{one}");
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one, other, "seed {seed}");
    }
    assert_ne!(runner::trace(3), runner::trace(4));
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    runner::try_seeds(0..SEEDS);
}

/// What `just sim` runs, and what the others run in a process of its own.
#[test]
#[ignore = "it is given its arguments in SIM_ARGS"]
fn simulate() {
    runner::simulate(&std::env::var("SIM_ARGS").unwrap_or_default());
}
