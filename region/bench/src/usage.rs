//! What a process has used, as Linux counts it (proc(5)).

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Processor time and memory of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// In user mode and in the kernel, all threads.
    pub(crate) cpu: Duration,
    /// Resident.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// Of the process with this number.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| path)
        };
        Ok(Self {
            cpu: cpu(&read("stat")?).context("/proc/…/stat")?,
            rss_bytes: rss_bytes(&read("status")?).context("/proc/…/status")?,
        })
    }
}

/// The name of the program, in parentheses, may hold anything; after it the times are the 12th and 13th field.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    Some(Duration::from_micros((user + system) * 1_000_000 / ticks_per_s))
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_more_and_more() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.rss_bytes > 100_000, "{before:?}");
        let mut after = before;
        while after.cpu == before.cpu {
            after = Usage::of(std::process::id()).unwrap();
        }
        assert!(after.cpu > before.cpu);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b 1) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu(stat), Some(Duration::from_micros(400 * 1_000_000 / ticks)));
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    20 kB\n"), Some(20_480));
    }
}
