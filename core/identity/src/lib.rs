//! Accounts, log-ins and the tokens that prove them.
//!
//! A username is claimed in the slot of its hash; the claim is carried, as an event of that slot's log, to the slot of the new
//! user id, where the account and its refresh-token families live. Access tokens are JWTs signed with EdDSA, which edges verify
//! alone ([`TokenVerifier`]); the signing keys live in slot 0.
//!
//! # Invariants
//! - A username belongs to one user at the most, whoever races for it.
//! - A refresh token works once: it is spent in the same write that makes the next one. Using a spent one ends its family, and
//!   with it every log-in that descends from the same password check.
//! - What is stored of a refresh token is a hash, of a password an Argon2id hash. Neither they nor private keys are ever logged or shown.
//! - A wrong password and an account that does not exist are the same answer after the same work.
//! - Passwords being hashed, and waiting for it, are bounded in number; so are failed log-ins to one account, and its families.
//! - A signing key is published before its first token is signed and until its last has expired.
//!
//! | key | value |
//! |---|---|
//! | `(slot, USERNAME, username)` | [`antiphon_proto::log::UsernameClaim`], in the slot of the name's hash ([`username_slot`]) |
//! | `(slot, ACCOUNT, user id)` | [`antiphon_proto::log::Account`] |
//! | `(slot, REFRESH_FAMILY, user id, family id)` | [`antiphon_proto::log::RefreshFamily`]; cleared when the family ends |
//! | `(0, SIGNING_KEYS)` | [`antiphon_proto::log::SigningKeys`] |
//!
//! | event | slot | meaning |
//! |---|---|---|
//! | [`antiphon_proto::log::AccountClaimed`] | the username's | carried to the user's slot by [`carrier`] |
//! | [`antiphon_proto::log::FamilyRevoked`] | the user's | the sessions of a log-in are to be told that it ended, and why |

#![forbid(unsafe_code)]

mod adapters;
mod app;
mod domain;
mod error;
mod identity;
mod options;
mod verifier;

pub use adapters::peers::carrier;
pub use domain::{AccessClaims, FamilyId, PasswordError, decoy_user, refresh_token_user, username_slot};
pub use error::IdentityError;
pub use identity::Identity;
pub use options::{IdentityOptions, OptionsError, PasswordHashing};
pub use verifier::{JwksError, TokenError, TokenVerifier};
