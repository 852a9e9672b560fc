//! The engine against real clusters. Where there is no `fdbserver`, every test is skipped, and said to be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests, some of which wait for processes"
)]

mod contract;
#[path = "../../../../tests/support/fdb.rs"]
mod fdb;
mod load;
mod outages;
mod slots;

use std::{env, process::ExitCode, time::Instant};

use fdb::{Cluster, Programs};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::runtime::Runtime;

struct Test {
    name: &'static str,
    run: fn(Programs) -> BoxFuture<'static, ()>,
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$(Test {
            name: stringify!($name),
            run: |programs| $module::$name(programs).boxed(),
        }),*]
    };
}

fn main() -> ExitCode {
    let tests = tests![
        contract::contract_holds,
        contract::histories_are_serializable,
        contract::stores_of_different_prefixes_do_not_meet,
        contract::watches_are_bounded,
        contract::what_cannot_be_opened_is_named,
        contract::a_range_goes_on_when_its_snapshot_has_grown_too_old,
        outages::a_cluster_that_stands_still_is_unavailable_and_comes_back,
        outages::a_killed_cluster_has_all_that_was_acknowledged,
        outages::a_locked_database_is_unavailable_until_it_is_unlocked,
        outages::a_lost_leader_loses_nothing,
        outages::one_of_three_processes_may_be_killed_under_load,
        slots::a_commit_of_unknown_result_is_answered_with_what_it_has_stored,
    ];
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_asked_for = |test: &&Test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter));
    let asked_for: Vec<&Test> = tests.iter().filter(is_asked_for).collect();
    let Some(programs) = Programs::find() else {
        println!(
            "skipped: {} tests of FoundationDB, because there is no fdbserver (ANTIPHON_FDB_BIN names the folder that has it)",
            asked_for.len()
        );
        return summary(0, 0, asked_for.len());
    };
    let runtime = Runtime::new().unwrap();
    let (mut passed, mut failed) = (0, 0);
    for test in asked_for {
        let began = Instant::now();
        let ended = runtime.block_on(async { tokio::spawn((test.run)(programs.clone())).await });
        let result = if ended.is_ok() { "ok" } else { "FAILED" };
        *if ended.is_ok() { &mut passed } else { &mut failed } += 1;
        println!(
            "test {} ... {result} ({:.1} s)",
            test.name,
            began.elapsed().as_secs_f64()
        );
    }
    drop(runtime);
    antiphon_kv_fdb::stop();
    summary(passed, failed, 0)
}

fn summary(passed: usize, failed: usize, ignored: usize) -> ExitCode {
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {passed} passed; {failed} failed; {ignored} ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Does what waits for processes where it holds nothing up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn cluster(programs: Programs, servers: usize, kind: &'static str) -> std::sync::Arc<Cluster> {
    blocking(move || Cluster::start(programs, servers, kind).into()).await
}
