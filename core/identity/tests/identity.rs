//! Identity over real slots and the embedded store, through its RPCs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

mod world;

use std::collections::HashSet;

use antiphon_identity::{IdentityOptions, PasswordHashing, decoy_user, refresh_token_user};
use antiphon_proto::{log::AccountClaimed, rpc::CreateAccountRequest};
use antiphon_types::{Slot, UserId, Username};
use data_encoding::BASE64URL_NOPAD;
use futures_util::future::join_all;
use world::{PASSWORD, START_MS, World, code, options};

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_who_register_one_name_one_gets_it() {
    let world = World::new().await;
    let names = (0..20).map(|number| if number % 2 == 0 { "alice" } else { "ALICE" });
    let answers = join_all(names.map(|name| world.register(name, PASSWORD))).await;

    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for (code, message, _) in lost.into_iter().map(Result::unwrap_err) {
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("ALREADY_EXISTS", "the username alice is taken")
        );
    }
    let user_id = won.into_iter().next().unwrap().unwrap();
    assert_eq!(world.resolve("Alice").await, Ok(user_id));
    assert_eq!(world.username_of(user_id).await, Ok("alice".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_registered_can_log_in_at_once_and_after_a_restart() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let tokens = world.log_in(user_id, "phone").await;
    assert_eq!((tokens.expires_in_s, tokens.user_id), (900, user_id.to_bytes()));
    let claims = world.verifier().await.verify(&tokens.access_token, START_MS).unwrap();
    assert_eq!((claims.user_id, claims.device_id.as_str()), (user_id, "phone"));
    assert_eq!(claims.expires_at_ms, START_MS + 900_000);

    let world = world.restarted().await;
    assert!(
        world.verifier().await.verify(&tokens.access_token, START_MS).is_ok(),
        "the keys survive"
    );
    world.refresh(&tokens.refresh_token).await.unwrap();
    world.log_in(user_id, "tablet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_user_are_the_same_answer() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let nobody = decoy_user(&Username::parse("nobody").unwrap());
    let wrong = world.log_in_with(user_id, "wrong horse", "phone").await.unwrap_err();
    let unknown = world.log_in_with(nobody, PASSWORD, "phone").await.unwrap_err();
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.0, "UNAUTHENTICATED");
    let long = "x".repeat(513);
    assert_eq!(world.log_in_with(user_id, &long, "phone").await.unwrap_err(), wrong);
    assert_eq!(world.log_in_with(nobody, &long, "phone").await.unwrap_err(), wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_name_and_has_no_account_yet_is_not_told_that_the_password_is_wrong() {
    let world = World::new().await;
    let pending = decoy_user(&Username::parse("pending").unwrap());
    assert_eq!(
        code(world.log_in_as(pending, true, PASSWORD, "phone").await),
        "UNAVAILABLE"
    );
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    world.log_in_as(user_id, true, PASSWORD, "phone").await.unwrap();
    let wrong = world.log_in_as(user_id, true, "wrong horse", "phone").await;
    assert_eq!(code(wrong), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_is_refused_by_name() {
    let world = World::new().await;
    for (username, password) in [
        ("a", PASSWORD),
        ("alice", "short"),
        ("alice", &"x".repeat(129)),
        ("ali ce", PASSWORD),
    ] {
        assert_eq!(
            code(world.register(username, password).await),
            "INVALID_ARGUMENT",
            "{username}"
        );
    }
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    assert_eq!(code(world.log_in_with(user_id, PASSWORD, "").await), "INVALID_ARGUMENT");
    assert_eq!(code(world.resolve("nobody").await), "NOT_FOUND");
    let nobody = UserId::new(Slot::DEPLOYMENT, 1, 1);
    assert_eq!(code(world.username_of(nobody).await), "NOT_FOUND");
    for token in ["", "rt_", "rt_!", "x", &"rt_".repeat(40)] {
        assert_eq!(code(world.refresh(token).await), "UNAUTHENTICATED");
        assert_eq!(code(world.log_out(token).await), "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_in_the_region_asked_for() {
    let world = World::new().await;
    world.register_in("alice", PASSWORD, "here").await.unwrap();
    assert_eq!(
        code(world.register_in("bobby", PASSWORD, "nowhere").await),
        "UNAVAILABLE"
    );
    assert_eq!(code(world.resolve("bobby").await), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_carried_twice_leaves_the_account_as_it_is() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let claim = AccountClaimed {
        user_id: user_id.to_bytes(),
        username: "mallory".to_owned(),
        password_hash: "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        created_at_ms: 1,
    };
    let request = CreateAccountRequest { claim: Some(claim) };
    world.client(user_id.slot()).create_account(request).await.unwrap();
    assert_eq!(world.username_of(user_id).await, Ok("alice".to_owned()));
    world.log_in(user_id, "phone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_refresh_token_revokes_its_family_and_no_other() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let other = world.log_in(user_id, "tablet").await;
    let first = world.log_in(user_id, "phone").await;
    let family_id = world
        .verifier()
        .await
        .verify(&first.access_token, START_MS)
        .unwrap()
        .family_id;
    let second = world.refresh(&first.refresh_token).await.unwrap();
    let third = world.refresh(&second.refresh_token).await.unwrap();
    assert_eq!(refresh_token_user(&third.refresh_token), Some(user_id));
    assert_eq!(world.revoked(user_id).await, []);

    assert_eq!(code(world.refresh(&first.refresh_token).await), "UNAUTHENTICATED");
    assert_eq!(
        world.revoked(user_id).await,
        [("phone".to_owned(), "refresh token reused".to_owned())]
    );
    assert_eq!(
        world.revoked_families(user_id).await[0].family_id.as_ref(),
        family_id.as_bytes()
    );
    for token in [&first, &second, &third] {
        assert_eq!(code(world.refresh(&token.refresh_token).await), "UNAUTHENTICATED");
    }
    assert_eq!(world.revoked(user_id).await.len(), 1, "a family ends once");
    world.refresh(&other.refresh_token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_who_use_one_refresh_token_one_wins_and_the_family_ends() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let tokens = world.log_in(user_id, "phone").await;
    let answers = join_all((0..20).map(|_| world.refresh(&tokens.refresh_token))).await;
    let won: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(world.revoked(user_id).await.len(), 1);
    assert_eq!(code(world.refresh(&won[0].refresh_token).await), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_a_family_by_an_access_token_cannot_end_it() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let tokens = world.log_in(user_id, "phone").await;
    let family_id = world
        .verifier()
        .await
        .verify(&tokens.access_token, START_MS)
        .unwrap()
        .family_id;
    let forged = [user_id.as_bytes().as_slice(), family_id.as_bytes(), &[7; 32]].concat();
    let forged = format!("rt_{}", BASE64URL_NOPAD.encode(&forged));
    assert_eq!(refresh_token_user(&forged), Some(user_id));

    assert_eq!(code(world.refresh(&forged).await), "UNAUTHENTICATED");
    world.log_out(&forged).await.unwrap();
    assert_eq!(world.revoked(user_id).await, []);
    world.refresh(&tokens.refresh_token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_lives_thirty_days_from_its_last_use() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let tokens = world.log_in(user_id, "phone").await;
    world.clock.advance(30 * 24 * HOUR_MS - 1);
    let tokens = world.refresh(&tokens.refresh_token).await.unwrap();
    world.clock.advance(30 * 24 * HOUR_MS);
    assert_eq!(code(world.refresh(&tokens.refresh_token).await), "UNAUTHENTICATED");
    assert_eq!(world.revoked(user_id).await, [], "nobody is to be told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_retried_where_a_grace_is_configured() {
    let grace = IdentityOptions {
        refresh_reuse_grace: std::time::Duration::from_secs(10),
        ..options()
    };
    let world = World::with(grace).await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let first = world.log_in(user_id, "phone").await;
    let lost = world.refresh(&first.refresh_token).await.unwrap();
    let retried = world.refresh(&first.refresh_token).await.unwrap();
    world.clock.advance(10_000);
    let next = world.refresh(&retried.refresh_token).await.unwrap();
    assert_eq!(code(world.refresh(&lost.refresh_token).await), "UNAUTHENTICATED");
    assert_eq!(code(world.refresh(&next.refresh_token).await), "UNAUTHENTICATED");
    assert_eq!(world.revoked(user_id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_the_family_once_however_often_it_is_asked_for() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let first = world.log_in(user_id, "phone").await;
    let tokens = world.refresh(&first.refresh_token).await.unwrap();
    for _ in 0..3 {
        world.log_out(&tokens.refresh_token).await.unwrap();
    }
    assert_eq!(
        world.revoked(user_id).await,
        [("phone".to_owned(), "logged out".to_owned())]
    );
    assert_eq!(code(world.refresh(&tokens.refresh_token).await), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_one_log_in_and_a_user_so_many_devices() {
    let world = World::with(IdentityOptions {
        families_per_user_max: 2,
        ..options()
    })
    .await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let phone_before = world.log_in(user_id, "phone").await;
    let phone = world.log_in(user_id, "phone").await;
    // No session is told: the one that the phone has goes on.
    assert_eq!(world.revoked(user_id).await, []);
    assert_eq!(
        code(world.refresh(&phone_before.refresh_token).await),
        "UNAUTHENTICATED"
    );

    world.clock.advance(1);
    let tablet = world.log_in(user_id, "tablet").await;
    world.clock.advance(1);
    let laptop = world.log_in(user_id, "laptop").await;
    assert_eq!(
        world.revoked(user_id).await,
        [("phone".to_owned(), "logged in on too many devices".to_owned())]
    );
    assert_eq!(code(world.refresh(&phone.refresh_token).await), "UNAUTHENTICATED");
    world.refresh(&tablet.refresh_token).await.unwrap();
    world.refresh(&laptop.refresh_token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_for_every_name_alike() {
    let world = World::with(IdentityOptions {
        log_in_burst: 3,
        ..options()
    })
    .await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let nobody = decoy_user(&Username::parse("nobody").unwrap());
    for user_id in [user_id, nobody] {
        let guesses = join_all((0..10).map(|_| world.log_in_with(user_id, "wrong horse", "phone"))).await;
        let codes: Vec<_> = guesses.into_iter().map(code).collect();
        assert_eq!(
            codes.iter().filter(|code| *code == "UNAUTHENTICATED").count(),
            3,
            "{codes:?}"
        );
        assert_eq!(
            codes.iter().filter(|code| *code == "RATE_LIMITED").count(),
            7,
            "{codes:?}"
        );
    }
    let (code, _, retry_after_ms) = world.log_in_with(user_id, PASSWORD, "phone").await.unwrap_err();
    assert_eq!((code.as_str(), retry_after_ms), ("RATE_LIMITED", Some(30_000)));
    world.clock.advance(30_000);
    for _ in 0..5 {
        world.log_in(user_id, "phone").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_over_the_bound_are_refused_with_a_pause_and_do_not_count_as_guesses() {
    let hashing = PasswordHashing {
        memory_kib: 32 * 1_024,
        iterations: 2,
        running_max: 1,
        waiting_max: 1,
        parallelism: 1,
    };
    let world = World::with(IdentityOptions {
        password_hashing: hashing,
        log_in_burst: 12,
        ..options()
    })
    .await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let (mut guesses, mut refusals) = (0, 0);
    while guesses + 4 <= 12 {
        let log_ins = join_all((0..4).map(|_| world.log_in_with(user_id, "wrong horse", "phone"))).await;
        for (code, message, retry_after_ms) in log_ins.into_iter().map(Result::unwrap_err) {
            match (code.as_str(), retry_after_ms) {
                ("UNAUTHENTICATED", None) => guesses += 1,
                ("RESOURCE_EXHAUSTED", Some(100)) => refusals += 1,
                _ => panic!("{code} after {guesses} guesses: {message}"),
            }
        }
    }
    assert!(refusals > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_published_first_signs_later_and_leaves_the_old_tokens_valid() {
    let world = World::new().await;
    let user_id = world.register("alice", PASSWORD).await.unwrap();
    let kid_of = |token: &str| {
        let head = BASE64URL_NOPAD
            .decode(token.split('.').next().unwrap().as_bytes())
            .unwrap();
        String::from_utf8(head).unwrap()
    };
    let before = world.log_in(user_id, "phone").await;
    let kid = world.rotate_keys().await;
    assert_eq!(world.rotate_keys().await, kid, "one new key at a time");
    let verifier = world.verifier().await;
    assert!(
        world.jwks().await.contains(&kid) && !world.jwks().await.contains("\"d\""),
        "public keys alone"
    );

    let meanwhile = world.log_in(user_id, "tablet").await;
    assert!(!kid_of(&meanwhile.access_token).contains(&kid));
    world.clock.advance(300_000);
    let after = world.log_in(user_id, "laptop").await;
    assert!(kid_of(&after.access_token).contains(&kid));
    for tokens in [&before, &meanwhile, &after] {
        verifier.verify(&tokens.access_token, START_MS + 300_000).unwrap();
    }

    world.clock.advance(HOUR_MS);
    let keys: HashSet<String> = world
        .jwks()
        .await
        .split("\"kid\":")
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert_eq!(keys.len(), 1, "the old key is gone with its last token");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_once_and_again_when_they_are_old() {
    let world = World::new().await;
    let sets: HashSet<String> = join_all((0..20).map(|_| world.jwks())).await.into_iter().collect();
    assert_eq!(sets.len(), 1);
    world.clock.advance(30 * 24 * HOUR_MS - 1);
    world.identity.rotate_keys_if_due().await.unwrap();
    assert!(sets.contains(&world.jwks().await));
    world.clock.advance(1);
    world.identity.rotate_keys_if_due().await.unwrap();
    assert_eq!(world.jwks().await.matches("\"kid\"").count(), 2);
}
