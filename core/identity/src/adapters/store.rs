//! The values of identity, and what is read and written of them within a slot.

use antiphon_kv::RangeRead;
use antiphon_proto::log::{self, event};
use antiphon_slot::{SlotError, SlotTxn};
use antiphon_types::{DeviceId, UserId};
use bytes::Bytes;
use prost::Message;

use super::keys;
use crate::domain::{Ended, Family, FamilyId, SigningKey, SigningKeys, TokenHash};

/// Families read at once.
const PAGE_LEN: usize = 128;

/// Reads a stored message.
pub(crate) fn read<M: Message + Default>(what: &str, value: Option<Bytes>) -> Result<Option<M>, SlotError> {
    value
        .map(|value| M::decode(value).map_err(|error| corrupt(what, &error)))
        .transpose()
}

pub(crate) fn write(txn: &SlotTxn, key: Bytes, value: &impl Message) {
    txn.set(key, value.encode_to_vec());
}

/// Reads the user id of a stored record.
pub(crate) fn read_user_id(what: &str, bytes: &[u8]) -> Result<UserId, SlotError> {
    UserId::from_bytes(bytes).map_err(|error| corrupt(what, &error))
}

pub(crate) async fn family(txn: &SlotTxn, user_id: UserId, family_id: FamilyId) -> Result<Option<Family>, SlotError> {
    let stored = txn.get(&keys::family(user_id, family_id)).await?;
    read("a refresh family", stored)?
        .map(|stored| read_family(&stored))
        .transpose()
}

/// Every family of a user.
pub(crate) async fn families(txn: &SlotTxn, user_id: UserId) -> Result<Vec<(FamilyId, Family)>, SlotError> {
    let (mut start, end) = keys::families(user_id);
    let mut families = Vec::new();
    loop {
        let range = RangeRead {
            start,
            end: end.clone(),
            limit: PAGE_LEN,
            reverse: false,
        };
        let page = txn.range(range).await?;
        for pair in &page.pairs {
            let (_, family_id) =
                keys::read_family(&pair.key).ok_or_else(|| corrupt("the key of a refresh family", &"its form"))?;
            let stored =
                log::RefreshFamily::decode(pair.value.clone()).map_err(|error| corrupt("a refresh family", &error))?;
            families.push((family_id, read_family(&stored)?));
        }
        match page.next_start() {
            Some(next) => start = next,
            None => return Ok(families),
        }
    }
}

pub(crate) fn set_family(txn: &SlotTxn, user_id: UserId, family_id: FamilyId, family: &Family) {
    let stored = log::RefreshFamily {
        device_id: family.device_id.as_str().to_owned(),
        current_token_hash: Bytes::copy_from_slice(family.current.as_bytes()),
        previous_token_hash: family
            .previous
            .map(|hash| Bytes::copy_from_slice(hash.as_bytes()))
            .unwrap_or_default(),
        generation: family.generation,
        created_at_ms: family.created_at_ms,
        rotated_at_ms: family.rotated_at_ms,
        expires_at_ms: family.expires_at_ms,
        // A family that ended is cleared.
        revoked_at_ms: 0,
    };
    write(txn, keys::family(user_id, family_id), &stored);
}

/// Clears a family that ended and tells its sessions why.
pub(crate) fn end_family(txn: &SlotTxn, user_id: UserId, ended: &Ended) {
    txn.clear(keys::family(user_id, ended.family_id));
    let Some(reason) = ended.reason else { return };
    txn.emit(event::Body::FamilyRevoked(log::FamilyRevoked {
        user_id: user_id.to_bytes(),
        device_id: ended.device_id.as_str().to_owned(),
        family_id: Bytes::copy_from_slice(ended.family_id.as_bytes()),
        reason: reason.as_str().to_owned(),
    }));
}

/// Reads the signing keys; none when there are none yet.
pub(crate) fn read_signing_keys(value: Option<Bytes>) -> Result<SigningKeys, SlotError> {
    signing_keys(&read("the signing keys", value)?.unwrap_or_default())
}

/// The signing keys of their stored form.
pub(crate) fn signing_keys(stored: &log::SigningKeys) -> Result<SigningKeys, SlotError> {
    let keys = stored.keys.iter().map(|key| {
        SigningKey::read(&key.pkcs8, key.created_at_ms, key.active_from_ms, key.expires_at_ms)
            .map_err(|error| corrupt(&format!("the signing key {}", key.kid), &error))
    });
    Ok(SigningKeys::new(keys.collect::<Result<_, _>>()?))
}

/// The signing keys in their stored form.
pub(crate) fn stored_signing_keys(keys: &SigningKeys) -> log::SigningKeys {
    let stored = keys.iter().map(|key| {
        let (created_at_ms, active_from_ms, expires_at_ms) = key.times_ms();
        log::SigningKey {
            kid: key.kid().to_owned(),
            pkcs8: Bytes::copy_from_slice(key.pkcs8()),
            created_at_ms,
            active_from_ms,
            expires_at_ms,
        }
    });
    log::SigningKeys { keys: stored.collect() }
}

pub(crate) fn set_signing_keys(txn: &SlotTxn, keys: &SigningKeys) {
    write(txn, keys::signing_keys(), &stored_signing_keys(keys));
}

fn read_family(stored: &log::RefreshFamily) -> Result<Family, SlotError> {
    let device_id = DeviceId::parse(&stored.device_id).map_err(|error| corrupt("a refresh family", &error))?;
    let current = TokenHash::from_bytes(&stored.current_token_hash);
    Ok(Family {
        device_id,
        current: current.ok_or_else(|| corrupt("a refresh family", &"its token hash has not 32 bytes"))?,
        previous: TokenHash::from_bytes(&stored.previous_token_hash),
        generation: stored.generation,
        created_at_ms: stored.created_at_ms,
        rotated_at_ms: stored.rotated_at_ms,
        expires_at_ms: stored.expires_at_ms,
    })
}

fn corrupt(what: &str, reason: &impl ToString) -> SlotError {
    SlotError::Corrupt {
        what: what.to_owned(),
        reason: reason.to_string(),
    }
}
