/// Bounds and intervals of a session.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Messages that may wait for their answer; one more is refused with [`crate::OutboxFull`].
    pub outbox_len_max: usize,
    /// Sends of one conversation under way at once. One keeps the order of sending whatever is refused in between; more is
    /// faster over a long way.
    pub in_flight_per_conversation_max: usize,
    /// How long delivered marks are gathered.
    pub ack_interval_ms: u64,
    /// How long the server may push what a resume said is missing before it is fetched.
    pub resume_patience_ms: u64,
    /// Messages of a fetched page.
    pub page_len: u32,
    /// Messages out of order that one conversation keeps.
    pub reorder_len_max: usize,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            outbox_len_max: 1_024,
            in_flight_per_conversation_max: 1,
            ack_interval_ms: 200,
            resume_patience_ms: 1_000,
            page_len: 200,
            reorder_len_max: 256,
        }
    }
}
