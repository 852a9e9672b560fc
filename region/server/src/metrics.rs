//! The metrics recorder, and what is said of the process itself.

use std::{
    fs,
    time::{Duration, Instant},
};

use antiphon_directory::{
    Role, Status,
    domain::{RegionStatus, State},
};
use anyhow::{Context as _, Result};
use metrics::{counter, gauge, set_global_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::{runtime::Handle, time::sleep};

/// From a write in memory to a client that has given up.
const SECONDS: [f64; 14] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// An fsync of a fast disk takes tens of microseconds, of a failing one seconds.
const FSYNC_SECONDS: [f64; 12] = [
    0.000_02, 0.000_05, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0,
];
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
const BYTES: [f64; 7] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// How often tasks are counted.
const TASKS_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder of the process.
///
/// # Errors
/// When there is one already.
pub(crate) fn install() -> Result<PrometheusHandle> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    set_global_recorder(recorder).context("metrics are set up already")?;
    gauge!("antiphon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// A recorder whose histograms have buckets of the order of what they measure.
pub(crate) fn recorder() -> Result<PrometheusRecorder> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("antiphon_fsync_seconds".to_owned()), &FSYNC_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), &COUNTS)?
        .set_buckets_for_metric(Matcher::Full("antiphon_kv_commits_per_fsync".to_owned()), &COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .set_buckets(&SECONDS)?
        .build_recorder();
    Ok(recorder)
}

/// Brings the process's own numbers up to date. Called at each scrape.
pub(crate) fn observe_process(started: Instant) {
    gauge!("antiphon_uptime_seconds").set(started.elapsed().as_secs_f64());
    #[cfg(debug_assertions)]
    observe_allocations();
    let Some(process) = Process::read() else { return };
    gauge!("process_resident_memory_bytes").set(process.resident_bytes);
    gauge!("process_threads").set(process.threads);
    gauge!("process_open_fds").set(process.open_fds);
    counter!("process_cpu_ticks_total").absolute(process.cpu_ticks);
}

#[cfg(debug_assertions)]
fn observe_allocations() {
    let stats = crate::ALLOCATOR.stats();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    counter!("antiphon_allocations_total").absolute(count(stats.allocations + stats.reallocations));
    counter!("antiphon_allocated_bytes_total").absolute(count(stats.bytes_allocated));
    // What is in use; the allocator of other builds may keep more from the system.
    #[allow(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    gauge!("antiphon_heap_bytes").set(stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) as f64);
}

/// Counts the tasks of the runtime that it runs on, for ever.
#[allow(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
pub(crate) async fn observe_tasks(runtime: &'static str) {
    let alive = gauge!("antiphon_tasks", "runtime" => runtime);
    loop {
        alive.set(Handle::current().metrics().num_alive_tasks() as f64);
        sleep(TASKS_INTERVAL).await;
    }
}

/// Brings the numbers of the directory up to date: how this node is in its group, and how the slots are that the whole deployment has.
/// Called at each scrape.
#[allow(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
pub(crate) fn observe_directory(status: &Status, state: &State) {
    gauge!("antiphon_directory_leads").set(f64::from(u8::from(status.role == Role::Leader)));
    gauge!("antiphon_directory_term").set(status.term as f64);
    gauge!("antiphon_directory_applied_index").set(status.applied.unwrap_or(0) as f64);
    gauge!("antiphon_directory_last_index").set(status.last_log.unwrap_or(0) as f64);
    gauge!("antiphon_directory_version").set(status.version as f64);
    let copies = usize::from(state.policy.in_sync_copies);
    let few = state.slots().filter(|(_, placement)| placement.in_sync.len() < copies);
    gauge!("antiphon_slots_under_replicated").set(few.count() as f64);
    let moving = state.slots().filter(|(_, placement)| placement.moving_to.is_some());
    gauge!("antiphon_slots_moving").set(moving.count() as f64);
    for (id, region) in &state.regions {
        let is_up = region.status != RegionStatus::Down;
        gauge!("antiphon_region_up", "region" => region.name.clone()).set(f64::from(u8::from(is_up)));
        let homes = state.slots().filter(|(_, placement)| placement.home == *id);
        gauge!("antiphon_region_homes", "region" => region.name.clone()).set(homes.count() as f64);
    }
}

/// What the kernel says of this process; see proc(5).
#[derive(Debug)]
struct Process {
    resident_bytes: f64,
    threads: f64,
    open_fds: f64,
    /// User and system time in hundredths of a second, which is the unit of the kernel's ABI.
    cpu_ticks: u64,
}

impl Process {
    /// None where there is no `/proc`.
    fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u32>().ok()
        };
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the command in parentheses, and may hold blanks itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let open_fds = u32::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
        Some(Self {
            resident_bytes: f64::from(field("VmRSS:")?) * 1024.0,
            threads: f64::from(field("Threads:")?),
            open_fds: f64::from(open_fds),
            cpu_ticks: ticks(11)? + ticks(12)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use metrics::{histogram, with_local_recorder};

    use super::*;

    #[test]
    fn each_histogram_has_the_buckets_of_its_kind() {
        let recorder = recorder().unwrap();
        let rendered = with_local_recorder(&recorder, || {
            histogram!("antiphon_fsync_seconds").record(0.000_03);
            histogram!("antiphon_write_seconds").record(0.003);
            histogram!("antiphon_commit_batch_messages").record(100.0);
            recorder.handle().render()
        });
        for bucket in [
            "antiphon_fsync_seconds_bucket{le=\"0.00005\"} 1",
            "antiphon_write_seconds_bucket{le=\"0.005\"} 1",
            "antiphon_commit_batch_messages_bucket{le=\"128\"} 1",
        ] {
            assert!(rendered.contains(bucket), "{bucket} is missing in {rendered}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_seen() {
        let process = Process::read().unwrap();
        assert!(
            process.resident_bytes > 1e5 && process.threads >= 1.0 && process.open_fds >= 3.0,
            "{process:?}"
        );
    }
}
