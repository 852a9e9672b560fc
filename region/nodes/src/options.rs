use std::time::Duration;

/// Times of the nodes of a region; the same at every node.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// How often a node counts up in its row and looks at the others'.
    pub heartbeat: Duration,
    /// A node that was not seen to count for so long is dead: its slots are the others'. At least four heartbeats.
    pub dead_after: Duration,
    /// The row of a node that has been dead for so long is removed by whoever sees it.
    pub forget_after: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            dead_after: Duration::from_secs(2),
            forget_after: Duration::from_secs(3_600),
        }
    }
}
