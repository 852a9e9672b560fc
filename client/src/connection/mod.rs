//! One connection to an edge, over whichever transport gets there.

mod connector;
mod offers;
mod race;
mod stream;
mod tls;
mod websocket;

pub(crate) use connector::Connector;

use std::fmt;

use antiphon_proto::client::{ClientFrame, ServerFrame};

use self::{stream::Stream, websocket::WebSocket};

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC: survives a change of the network, and loses nothing behind a lost packet but that packet.
    Quic,
    /// WebTransport, as browsers have it: QUIC below HTTP/3.
    WebTransport,
    /// WebSocket: goes through where UDP does not.
    WebSocket,
}

impl Transport {
    /// As in `GET /v1/transports`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Frames in, frames out. Dropped, it is closed.
pub(crate) enum Connection {
    WebSocket(Box<WebSocket>),
    Stream(Box<Stream>),
}

impl Connection {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Stream(stream) => stream.transport(),
        }
    }

    /// Writes a frame.
    pub(crate) async fn send(&mut self, frame: &ClientFrame) -> Result<(), String> {
        match self {
            Self::WebSocket(socket) => socket.send(frame).await,
            Self::Stream(stream) => stream.send(frame).await,
        }
    }

    /// Writes a frame that may be lost: as a datagram where there are any.
    pub(crate) async fn send_fleeting(&mut self, frame: &ClientFrame) -> Result<(), String> {
        match self {
            Self::WebSocket(socket) => socket.send(frame).await,
            Self::Stream(stream) => stream.send_fleeting(frame).await,
        }
    }

    /// Reads the next frame. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<ServerFrame, String> {
        match self {
            Self::WebSocket(socket) => socket.receive().await,
            Self::Stream(stream) => stream.receive().await,
        }
    }

    /// The device has another address now: goes on from there. False when this connection cannot.
    pub(crate) fn network_changed(&self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            Self::Stream(stream) => stream.rebind(),
        }
    }

    /// Says good-bye; does not wait long for it.
    pub(crate) async fn close(self) {
        match self {
            Self::WebSocket(socket) => socket.close().await,
            Self::Stream(stream) => stream.close().await,
        }
    }
}
