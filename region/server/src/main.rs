//! The `antiphon` binary.

#![forbid(unsafe_code)]

mod admin;
mod bench;
mod chat;
mod cli;
mod config;
mod ctl;
mod deployment;
#[cfg(test)]
mod docs_tests;
mod edge;
mod metrics;
mod probe;
mod regions;
mod shutdown;
mod stamp;
mod store;
mod store_copy;
mod telemetry;
mod up;
mod wiring;
mod world;

use std::{io, io::Write as _, process::ExitCode};

use clap::Parser as _;

#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Builds for debugging, which is what tests run, count what they allocate.
#[cfg(debug_assertions)]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let code = match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    };
    // Whatever still holds a store goes first.
    drop(runtime);
    store::stop();
    code
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "antiphon: {error:#}");
    ExitCode::FAILURE
}
