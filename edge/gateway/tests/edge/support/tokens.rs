//! Access tokens as the identity service makes them.

use antiphon_identity::TokenVerifier;
use antiphon_types::{TimestampMs, UserId};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn jwks() -> String {
    let x = BASE64URL_NOPAD.encode(key().verifying_key().as_bytes());
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x}]}).to_string()
}

/// A verifier that has no keys yet, so that the edge has to fetch them.
pub fn verifier() -> TokenVerifier {
    TokenVerifier::new("antiphon", r#"{"keys":[]}"#).unwrap()
}

pub fn signed(who: UserId, device_id: &str, now_ms: TimestampMs) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("k1".to_owned());
    let iat = now_ms / 1_000;
    let body = json!({
        "iss": "antiphon", "aud": "antiphon", "sub": who.to_string(), "did": device_id, "fid": "07".repeat(16),
        "iat": iat, "exp": iat + 900, "jti": "1",
    });
    let der = key().to_pkcs8_der().unwrap();
    jsonwebtoken::encode(&header, &body, &EncodingKey::from_ed_der(der.as_bytes())).unwrap()
}
