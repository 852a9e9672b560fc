//! WebTransport over HTTP/3, for browsers: `https://HOST:PORT/v1/connect`.

use antiphon_proto::Codec;
use bytes::Bytes;
use wtransport::{
    Connection, RecvStream, SendStream,
    endpoint::{IncomingSessionFuture, SessionRequest},
};

use super::{quic::Opened, stream::Link};

/// Where sessions are opened.
const PATH: &str = "/v1/connect";
/// In the query of the path: the frames are JSON.
const PROTOCOL_FIELD: &str = "protocol";

/// Waits for the handshake, the session's request and its stream. A request that is not for here is told so.
pub(super) async fn open(incoming: quinn::Incoming) -> Option<Opened<Connection>> {
    let request = IncomingSessionFuture::with_quic_incoming(incoming).await.ok()?;
    let Some(codec) = codec_of(&request) else {
        request.not_found().await;
        return None;
    };
    let link = request.accept().await.ok()?;
    let streams = link.accept_bi().await.ok()?;
    Some(Opened { link, streams, codec })
}

/// By the path: `?protocol=antiphon.v1.json` asks for JSON, nothing for protobuf.
fn codec_of(request: &SessionRequest) -> Option<Codec> {
    let path = request.path();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path != PATH {
        return None;
    }
    let asked = query.split('&').find_map(|field| {
        let (name, value) = field.split_once('=')?;
        (name == PROTOCOL_FIELD).then_some(value)
    });
    match asked {
        None => Some(Codec::Binary),
        Some(asked) => Codec::ALL.into_iter().find(|codec| codec.protocol() == asked),
    }
}

impl Link for Connection {
    const NAME: &'static str = "webtransport";
    type Writer = SendStream;
    type Reader = RecvStream;

    fn send_datagram(&self, frame: Bytes) -> Result<(), Bytes> {
        Self::send_datagram(self, &frame).map_err(|_| frame)
    }

    async fn receive_datagram(&self) -> Option<Bytes> {
        Self::receive_datagram(self)
            .await
            .ok()
            .map(|datagram| datagram.payload())
    }

    async fn finish(writer: &mut SendStream) {
        if writer.quic_stream_mut().finish().is_ok() {
            writer.stopped().await;
        }
    }

    fn connection(&self) -> &quinn::Connection {
        self.quic_connection()
    }
}
