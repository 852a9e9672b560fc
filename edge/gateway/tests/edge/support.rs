//! A home in memory: conversations, messages and their feed, behind the same tonic services as the real ones.

mod services;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use antiphon_directory::{Route, Table, TableWatch};
use antiphon_feed::{FeedOptions, Topic, Topics};
use antiphon_gateway::{Gateway, GatewayOptions};
use antiphon_proto::{
    client::{Message, ServerFrame, server_frame},
    log::{FamilyRevoked, Kind, MembershipChanged, Role},
    rpc::{FeedItem, PushedMessage, feed_item::Body},
};
use antiphon_types::{Clock, ConversationId, Slot, UserId};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

/// The home and its feed.
pub struct World {
    pub clock: Clock,
    pub state: Mutex<State>,
    pub topics: Mutex<Arc<Topics>>,
    /// Calls of History by an edge.
    pub fills: AtomicU64,
    /// Joins this conversation, and is sent some messages, while its list of conversations is read.
    pub joins_late: Mutex<Option<(ConversationId, UserId)>>,
    /// Nothing is answered about these, as when their home is lost.
    pub silent: Mutex<BTreeSet<ConversationId>>,
    /// Writes of messages and inboxes are refused for so many milliseconds.
    pub busy: Mutex<Option<u64>>,
    /// Such writes that were asked for, refused or not.
    pub writes: AtomicU64,
    /// How far devices have come.
    pub delivered: Mutex<BTreeMap<(ConversationId, UserId), u64>>,
}

#[derive(Default)]
pub struct State {
    pub conversations: BTreeMap<ConversationId, Conversation>,
    pub version: u64,
    pub presence: Vec<(UserId, bool)>,
}

#[derive(Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub members: BTreeMap<UserId, (u64, u64)>,
}

pub fn user(number: u64) -> UserId {
    UserId::new(Slot::of_hash(number), 1, number)
}

pub fn conversation(number: u64) -> ConversationId {
    ConversationId::new(Slot::of_hash(number * 7), 1, number)
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::system(),
            state: Mutex::default(),
            topics: Mutex::new(Topics::new(FeedOptions::default())),
            fills: AtomicU64::new(0),
            joins_late: Mutex::default(),
            silent: Mutex::default(),
            busy: Mutex::default(),
            writes: AtomicU64::new(0),
            delivered: Mutex::default(),
        })
    }

    pub fn publish(&self, topic: impl Into<Topic>, body: Body) {
        let topic = topic.into();
        let item = FeedItem {
            topic: topic.to_bytes(),
            body: Some(body),
            traceparent: String::new(),
        };
        self.topics.lock().publish(topic, item);
    }

    /// Stores a message; the feed brings it unless it is `lost`.
    pub fn send(&self, id: ConversationId, sender: UserId, text: &str, lost: bool) -> u64 {
        let mut state = self.state.lock();
        let conversation = state.conversations.get_mut(&id).unwrap();
        let message = Message {
            conversation_id: id.to_string(),
            seq: conversation.messages.len() as u64 + 1,
            sender_id: sender.to_string(),
            client_msg_id: "m".to_owned(),
            text: text.to_owned(),
            sent_at_ms: self.clock.now_ms(),
        };
        let seq = message.seq;
        conversation.messages.push(message.clone());
        let frame = ServerFrame {
            id: String::new(),
            body: Some(server_frame::Body::Message(message)),
        };
        let pushed = PushedMessage {
            seq,
            frame: frame.encode_to_vec().into(),
            ..PushedMessage::default()
        };
        if !lost {
            self.publish(id, Body::Message(pushed));
        }
        seq
    }

    /// Adds or removes a member; `told` says whether the feed brings it.
    pub fn set_member(&self, id: ConversationId, who: UserId, is_member: bool, told: bool) {
        let mut state = self.state.lock();
        state.version += 1;
        let (version, now_ms) = (state.version, self.clock.now_ms());
        let members = &mut state.conversations.entry(id).or_default().members;
        if is_member {
            members.insert(who, (version, now_ms));
        } else {
            members.remove(&who);
        }
        let change = MembershipChanged {
            conversation_id: id.to_bytes(),
            user_id: who.to_bytes(),
            version,
            role: if is_member { Role::Member } else { Role::None }.into(),
            kind: Kind::Group.into(),
            changed_at_ms: now_ms,
            joined_at_ms: if is_member { now_ms } else { 0 },
            ..MembershipChanged::default()
        };
        if told {
            self.publish(id, Body::Membership(change.clone()));
            self.publish(who, Body::Membership(change));
        }
    }

    pub fn revoke(&self, who: UserId, device_id: &str) {
        let revoked = FamilyRevoked {
            user_id: who.to_bytes(),
            device_id: device_id.to_owned(),
            ..FamilyRevoked::default()
        };
        self.publish(who, Body::Revoked(revoked));
    }

    /// Breaks the feed: whoever follows it has to come again.
    pub fn break_feed(&self) {
        *self.topics.lock() = Topics::new(FeedOptions::default());
    }
}

/// An edge in front of the world.
pub struct Edge {
    pub gateway: Gateway,
    pub address: SocketAddr,
}

impl Edge {
    pub async fn start(world: &Arc<World>, options: GatewayOptions) -> Self {
        let route = Route::new("r1", TableWatch::new(Table::single("r1")));
        route.serve(services::routes(world));
        let gateway = Gateway::new(route, tokens::verifier(), world.clock.clone(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = gateway.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        Self { gateway, address }
    }

    pub async fn connect(&self) -> Device {
        let mut request = format!("ws://{}/v1/connect", self.address)
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "antiphon.v1.json".parse().unwrap());
        let (socket, response) = connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "antiphon.v1.json");
        Device { socket }
    }

    /// Connects and says Hello; the device and its Welcome.
    pub async fn hello(&self, who: UserId, device_id: &str, cursors: &[(ConversationId, u64)]) -> (Device, Value) {
        let mut device = self.connect().await;
        device.say_hello(who, device_id, cursors).await;
        let welcome = device.next().await.unwrap();
        assert!(welcome["welcome"].is_object(), "{welcome}");
        (device, welcome["welcome"].clone())
    }
}

/// A raw client.
pub struct Device {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Device {
    pub async fn say_hello(&mut self, who: UserId, device_id: &str, cursors: &[(ConversationId, u64)]) {
        let cursors = cursors
            .iter()
            .map(|(id, seq)| serde_json::json!({"conversationId": id.to_string(), "afterSeq": seq.to_string()}));
        let token = tokens::signed(who, device_id, Clock::system().now_ms());
        self.say(&serde_json::json!({"id": "h", "hello": {
            "accessToken": token, "deviceId": device_id, "cursors": cursors.collect::<Vec<_>>(),
        }}))
        .await;
    }

    pub async fn say(&mut self, frame: &Value) {
        self.socket
            .send(tungstenite::Message::Text(frame.to_string().into()))
            .await
            .unwrap();
    }

    /// The next frame; `Err` holds the close code and reason.
    pub async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(5), self.socket.next()).await;
            match next.expect("a frame within 5 s") {
                Some(Ok(tungstenite::Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(tungstenite::Message::Close(Some(frame)))) => {
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err((0, String::new())),
            }
        }
    }

    /// The seqs of the next messages, until one is `last`.
    pub async fn seqs_until(&mut self, last: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            let frame = self.next().await.unwrap();
            let Some(seq) = frame["message"]["seq"].as_str() else {
                continue;
            };
            seqs.push(seq.parse().unwrap());
            if seqs.last() == Some(&last) {
                return seqs;
            }
        }
    }

    /// Asks for a Pong and returns every frame up to it.
    pub async fn until_pong(&mut self) -> Vec<Value> {
        self.say(&serde_json::json!({"id": "p", "ping": {}})).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.unwrap();
            if frame["pong"].is_object() {
                return frames;
            }
            frames.push(frame);
        }
    }
}
