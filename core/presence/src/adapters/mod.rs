//! What the rules touch: the network, the store, the feed.

pub(crate) mod announce;
pub(crate) mod grpc;
pub(crate) mod keys;
pub(crate) mod store;
