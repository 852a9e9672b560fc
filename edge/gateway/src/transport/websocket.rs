//! The WebSocket: `GET /v1/connect`.

use std::{sync::Arc, time::Duration};

use antiphon_proto::Codec;
use antiphon_session::{CloseReason, Refusal};
use antiphon_types::ErrorCode;
use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderValue,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Gone, Received, Transport};
use crate::{
    connection,
    limits::{AddressGuard, counted},
    problem::Problem,
    serve::Peer,
    shared::Shared,
};

/// Read buffer of a connection; it is allocated at once and cleared before each read, so it is small. It grows with what comes.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Frames are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// How long a device may take to answer the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a session over WebSocket.
///
/// The subprotocol is `antiphon.v1` (one protobuf frame a binary message) or `antiphon.v1.json` (the same as protobuf's
/// canonical JSON, one frame a text message). The first frame is `hello`.
#[utoipa::path(
    get,
    path = "/v1/connect",
    tag = "session",
    params(("Sec-WebSocket-Protocol" = String, Header, description = "`antiphon.v1` or `antiphon.v1.json`")),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "No WebSocket handshake, or no subprotocol that is known here", body = Problem),
        (status = 429, description = "Too many connections of this address", body = Problem),
        (status = 503, description = "This edge is going away", body = Problem),
    )
)]
pub(crate) async fn connect(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Problem::new(ErrorCode::InvalidArgument, rejection.body_text()).into_response(),
    };
    let offers = |codec: &Codec| upgrade.requested_protocols().any(|offered| offered == codec.protocol());
    let Some(codec) = Codec::ALL.into_iter().find(offers) else {
        let [binary, json] = Codec::ALL.map(Codec::protocol);
        let detail = format!("the subprotocol has to be {binary} or {json}");
        return Problem::new(ErrorCode::InvalidArgument, detail).into_response();
    };
    if shared.stop_accepting.is_cancelled() {
        return Problem::new(ErrorCode::Unavailable, "this edge is going away").into_response();
    }
    if let Err(refusal) = shared.limits.handshakes.take(&counted(peer.address)) {
        return Problem::from(refusal).into_response();
    }

    // Behind a proxy the address is known only now.
    let counted_here = match shared.options.trusted_proxies {
        0 => None,
        _ => match shared.admitted.count_address(peer.address) {
            Some(guard) => Some(guard),
            None => {
                let refusal = Refusal::new(ErrorCode::RateLimited, "too many connections of this address");
                return Problem::from(refusal.retry_after(5_000)).into_response();
            }
        },
    };

    let bytes_max = shared.options.session.frame_bytes_max.saturating_mul(2);
    let mut upgrade = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max);
    upgrade.set_selected_protocol(HeaderValue::from_static(codec.protocol()));
    let tracked = shared.connections.token();
    // No future around that of the connection: each would hold the socket once more.
    upgrade.on_upgrade(move |socket| {
        let transport = WebSocketTransport {
            socket,
            codec,
            _counted: (tracked, peer, counted_here),
        };
        connection::run(shared, transport, codec)
    })
}

struct WebSocketTransport {
    socket: WebSocket,
    codec: Codec,
    /// Count the connection until it has ended.
    _counted: (TaskTrackerToken, Peer, Option<AddressGuard>),
}

impl Transport for WebSocketTransport {
    const NAME: &'static str = "websocket";

    async fn feed(&mut self, frame: Bytes) -> Result<(), Gone> {
        let message = match self.codec {
            Codec::Binary => Message::Binary(frame),
            // What the codec wrote is UTF-8; a push that is not would be a fault of the home.
            Codec::Json => Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default()),
        };
        self.socket.feed(message).await.map_err(|_| Gone)
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.socket.flush().await.map_err(|_| Gone)
    }

    fn send_datagram(&mut self, frame: Bytes) -> Result<(), Bytes> {
        Err(frame)
    }

    async fn receive(&mut self) -> Received {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::SignOfLife,
            Some(Ok(Message::Close(_))) | None => Received::Ended,
            Some(Err(error)) => match fault_of(error) {
                Some((refusal, reason)) => Received::Broken(refusal, reason),
                None => Received::Ended,
            },
        }
    }

    /// Waits a moment for the answer: a connection that is closed with bytes unread is reset, and what was just written may be lost
    /// with it.
    async fn close(&mut self, reason: CloseReason) {
        let frame = CloseFrame {
            code: reason.code(),
            reason: Utf8Bytes::from_static(reason.as_str()),
        };
        if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
            let answered = async { while let Some(Ok(_)) = self.socket.next().await {} };
            let _ = timeout(CLOSE_TIMEOUT, answered).await;
        }
    }
}

/// A fault of the transport that the device can still be told of.
fn fault_of(error: axum::Error) -> Option<(Refusal, CloseReason)> {
    let error = error.into_inner().downcast::<tungstenite::Error>().ok()?;
    let detail = error.to_string();
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "every other fault is the end of the connection"
    )]
    match *error {
        tungstenite::Error::Capacity(_) => Some((Refusal::new(ErrorCode::TooLarge, detail), CloseReason::TooLarge)),
        tungstenite::Error::Utf8(_) => {
            let message = "a text message is not UTF-8";
            Some((Refusal::new(ErrorCode::MalformedFrame, message), CloseReason::Malformed))
        }
        _ => None,
    }
}
