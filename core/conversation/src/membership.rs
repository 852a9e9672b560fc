//! Who is a member of a conversation, asked from within the conversation's own slot: what another service calls inside its
//! transaction, so that what it writes and who may write it are decided at one point of the log (I7).

use antiphon_proto::log::{Conversation, Member, Role};
use antiphon_slot::{SlotError, SlotRead, SlotTxn};
use antiphon_types::{ConversationId, UserId};
use bytes::Bytes;

use crate::{
    ConversationError, Rejection,
    adapters::{keys, store},
};

/// The role of `user` in `conversation`, whose slot `txn` is of; none for who is not a member and for a conversation that
/// does not exist alike.
///
/// # Errors
/// [`SlotError`] when the store fails or what is stored cannot be read.
pub async fn role_in(txn: &SlotTxn, conversation: ConversationId, user: UserId) -> Result<Option<Role>, SlotError> {
    role(txn.get(&keys::member(conversation, user)).await?)
}

/// As [`role_in`], in a read.
///
/// # Errors
/// As [`role_in`].
pub async fn role_at(read: &SlotRead, conversation: ConversationId, user: UserId) -> Result<Option<Role>, SlotError> {
    role(read.get(&keys::member(conversation, user)).await?)
}

/// As [`role_in`], refusing who is not a member with the one answer that tells nothing: [`Rejection::NotAMember`].
///
/// # Errors
/// [`ConversationError::Rejected`] for who is not a member and for an unknown conversation; else as [`role_in`].
pub async fn member_in(txn: &SlotTxn, conversation: ConversationId, user: UserId) -> Result<Role, ConversationError> {
    known(role_in(txn, conversation, user).await?, conversation)
}

/// As [`member_in`], in a read.
///
/// # Errors
/// As [`member_in`].
pub async fn member_at(read: &SlotRead, conversation: ConversationId, user: UserId) -> Result<Role, ConversationError> {
    known(role_at(read, conversation, user).await?, conversation)
}

/// How many members `conversation` has; 0 where there is no such conversation.
///
/// # Errors
/// As [`role_in`].
pub async fn count_in(txn: &SlotTxn, conversation: ConversationId) -> Result<u32, SlotError> {
    let stored = txn.get(&keys::conversation(conversation)).await?;
    let conversation: Option<Conversation> = store::decoded("a conversation", stored)?;
    Ok(conversation.map_or(0, |conversation| conversation.member_count))
}

fn role(stored: Option<Bytes>) -> Result<Option<Role>, SlotError> {
    let Some(member) = store::decoded::<Member>("a member", stored)? else {
        return Ok(None);
    };
    Ok(Some(member.role()).filter(|role| *role != Role::None))
}

fn known(role: Option<Role>, conversation: ConversationId) -> Result<Role, ConversationError> {
    role.ok_or_else(|| Rejection::NotAMember { conversation }.into())
}
