//! A session over a raw WebSocket, in JSON.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::{PATIENCE, Person, Server};

/// A connection and what has come on it.
pub struct Session {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    events: VecDeque<Value>,
    next_id: u64,
}

impl Session {
    /// Connects without a hello.
    pub async fn connect(server: &Server, subprotocol: &str) -> Result<Self, Error> {
        Self::connect_to(server.port(), subprotocol).await
    }

    pub async fn connect_to(port: u16, subprotocol: &str) -> Result<Self, Error> {
        let mut request = format!("ws://127.0.0.1:{port}/v1/connect").into_client_request()?;
        if !subprotocol.is_empty() {
            request
                .headers_mut()
                .insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Self {
            socket,
            events: VecDeque::new(),
            next_id: 1,
        })
    }

    /// Connects and says hello; the session and its welcome.
    pub async fn open(server: &Server, who: &Person, cursors: &[(&str, u64)]) -> (Self, Value) {
        Self::open_to(server.port(), who, cursors).await.unwrap()
    }

    pub async fn open_to(port: u16, who: &Person, cursors: &[(&str, u64)]) -> Result<(Self, Value), String> {
        let mut session = Self::connect_to(port, "antiphon.v1.json")
            .await
            .map_err(|error| error.to_string())?;
        let cursors: Vec<Value> = cursors
            .iter()
            .map(|(id, after)| json!({ "conversationId": id, "afterSeq": after.to_string() }))
            .collect();
        let hello = json!({ "accessToken": who.access_token, "deviceId": who.device_id, "cursors": cursors });
        let welcome = session.request("hello", hello).await?;
        Ok((session, welcome))
    }

    /// Sends a request and waits for its reply: what is under the reply's own key.
    pub async fn request(&mut self, verb: &str, body: Value) -> Result<Value, String> {
        let id = self.post(verb, body).await?;
        loop {
            let frame = self.frame().await?;
            if frame["id"] == id.as_str() {
                return Ok(frame);
            }
            self.events.push_back(frame);
        }
    }

    /// Sends a request and returns its id.
    pub async fn post(&mut self, verb: &str, body: Value) -> Result<String, String> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        self.raw(Message::text(json!({ "id": id, verb: body }).to_string()))
            .await?;
        Ok(id)
    }

    pub async fn raw(&mut self, message: Message) -> Result<(), String> {
        self.socket.send(message).await.map_err(|error| error.to_string())
    }

    pub async fn send(&mut self, conversation: &str, key: &str, words: &str) -> Value {
        let body = json!({ "conversationId": conversation, "clientMsgId": key, "text": words });
        self.request("send", body).await.unwrap()
    }

    /// The next frame that is no reply to a request.
    pub async fn event(&mut self) -> Result<Value, String> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => self.frame().await,
        }
    }

    /// The next event of one kind; others are passed over.
    pub async fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await.unwrap_or_else(|error| panic!("no {kind}: {error}"));
            if !event[kind].is_null() {
                return event[kind].clone();
            }
        }
    }

    /// What still comes of one kind until it is quiet for a while.
    pub async fn quiet(&mut self, kind: &str, within: Duration) -> Vec<Value> {
        let mut found = Vec::new();
        loop {
            let Ok(Ok(event)) = timeout(within, self.event()).await else {
                return found;
            };
            if !event[kind].is_null() {
                found.push(event[kind].clone());
            }
        }
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Result<Value, String> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await {
                Err(_) => return Err("nothing comes".to_owned()),
                Ok(None) => return Err("the connection ended".to_owned()),
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(Some(Ok(Message::Text(text)))) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Some(Ok(Message::Close(frame)))) => return Err(format!("closed: {frame:?}")),
                Ok(Some(Ok(_))) => {}
            }
        }
    }
}
