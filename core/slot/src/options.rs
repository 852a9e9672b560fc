use std::time::Duration;

/// Settings of all slots of a node.
#[derive(Debug, Clone)]
pub struct SlotOptions {
    /// Commands that may wait for one slot.
    pub queue_len_max: usize,
    /// Commands that may wait for all slots of a node: what is over cannot be answered in a time that anybody would wait.
    pub waiting_max: usize,
    /// Commands in one batch.
    pub batch_len_max: usize,
    /// Bytes of one log entry; below the port's limit of 100 kB for a value.
    pub entry_bytes_max: usize,
    /// How long a write may wait for its answer.
    pub write_timeout: Duration,
    /// Log entries kept below what every cursor has passed.
    pub log_entries_kept: u64,
    /// Log entries kept for a region that is behind; one further behind takes a copy of the slot.
    pub log_entries_behind_max: u64,
    /// How long a slot is idle before it writes down cursors that moved since its last commit.
    pub flush_idle: Duration,
    /// How long a command that is in no hurry waits for others to be committed with.
    pub patience: Duration,
}

impl Default for SlotOptions {
    fn default() -> Self {
        Self {
            queue_len_max: 4_096,
            waiting_max: 16_384,
            batch_len_max: 512,
            entry_bytes_max: 90_000,
            write_timeout: Duration::from_secs(10),
            log_entries_kept: 128,
            log_entries_behind_max: 20_000,
            flush_idle: Duration::from_secs(1),
            patience: Duration::from_millis(100),
        }
    }
}
