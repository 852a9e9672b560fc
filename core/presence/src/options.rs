use std::time::Duration;

/// Times and bounds of presence.
#[derive(Debug, Clone)]
pub struct PresenceOptions {
    /// How long a user stays online after the last session went.
    pub grace_ms: u64,
    /// How long a session lives after it was reported; edges report it again after half of that.
    pub lease_ms: u64,
    /// How long the sessions known before a restart of this node live unless they are reported again; above half of the lease.
    pub restored_ms: u64,
    /// How long a change waits to be written down together with those after it; also the pause between two writes of a user.
    pub write_pause_ms: u64,
    /// How old the written last seen of an online user may grow.
    pub rewrite_ms: u64,
    /// Users that are written at once.
    pub writes_concurrent_max: usize,
    /// Sessions of one user; beyond it a new one takes the place of the one that was reported least recently.
    pub sessions_max: usize,
    /// How often it is looked for what has expired.
    pub sweep_interval: Duration,
    /// How long closing may take to write down what is not written yet.
    pub close_timeout: Duration,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self {
            grace_ms: 30_000,
            lease_ms: 90_000,
            restored_ms: 60_000,
            write_pause_ms: 5_000,
            rewrite_ms: 15 * 60_000,
            writes_concurrent_max: 64,
            sessions_max: 64,
            sweep_interval: Duration::from_millis(500),
            close_timeout: Duration::from_secs(5),
        }
    }
}
