use antiphon_proto::client::{ClientFrame, ServerFrame};
use bytes::Bytes;
use prost::Message as _;

/// How frames are written: the subprotocol of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Protobuf, one binary message a frame.
    Binary,
    /// Protobuf's canonical JSON, one text message a frame.
    Json,
}

/// One message as the transport gave it.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// Why a frame could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The message is of the other kind than the subprotocol's.
    #[error("{protocol} takes {expected} messages and this one is {found}")]
    WrongKind {
        /// The subprotocol's name.
        protocol: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// The frame is over the limit.
    #[error("the frame of {bytes} bytes is over the limit of {bytes_max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes are no frame.
    #[error("the frame cannot be decoded: {reason}")]
    Undecodable {
        /// What the decoder said, cut short.
        reason: String,
    },
    /// The frame holds no request that is known here.
    #[error("the frame has no body that is known here")]
    NoBody {
        /// The frame's id.
        id: String,
    },
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

    /// Reads a frame of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`FrameFault`] names what is wrong with it.
    pub fn decode(self, incoming: Incoming<'_>, bytes_max: usize) -> Result<ClientFrame, FrameFault> {
        let bytes = match incoming {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) => bytes.len(),
        };
        if bytes > bytes_max {
            return Err(FrameFault::TooLarge { bytes, bytes_max });
        }
        let frame = match (self, incoming) {
            (Self::Binary, Incoming::Binary(bytes)) => {
                ClientFrame::decode(bytes).map_err(|error| undecodable(&error))?
            }
            (Self::Json, Incoming::Text(text)) => serde_json::from_str(text).map_err(|error| undecodable(&error))?,
            (Self::Binary, Incoming::Text(_)) => return Err(self.wrong_kind("binary", "text")),
            (Self::Json, Incoming::Binary(_)) => return Err(self.wrong_kind("text", "binary")),
        };
        if frame.body.is_none() {
            return Err(FrameFault::NoBody { id: frame.id });
        }
        Ok(frame)
    }

    /// Writes a frame.
    #[must_use]
    pub fn encode(self, frame: &ServerFrame) -> Bytes {
        match self {
            Self::Binary => frame.encode_to_vec().into(),
            // Writing to memory cannot fail, and a frame holds nothing that JSON cannot say.
            Self::Json => serde_json::to_vec(frame).unwrap_or_default().into(),
        }
    }

    fn wrong_kind(self, expected: &'static str, found: &'static str) -> FrameFault {
        FrameFault::WrongKind {
            protocol: self.protocol(),
            expected,
            found,
        }
    }
}

/// The decoder's words may repeat what the device sent, so they are cut.
fn undecodable(error: &impl std::fmt::Display) -> FrameFault {
    FrameFault::Undecodable {
        reason: error.to_string().chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::client::{Ping, client_frame::Body};

    use super::*;

    #[test]
    fn both_codecs_read_the_same_frame() {
        let ping = ClientFrame {
            id: "7".to_owned(),
            body: Some(Body::Ping(Ping {})),
        };
        let json = Codec::Json
            .decode(Incoming::Text(r#"{"id":"7","ping":{}}"#), 100)
            .unwrap();
        let binary = Codec::Binary
            .decode(Incoming::Binary(&ping.encode_to_vec()), 100)
            .unwrap();
        assert_eq!((&json, &binary), (&ping, &ping));
    }

    #[test]
    fn a_fault_names_what_is_wrong() {
        let fault = |incoming| Codec::Json.decode(incoming, 40).unwrap_err().to_string();
        assert!(fault(Incoming::Binary(b"{}")).contains("antiphon.v1.json takes text messages"));
        assert!(fault(Incoming::Text(r#"{"id":"1","pong":{}}"#)).contains("unknown field `pong`"));
        assert!(fault(Incoming::Text(r#"{"id":"1"}"#)).contains("no body"));
        assert!(fault(Incoming::Text(&"x".repeat(41))).contains("41 bytes is over the limit of 40 bytes"));
    }
}
