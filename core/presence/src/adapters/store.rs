//! The record of a user as the slot stores it.

use antiphon_proto::log::StoredPresence;
use antiphon_slot::{SlotError, Slots};
use antiphon_types::UserId;
use bytes::Bytes;
use prost::Message as _;

use super::keys;

/// Reads what is stored of a user.
pub(crate) async fn read(slots: &Slots, user: UserId) -> Result<Option<StoredPresence>, SlotError> {
    let key = keys::presence(user);
    let stored = slots.read(user.slot(), |read| {
        let key = key.clone();
        async move { read.get(&key).await }
    });
    stored.await?.map(decode).transpose()
}

/// Stores a user's record in place of the one before.
pub(crate) async fn write(slots: &Slots, user: UserId, record: StoredPresence) -> Result<(), SlotError> {
    let (key, value) = (keys::presence(user), Bytes::from(record.encode_to_vec()));
    let written = slots.write(user.slot(), move |txn| {
        txn.set(key.clone(), value.clone());
        std::future::ready(Ok::<_, SlotError>(()))
    });
    written.await?;
    Ok(())
}

fn decode(value: Bytes) -> Result<StoredPresence, SlotError> {
    StoredPresence::decode(value).map_err(|error| SlotError::Corrupt {
        what: "the presence of a user".to_owned(),
        reason: error.to_string(),
    })
}
