use std::time::Duration;

/// Limits of conversations.
#[derive(Debug, Clone)]
pub struct ConversationOptions {
    /// Members of a group.
    pub members_max: u32,
    /// Users that one request may name, creating a group or checking members.
    pub request_users_max: usize,
    /// Bytes that the founding of a group may take of one log entry; below the slot's limit of an entry.
    pub founding_bytes_max: usize,
    /// Members or conversations on one page; also where a request names no limit.
    pub page_len_max: usize,
    /// How long an answer waits for a change to have reached the members' own lists.
    pub carried_timeout: Duration,
}

impl Default for ConversationOptions {
    fn default() -> Self {
        Self {
            members_max: 10_000,
            request_users_max: 256,
            founding_bytes_max: 80_000,
            page_len_max: 500,
            carried_timeout: Duration::from_secs(2),
        }
    }
}
