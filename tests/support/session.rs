use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, client::IntoClientRequest as _, handshake::client::Response, http::HeaderValue},
};

use super::{
    PATIENCE, Person, number,
    wire::{Socket, Transport, Wire, of_environment},
};

/// A WebSocket handshake with this subprotocol; none is asked for when it is empty.
pub(crate) async fn shake_hands(port: u16, protocol: &str) -> Result<(Socket, Response), Error> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    shake_hands_over(stream, port, protocol).await
}

async fn shake_hands_over(stream: TcpStream, port: u16, protocol: &str) -> Result<(Socket, Response), Error> {
    stream.set_nodelay(true)?;
    let mut request = format!("ws://127.0.0.1:{port}/v1/connect").into_client_request()?;
    if !protocol.is_empty() {
        request
            .headers_mut()
            .insert("sec-websocket-protocol", HeaderValue::from_str(protocol)?);
    }
    client_async(request, stream).await
}

/// Frames as JSON, written by hand.
pub(crate) struct RawSession {
    pub(crate) wire: Wire,
    /// Events that came while a reply was awaited.
    waiting: VecDeque<Value>,
    replies: VecDeque<Value>,
    next_id: u64,
    /// The answer to Hello.
    pub(crate) welcome: Value,
}

impl RawSession {
    /// Connects and says nothing.
    pub(crate) async fn connect(port: u16) -> Self {
        Self::try_connect(port).await.unwrap()
    }

    /// Over the transport of this run.
    pub(crate) async fn try_connect(port: u16) -> Result<Self, Error> {
        Self::connect_over(of_environment(), port).await
    }

    pub(crate) async fn connect_over(transport: Transport, port: u16) -> Result<Self, Error> {
        Ok(Self::on(Wire::connect(transport, port).await?))
    }

    /// Over WebSocket, for tests of what it alone has.
    pub(crate) async fn web_socket(port: u16) -> Self {
        Self::connect_over(Transport::WebSocket, port).await.unwrap()
    }

    /// Shakes hands over a connection that is there.
    pub(crate) async fn over(stream: TcpStream, port: u16) -> Result<Self, Error> {
        let (socket, _) = shake_hands_over(stream, port, "antiphon.v1.json").await?;
        Ok(Self::on(Wire::WebSocket(Box::new(socket))))
    }

    fn on(wire: Wire) -> Self {
        Self {
            wire,
            waiting: VecDeque::new(),
            replies: VecDeque::new(),
            next_id: 0,
            welcome: Value::Null,
        }
    }

    /// Connects and says Hello, which has to be welcomed.
    pub(crate) async fn open(port: u16, person: &Person, cursors: &[(&str, u64)]) -> Self {
        Self::connect(port).await.greeted(person, cursors).await
    }

    /// As [`RawSession::open`], over this transport.
    pub(crate) async fn open_over(transport: Transport, port: u16, person: &Person) -> Self {
        let session = Self::connect_over(transport, port).await.unwrap();
        session.greeted(person, &[]).await
    }

    /// On a new stream of a connection of QUIC; says nothing.
    pub(crate) async fn on_stream(connection: &quinn::Connection) -> Self {
        Self::on(Wire::on_stream(connection).await)
    }

    /// Says Hello, which has to be welcomed.
    pub(crate) async fn greeted(mut self, person: &Person, cursors: &[(&str, u64)]) -> Self {
        let answer = self.hello(&person.token, &person.device_id, cursors).await;
        assert!(answer["welcome"].is_object(), "{answer}");
        self
    }

    /// Says Hello; the whole answering frame.
    pub(crate) async fn hello(&mut self, token: &str, device_id: &str, cursors: &[(&str, u64)]) -> Value {
        let answer = self.request("hello", &hello(token, device_id, cursors)).await;
        self.welcome = answer["welcome"].clone();
        answer
    }

    /// Sends a request and awaits its reply; the whole frame.
    pub(crate) async fn request(&mut self, name: &str, body: &Value) -> Value {
        let id = self.ask(name, body).await;
        self.reply(&id).await
    }

    /// Sends a request; its id.
    pub(crate) async fn ask(&mut self, name: &str, body: &Value) -> String {
        self.next_id += 1;
        let id = self.next_id.to_string();
        self.wire.send(&json!({"id": id, name: body})).await.unwrap();
        id
    }

    /// Awaits the reply to `id`.
    pub(crate) async fn reply(&mut self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.replies.iter().position(|frame| frame["id"] == id) {
                return self.replies.remove(at).unwrap();
            }
            let frame = self.read(deadline).await.unwrap_or_else(|| panic!("no reply to {id}"));
            self.keep(frame);
        }
    }

    /// Sends a message; its seq.
    pub(crate) async fn send(&mut self, conversation: &str, client_msg_id: &str, text: &str) -> u64 {
        let body = json!({"conversationId": conversation, "clientMsgId": client_msg_id, "text": text});
        let answer = self.request("send", &body).await;
        assert!(answer["sent"].is_object(), "{answer}");
        number(&answer["sent"]["seq"])
    }

    /// The next event of this name, whatever else comes before it; without its name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        self.event_where(name, |_| true).await
    }

    /// The next event of this name that fits; what does not fit is kept.
    pub(crate) async fn event_where(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        self.event_until(name, fits, deadline)
            .await
            .unwrap_or_else(|| panic!("no event {name}; waiting: {:?}", self.waiting))
    }

    /// Any event that comes within `patience`; None when none does or the connection ended.
    pub(crate) async fn any_event(&mut self, patience: Duration) -> Option<Value> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some(frame);
            }
            let frame = self.read(deadline).await?;
            self.keep(frame);
        }
    }

    /// An event of this name within `patience`.
    pub(crate) async fn event_within(&mut self, name: &str, patience: Duration) -> Option<Value> {
        self.event_until(name, |_| true, Instant::now() + patience).await
    }

    /// The seqs of the next `count` messages of a conversation, in the order they came.
    pub(crate) async fn messages(&mut self, conversation: &str, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            let message = self
                .event_where("message", |message| message["conversationId"] == conversation)
                .await;
            seqs.push(number(&message["seq"]));
        }
        seqs
    }

    /// Awaits the end of the connection; the events that came before.
    pub(crate) async fn closed(mut self) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(frame) = self.read(deadline).await {
            self.keep(frame);
        }
        assert!(Instant::now() < deadline, "the connection is still open");
        self.waiting.extend(self.replies);
        self.waiting.into()
    }

    /// The next frame as it comes; None at the deadline or the end.
    pub(crate) async fn read(&mut self, deadline: Instant) -> Option<Value> {
        timeout_at(deadline, self.wire.next()).await.ok()?
    }

    async fn event_until(&mut self, name: &str, fits: impl Fn(&Value) -> bool, deadline: Instant) -> Option<Value> {
        loop {
            let found = self
                .waiting
                .iter()
                .position(|frame| frame[name].is_object() && fits(&frame[name]));
            if let Some(at) = found {
                return self.waiting.remove(at).map(|frame| frame[name].clone());
            }
            let frame = self.read(deadline).await?;
            self.keep(frame);
        }
    }

    fn keep(&mut self, frame: Value) {
        let queue = if frame["id"].is_string() {
            &mut self.replies
        } else {
            &mut self.waiting
        };
        queue.push_back(frame);
    }
}

/// The body of Hello.
pub(crate) fn hello(token: &str, device_id: &str, cursors: &[(&str, u64)]) -> Value {
    let cursors: Vec<Value> = cursors
        .iter()
        .map(|(id, after)| json!({"conversationId": id, "afterSeq": after.to_string()}))
        .collect();
    json!({"accessToken": token, "deviceId": device_id, "cursors": cursors})
}
