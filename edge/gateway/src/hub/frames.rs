//! A frame as it is shared by all sessions of this edge: the bytes that came, and their JSON when the first one asks.

use std::cell::OnceCell;

use antiphon_proto::{
    Codec,
    client::{ServerFrame, server_frame::Body},
};
use bytes::Bytes;
use prost::Message as _;

/// One frame in both codecs.
pub(crate) struct SharedFrame {
    binary: Bytes,
    json: OnceCell<Bytes>,
}

impl SharedFrame {
    /// A frame that came encoded; binary sessions get these very bytes.
    pub(crate) fn from_encoded(binary: Bytes) -> Self {
        Self {
            binary,
            json: OnceCell::new(),
        }
    }

    /// An event that is made here.
    pub(crate) fn event(body: Body) -> Self {
        Self::from_encoded(
            ServerFrame {
                id: String::new(),
                body: Some(body),
            }
            .encode_to_vec()
            .into(),
        )
    }

    /// The bytes for a session. A frame that cannot be read has no JSON and is not pushed as such.
    pub(crate) fn bytes(&self, codec: Codec) -> Option<Bytes> {
        match codec {
            Codec::Binary => Some(self.binary.clone()),
            Codec::Json => {
                let json = self.json.get_or_init(|| match ServerFrame::decode(&*self.binary) {
                    Ok(frame) => Codec::Json.encode(&frame),
                    Err(_) => Bytes::new(),
                });
                (!json.is_empty()).then(|| json.clone())
            }
        }
    }

    pub(crate) fn decode(&self) -> Option<Body> {
        ServerFrame::decode(&*self.binary).ok()?.body
    }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::client::Message;

    use super::*;

    #[test]
    fn binary_sessions_share_the_bytes_and_json_is_made_once() {
        let frame = SharedFrame::event(Body::Message(Message {
            seq: 7,
            ..Default::default()
        }));
        let (first, second) = (frame.bytes(Codec::Json).unwrap(), frame.bytes(Codec::Json).unwrap());
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(first, r#"{"message":{"seq":"7"}}"#);
        assert_eq!(frame.bytes(Codec::Binary).unwrap().as_ptr(), frame.binary.as_ptr());
    }

    #[test]
    fn bytes_that_are_no_frame_have_no_json() {
        assert_eq!(
            SharedFrame::from_encoded(Bytes::from_static(&[0xff])).bytes(Codec::Json),
            None
        );
    }
}
