//! What is counted of a store, by engine. The handles are made once: a look-up for each read would cost more than the read.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::KvError;

pub(crate) struct Meters {
    pub(crate) retries: Counter,
    commit_seconds: Histogram,
    conflicts: Counter,
    unknown_commits: Counter,
    reads: Counter,
    read_bytes: Counter,
    writes: Counter,
    written_bytes: Counter,
}

impl Meters {
    pub(crate) fn of(engine: &'static str) -> Self {
        Self {
            retries: counter!("antiphon_kv_retries_total", "engine" => engine),
            commit_seconds: histogram!("antiphon_kv_commit_seconds", "engine" => engine),
            conflicts: counter!("antiphon_kv_conflicts_total", "engine" => engine),
            unknown_commits: counter!("antiphon_kv_unknown_commits_total", "engine" => engine),
            reads: counter!("antiphon_kv_reads_total", "engine" => engine),
            read_bytes: counter!("antiphon_kv_read_bytes_total", "engine" => engine),
            writes: counter!("antiphon_kv_writes_total", "engine" => engine),
            written_bytes: counter!("antiphon_kv_written_bytes_total", "engine" => engine),
        }
    }

    /// A key or a page of a range was read, which had so many bytes.
    pub(crate) fn read(&self, bytes: usize) {
        self.reads.increment(1);
        self.read_bytes.increment(bytes as u64);
    }

    /// A commit of so many writes, which have so many bytes, was answered.
    pub(crate) fn committed(&self, took: Duration, (writes, bytes): (usize, usize), failure: Option<&KvError>) {
        self.commit_seconds.record(took.as_secs_f64());
        match failure {
            None => {
                self.writes.increment(writes as u64);
                self.written_bytes.increment(bytes as u64);
            }
            Some(KvError::Conflict) => self.conflicts.increment(1),
            Some(KvError::CommitUnknown) => self.unknown_commits.increment(1),
            Some(
                KvError::TooLarge { .. }
                | KvError::TooOld { .. }
                | KvError::RetriesExhausted { .. }
                | KvError::Unavailable(_)
                | KvError::Closed
                | KvError::Io(_),
            ) => {}
        }
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}
