use proptest::prelude::*;

use super::*;

const POLICY: FamilyPolicy = FamilyPolicy {
    ttl_ms: 1_000,
    reuse_grace_ms: 0,
    families_max: 3,
};

fn hash(number: usize) -> TokenHash {
    TokenHash::from_bytes(&Sha256::digest(number.to_be_bytes())).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn family(name: &str, at_ms: TimestampMs) -> (FamilyId, Family) {
    let id = FamilyId::of_secret(&Sha256::digest(name)[..16].try_into().unwrap());
    (id, Family::open(device(name), hash(0), at_ms, POLICY))
}

/// Which of the tokens issued so far is presented, and how much later.
fn uses() -> impl Strategy<Value = Vec<(prop::sample::Index, bool, u64)>> {
    prop::collection::vec(
        (any::<prop::sample::Index>(), prop::bool::weighted(0.7), 0..400_u64),
        1..40,
    )
}

proptest! {
    /// Any sequence of uses of any old and new tokens: only the newest ever works, and any reuse ends the family for good.
    #[test]
    fn only_the_newest_token_works_and_any_reuse_ends_the_family(uses in uses()) {
        let mut state = Some(Family::open(device("d"), hash(0), 0, POLICY));
        let (mut issued, mut now_ms, mut last_use_ms) = (1, 0, 0);
        for (pick, newest, pause_ms) in uses {
            now_ms += pause_ms;
            let presented = if newest { issued - 1 } else { pick.index(issued) };
            let Some(before) = state.take() else { continue };
            match refresh(&before, hash(presented), hash(issued), now_ms, POLICY) {
                Refreshed::Rotated(after) => {
                    prop_assert_eq!(presented, issued - 1);
                    prop_assert!(now_ms - last_use_ms < POLICY.ttl_ms);
                    prop_assert_eq!(after.generation, before.generation + 1);
                    prop_assert_eq!(after.current, hash(issued));
                    prop_assert_eq!(&after.device_id, &before.device_id);
                    state = Some(after);
                    issued += 1;
                    last_use_ms = now_ms;
                }
                Refreshed::Reused => prop_assert_ne!(presented, issued - 1),
                Refreshed::Expired => prop_assert!(now_ms - last_use_ms >= POLICY.ttl_ms),
            }
        }
    }

    /// With a grace, too, at most one token is current, and none but the current and the one before it is ever taken.
    #[test]
    fn a_grace_takes_the_last_spent_token_alone_and_not_for_longer(uses in uses()) {
        let policy = FamilyPolicy { reuse_grace_ms: 100, ttl_ms: 1 << 40, ..POLICY };
        let mut family = Family::open(device("d"), hash(0), 0, policy);
        let (mut issued, mut now_ms) = (1, 0);
        let mut spent: Option<(usize, u64)> = None;
        let mut current = 0;
        for (pick, newest, pause_ms) in uses {
            now_ms += pause_ms;
            let presented = if newest { current } else { pick.index(issued) };
            let in_grace = spent.is_some_and(|(token, at_ms)| token == presented && now_ms < at_ms + 100);
            match refresh(&family, hash(presented), hash(issued), now_ms, policy) {
                Refreshed::Rotated(after) => {
                    prop_assert!(presented == current || in_grace);
                    if presented == current {
                        spent = Some((presented, now_ms));
                    }
                    (family, current, issued) = (after, issued, issued + 1);
                }
                Refreshed::Reused => {
                    prop_assert!(presented != current && !in_grace);
                    break;
                }
                Refreshed::Expired => prop_assert!(false, "nothing expires here"),
            }
        }
    }

    #[test]
    fn a_user_never_has_more_families_than_the_bound_nor_two_of_one_device(
        log_ins in prop::collection::vec((0..6_u8, 0..400_u64), 1..40),
    ) {
        let mut families: Vec<(FamilyId, Family)> = Vec::new();
        let mut now_ms = 0;
        for (at, (number, pause_ms)) in log_ins.into_iter().enumerate() {
            now_ms += pause_ms;
            let name = format!("device-{number}");
            let ended = ends_at_log_in(&families, &device(&name), now_ms, POLICY);
            families.retain(|(id, _)| ended.iter().all(|ended| ended.family_id != *id));
            let id = FamilyId::of_secret(&[u8::try_from(at).unwrap(); 16]);
            families.push((id, Family::open(device(&name), hash(at), now_ms, POLICY)));

            prop_assert!(families.len() <= POLICY.families_max);
            let mut devices: Vec<_> = families.iter().map(|(_, family)| family.device_id.clone()).collect();
            devices.sort();
            devices.dedup();
            prop_assert_eq!(devices.len(), families.len());
        }
    }
}

#[test]
fn the_family_that_was_idle_longest_goes_first() {
    let families = [family("b", 20), family("a", 10), family("c", 30)];
    let ended = ends_at_log_in(&families, &device("new"), 40, POLICY);
    assert_eq!(ended, [end(&families[1], Some(EndReason::TooMany))]);
}

#[test]
fn an_expired_family_ends_without_a_word() {
    let families = [family("a", 0)];
    let ended = ends_at_log_in(&families, &device("a"), POLICY.ttl_ms, POLICY);
    assert_eq!(ended, [end(&families[0], None)]);
}

#[test]
fn a_spent_token_is_refused_at_once_unless_a_grace_is_configured() {
    let family = Family::open(device("d"), hash(0), 0, POLICY);
    let Refreshed::Rotated(family) = refresh(&family, hash(0), hash(1), 5, POLICY) else {
        panic!()
    };
    assert_eq!(refresh(&family, hash(0), hash(2), 5, POLICY), Refreshed::Reused);
    assert_eq!(family.previous, None);
}
