//! The IDL and its generated code: `client` (device and edge), `rpc` (node and node), `log` (what is stored).
//!
//! Generated modules carry the comments of the `.proto` files beside them. `client` types also implement serde's traits
//! as protobuf's canonical JSON (64-bit numbers are strings).

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    pub mod antiphon {
        pub mod client {
            pub mod v1 {
                tonic::include_proto!("antiphon.client.v1");
                include!(concat!(env!("OUT_DIR"), "/antiphon.client.v1.serde.rs"));
            }
        }
        pub mod log {
            pub mod v1 {
                tonic::include_proto!("antiphon.log.v1");
            }
        }
        pub mod rpc {
            pub mod v1 {
                tonic::include_proto!("antiphon.rpc.v1");
            }
        }
    }
}

mod codec;
pub mod refusal;

pub use codec::Codec;

/// Device and edge: frames of a session.
pub use generated::antiphon::client::v1 as client;
/// Stored values: headers, log entries, events and every service's records.
pub use generated::antiphon::log::v1 as log;
/// Node and node: the services' RPCs and the feed.
pub use generated::antiphon::rpc::v1 as rpc;

impl std::fmt::Debug for rpc::SigningKeysResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeysResponse").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for log::SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
