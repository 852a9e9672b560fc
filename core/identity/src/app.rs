//! The use cases: read state, decide, write, emit.

pub(crate) mod create_account;
pub(crate) mod get_account;
pub(crate) mod jwks;
pub(crate) mod log_in;
pub(crate) mod log_out;
pub(crate) mod refresh;
pub(crate) mod register;
pub(crate) mod resolve;
pub(crate) mod rotate_keys;
pub(crate) mod signing_keys;
pub(crate) mod tokens;
