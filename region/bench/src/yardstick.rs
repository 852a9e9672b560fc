//! What the machine can do without a server: the limits that a figure is held against.

use std::{
    fs::File,
    io::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use antiphon_proto::{
    Codec,
    client::{ClientFrame, Message, Send, ServerFrame, client_frame, server_frame},
};
use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::ws::{self, WebSocketUpgrade},
    routing::get,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_tungstenite::{connect_async_with_config, tungstenite};

use crate::{Figures, figures::float};

/// Of the echo: as many as there are talkers in a usual run, each with this many frames under way.
const CONNECTIONS: usize = 64;
const IN_FLIGHT: usize = 16;
/// Of both ends of the echo, as an edge and the SDK have it.
const READ_BUFFER_BYTES: usize = 2 * 1_024;
/// How long each yardstick is measured.
const MEASURED: Duration = Duration::from_secs(2);

/// Each alone on the machine, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Yardstick {
    /// Frames that a bare WebSocket server sends back, 64 connections with 16 under way each: the network's limit.
    pub echo_per_s: f64,
    /// Frames that are appended to a file, each with an fdatasync of its own: the disk's limit.
    pub fdatasync_per_s: f64,
    /// Messages that go through the codec on one core: sent and received, written and read.
    pub codec_per_s: f64,
    /// As above, with JSON in place of protobuf.
    pub json_codec_per_s: f64,
}

/// What a server does of what the machine can do without one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ratio {
    /// Deliveries over echoes.
    pub echo: f64,
    /// Messages, which are all durable, over fdatasyncs: more than 1 where several share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdatasync: Option<f64>,
    /// Deliveries over messages that go through the codec.
    pub codec: f64,
    /// As above, of JSON.
    pub json_codec: f64,
}

impl Yardstick {
    /// Measures all of them with texts of this many bytes, in the frames of this codec.
    ///
    /// # Errors
    /// When the system refuses a socket or a file.
    pub async fn measure(text_bytes: usize, codec_of_frames: Codec) -> Result<Self> {
        let frame = codec_of_frames.encode(&frame(text_bytes));
        let message = match codec_of_frames {
            Codec::Binary => tungstenite::Message::Binary(frame.clone()),
            Codec::Json => tungstenite::Message::Text(frame.clone().try_into()?),
        };
        let codec_per_s = tokio::task::spawn_blocking(move || codec(Codec::Binary, text_bytes)).await??;
        let json_codec_per_s = tokio::task::spawn_blocking(move || codec(Codec::Json, text_bytes)).await??;
        let fdatasync_per_s = tokio::task::spawn_blocking(move || fdatasync(&frame)).await??;
        Ok(Self {
            echo_per_s: echo(message).await?,
            fdatasync_per_s,
            codec_per_s,
            json_codec_per_s,
        })
    }

    /// Of figures that have a rate.
    pub(crate) fn ratio_of(&self, figures: &Figures) -> Option<Ratio> {
        let deliveries_per_s = figures.deliveries_per_s?;
        Some(Ratio {
            echo: deliveries_per_s / self.echo_per_s,
            fdatasync: figures.messages_per_s.map(|rate| rate / self.fdatasync_per_s),
            codec: deliveries_per_s / self.codec_per_s,
            json_codec: deliveries_per_s / self.json_codec_per_s,
        })
    }
}

/// As devices send it.
fn frame(text_bytes: usize) -> ClientFrame {
    let send = Send {
        conversation_id: "0123456789abcdef0123456789abcdef".to_owned(),
        client_msg_id: "12345".to_owned(),
        text: "x".repeat(text_bytes),
    };
    ClientFrame {
        id: "12345".to_owned(),
        body: Some(client_frame::Body::Send(send)),
    }
}

/// There and back again.
fn through<F: prost::Message + Default + Serialize + DeserializeOwned>(codec: Codec, frame: &F) -> Result<F> {
    let bytes = codec.encode(frame);
    Ok(match codec {
        Codec::Binary => F::decode(bytes)?,
        Codec::Json => serde_json::from_slice(&bytes)?,
    })
}

fn codec(codec: Codec, text_bytes: usize) -> Result<f64> {
    let sent = frame(text_bytes);
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < MEASURED {
        let frame = through(codec, &sent)?;
        let Some(client_frame::Body::Send(send)) = frame.body else {
            anyhow::bail!("the codec has made something else of a message");
        };
        let message = Message {
            conversation_id: send.conversation_id,
            seq: 1,
            sender_id: "0123456789abcdef0123456789abcdef".to_owned(),
            client_msg_id: send.client_msg_id,
            text: send.text,
            sent_at_ms: 1_700_000_000_000,
        };
        let event = ServerFrame {
            id: String::new(),
            body: Some(server_frame::Body::Message(message)),
        };
        std::hint::black_box(through(codec, &event)?);
        count += 1;
    }
    Ok(float(count) / began.elapsed().as_secs_f64())
}

fn fdatasync(frame: &[u8]) -> Result<f64> {
    let mut file: File = tempfile::tempfile().context("a file for the yardstick")?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < MEASURED {
        file.write_all(frame)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(float(count) / began.elapsed().as_secs_f64())
}

async fn echo(message: tungstenite::Message) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let upgrade =
        |upgrade: WebSocketUpgrade| async { upgrade.read_buffer_size(READ_BUFFER_BYTES).on_upgrade(send_back) };
    let app = Router::new().route("/", get(upgrade));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let message = message.clone();
        clients.spawn(async move {
            let config = tungstenite::protocol::WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
            let (mut socket, _) = connect_async_with_config(format!("ws://{address}/"), Some(config), true).await?;
            for _ in 0..IN_FLIGHT {
                socket.feed(message.clone()).await?;
            }
            socket.flush().await?;
            let (began, mut count) = (Instant::now(), 0);
            while began.elapsed() < MEASURED {
                socket.next().await.context("the echo ended")??;
                count += 1;
                socket.send(message.clone()).await?;
            }
            Ok::<_, anyhow::Error>(float(count) / began.elapsed().as_secs_f64())
        });
    }
    let mut rate = 0.0;
    while let Some(of_client) = clients.join_next().await {
        rate += of_client??;
    }
    server.abort();
    Ok(rate)
}

async fn send_back(mut socket: ws::WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, ws::Message::Binary(_) | ws::Message::Text(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}
