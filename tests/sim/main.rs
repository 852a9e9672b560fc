//! A deterministic simulation of whole regions: directory, slots, message service, replication and routing as they are, several regions
//! in one thread, on a simulated network, with simulated clocks and stores. A seed decides everything: the same seed, the same trace.
//!
//! `just sim --seeds 1000` tries many worlds, `just sim --seed 17 --trace` shows one.
//!
//! The harness is its own: what tames randomness (`mad-turmoil` puts a seeded generator in the place of the system's) also holds the
//! process's clocks still, and the standard harness waits by them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![allow(clippy::print_stdout, reason = "what a world comes to is read from its output")]

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

use antiphon_types::sabotage::Rule;
use runner::Arguments;

/// Worlds that are tried when nobody says how many.
const SEEDS: u64 = 200;

/// A test, by its name.
type Test = (&'static str, fn());

const TESTS: [Test; 5] = [
    ("the_simulated_store_keeps_the_contract", engine::tests::contract_holds),
    (
        "a_commit_that_a_crash_interrupts_happens_whole_or_not_at_all",
        engine::tests::crashes_are_clean,
    ),
    ("the_same_seed_gives_the_same_trace", the_same_seed_gives_the_same_trace),
    (
        "whatever_fails_nothing_acknowledged_is_lost",
        whatever_fails_nothing_acknowledged_is_lost,
    ),
    ("a_broken_rule_is_noticed", a_broken_rule_is_noticed),
];

/// What is broken on purpose, one after the other.
const RULES: [Rule; 5] = [
    Rule::OlderEpochsAreRefused,
    Rule::InSyncSetsAreWaitedFor,
    Rule::LeasesAreWaitedOut,
    Rule::LogsAreCut,
    Rule::ReadsStopAtTheHighWatermark,
];

fn main() {
    let arguments = Arguments::parse(std::env::args().skip(1));
    if let Some(seed) = arguments.seed {
        runner::one(seed, arguments.trace, arguments.broken);
    } else if let Some(seeds) = arguments.seeds {
        runner::try_seeds(arguments.from..arguments.from + seeds, arguments.broken);
    } else {
        runner::tests(&TESTS, &arguments);
    }
}

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

fn whatever_fails_nothing_acknowledged_is_lost() {
    runner::try_seeds(0..SEEDS, None);
}

/// A simulation that never fails proves nothing: as many worlds as are tried are enough to notice each of them.
fn a_broken_rule_is_noticed() {
    for rule in RULES {
        let noticed = runner::failures(0..SEEDS, Some(rule), 1);
        assert!(
            !noticed.is_empty(),
            "nobody notices in {SEEDS} worlds that {rule:?} is broken"
        );
    }
}
