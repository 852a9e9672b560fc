use antiphon_types::{DeviceId, Slot, UserId};
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::domain::{FamilyId, KeyPolicy, SigningKeys};

const NOW_MS: u64 = 1_700_000_000_000;
const TTL_MS: u64 = 900_000;
const POLICY: KeyPolicy = KeyPolicy {
    rotate_every_ms: 1 << 40,
    publish_ahead_ms: 1_000,
    overlap_ms: TTL_MS + 90_000,
};

fn keys(seed: u8) -> SigningKeys {
    SigningKeys::default()
        .rotated(&Zeroizing::new([seed; 32]), NOW_MS, POLICY)
        .unwrap()
}

fn jwks(keys: &SigningKeys, now_ms: u64) -> String {
    jwks_json(keys.published(now_ms)).unwrap()
}

fn claims() -> AccessClaims {
    AccessClaims {
        user_id: UserId::new(Slot::new(9).unwrap(), 1, 2),
        device_id: DeviceId::parse("phone").unwrap(),
        family_id: FamilyId::of_secret(&[3; 16]),
        expires_at_ms: NOW_MS + TTL_MS,
    }
}

fn body() -> Value {
    let AccessClaims {
        user_id,
        device_id,
        family_id,
        ..
    } = claims();
    let holder = (user_id, &device_id, family_id);
    serde_json::to_value(TokenBody::new("antiphon", holder, [4; 16], NOW_MS, 900)).unwrap()
}

fn header(kid: &str) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    header
}

fn sign_with(keys: &SigningKeys, now_ms: u64, body: &Value) -> String {
    let key = keys.active(now_ms).unwrap();
    jsonwebtoken::encode(&header(key.kid()), body, &EncodingKey::from_ed_der(key.pkcs8())).unwrap()
}

fn verifier(keys: &SigningKeys) -> TokenVerifier {
    TokenVerifier::new("antiphon", &jwks(keys, NOW_MS)).unwrap()
}

/// Verifies a token whose claims differ from a valid one's.
fn verify_changed(name: &str, value: Value) -> Result<AccessClaims, TokenError> {
    let keys = keys(1);
    let mut body = body();
    body[name] = value;
    verifier(&keys).verify(&sign_with(&keys, NOW_MS, &body), NOW_MS)
}

/// A token of any header whatever, with the signature of a valid one.
fn with_header(keys: &SigningKeys, header: &Value) -> String {
    let token = sign_with(keys, NOW_MS, &body());
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", BASE64URL_NOPAD.encode(header.to_string().as_bytes()))
}

#[test]
fn a_valid_token_says_who_holds_it_until_it_expires() {
    let keys = keys(1);
    let token = sign_with(&keys, NOW_MS, &body());
    let verifier = verifier(&keys);
    assert_eq!(verifier.verify(&token, NOW_MS), Ok(claims()));
    assert_eq!(verifier.verify(&token, NOW_MS + TTL_MS - 1), Ok(claims()));
    let expired = verifier.verify(&token, NOW_MS + TTL_MS).unwrap_err();
    assert_eq!(
        expired,
        TokenError::Expired {
            expired_at_ms: NOW_MS + TTL_MS
        }
    );
    assert_eq!(expired.code(), ErrorCode::TokenExpired);
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let keys = keys(1);
    let kid = keys.active(NOW_MS).unwrap().kid();
    for alg in ["none", "None", "nOnE"] {
        let signed = with_header(&keys, &json!({ "alg": alg, "kid": kid }));
        let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
        for token in [signed, unsigned] {
            let refused = verifier(&keys).verify(&token, NOW_MS).unwrap_err();
            assert_eq!(refused, TokenError::Algorithm { alg: alg.to_owned() });
            assert_eq!(refused.code(), ErrorCode::Unauthenticated);
        }
    }
}

#[test]
fn a_token_signed_with_the_public_key_as_a_shared_secret_is_refused() {
    let keys = keys(1);
    let key = keys.active(NOW_MS).unwrap();
    let x = BASE64URL_NOPAD.encode(key.public());
    for secret in [key.public().as_slice(), x.as_bytes(), jwks(&keys, NOW_MS).as_bytes()] {
        for alg in [Algorithm::HS256, Algorithm::HS512] {
            let header = Header {
                alg,
                ..header(key.kid())
            };
            let token = jsonwebtoken::encode(&header, &body(), &EncodingKey::from_secret(secret)).unwrap();
            let refused = verifier(&keys).verify(&token, NOW_MS);
            assert_eq!(
                refused,
                Err(TokenError::Algorithm {
                    alg: format!("{alg:?}")
                })
            );
        }
    }
}

#[test]
fn a_key_that_is_not_published_is_refused_whatever_name_it_takes() {
    let (ours, theirs) = (keys(1), keys(2));
    let token = sign_with(&theirs, NOW_MS, &body());
    let kid = theirs.active(NOW_MS).unwrap().kid().to_owned();
    assert_eq!(
        verifier(&ours).verify(&token, NOW_MS),
        Err(TokenError::UnknownKey { kid })
    );

    let their_key = EncodingKey::from_ed_der(theirs.active(NOW_MS).unwrap().pkcs8());
    let mut forged = header(ours.active(NOW_MS).unwrap().kid());
    // A key that the token brings along is not looked at.
    forged.jwk = serde_json::from_str::<Value>(&jwks(&theirs, NOW_MS))
        .ok()
        .and_then(|set| serde_json::from_value(set["keys"][0].clone()).ok());
    assert!(forged.jwk.is_some());
    let token = jsonwebtoken::encode(&forged, &body(), &their_key).unwrap();
    assert_eq!(verifier(&ours).verify(&token, NOW_MS), Err(TokenError::Signature));

    let nameless = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &body(), &their_key).unwrap();
    assert_eq!(
        verifier(&ours).verify(&nameless, NOW_MS),
        Err(TokenError::UnknownKey { kid: String::new() })
    );
}

#[test]
fn a_token_of_another_issuer_or_for_others_is_refused() {
    assert_eq!(verify_changed("iss", json!("somebody")), Err(TokenError::Issuer));
    assert_eq!(verify_changed("aud", json!("others")), Err(TokenError::Audience));
}

#[test]
fn a_token_from_the_future_is_refused_beyond_the_skew_of_clocks() {
    let now_s = NOW_MS / 1_000;
    for name in ["iat", "nbf"] {
        assert!(verify_changed(name, json!(now_s + 60)).is_ok());
        let valid_from_ms = (now_s + 61) * 1_000;
        assert_eq!(
            verify_changed(name, json!(now_s + 61)),
            Err(TokenError::NotYetValid { valid_from_ms })
        );
    }
}

#[test]
fn claims_that_are_not_those_of_an_access_token_are_refused() {
    for name in ["iss", "aud", "sub", "did", "fid", "iat", "exp", "jti"] {
        assert_eq!(verify_changed(name, Value::Null), Err(TokenError::Malformed), "{name}");
        assert_eq!(verify_changed(name, json!({})), Err(TokenError::Malformed), "{name}");
    }
    for (name, wrong) in [
        ("sub", json!("c_nobody")),
        ("did", json!("")),
        ("fid", json!("00")),
        ("exp", json!(-1)),
    ] {
        assert_eq!(verify_changed(name, wrong), Err(TokenError::Malformed), "{name}");
    }
    assert!(verify_changed("exp", json!(u64::MAX)).is_ok(), "a far time is a time");
}

#[test]
fn extensions_that_must_be_understood_are_refused() {
    let keys = keys(1);
    let kid = keys.active(NOW_MS).unwrap().kid();
    let token = with_header(
        &keys,
        &json!({ "alg": "EdDSA", "kid": kid, "crit": ["b64"], "b64": false }),
    );
    assert_eq!(verifier(&keys).verify(&token, NOW_MS), Err(TokenError::Malformed));
}

#[test]
fn a_token_signed_before_a_rotation_verifies_until_it_expires() {
    let old = keys(1);
    let token = sign_with(&old, NOW_MS, &body());
    let rotated = old.rotated(&Zeroizing::new([2; 32]), NOW_MS, POLICY).unwrap();
    let verifier = verifier(&rotated);

    // The new key is published at once and signs later.
    let is_old = |now_ms| rotated.active(now_ms).unwrap().kid() == old.active(NOW_MS).unwrap().kid();
    assert!(is_old(NOW_MS + 999) && !is_old(NOW_MS + 1_000));
    let new_token = sign_with(&rotated, NOW_MS + 1_000, &body());
    assert_eq!(verifier.verify(&new_token, NOW_MS), Ok(claims()));

    verifier.replace(&jwks(&rotated, NOW_MS + TTL_MS - 1)).unwrap();
    assert_eq!(verifier.verify(&token, NOW_MS + TTL_MS - 1), Ok(claims()));

    let after_ms = NOW_MS + 1_000 + POLICY.overlap_ms;
    verifier.replace(&jwks(&rotated, after_ms)).unwrap();
    assert!(matches!(
        verifier.verify(&token, NOW_MS),
        Err(TokenError::UnknownKey { .. })
    ));
    assert_eq!(verifier.verify(&new_token, NOW_MS), Ok(claims()));
}

#[test]
fn keys_of_other_kinds_are_passed_over_and_a_broken_set_changes_nothing() {
    let keys = keys(1);
    let token = sign_with(&keys, NOW_MS, &body());
    let mut set: Value = serde_json::from_str(&jwks(&keys, NOW_MS)).unwrap();
    let key = set["keys"][0].clone();
    let with = |name: &str, value: Value| {
        let mut key = key.clone();
        (key["kid"], key[name]) = (json!("other"), value);
        key
    };
    let others = [
        json!({ "kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB" }),
        with("x", json!("AAAA")),
        with("x", json!(BASE64URL_NOPAD.encode(&[0; 32]))),
        with("alg", json!("HS256")),
        with("use", json!("enc")),
        with("crv", json!("X25519")),
    ];
    set["keys"].as_array_mut().unwrap().extend(others);
    let verifier = TokenVerifier::new("antiphon", &set.to_string()).unwrap();
    assert_eq!(verifier.shared.keys.load().len(), 1);
    assert_eq!(verifier.verify(&token, NOW_MS), Ok(claims()));

    assert!(verifier.replace("<html>").is_err());
    assert!(verifier.replace("{}").is_err());
    assert_eq!(verifier.verify(&token, NOW_MS), Ok(claims()));
}

#[test]
fn unknown_keys_cause_one_fetch_in_five_seconds() {
    let verifier = TokenVerifier::new("antiphon", r#"{"keys":[]}"#).unwrap();
    let fetches = (0..10_001).filter(|ms| verifier.claim_refetch(NOW_MS + ms)).count();
    assert_eq!(fetches, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_token_with_any_byte_changed_is_refused(at: prop::sample::Index, to in 0x20..0x7f_u8) {
        let keys = keys(1);
        let token = sign_with(&keys, NOW_MS, &body());
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to;
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != token);
        prop_assert!(verifier(&keys).verify(&changed, NOW_MS).is_err());
    }

    #[test]
    fn verifying_never_panics(token in "\\PC{0,64}|[A-Za-z0-9_.-]{0,200}") {
        prop_assert!(verifier(&keys(1)).verify(&token, NOW_MS).is_err());
    }
}
