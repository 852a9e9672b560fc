use std::fmt;

use antiphon_types::{DeviceId, TimestampMs};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{FamilySecret, TokenHash};

/// Names a refresh-token family: one log-in of one device. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId([u8; 16]);

impl FamilyId {
    /// The family whose tokens share `secret`.
    pub(crate) fn of_secret(secret: &FamilySecret) -> Self {
        let mut id = [0; 16];
        for (byte, hashed) in id.iter_mut().zip(Sha256::digest(secret)) {
            *byte = hashed;
        }
        Self(id)
    }

    /// Reads the 16-byte form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads the text form, 32 characters of lower-case hex.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?)
    }

    /// The 16-byte form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A live family. One that ended is cleared, so that none of its tokens finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) device_id: DeviceId,
    /// Of the one token that is valid now.
    pub(crate) current: TokenHash,
    /// Of the token that was spent last, where a grace is configured.
    pub(crate) previous: Option<TokenHash>,
    /// How often it was refreshed.
    pub(crate) generation: u64,
    pub(crate) created_at_ms: TimestampMs,
    pub(crate) rotated_at_ms: TimestampMs,
    /// Moves on with each refresh.
    pub(crate) expires_at_ms: TimestampMs,
}

/// What bounds families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FamilyPolicy {
    /// How long a token may lie unused.
    pub(crate) ttl_ms: u64,
    /// For how long after a refresh the token it spent is taken once more as the retry of a lost answer; 0: never.
    pub(crate) reuse_grace_ms: u64,
    /// Families of one user.
    pub(crate) families_max: usize,
}

/// Why a family ended; the words that its sessions are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    LoggedOut,
    Reused,
    TooMany,
}

impl EndReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged out",
            Self::Reused => "refresh token reused",
            Self::TooMany => "logged in on too many devices",
        }
    }
}

/// A family that ends; without a reason when no session is to be told: it had expired, or its device has a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) family_id: FamilyId,
    pub(crate) device_id: DeviceId,
    pub(crate) reason: Option<EndReason>,
}

/// What presenting a token does to its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The family with the next token.
    Rotated(Family),
    /// The token was spent before: two hold the family's tokens, and one of them stole them. The family ends.
    Reused,
    /// The token lay unused for too long. The family ends.
    Expired,
}

impl Family {
    /// A new log-in.
    pub(crate) const fn open(device_id: DeviceId, token: TokenHash, now_ms: TimestampMs, policy: FamilyPolicy) -> Self {
        Self {
            device_id,
            current: token,
            previous: None,
            generation: 0,
            created_at_ms: now_ms,
            rotated_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(policy.ttl_ms),
        }
    }

    const fn is_expired(&self, now_ms: TimestampMs) -> bool {
        now_ms >= self.expires_at_ms
    }
}

/// Spends `presented` for `next`. Whoever presents a token of the family that is not the current one holds a spent one: the
/// family is found by a secret that its tokens alone carry.
pub(crate) fn refresh(
    family: &Family,
    presented: TokenHash,
    next: TokenHash,
    now_ms: TimestampMs,
    policy: FamilyPolicy,
) -> Refreshed {
    if family.is_expired(now_ms) {
        return Refreshed::Expired;
    }
    let grace_ends_ms = family.rotated_at_ms.saturating_add(policy.reuse_grace_ms);
    let is_retry = now_ms < grace_ends_ms && family.previous == Some(presented);
    if family.current != presented && !is_retry {
        return Refreshed::Reused;
    }
    Refreshed::Rotated(Family {
        current: next,
        // A retry does not lengthen its own grace, and the answer it replaces is spent.
        previous: (policy.reuse_grace_ms > 0).then_some(presented),
        rotated_at_ms: if is_retry { family.rotated_at_ms } else { now_ms },
        generation: family.generation + 1,
        expires_at_ms: now_ms.saturating_add(policy.ttl_ms),
        ..family.clone()
    })
}

/// The families that end when `device_id` logs in: those that expired, the device's own, and the oldest over the bound.
pub(crate) fn ends_at_log_in(
    families: &[(FamilyId, Family)],
    device_id: &DeviceId,
    now_ms: TimestampMs,
    policy: FamilyPolicy,
) -> Vec<Ended> {
    let mut ended = Vec::new();
    let mut kept = Vec::new();
    for entry in families {
        // Who logs in again is still the same device: its live session goes on, and takes the new token by reauth.
        if entry.1.is_expired(now_ms) || entry.1.device_id == *device_id {
            ended.push(end(entry, None));
        } else {
            kept.push(entry);
        }
    }
    kept.sort_by_key(|(_, family)| family.rotated_at_ms);
    let over = (kept.len() + 1).saturating_sub(policy.families_max.max(1));
    ended.extend(kept.iter().take(over).map(|entry| end(entry, Some(EndReason::TooMany))));
    ended
}

fn end((family_id, family): &(FamilyId, Family), reason: Option<EndReason>) -> Ended {
    Ended {
        family_id: *family_id,
        device_id: family.device_id.clone(),
        reason,
    }
}

#[cfg(test)]
#[path = "family_tests.rs"]
mod tests;
