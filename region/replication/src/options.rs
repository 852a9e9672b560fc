use std::time::Duration;

/// Settings of replication.
#[derive(Debug, Clone)]
pub struct ReplicationOptions {
    /// Bytes of entries that a home may have sent to one follower and not heard to be taken.
    pub credit_bytes: u64,
    /// Bytes of entries that were appended a moment ago and are kept in memory for shipping.
    pub recent_bytes_max: usize,
    /// A member of the in-sync set that was not level for so long is replaced.
    pub lag_max: Duration,
    /// How often in-sync sets are looked at.
    pub keep_interval: Duration,
    /// The longest first pause before a broken stream is opened again.
    pub reconnect_base: Duration,
    /// The longest pause.
    pub reconnect_max: Duration,
}

impl Default for ReplicationOptions {
    fn default() -> Self {
        Self {
            credit_bytes: 8 << 20,
            recent_bytes_max: 32 << 20,
            lag_max: Duration::from_secs(3),
            keep_interval: Duration::from_millis(500),
            reconnect_base: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(2),
        }
    }
}
