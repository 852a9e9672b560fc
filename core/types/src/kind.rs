//! The registry of key kinds: the byte after the slot in every stored key. Stable: a kind is never used again for
//! anything else. Each service documents the keys of its kinds in one table of its own.

/// The slot's header.
pub const HEADER: u8 = 0x00;
/// The slot's log.
pub const LOG: u8 = 0x01;

/// identity: username → claim.
pub const USERNAME: u8 = 0x10;
/// identity: accounts.
pub const ACCOUNT: u8 = 0x11;
/// identity: refresh-token families.
pub const REFRESH_FAMILY: u8 = 0x12;
/// identity: the deployment's signing keys (slot 0 only).
pub const SIGNING_KEYS: u8 = 0x13;

/// conversation: conversations.
pub const CONVERSATION: u8 = 0x20;
/// conversation: members of a conversation.
pub const MEMBER: u8 = 0x21;
/// conversation: direct conversations by pair of users.
pub const PAIR: u8 = 0x22;
/// conversation: a user's own list of conversations.
pub const MEMBERSHIP: u8 = 0x23;

/// message: a conversation's tail.
pub const TAIL: u8 = 0x30;
/// message: messages by seq.
pub const MESSAGE: u8 = 0x31;
/// message: idempotency keys.
pub const IDEMPOTENCY: u8 = 0x32;
/// message: delivered and read seq of a member.
pub const INBOX: u8 = 0x33;

/// presence: last known state of a user.
pub const PRESENCE: u8 = 0x40;
