use std::time::Duration;

use antiphon_conversation::ConversationOptions;
use antiphon_delivery::DeliveryOptions;
use antiphon_feed::FeedOptions;
use antiphon_message::MessageOptions;
use antiphon_presence::PresenceOptions;
use antiphon_slot::SlotOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sections::ms;

/// The single writer of each slot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotSection {
    /// Commands that may wait for one slot; one more is refused with `RESOURCE_EXHAUSTED`.
    pub(crate) queue_len_max: usize,
    /// Commands that may wait for all slots of a node; one more is refused with `RESOURCE_EXHAUSTED`. What a node works off in half a second.
    pub(crate) waiting_max: usize,
    /// Commands in one commit.
    pub(crate) batch_len_max: usize,
    /// Bytes of one log entry; the store takes no value above 100,000.
    pub(crate) entry_bytes_max: usize,
    /// How long a write may wait for its answer.
    pub(crate) write_timeout_ms: u64,
    /// Log entries kept below what every cursor has passed.
    pub(crate) log_entries_kept: u64,
    /// Log entries kept for a region that is behind; one further behind takes a copy of the slot.
    pub(crate) log_entries_behind_max: u64,
    /// How long a slot is idle before it writes down cursors that moved since its last commit.
    pub(crate) flush_idle_ms: u64,
    /// How long what is in no hurry (how far devices have come) waits for other commands to be committed with.
    pub(crate) patience_ms: u64,
}

impl Default for SlotSection {
    fn default() -> Self {
        let options = SlotOptions::default();
        Self {
            queue_len_max: options.queue_len_max,
            waiting_max: options.waiting_max,
            batch_len_max: options.batch_len_max,
            entry_bytes_max: options.entry_bytes_max,
            write_timeout_ms: ms(options.write_timeout),
            log_entries_kept: options.log_entries_kept,
            log_entries_behind_max: options.log_entries_behind_max,
            flush_idle_ms: ms(options.flush_idle),
            patience_ms: ms(options.patience),
        }
    }
}

impl From<&SlotSection> for SlotOptions {
    fn from(section: &SlotSection) -> Self {
        Self {
            queue_len_max: section.queue_len_max,
            waiting_max: section.waiting_max,
            batch_len_max: section.batch_len_max,
            entry_bytes_max: section.entry_bytes_max,
            write_timeout: Duration::from_millis(section.write_timeout_ms),
            log_entries_kept: section.log_entries_kept,
            log_entries_behind_max: section.log_entries_behind_max,
            flush_idle: Duration::from_millis(section.flush_idle_ms),
            patience: Duration::from_millis(section.patience_ms),
        }
    }
}

/// Conversations and their members.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConversationSection {
    /// Members of a group.
    pub(crate) members_max: u32,
    /// Users that one request may name.
    pub(crate) request_users_max: usize,
    /// Bytes that the founding of a group may take of one log entry; below `slot.entry_bytes_max`.
    pub(crate) founding_bytes_max: usize,
    /// Members or conversations on one page.
    pub(crate) page_len_max: usize,
    /// How long an answer waits for a change to have reached the members' own lists.
    pub(crate) carried_timeout_ms: u64,
}

impl Default for ConversationSection {
    fn default() -> Self {
        let options = ConversationOptions::default();
        Self {
            members_max: options.members_max,
            request_users_max: options.request_users_max,
            founding_bytes_max: options.founding_bytes_max,
            page_len_max: options.page_len_max,
            carried_timeout_ms: ms(options.carried_timeout),
        }
    }
}

impl From<&ConversationSection> for ConversationOptions {
    fn from(section: &ConversationSection) -> Self {
        Self {
            members_max: section.members_max,
            request_users_max: section.request_users_max,
            founding_bytes_max: section.founding_bytes_max,
            page_len_max: section.page_len_max,
            carried_timeout: Duration::from_millis(section.carried_timeout_ms),
        }
    }
}

/// Messages and their history.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageSection {
    /// Bytes of a message's text.
    pub(crate) text_bytes_max: usize,
    /// Members of a conversation up to which each is told how far the others are. In a larger one a member's own devices are told what
    /// it has read.
    pub(crate) receipts_members_max: u32,
    /// Messages of a page when the caller names no limit.
    pub(crate) page_len_default: usize,
    /// Messages of a page at the most.
    pub(crate) page_len_max: usize,
    /// Bytes of text of a page at the most; a page holds at least one message.
    pub(crate) page_bytes_max: usize,
}

impl Default for MessageSection {
    fn default() -> Self {
        let options = MessageOptions::default();
        Self {
            text_bytes_max: options.text_bytes_max,
            receipts_members_max: options.receipts_members_max,
            page_len_default: options.page_len_default,
            page_len_max: options.page_len_max,
            page_bytes_max: options.page_bytes_max,
        }
    }
}

impl From<&MessageSection> for MessageOptions {
    fn from(section: &MessageSection) -> Self {
        Self {
            text_bytes_max: section.text_bytes_max,
            receipts_members_max: section.receipts_members_max,
            page_len_default: section.page_len_default,
            page_len_max: section.page_len_max,
            page_bytes_max: section.page_bytes_max,
        }
    }
}

/// The delivery tree: what may wait at the home for a region's worker, and at the worker for an edge.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliverySection {
    /// Items that may wait for one follower; what finds no room is marked, and fetched by whoever needs it.
    pub(crate) queue_len_max: usize,
    /// Bytes of frames that may wait for one follower.
    pub(crate) queue_bytes_max: usize,
    /// Changes of membership and revoked logins that may wait beyond that; they are never left out.
    pub(crate) reserve_len_max: usize,
    /// Items in one batch.
    pub(crate) batch_len_max: usize,
    /// Conversations and users that one follower follows.
    pub(crate) topics_per_follower_max: usize,
    /// The longest first pause before a broken link to a home is tried again; each pause is up to twice the one before.
    pub(crate) reconnect_base_ms: u64,
    /// The longest pause before a broken link to a home is tried again.
    pub(crate) reconnect_max_ms: u64,
}

impl Default for DeliverySection {
    fn default() -> Self {
        let options = DeliveryOptions::default();
        Self {
            queue_len_max: options.feed.queue_len_max,
            queue_bytes_max: options.feed.queue_bytes_max,
            reserve_len_max: options.feed.reserve_len_max,
            batch_len_max: options.feed.batch_len_max,
            topics_per_follower_max: options.feed.topics_per_subscriber_max,
            reconnect_base_ms: options.reconnect_base_ms,
            reconnect_max_ms: options.reconnect_max_ms,
        }
    }
}

impl From<&DeliverySection> for FeedOptions {
    fn from(section: &DeliverySection) -> Self {
        Self {
            queue_len_max: section.queue_len_max,
            queue_bytes_max: section.queue_bytes_max,
            reserve_len_max: section.reserve_len_max,
            batch_len_max: section.batch_len_max,
            topics_per_subscriber_max: section.topics_per_follower_max,
        }
    }
}

impl From<&DeliverySection> for DeliveryOptions {
    fn from(section: &DeliverySection) -> Self {
        Self {
            feed: section.into(),
            reconnect_base_ms: section.reconnect_base_ms,
            reconnect_max_ms: section.reconnect_max_ms,
        }
    }
}

/// Who is online.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PresenceSection {
    /// How long a user stays online after the last session went.
    pub(crate) grace_ms: u64,
    /// How long a session counts after its edge reported it; longer than `edge.presence_interval_ms`.
    pub(crate) lease_ms: u64,
    /// How long the sessions known before a restart count unless they are reported again.
    pub(crate) restored_ms: u64,
    /// How long a change waits to be written down together with those after it.
    pub(crate) write_pause_ms: u64,
    /// Sessions of one user that are told apart.
    pub(crate) sessions_max: usize,
}

impl Default for PresenceSection {
    fn default() -> Self {
        let options = PresenceOptions::default();
        Self {
            grace_ms: options.grace_ms,
            lease_ms: options.lease_ms,
            restored_ms: options.restored_ms,
            write_pause_ms: options.write_pause_ms,
            sessions_max: options.sessions_max,
        }
    }
}

impl From<&PresenceSection> for PresenceOptions {
    fn from(section: &PresenceSection) -> Self {
        Self {
            grace_ms: section.grace_ms,
            lease_ms: section.lease_ms,
            restored_ms: section.restored_ms,
            write_pause_ms: section.write_pause_ms,
            sessions_max: section.sessions_max,
            ..Self::default()
        }
    }
}
