use std::collections::HashMap;

use antiphon_proto::client::{Ack, Cursor, Fetch, Message, ServerFrame, client_frame, server_frame::Body};
use anyhow::{Result, bail};

use crate::{device::Device, inbox::Inbox};

/// The number of requests for pages, which no other request has.
const FETCH: u64 = u64::MAX;
/// Of those for pages of what is there already.
const LOOK_BACK: u64 = u64::MAX - 1;

/// What a device has of its conversations.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    held: HashMap<String, Held>,
}

#[derive(Debug, Default)]
struct Held {
    inbox: Inbox,
    fetching: Fetching,
    acked_seq: u64,
}

/// Whether a page of what was not pushed is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fetching {
    #[default]
    No,
    Asked,
    Refused,
}

/// What a frame has brought.
#[derive(Debug)]
pub(crate) enum Came {
    /// Messages that the device had not.
    Messages(Vec<Message>),
    /// Something else.
    Frame(ServerFrame),
}

impl Follower {
    /// The device has this conversation up to this message.
    pub(crate) fn holds(&mut self, conversation_id: &str, seq: u64) {
        self.held(conversation_id).inbox = Inbox::whole_to(seq);
    }

    /// Takes in what came, and asks for what the edge says it has left out.
    pub(crate) async fn take(&mut self, device: &mut Device, frame: ServerFrame) -> Result<Came> {
        let messages = match frame.body {
            Some(Body::Message(message)) => vec![message],
            Some(Body::Page(_)) if frame.id == LOOK_BACK.to_string() => Vec::new(),
            Some(Body::Page(page)) => {
                self.held(&page.conversation_id).fetching = Fetching::No;
                let mut new = page.messages;
                new.retain(|message| self.hold(&message.conversation_id, message.seq));
                if self.missing(&page.conversation_id, page.tail_seq) > 0 {
                    self.fetch(device, &page.conversation_id).await?;
                }
                return Ok(Came::Messages(new));
            }
            Some(Body::Lagged(lagged)) => {
                self.fetch(device, &lagged.conversation_id).await?;
                Vec::new()
            }
            // Asked again by [`Self::fetch_again`].
            Some(Body::Error(_)) if frame.id == FETCH.to_string() => {
                let asked = self.held.values_mut().filter(|held| held.fetching == Fetching::Asked);
                asked.for_each(|held| held.fetching = Fetching::Refused);
                Vec::new()
            }
            Some(Body::Error(error)) if frame.id.is_empty() => bail!("the server said {error:?}"),
            Some(Body::Goaway(goaway)) => bail!("the server sent the device away: {}", goaway.reason),
            _ => return Ok(Came::Frame(frame)),
        };
        let new = messages
            .into_iter()
            .filter(|message| self.hold(&message.conversation_id, message.seq));
        Ok(Came::Messages(new.collect()))
    }

    /// The device has this message; true if it had it not.
    pub(crate) fn hold(&mut self, conversation_id: &str, seq: u64) -> bool {
        self.held(conversation_id).inbox.take(seq)
    }

    /// Up to which seq it has every message.
    pub(crate) fn whole(&self, conversation_id: &str) -> u64 {
        self.held.get(conversation_id).map_or(0, |held| held.inbox.whole())
    }

    /// Pages that were asked for in another session do not come.
    pub(crate) fn reconnected(&mut self) {
        self.held.values_mut().for_each(|held| held.fetching = Fetching::No);
    }

    /// Asks for a page of what it has already, from somewhere in it.
    pub(crate) async fn look_back(&mut self, device: &mut Device, conversation_id: &str) -> Result<()> {
        let before_seq = rand::random_range(1..=self.whole(conversation_id).max(1));
        let fetch = Fetch {
            conversation_id: conversation_id.to_owned(),
            after_seq: None,
            before_seq: Some(before_seq),
            limit: 0,
        };
        device.send(LOOK_BACK, client_frame::Body::Fetch(fetch)).await
    }

    /// Of the first `tail_seq` messages, how many it lacks.
    pub(crate) fn missing(&self, conversation_id: &str, tail_seq: u64) -> u64 {
        let held = self.held.get(conversation_id);
        held.map_or(tail_seq, |held| held.inbox.missing(tail_seq))
    }

    /// Where to go on after an absence.
    pub(crate) fn cursors(&self, conversation_ids: &[String]) -> Vec<Cursor> {
        let cursor = |id: &String| Cursor {
            conversation_id: id.clone(),
            after_seq: self.held.get(id).map_or(0, |held| held.inbox.whole()),
        };
        conversation_ids.iter().map(cursor).collect()
    }

    /// Says how far the device has come since it said so last.
    pub(crate) async fn acknowledge(&mut self, device: &mut Device) -> Result<()> {
        for (conversation_id, held) in &mut self.held {
            if held.inbox.whole() > held.acked_seq {
                held.acked_seq = held.inbox.whole();
                let ack = Ack {
                    conversation_id: conversation_id.clone(),
                    delivered_seq: held.acked_seq,
                };
                device.send(0, client_frame::Body::Ack(ack)).await?;
            }
        }
        Ok(())
    }

    /// Asks once more for pages that were refused.
    pub(crate) async fn fetch_again(&mut self, device: &mut Device) -> Result<()> {
        let refused = self.held.iter().filter(|(_, held)| held.fetching == Fetching::Refused);
        let refused: Vec<String> = refused.map(|(id, _)| id.clone()).collect();
        for conversation_id in refused {
            self.fetch(device, &conversation_id).await?;
        }
        Ok(())
    }

    async fn fetch(&mut self, device: &mut Device, conversation_id: &str) -> Result<()> {
        let held = self.held(conversation_id);
        if held.fetching == Fetching::Asked {
            return Ok(());
        }
        held.fetching = Fetching::Asked;
        let fetch = Fetch {
            conversation_id: conversation_id.to_owned(),
            after_seq: Some(held.inbox.whole()),
            before_seq: None,
            limit: 0,
        };
        device.send(FETCH, client_frame::Body::Fetch(fetch)).await
    }

    fn held(&mut self, conversation_id: &str) -> &mut Held {
        if !self.held.contains_key(conversation_id) {
            self.held.insert(conversation_id.to_owned(), Held::default());
        }
        #[expect(clippy::expect_used, reason = "it was put there a line above")]
        self.held.get_mut(conversation_id).expect("what is held")
    }
}
