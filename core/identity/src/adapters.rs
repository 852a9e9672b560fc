//! The world around: the store, other slots, the network, the processor's time.

pub(crate) mod grpc;
pub(crate) mod hashing;
pub(crate) mod key_ring;
pub(crate) mod key_store;
pub(crate) mod keys;
pub(crate) mod log_in_attempts;
pub(crate) mod peers;
pub(crate) mod random;
pub(crate) mod store;
