use antiphon_proto::{Codec, client::ClientFrame};
use prost::Message as _;

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

impl Incoming<'_> {
    /// Reads a frame of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`FrameFault`] names what is wrong with it.
    pub fn decode(self, codec: Codec, bytes_max: usize) -> Result<ClientFrame, FrameFault> {
        let bytes = match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        };
        if bytes > bytes_max {
            return Err(FrameFault::TooLarge { bytes, bytes_max });
        }
        let frame = match (codec, self) {
            (Codec::Binary, Self::Binary(bytes)) => ClientFrame::decode(bytes).map_err(|error| undecodable(&error))?,
            (Codec::Json, Self::Text(text)) => serde_json::from_str(text).map_err(|error| undecodable(&error))?,
            (Codec::Binary, Self::Text(_)) => return Err(wrong_kind(codec, "binary", "text")),
            (Codec::Json, Self::Binary(_)) => return Err(wrong_kind(codec, "text", "binary")),
        };
        if frame.body.is_none() {
            return Err(FrameFault::NoBody { id: frame.id });
        }
        Ok(frame)
    }
}

fn wrong_kind(codec: Codec, expected: &'static str, found: &'static str) -> FrameFault {
    FrameFault::WrongKind {
        protocol: codec.protocol(),
        expected,
        found,
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
        let json = Incoming::Text(r#"{"id":"7","ping":{}}"#)
            .decode(Codec::Json, 100)
            .unwrap();
        let binary = Incoming::Binary(&ping.encode_to_vec())
            .decode(Codec::Binary, 100)
            .unwrap();
        assert_eq!((&json, &binary), (&ping, &ping));
    }

    #[test]
    fn a_fault_names_what_is_wrong() {
        let fault = |incoming: Incoming<'_>| incoming.decode(Codec::Json, 40).unwrap_err().to_string();
        assert!(fault(Incoming::Binary(b"{}")).contains("antiphon.v1.json takes text messages"));
        assert!(fault(Incoming::Text(r#"{"id":"1","pong":{}}"#)).contains("unknown field `pong`"));
        assert!(fault(Incoming::Text(r#"{"id":"1"}"#)).contains("no body"));
        assert!(fault(Incoming::Text(&"x".repeat(41))).contains("41 bytes is over the limit of 40 bytes"));
    }
}
