use antiphon_proto::log::{AccountClaimed, UsernameClaim, event};
use antiphon_types::{Slot, TimestampMs, UserId, Username};

use super::resolve::holder;
use crate::{
    IdentityError,
    adapters::{keys, random::random_u64, store},
    domain::{Password, username_slot},
    identity::Inner,
};

/// Claims a username for a new user; the account follows through the log of the username's slot. Whoever sends again after an
/// answer was lost finds the name taken, and logs in.
pub(crate) async fn register(
    inner: &Inner,
    username: &str,
    password: String,
    home_region: &str,
) -> Result<UserId, IdentityError> {
    let username = Username::parse(username)?;
    let password = Password::new(password)?;
    // Not the decision, which the write below takes: it saves hashing a password in vain.
    if holder(inner, &username).await?.is_some() {
        return Err(IdentityError::Taken { username });
    }
    let password_hash = inner.hashing.hash(password).await?;
    let now_ms = inner.clock.now_ms();
    let user_id = UserId::new(home_slot(inner, home_region)?, now_ms, random_u64()?);
    claim(inner, username, user_id, password_hash, now_ms).await
}

async fn claim(
    inner: &Inner,
    username: Username,
    user_id: UserId,
    password_hash: String,
    now_ms: TimestampMs,
) -> Result<UserId, IdentityError> {
    let slot = username_slot(&username);
    let written = inner.slots.write(slot, move |txn| {
        let (username, password_hash) = (username.clone(), password_hash.clone());
        async move {
            if txn.get(&keys::username(&username)).await?.is_some() {
                return Err(IdentityError::Taken { username });
            }
            let claim = UsernameClaim {
                user_id: user_id.to_bytes(),
                claimed_at_ms: now_ms,
            };
            store::write(&txn, keys::username(&username), &claim);
            txn.emit(event::Body::AccountClaimed(AccountClaimed {
                user_id: user_id.to_bytes(),
                username: username.as_str().to_owned(),
                password_hash,
                created_at_ms: now_ms,
            }));
            Ok(())
        }
    });
    let index = written.await?.index;
    if !inner.slots.carried(slot, index, inner.options.register_wait).await {
        tracing::warn!(%user_id, "the account of a new user takes its time");
    }
    Ok(user_id)
}

/// A slot at random among those whose home is the user's region; of all slots when that region is home of none: it is being
/// drained, or came back after others took its slots over, and its people register all the same.
fn home_slot(inner: &Inner, home_region: &str) -> Result<Slot, IdentityError> {
    let region = if home_region.is_empty() {
        inner.route.region()
    } else {
        home_region
    };
    let table = inner.route.table().load();
    let mut slots: Vec<Slot> = table.homed_in(region).collect();
    if slots.is_empty() && table.region_named(region).is_some() {
        slots.extend(Slot::all());
    }
    let count = u64::try_from(slots.len()).unwrap_or(u64::MAX);
    let no_slot = || IdentityError::NoSlot {
        region: region.chars().take(64).collect(),
    };
    let at = random_u64()?.checked_rem(count).ok_or_else(no_slot)?;
    usize::try_from(at)
        .ok()
        .and_then(|at| slots.get(at))
        .copied()
        .ok_or_else(no_slot)
}
