//! Frames on one bidirectional stream, each behind its length, and datagrams beside them: QUIC and WebTransport alike.

use antiphon_proto::Codec;
use antiphon_session::{CloseReason, Refusal};
use antiphon_types::ErrorCode;
use axum::extract::ws::Utf8Bytes;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{Gone, Received, Transport};

/// Room for frames that is allocated with a connection, in each direction; it grows with what comes.
const BUFFER_BYTES: usize = 512;

/// The connection that a stream belongs to.
pub(super) trait Link: Send + Sync {
    const NAME: &'static str;
    type Writer: AsyncWrite + Unpin + Send;
    type Reader: AsyncRead + Unpin + Send;

    /// Gives the frame back when it cannot be sent.
    fn send_datagram(&self, frame: Bytes) -> Result<(), Bytes>;

    /// `None` when the connection has ended. Cancel safe.
    fn receive_datagram(&self) -> impl Future<Output = Option<Bytes>> + Send;

    /// Ends the stream; returns when everything has arrived.
    fn finish(writer: &mut Self::Writer) -> impl Future<Output = ()> + Send;

    /// The connection below.
    fn connection(&self) -> &quinn::Connection;
}

/// A session's stream and the connection it is on.
pub(super) struct StreamTransport<L: Link> {
    link: L,
    codec: Codec,
    bytes_max: usize,
    writer: FramedWrite<L::Writer, LengthDelimitedCodec>,
    reader: FramedRead<L::Reader, LengthDelimitedCodec>,
}

impl<L: Link> StreamTransport<L> {
    /// Frames of up to `bytes_max` bytes are read.
    pub(super) fn new(link: L, (writer, reader): (L::Writer, L::Reader), codec: Codec, bytes_max: usize) -> Self {
        let framing = || LengthDelimitedCodec::builder().max_frame_length(bytes_max).new_codec();
        // What is written is the edge's own, and may be larger: a page of history.
        let unbounded = LengthDelimitedCodec::builder()
            .max_frame_length(u32::MAX as usize)
            .new_codec();
        Self {
            link,
            codec,
            bytes_max,
            writer: FramedWrite::with_capacity(writer, unbounded, BUFFER_BYTES),
            reader: FramedRead::with_capacity(reader, framing(), BUFFER_BYTES),
        }
    }

    fn frame(&self, bytes: BytesMut) -> Received {
        let bytes = bytes.freeze();
        match self.codec {
            Codec::Binary => Received::Binary(bytes),
            Codec::Json => match Utf8Bytes::try_from(bytes) {
                Ok(text) => Received::Text(text),
                Err(_) => {
                    let refusal = Refusal::new(ErrorCode::MalformedFrame, "a frame is not UTF-8");
                    Received::Broken(refusal, CloseReason::Malformed)
                }
            },
        }
    }
}

impl<L: Link> Transport for StreamTransport<L> {
    const NAME: &'static str = L::NAME;

    async fn feed(&mut self, frame: Bytes) -> Result<(), Gone> {
        self.writer.feed(frame).await.map_err(|_| Gone)
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        SinkExt::<Bytes>::flush(&mut self.writer).await.map_err(|_| Gone)
    }

    fn send_datagram(&mut self, frame: Bytes) -> Result<(), Bytes> {
        self.link.send_datagram(frame)
    }

    async fn receive(&mut self) -> Received {
        // A connection that is closed has no datagrams any more, and may still have frames that came before.
        let read = tokio::select! {
            biased;
            read = self.reader.next() => read,
            datagram = self.link.receive_datagram() => match datagram {
                Some(datagram) => return Received::Datagram(datagram),
                None => self.reader.next().await,
            },
        };
        match read {
            Some(Ok(bytes)) => self.frame(bytes),
            // The codec's only fault of its own; what else fails is the stream.
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                let message = format!("the length of a frame is over the limit of {} bytes", self.bytes_max);
                Received::Broken(Refusal::new(ErrorCode::TooLarge, message), CloseReason::TooLarge)
            }
            Some(Err(_)) | None => Received::Ended,
        }
    }

    /// A connection that is closed drops what is still under way, so that is waited for: as long as the caller does.
    async fn close(&mut self, reason: CloseReason) {
        if SinkExt::<Bytes>::flush(&mut self.writer).await.is_ok() {
            L::finish(self.writer.get_mut()).await;
        }
        let connection = self.link.connection();
        connection.close(u32::from(reason.code()).into(), reason.as_str().as_bytes());
    }
}
