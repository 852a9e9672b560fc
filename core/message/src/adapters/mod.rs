mod feed;
mod grpc;
pub(crate) mod keys;
pub(crate) mod store;

pub use feed::FeedHome;
pub use grpc::MessageService;
