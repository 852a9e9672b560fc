//! What processes have used, as Linux counts it (proc(5)).

use std::{
    fs, io,
    ops::{AddAssign, Sub},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Processor time, memory and writing of processes at one moment; or between two, where it grows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// In user mode and in the kernel, all threads.
    pub(crate) cpu: Duration,
    /// Resident.
    pub(crate) rss_bytes: u64,
    /// Towards a disk.
    pub(crate) written_bytes: u64,
    /// Files and sockets that are open.
    pub(crate) open_files: usize,
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
            written_bytes: number_after(&read("io")?, "write_bytes:").context("/proc/…/io")?,
            open_files: open_files(pid).context("/proc/…/fd")?,
        })
    }

    /// Of that process and of all that it has started.
    pub(crate) fn of_all(pid: u32) -> Result<Self> {
        let mut all = Self::of(pid)?;
        for child in children(pid)? {
            all += Self::of_all(child)?;
        }
        Ok(all)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.rss_bytes += other.rss_bytes;
        self.written_bytes += other.written_bytes;
        self.open_files += other.open_files;
    }
}

impl Sub for Usage {
    type Output = Self;

    /// What was used since; memory and files as they are.
    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            rss_bytes: self.rss_bytes,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            open_files: self.open_files,
        }
    }
}

/// Told by the folder's size since Linux 6.2: to list tens of thousands takes as long as a message.
fn open_files(pid: u32) -> io::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path)?.len() {
        0 => Ok(fs::read_dir(path)?.count()),
        count => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    let path = format!("/proc/{pid}/task");
    for thread in fs::read_dir(&path).context(path)? {
        // A thread may have ended meanwhile.
        let of_thread = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(
            of_thread
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    Ok(children)
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
    Some(number_after(status, "VmRSS:")? * 1_024)
}

/// The number that follows a name at the beginning of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_uses_more_and_more() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.rss_bytes > 100_000, "{before:?}");
        let opened: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let with_more = Usage::of(std::process::id()).unwrap().open_files;
        assert!(
            with_more >= before.open_files + 180,
            "{} and then {with_more}",
            before.open_files
        );
        drop(opened);
        let mut after = before;
        while after.cpu == before.cpu {
            after = Usage::of(std::process::id()).unwrap();
        }
        assert!(after.cpu > before.cpu);
    }

    #[test]
    fn what_a_process_has_started_counts_too() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(children(std::process::id()).unwrap().contains(&child.id()));
        let (one, all) = (
            Usage::of(std::process::id()).unwrap(),
            Usage::of_all(std::process::id()).unwrap(),
        );
        assert!(all.rss_bytes > one.rss_bytes, "{one:?} {all:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b 1) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu(stat), Some(Duration::from_micros(400 * 1_000_000 / ticks)));
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    20 kB\n"), Some(20_480));
    }
}
