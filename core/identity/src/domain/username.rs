use antiphon_types::{Slot, UserId, Username};
use sha2::{Digest as _, Sha256};

/// The slot that holds the claim on a username: the first 8 bytes of its SHA-256. Persisted, so the rule never changes.
#[must_use]
pub fn username_slot(username: &Username) -> Slot {
    Slot::of_hash(first_u64(Sha256::digest(username.as_str())))
}

/// The user that stands in for a username that nobody holds, always the same one for the same name.
///
/// Logging in as this user fails as a wrong password does, after the same work and under the same throttle, so a caller that
/// resolved nothing asks for it all the same and learns nothing more by the way that took.
#[must_use]
pub fn decoy_user(username: &Username) -> UserId {
    let part = |name: &str| {
        let hash = Sha256::new().chain_update(name).chain_update(username.as_str());
        first_u64(hash.finalize())
    };
    UserId::new(
        Slot::of_hash(part("decoy slot ")),
        part("decoy time ") >> 16,
        part("decoy "),
    )
}

fn first_u64(hash: impl AsRef<[u8]>) -> u64 {
    hash.as_ref()
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_username_never_changes() {
        // echo -n alice | sha256sum | cut -c1-16
        let hash = 0x2bd8_06c9_7f0e_00af_u64;
        let alice = Username::parse("Alice").unwrap();
        assert_eq!(username_slot(&alice), Slot::of_hash(hash));
    }

    #[test]
    fn a_decoy_is_the_same_for_the_same_name_alone() {
        let [alice, bob] = ["alice", "bobby"].map(|name| Username::parse(name).unwrap());
        assert_eq!(decoy_user(&alice), decoy_user(&alice));
        assert_ne!(decoy_user(&alice), decoy_user(&bob));
    }
}
