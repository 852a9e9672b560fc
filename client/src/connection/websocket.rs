//! WebSocket: one frame a message.

use std::{sync::Arc, time::Duration};

use antiphon_proto::{
    Codec,
    client::{ClientFrame, ServerFrame},
};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{Message, Utf8Bytes, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig},
};

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Cleared before each read: the library's own 128 KiB take longer than all else that is done with a message.
const READ_BUFFER_BYTES: usize = 2 * 1_024;

pub(super) struct WebSocket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    codec: Codec,
}

impl WebSocket {
    /// Connects to the edge of `server` (`http://…` or `https://…`).
    pub(super) async fn open(server: &str, tls: Arc<rustls::ClientConfig>, codec: Codec) -> Result<Self, String> {
        let url = format!("{}/v1/connect", server.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        let subprotocol = HeaderValue::from_static(codec.protocol());
        request.headers_mut().insert("sec-websocket-protocol", subprotocol);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        // Without Nagle's delay: a message that follows a receipt would wait until the edge's delayed acknowledgement, 40 ms.
        let connecting = connect_async_tls_with_config(request, Some(config), true, Some(Connector::Rustls(tls)));
        let (socket, _) = connecting.await.map_err(|error| error.to_string())?;
        Ok(Self { socket, codec })
    }

    /// Writes frames, all with one flush.
    pub(super) async fn send(&mut self, frames: &[ClientFrame]) -> Result<(), String> {
        let writing = async {
            for frame in frames {
                let bytes = self.codec.encode(frame);
                let message = match self.codec {
                    Codec::Binary => Message::Binary(bytes),
                    Codec::Json => Message::Text(Utf8Bytes::try_from(bytes).map_err(|error| error.to_string())?),
                };
                self.socket.feed(message).await.map_err(|error| error.to_string())?;
            }
            self.socket.flush().await.map_err(|error| error.to_string())
        };
        match timeout(WRITE_TIMEOUT, writing).await {
            Ok(result) => result,
            Err(_) => Err("the connection takes nothing any more".to_owned()),
        }
    }

    /// Reads the next frame. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<ServerFrame, String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) if self.codec == Codec::Binary => {
                    return ServerFrame::decode(bytes).map_err(|error| format!("a malformed frame: {error}"));
                }
                Some(Ok(Message::Text(text))) if self.codec == Codec::Json => {
                    return serde_json::from_str(&text).map_err(|error| format!("a malformed frame: {error}"));
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or_else(|| "closed by the server".to_owned(), |frame| frame.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the connection ended".to_owned()),
            }
        }
    }

    /// Says good-bye; does not wait long for it.
    pub(super) async fn close(mut self: Box<Self>) {
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }
}
