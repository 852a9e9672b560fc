//! QUIC and WebTransport: frames on one stream, each behind its length in four bytes, big-endian; datagrams beside them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    slice,
    time::Duration,
};

use antiphon_proto::client::{ClientFrame, ServerFrame};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt as _};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::Transport;

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was written last may take to arrive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of one frame of the server's: a page of history is the largest.
const FRAME_BYTES_MAX: usize = 64 << 20;

type Reader = Pin<Box<dyn AsyncRead + Send>>;
type Writer = Pin<Box<dyn AsyncWrite + Send>>;

pub(super) struct Stream {
    link: Link,
    reader: FramedRead<Reader, LengthDelimitedCodec>,
    writer: FramedWrite<Writer, LengthDelimitedCodec>,
}

/// The connection below.
pub(super) enum Link {
    /// With its socket, unless others use that too.
    Quic(Option<quinn::Endpoint>, quinn::Connection),
    WebTransport(wtransport::Connection),
}

impl Link {
    fn quic(&self) -> &quinn::Connection {
        match self {
            Self::Quic(_, connection) => connection,
            Self::WebTransport(connection) => connection.quic_connection(),
        }
    }

    async fn receive_datagram(&self) -> Result<Bytes, String> {
        match self {
            Self::Quic(_, connection) => connection.read_datagram().await.map_err(|error| error.to_string()),
            Self::WebTransport(connection) => {
                let received = connection.receive_datagram().await;
                received
                    .map(|datagram| datagram.payload())
                    .map_err(|error| error.to_string())
            }
        }
    }

    fn send_datagram(&self, payload: Bytes) -> bool {
        match self {
            Self::Quic(_, connection) => connection.send_datagram(payload).is_ok(),
            Self::WebTransport(connection) => connection.send_datagram(payload).is_ok(),
        }
    }
}

impl Stream {
    pub(super) fn new(
        link: Link,
        writer: impl AsyncWrite + Send + 'static,
        reader: impl AsyncRead + Send + 'static,
    ) -> Self {
        let framing = || {
            LengthDelimitedCodec::builder()
                .max_frame_length(FRAME_BYTES_MAX)
                .new_codec()
        };
        Self {
            link,
            reader: FramedRead::new(Box::pin(reader), framing()),
            writer: FramedWrite::new(Box::pin(writer), framing()),
        }
    }

    pub(super) const fn transport(&self) -> Transport {
        match self.link {
            Link::Quic(..) => Transport::Quic,
            Link::WebTransport(..) => Transport::WebTransport,
        }
    }

    /// Writes frames, all with one flush.
    pub(super) async fn send(&mut self, frames: &[ClientFrame]) -> Result<(), String> {
        let writing = async {
            for frame in frames {
                self.writer.feed(Bytes::from(frame.encode_to_vec())).await?;
            }
            SinkExt::<Bytes>::flush(&mut self.writer).await
        };
        match timeout(WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.why(&error)),
            Err(_) => Err("the connection takes nothing any more".to_owned()),
        }
    }

    pub(super) async fn send_fleeting(&mut self, frame: &ClientFrame) -> Result<(), String> {
        if self.link.send_datagram(frame.encode_to_vec().into()) {
            return Ok(());
        }
        self.send(slice::from_ref(frame)).await
    }

    pub(super) async fn receive(&mut self) -> Result<ServerFrame, String> {
        // A connection that is closed has no datagrams any more, and may still have frames that came before.
        let read = tokio::select! {
            biased;
            read = self.reader.next() => read,
            datagram = self.link.receive_datagram() => match datagram {
                Ok(bytes) => return decode(bytes),
                Err(_) => self.reader.next().await,
            },
        };
        match read {
            Some(Ok(bytes)) => decode(bytes.freeze()),
            Some(Err(error)) => Err(self.why(&error)),
            None => Err(self.why(&"the stream ended")),
        }
    }

    /// Goes on from another socket, and so from whatever address the network gives now.
    pub(super) fn rebind(&self) -> bool {
        let Link::Quic(Some(endpoint), connection) = &self.link else {
            return false;
        };
        let socket = UdpSocket::bind(any_address(&connection.remote_address()));
        socket.is_ok_and(|socket| endpoint.rebind(socket).is_ok())
    }

    pub(super) async fn close(mut self: Box<Self>) {
        // A connection that is closed drops what is still under way. The edge closes it once it has read to the end of the stream.
        let ended = async {
            if SinkExt::<Bytes>::close(&mut self.writer).await.is_ok() {
                self.link.quic().closed().await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, ended).await;
        self.link.quic().close(1000_u32.into(), b"bye");
        if let Link::Quic(Some(endpoint), _) = &self.link {
            let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
        }
    }

    /// The connection knows more of it than its stream.
    fn why(&self, error: &dyn std::fmt::Display) -> String {
        match self.link.quic().close_reason() {
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        }
    }
}

fn decode(bytes: Bytes) -> Result<ServerFrame, String> {
    ServerFrame::decode(bytes).map_err(|error| format!("a malformed frame: {error}"))
}

/// Every address of this machine, of the kind that reaches `remote`.
pub(super) fn any_address(remote: &SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
