//! A bounded run of what `fuzz` runs without end: any bytes, and bytes that begin as frames do.

#![allow(missing_docs, unreachable_pub, reason = "the fuzz targets' own crate shows these")]

#[path = "../fuzz/src/lib.rs"]
mod entry;

use antiphon_proto::client::{ClientFrame, Hello, Ping, Send, Typing, client_frame::Body};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

/// A frame of the protocol, one with bytes changed, or anything.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        ("[a-z]{0,4}", "[a-z]{0,4}").prop_map(|(access_token, device_id)| Body::Hello(Hello {
            access_token,
            device_id,
            cursors: vec![],
        })),
        (".{0,30}", "[a-z0-9]{0,20}", ".{0,20}").prop_map(|(conversation_id, client_msg_id, text)| Body::Send(Send {
            conversation_id,
            client_msg_id,
            text,
        })),
        ".{0,30}".prop_map(|conversation_id| Body::Typing(Typing { conversation_id })),
        Just(Body::Ping(Ping {})),
    ];
    let frame = ("[a-z0-9]{0,3}", body).prop_map(|(id, body)| ClientFrame { id, body: Some(body) });
    let written = prop_oneof![
        frame.clone().prop_map(|frame| frame.encode_to_vec()),
        frame.prop_map(|frame| serde_json::to_vec(&frame).unwrap_or_default()),
    ];
    let changed = (written.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, to)| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes
    });
    prop_oneof![written, changed, vec(any::<u8>(), 0..60)]
}

/// The life of a session, as the fuzz target reads it.
fn life() -> impl Strategy<Value = Vec<u8>> {
    let step = (any::<u8>(), bytes()).prop_map(|(what, bytes)| {
        let amount = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        [&[what, amount], &bytes[..usize::from(amount)]].concat()
    });
    (any::<u8>(), vec(step, 0..40)).prop_map(|(first, steps)| [vec![first], steps.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_frame_or_a_fault(bytes in bytes()) {
        entry::frame(&bytes);
    }

    #[test]
    fn any_bytes_are_the_life_of_a_session(life in life()) {
        entry::session(&life);
    }

    #[test]
    fn bytes_without_any_sense_are_too(bytes in vec(any::<u8>(), 0..400)) {
        entry::session(&bytes);
    }
}
