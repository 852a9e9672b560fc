//! Keys of conversations; the table is in the crate's documentation.

use antiphon_types::{ConversationId, UserId, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;

/// `(slot, MEMBER, conversation id, user id)`.
pub(crate) fn member(conversation: ConversationId, user: UserId) -> Bytes {
    let (id, user) = (conversation.as_bytes().as_slice(), user.as_bytes().as_slice());
    pack(&(conversation.slot().number(), kind::MEMBER, id, user)).into()
}
