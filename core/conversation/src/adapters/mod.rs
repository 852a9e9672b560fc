//! What the rules touch: the network, the store, other services.

pub(crate) mod carrier;
pub(crate) mod grpc;
pub(crate) mod keys;
pub(crate) mod peers;
pub(crate) mod store;
