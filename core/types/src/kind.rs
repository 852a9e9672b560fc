//! The registry of key kinds: the byte after the slot in every stored key. Stable: a kind is never used again for
//! anything else. One byte when packed (`u16` because the tuple layer packs no `u8`). Each service documents the keys of its kinds in one table of its own.

/// The slot's header.
pub const HEADER: u16 = 0x00;
/// The slot's log.
pub const LOG: u16 = 0x01;
/// Entries that a replica has cut off its log and not proposed again yet.
pub const CUT: u16 = 0x02;
/// What entries above the high watermark have overwritten.
pub const UNDO: u16 = 0x03;

/// identity: username → claim.
pub const USERNAME: u16 = 0x10;
/// identity: accounts.
pub const ACCOUNT: u16 = 0x11;
/// identity: refresh-token families.
pub const REFRESH_FAMILY: u16 = 0x12;
/// identity: the deployment's signing keys (slot 0 only).
pub const SIGNING_KEYS: u16 = 0x13;

/// conversation: conversations.
pub const CONVERSATION: u16 = 0x20;
/// conversation: members of a conversation.
pub const MEMBER: u16 = 0x21;
/// conversation: direct conversations by pair of users.
pub const PAIR: u16 = 0x22;
/// conversation: a user's own list of conversations.
pub const MEMBERSHIP: u16 = 0x23;

/// message: a conversation's tail.
pub const TAIL: u16 = 0x30;
/// message: messages by seq.
pub const MESSAGE: u16 = 0x31;
/// message: idempotency keys.
pub const IDEMPOTENCY: u16 = 0x32;
/// message: delivered and read seq of a member.
pub const INBOX: u16 = 0x33;

/// presence: last known state of a user.
pub const PRESENCE: u16 = 0x40;
