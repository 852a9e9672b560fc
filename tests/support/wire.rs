//! What a raw session is connected over: what the environment names in `ANTIPHON_TEST_TRANSPORT`, `websocket` (when it names nothing),
//! `webtransport` or `quic`.

use std::{env, io, pin::Pin};

pub(crate) use antiphon_client::Transport;
use antiphon_proto::client::{ClientFrame, ServerFrame};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::quic;

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The transport of this run.
pub(crate) fn of_environment() -> Transport {
    match env::var("ANTIPHON_TEST_TRANSPORT").as_deref() {
        Err(_) | Ok("websocket") => Transport::WebSocket,
        Ok("webtransport") => Transport::WebTransport,
        Ok("quic") => Transport::Quic,
        Ok(other) => panic!("ANTIPHON_TEST_TRANSPORT={other}: it is websocket, webtransport or quic"),
    }
}

/// Frames as JSON, whatever they are on the way.
pub(crate) enum Wire {
    WebSocket(Box<Socket>),
    Stream(Box<StreamWire>),
}

/// One stream; `connection` keeps what it is on.
pub(crate) struct StreamWire {
    reader: FramedRead<Pin<Box<dyn AsyncRead + Send>>, LengthDelimitedCodec>,
    writer: FramedWrite<Pin<Box<dyn AsyncWrite + Send>>, LengthDelimitedCodec>,
    is_json: bool,
    connection: quinn::Connection,
    web_transport: Option<wtransport::Connection>,
}

impl Wire {
    /// Connects to the edge whose HTTP is on this port.
    pub(crate) async fn connect(transport: Transport, port: u16) -> Result<Self, Error> {
        match transport {
            Transport::WebSocket => {
                let (socket, _) = super::session::shake_hands(port, "antiphon.v1.json").await?;
                Ok(Self::WebSocket(Box::new(socket)))
            }
            Transport::Quic => {
                let connection = quic::connect(port).await.map_err(Error::Io)?;
                Ok(Self::on_stream(&connection).await)
            }
            Transport::WebTransport => {
                let session = quic::connect_web_transport(port).await.map_err(Error::Io)?;
                let (writer, reader) = session.open_bi().await.map_err(io_error)?.await.map_err(io_error)?;
                let connection = session.quic_connection().clone();
                Ok(Self::stream(writer, reader, true, connection, Some(session)))
            }
        }
    }

    /// On a new stream of a connection of QUIC.
    pub(crate) async fn on_stream(connection: &quinn::Connection) -> Self {
        let (writer, reader) = connection.open_bi().await.expect("a stream");
        Self::stream(writer, reader, false, connection.clone(), None)
    }

    fn stream(
        writer: impl AsyncWrite + Send + 'static,
        reader: impl AsyncRead + Send + 'static,
        is_json: bool,
        connection: quinn::Connection,
        web_transport: Option<wtransport::Connection>,
    ) -> Self {
        let framing = || LengthDelimitedCodec::builder().max_frame_length(64 << 20).new_codec();
        Self::Stream(Box::new(StreamWire {
            reader: FramedRead::new(Box::pin(reader), framing()),
            writer: FramedWrite::new(Box::pin(writer), framing()),
            is_json,
            connection,
            web_transport,
        }))
    }

    /// Writes a frame.
    pub(crate) async fn send(&mut self, frame: &Value) -> Result<(), Error> {
        match self {
            Self::WebSocket(socket) => socket.send(Message::text(frame.to_string())).await,
            Self::Stream(wire) => {
                let bytes = if wire.is_json {
                    frame.to_string().into_bytes()
                } else {
                    let frame: ClientFrame = serde_json::from_value(frame.clone()).expect("a frame of the protocol");
                    frame.encode_to_vec()
                };
                wire.writer.send(Bytes::from(bytes)).await.map_err(Error::Io)
            }
        }
    }

    /// The next frame; None at the end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await? {
                    Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("a frame of JSON")),
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                    Ok(Message::Binary(_)) => panic!("a binary message in a session of JSON"),
                    Ok(Message::Close(_)) | Err(_) => return None,
                }
            },
            Self::Stream(wire) => {
                let bytes = wire.next().await?;
                if wire.is_json {
                    return Some(serde_json::from_slice(&bytes).expect("a frame of JSON"));
                }
                let frame = ServerFrame::decode(bytes).expect("a frame of protobuf");
                Some(serde_json::to_value(frame).expect("a frame of JSON"))
            }
        }
    }

    /// The WebSocket itself, for tests of what it alone has.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        match self {
            Self::WebSocket(socket) => socket,
            Self::Stream(_) => panic!("this session is not over WebSocket"),
        }
    }

    pub(crate) fn into_socket(self) -> Socket {
        match self {
            Self::WebSocket(socket) => *socket,
            Self::Stream(_) => panic!("this session is not over WebSocket"),
        }
    }

    /// The connection of QUIC below.
    pub(crate) fn connection(&self) -> &quinn::Connection {
        match self {
            Self::Stream(wire) => &wire.connection,
            Self::WebSocket(_) => panic!("this session is over WebSocket"),
        }
    }
}

impl StreamWire {
    /// From the stream, or a datagram beside it.
    async fn next(&mut self) -> Option<Bytes> {
        let datagram = async {
            match &self.web_transport {
                Some(session) => session.receive_datagram().await.ok().map(|datagram| datagram.payload()),
                None => self.connection.read_datagram().await.ok(),
            }
        };
        tokio::select! {
            // What is on the stream is read before the end of the connection is told.
            biased;
            read = self.reader.next() => Some(read?.ok()?.freeze()),
            Some(datagram) = datagram => Some(datagram),
        }
    }
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io(io::Error::other(error))
}
