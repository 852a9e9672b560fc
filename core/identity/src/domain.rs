//! Pure rules: `now`, ids and randomness are arguments.

mod access_token;
mod family;
mod password;
mod refresh_token;
mod signing_keys;
mod throttle;
mod username;

pub use access_token::AccessClaims;
pub(crate) use access_token::{AUDIENCE, TokenBody};
pub use family::FamilyId;
pub(crate) use family::{EndReason, Ended, Family, FamilyPolicy, Refreshed, ends_at_log_in, refresh};
pub(crate) use password::Password;
pub use password::PasswordError;
pub use refresh_token::refresh_token_user;
pub(crate) use refresh_token::{FamilySecret, RefreshToken, TokenHash};
pub(crate) use signing_keys::{KeyPolicy, SigningKey, SigningKeys};
pub(crate) use throttle::{Throttle, Throttled};
pub use username::{decoy_user, username_slot};
