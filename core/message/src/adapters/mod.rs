mod feed;
mod grpc;
pub(crate) mod keys;
mod salvage;
pub(crate) mod store;

pub use feed::FeedHome;
pub use grpc::MessageService;
pub use salvage::Salvager;
