//! What the directory costs: prints one JSON line. `cargo bench -p antiphon-directory`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of its own")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use antiphon_directory::{
    Table, TableWatch,
    domain::{Addresses, Command, Policy, RegionId, RegionStatus, State},
};
use antiphon_types::Slot;

const REGIONS: u64 = 5;
const LOOK_UPS: u32 = 10_000_000;

fn main() {
    let state = founded();
    let bytes = rmp_serde::to_vec_named(&state).unwrap().len();

    let watch = TableWatch::new(Table::from_state(&state).unwrap());
    let slots: Vec<Slot> = Slot::all().collect();
    let look_up = timed(|| {
        for at in 0..LOOK_UPS {
            // Far apart, so that each is in another line of the cache.
            let slot = slots[(at as usize * 1_009) % slots.len()];
            black_box(&watch.load().placement(black_box(slot)).home);
        }
    });
    let yardstick = timed(|| {
        for at in 0..LOOK_UPS {
            black_box(slots[(at as usize * 1_009) % slots.len()]);
        }
    });
    let fail_over = timed(|| {
        let down = Command::SetStatus {
            region: RegionId(1),
            status: RegionStatus::Down,
        };
        black_box(state.clone().apply(&down).unwrap());
    });
    let nanoseconds = |took: Duration| took.as_secs_f64() * 1e9 / f64::from(LOOK_UPS);
    println!(
        r#"{{"slots":{},"regions":{REGIONS},"stateBytes":{bytes},"lookUpNs":{:.1},"arrayReadNs":{:.1},"failOverMs":{:.2}}}"#,
        slots.len(),
        nanoseconds(look_up),
        nanoseconds(yardstick),
        fail_over.as_secs_f64() * 1e3,
    );
}

/// The best of three.
fn timed(work: impl Fn()) -> Duration {
    let once = || {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

fn founded() -> State {
    let mut state = State::default();
    let region = |number: u64| {
        let addresses = Addresses {
            rpc: format!("10.0.{number}.1:7404"),
            edge: format!("https://r{number}.example.org"),
        };
        (format!("region-{number}"), addresses)
    };
    let found = Command::Found {
        deployment: "bench".to_owned(),
        regions: (1..=REGIONS).map(region).collect(),
        policy: Policy::default(),
    };
    state.apply(&found).unwrap();
    state
}
