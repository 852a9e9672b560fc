//! How long the disk lets a thread of the load wait, beside a run. What the thread waits for a processor is in it.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

/// Between two fdatasyncs: seldom enough that they take next to nothing of what the server has.
const PAUSE: Duration = Duration::from_millis(10);
/// What is appended each time.
const FRAME: [u8; 200] = [b'x'; 200];

/// Appends to a file on the disk of the server's store, and waits for each fdatasync, until it is dropped.
pub(crate) struct Disk {
    waits: Arc<Mutex<Waits>>,
}

#[derive(Default)]
struct Waits {
    longest: Duration,
    /// Of the fdatasync that has not ended.
    since: Option<Instant>,
    failed: Option<io::Error>,
}

impl Disk {
    /// Begins.
    ///
    /// # Errors
    /// When there is no file to be had.
    pub(crate) fn watch() -> Result<Self> {
        let file = tempfile::tempfile().context("a file for fdatasyncs beside the run")?;
        let waits = Arc::<Mutex<Waits>>::default();
        let noted = Arc::downgrade(&waits);
        thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || append(file, &noted))?;
        Ok(Self { waits })
    }

    /// The longest fdatasync since the last call, the one that has not ended with what it has taken.
    ///
    /// # Errors
    /// What the disk has refused.
    pub(crate) fn longest(&self) -> Result<Duration> {
        let mut waits = self.waits.lock();
        if let Some(error) = waits.failed.take() {
            return Err(error).context("a file for fdatasyncs beside the run");
        }
        let under_way = waits.since.map_or(Duration::ZERO, |since| since.elapsed());
        Ok(std::mem::take(&mut waits.longest).max(under_way))
    }
}

fn append(mut file: File, noted: &Weak<Mutex<Waits>>) {
    while let Some(waits) = noted.upgrade() {
        let began = Instant::now();
        waits.lock().since = Some(began);
        let done = file.write_all(&FRAME).and_then(|()| file.sync_data());
        let mut noting = waits.lock();
        noting.since = None;
        noting.longest = noting.longest.max(began.elapsed());
        if let Err(error) = done {
            noting.failed = Some(error);
            return;
        }
        drop(noting);
        drop(waits);
        thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_told_once_and_the_thread_ends_with_its_owner() {
        let disk = Disk::watch().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while disk.longest().unwrap().is_zero() {
            assert!(Instant::now() < until, "nothing is appended");
        }
        {
            let mut waits = disk.waits.lock();
            waits.longest = Duration::from_secs(3_600);
            waits.since = None;
        }
        assert_eq!(disk.longest().unwrap(), Duration::from_secs(3_600));
        assert!(disk.longest().unwrap() < Duration::from_secs(3_600));
        disk.waits.lock().failed = Some(io::Error::other("full"));
        assert!(disk.longest().is_err());

        let noted = Arc::downgrade(&disk.waits);
        drop(disk);
        while noted.strong_count() > 0 {
            assert!(Instant::now() < until, "the thread goes on");
            thread::park_timeout(PAUSE);
        }
    }
}
