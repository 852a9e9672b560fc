//! Clients: they send until they are answered, read, and follow feeds.

use std::{sync::Arc, time::Duration};

use antiphon_directory::Dialer;
use antiphon_proto::{
    client::{ServerFrame, server_frame},
    refusal,
    rpc::{
        CreateDirectRequest, HistoryRequest, HistoryResponse, Interest, NewMessage, SendRequest,
        conversation_client::ConversationClient, feed_client::FeedClient, feed_item, message_client::MessageClient,
        send_result,
    },
};
use antiphon_types::{ConversationId, ErrorCode, Seq, UserId};
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Request, Status, transport::Channel};

use crate::{
    edge::SLOT,
    ledger::{Ledger, Shown},
    network::HostId,
    region::{EDGE_PORT, NODE_PORT},
};

/// How long a client waits before it asks elsewhere.
const PATIENCE: Duration = Duration::from_millis(1_800);
/// How long a feed may say nothing before it is followed elsewhere.
const FEED_PATIENCE: Duration = Duration::from_secs(3);

/// How far the world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Faults come and go.
    Storm,
    /// Everything is healed: each client sends once more.
    Healed,
    /// Everybody has: what is there now is read.
    Over,
}

/// A conversation of two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) number: usize,
    pub(crate) conversation: ConversationId,
    pub(crate) members: [UserId; 2],
}

/// One member's device.
pub(crate) struct Client {
    pub(crate) host: HostId,
    pub(crate) talk: Talk,
    pub(crate) member: usize,
    pub(crate) regions: Arc<[String]>,
    pub(crate) dialer: Dialer,
    pub(crate) ledger: Ledger,
    pub(crate) random: SmallRng,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The longest pause between two messages, in milliseconds.
    pub(crate) pause_ms_max: u64,
    /// Where it was answered last, for as long as it is: who knows where a slot was at home asks there.
    pub(crate) answered_by: Option<String>,
}

impl Client {
    /// Another device of the same member.
    pub(crate) fn twin(&self) -> Self {
        Self {
            talk: self.talk,
            regions: self.regions.clone(),
            dialer: self.dialer.clone(),
            ledger: self.ledger.clone(),
            random: self.random.clone(),
            phase: self.phase.clone(),
            answered_by: None,
            ..*self
        }
    }

    pub(crate) async fn run(mut self) {
        self.create().await;
        let mut number = 0;
        while *self.phase.borrow() == Phase::Storm {
            let burst = self.random.random_range(1..=3);
            self.burst(number + 1..=number + burst).await;
            number += burst;
            if self.random.random_bool(0.3) {
                let (_, channel) = self.somewhere();
                self.read(channel).await;
            }
            let pause_ms = self.random.random_range(0..self.pause_ms_max);
            let mut phase = self.phase.clone();
            let _ = timeout(
                Duration::from_millis(pause_ms),
                phase.wait_for(|phase| *phase != Phase::Storm),
            )
            .await;
        }
        self.burst(number + 1..=number + 1).await;
        self.ledger.with(|book| book.healed += 1);
        let _ = self.phase.wait_for(|phase| *phase == Phase::Over).await;
        let pages = self.read_all().await;
        self.ledger
            .with(|book| book.last_read.entry(self.talk.number).or_default().push(pages));
    }

    async fn create(&mut self) {
        loop {
            let request = self.request(CreateDirectRequest {
                conversation_id: self.talk.conversation.to_bytes(),
                creator_id: self.talk.members[0].to_bytes(),
                peer_id: self.talk.members[1].to_bytes(),
                created_at_ms: 1,
                await_listed: false,
            });
            let mut conversations = ConversationClient::new(self.somewhere().1);
            match timeout(PATIENCE, conversations.create_direct(request)).await {
                Ok(Ok(_)) => return,
                Ok(Err(status)) => self.refused(&status).await,
                Err(_) => {}
            }
        }
    }

    /// Sends messages, all at once.
    async fn burst(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        let sending = numbers.map(|number| {
            let mut device = self.twin();
            device.random = SmallRng::seed_from_u64(self.random.random());
            async move { device.send(number).await }
        });
        futures_util::future::join_all(sending.collect::<Vec<_>>()).await;
    }

    /// Sends one message until it is acknowledged.
    async fn send(&mut self, number: u64) {
        let client_msg_id = format!("m{}-{}-{number}", self.talk.number, self.member);
        loop {
            let request = self.request(SendRequest {
                conversation_id: self.talk.conversation.to_bytes(),
                sender_id: self.talk.members[self.member].to_bytes(),
                messages: vec![NewMessage {
                    client_msg_id: client_msg_id.clone(),
                    text: text_of(&client_msg_id),
                }],
            });
            let mut messages = MessageClient::new(self.somewhere().1);
            match timeout(PATIENCE, messages.send(request)).await {
                Ok(Ok(answer)) => {
                    let answer = match answer.into_inner().results.remove(0).result.unwrap() {
                        send_result::Result::Stored(stored) => stored,
                        send_result::Result::NotDone(not_done) => {
                            let why = not_done.refusal.unwrap();
                            self.refused(&refusal::status(&why.code, not_done.message, why.retry_after_ms))
                                .await;
                            continue;
                        }
                    };
                    let talk = self.talk.number;
                    self.ledger
                        .acknowledged(self.host, talk, &client_msg_id, answer.seq, answer.duplicate);
                    // What was acknowledged is sent again now and then.
                    if answer.duplicate || !self.random.random_bool(0.1) {
                        return;
                    }
                }
                Ok(Err(status)) => self.refused(&status).await,
                Err(_) => {}
            }
        }
    }

    /// Reads a page; whether it was answered.
    async fn read(&mut self, channel: Channel) -> bool {
        let floor = self.ledger.floor(self.talk.number);
        let after = self.random.random_bool(0.5).then(|| floor.saturating_sub(5));
        let Ok(page) = self.page(channel, after).await else {
            return false;
        };
        self.ledger.tail_read(self.host, self.talk.number, floor, page.tail_seq);
        self.show(page);
        true
    }

    /// The whole conversation.
    async fn read_all(&mut self) -> std::collections::BTreeMap<Seq, Shown> {
        let mut found = std::collections::BTreeMap::new();
        loop {
            let after = found.keys().next_back().copied().unwrap_or(0);
            let (_, channel) = self.somewhere();
            match self.page(channel, Some(after)).await {
                Ok(page) => {
                    let tail = page.tail_seq;
                    for (seq, shown) in self.show(page) {
                        found.insert(seq, shown);
                    }
                    if found.keys().next_back().copied().unwrap_or(0) >= tail {
                        return found;
                    }
                }
                Err(Some(status)) => self.refused(&status).await,
                Err(None) => {}
            }
        }
    }

    async fn page(&self, channel: Channel, after_seq: Option<Seq>) -> Result<HistoryResponse, Option<Status>> {
        let request = self.request(HistoryRequest {
            conversation_id: self.talk.conversation.to_bytes(),
            user_id: self.talk.members[self.member].to_bytes(),
            after_seq,
            before_seq: None,
            limit: 0,
        });
        let mut messages = MessageClient::new(channel);
        match timeout(PATIENCE, messages.history(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(None),
        }
    }

    fn show(&self, page: HistoryResponse) -> Vec<(Seq, Shown)> {
        let messages = page.messages.into_iter().map(|message| {
            let shown = Shown {
                client_msg_id: message.client_msg_id,
                text: message.text,
            };
            self.ledger.shown(self.talk.number, message.seq, shown.clone());
            (message.seq, shown)
        });
        messages.collect()
    }

    /// A region, by its edge or by its port between nodes: its address, and the way there.
    fn somewhere(&mut self) -> (String, Channel) {
        let region = &self.regions[self.random.random_range(0..self.regions.len())];
        let port = if self.random.random_bool(0.5) {
            EDGE_PORT
        } else {
            NODE_PORT
        };
        let address = self.answered_by.take().unwrap_or_else(|| format!("{region}:{port}"));
        let channel = self.dialer.channel(&address, &address);
        (address, channel.expect("a region's name is a host"))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let slot = self.talk.conversation.slot().number();
        request.metadata_mut().insert(SLOT, slot.into());
        request.set_timeout(PATIENCE);
        request
    }

    /// Waits before it is asked again; what is refused for good is wrong.
    async fn refused(&mut self, status: &Status) {
        let code = ErrorCode::parse(&refusal::of(status).code);
        if !code.is_retryable() && code != ErrorCode::NotHome {
            self.ledger.note(self.host, &format!("is refused: {status}"));
        }
        sleep(Duration::from_millis(self.random.random_range(10..150))).await;
    }
}

/// Reads a conversation over and over, until the world is healed.
pub(crate) async fn look(mut client: Client) {
    while *client.phase.borrow() == Phase::Storm {
        let asked = client.somewhere();
        let was_read = client.read(asked.1).await;
        client.answered_by = was_read.then_some(asked.0);
        let pause_ms = client.random.random_range(50..400);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// Follows a conversation's feed, at one region after another, until the world is over.
pub(crate) async fn follow(mut client: Client) {
    while *client.phase.borrow() != Phase::Over {
        let region = &client.regions[client.random.random_range(0..client.regions.len())];
        let address = format!("{region}:{NODE_PORT}");
        let channel = client
            .dialer
            .channel(region, &address)
            .expect("a region's name is a host");
        let interest = Interest {
            subscribe: vec![client.talk.conversation.to_bytes()],
            unsubscribe: Vec::new(),
        };
        let (keep, kept) = tokio::sync::mpsc::channel(1);
        let _ = keep.send(interest).await;
        let interests = tokio_stream::wrappers::ReceiverStream::new(kept);
        if let Ok(Ok(answer)) = timeout(PATIENCE, FeedClient::new(channel).follow(interests)).await {
            let mut batches = answer.into_inner();
            while let Ok(Ok(Some(batch))) = timeout(FEED_PATIENCE, batches.message()).await {
                for item in batch.items {
                    if let Some(feed_item::Body::Message(pushed)) = item.body {
                        show_pushed(&client, &pushed.frame);
                    }
                }
            }
        }
        sleep(Duration::from_millis(client.random.random_range(10..150))).await;
    }
}

fn show_pushed(client: &Client, frame: &[u8]) {
    let Ok(frame) = ServerFrame::decode(frame) else {
        return client.ledger.violation("a pushed frame cannot be read".to_owned());
    };
    if let Some(server_frame::Body::Message(message)) = frame.body {
        let (talk, seq) = (client.talk.number, message.seq);
        client
            .ledger
            .note(client.host, &format!("is pushed {seq} of talk {talk}"));
        let shown = Shown {
            client_msg_id: message.client_msg_id,
            text: message.text,
        };
        client.ledger.shown(talk, seq, shown);
    }
}

/// The one text that a message may have.
pub(crate) fn text_of(client_msg_id: &str) -> String {
    format!("what {client_msg_id} says")
}
