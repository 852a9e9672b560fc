//! The WebSocket: `GET /v1/connect`.

mod catch_up;
mod connection;
mod hello;
mod requests;
mod resume;
mod sends;

use std::sync::Arc;

use antiphon_session::{Codec, Refusal};
use antiphon_types::ErrorCode;
use axum::{
    Extension,
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::HeaderValue,
    response::{IntoResponse as _, Response},
};

use crate::{limits::counted, problem::Problem, serve::Peer, shared::Shared};

/// Read buffer of a connection; it is allocated at once, so it is small.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

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
    upgrade.on_upgrade(move |socket| async move {
        connection::run(shared, socket, codec).await;
        drop((tracked, peer, counted_here));
    })
}
