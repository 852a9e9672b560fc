use bytes::Bytes;
use prost::Message;
use serde::Serialize;

/// How frames are written: the subprotocol of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Protobuf, one binary message a frame.
    #[default]
    Binary,
    /// Protobuf's canonical JSON, one text message a frame.
    Json,
}

impl Codec {
    /// Every codec, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Binary, Self::Json];

    /// The name of the WebSocket subprotocol.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Binary => "antiphon.v1",
            Self::Json => "antiphon.v1.json",
        }
    }

    /// Writes a frame of either side.
    #[must_use]
    pub fn encode(self, frame: &(impl Message + Serialize)) -> Bytes {
        match self {
            Self::Binary => frame.encode_to_vec().into(),
            // Writing to memory cannot fail, and a frame holds nothing that JSON cannot say.
            Self::Json => serde_json::to_vec(frame).unwrap_or_default().into(),
        }
    }
}
