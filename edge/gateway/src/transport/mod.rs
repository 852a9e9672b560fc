//! How devices are connected: the session is the same over all of them.
//!
//! WebSocket carries one frame a message. QUIC and WebTransport carry frames on the first bidirectional stream that the device opens, each
//! behind its length in four bytes, big-endian; what may be lost goes as a datagram without a length.

mod certificates;
mod quic;
mod secret;
mod stream;
mod websocket;
mod webtransport;

pub use certificates::{CertificateError, Certificates};
pub(crate) use quic::Udp;
pub use quic::{QUIC_PROTOCOL, QuicSockets};
pub use secret::ResetKey;
pub(crate) use websocket::{__path_connect, connect};

use antiphon_session::{CloseReason, Refusal};
use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;

/// The connection takes nothing any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// What came from the device.
#[derive(Debug)]
pub(crate) enum Received {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame.
    Binary(Bytes),
    /// A binary frame that came as a datagram: again, late, or before what was sent first.
    Datagram(Bytes),
    /// The device is there, and has said nothing.
    SignOfLife,
    /// Something that is no frame; the device can still be told.
    Broken(Refusal, CloseReason),
    /// Nothing comes any more.
    Ended,
}

/// A connection that frames go through.
pub(crate) trait Transport: Send {
    /// Its name in metrics and in `GET /v1/transports`.
    const NAME: &'static str;

    /// Takes a frame; it may stay here until [`Transport::flush`].
    fn feed(&mut self, frame: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Writes what was taken.
    fn flush(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a frame that may be lost, at once or never; gives it back where there are no datagrams, or not of this size.
    fn send_datagram(&mut self, frame: Bytes) -> Result<(), Bytes>;

    /// What comes next. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Received> + Send;

    /// Says why the connection ends, and gives what was written a moment to arrive.
    fn close(&mut self, reason: CloseReason) -> impl Future<Output = ()> + Send;
}
