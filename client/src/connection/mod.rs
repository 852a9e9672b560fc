//! One connection to an edge, over whichever transport gets there.

mod connector;
mod offers;
mod race;
mod stream;
mod websocket;

pub use connector::Connector;

use std::{fmt, slice};

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

/// A connection that frames go through, for tools that look after a session themselves; apps have [`Client`](crate::Client). Dropped, it
/// is closed.
pub struct Connection(Way);

enum Way {
    WebSocket(Box<WebSocket>),
    Stream(Box<Stream>),
}

impl From<WebSocket> for Connection {
    fn from(socket: WebSocket) -> Self {
        Self(Way::WebSocket(Box::new(socket)))
    }
}

impl From<Stream> for Connection {
    fn from(stream: Stream) -> Self {
        Self(Way::Stream(Box::new(stream)))
    }
}

impl Connection {
    /// How it is connected.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.0 {
            Way::WebSocket(_) => Transport::WebSocket,
            Way::Stream(stream) => stream.transport(),
        }
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// Why it cannot be written, for people.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), String> {
        self.send_all(slice::from_ref(frame)).await
    }

    /// Writes frames, in as few writes as it takes.
    ///
    /// # Errors
    /// Why they cannot be written, for people; some may have been.
    pub async fn send_all(&mut self, frames: &[ClientFrame]) -> Result<(), String> {
        match &mut self.0 {
            Way::WebSocket(socket) => socket.send(frames).await,
            Way::Stream(stream) => stream.send(frames).await,
        }
    }

    /// Writes a frame that may be lost: as a datagram where there are any.
    ///
    /// # Errors
    /// Why it cannot be written, for people.
    pub async fn send_fleeting(&mut self, frame: &ClientFrame) -> Result<(), String> {
        match &mut self.0 {
            Way::WebSocket(socket) => socket.send(slice::from_ref(frame)).await,
            Way::Stream(stream) => stream.send_fleeting(frame).await,
        }
    }

    /// Reads the next frame. Cancel safe.
    ///
    /// # Errors
    /// Why nothing comes any more, for people.
    pub async fn receive(&mut self) -> Result<ServerFrame, String> {
        match &mut self.0 {
            Way::WebSocket(socket) => socket.receive().await,
            Way::Stream(stream) => stream.receive().await,
        }
    }

    /// The device has another address now: goes on from there. False when this connection cannot.
    pub(crate) fn network_changed(&self) -> bool {
        match &self.0 {
            Way::WebSocket(_) => false,
            Way::Stream(stream) => stream.rebind(),
        }
    }

    /// Says good-bye; does not wait long for it.
    pub async fn close(self) {
        match self.0 {
            Way::WebSocket(socket) => socket.close().await,
            Way::Stream(stream) => stream.close().await,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.transport()).finish()
    }
}
