//! A node with one slot, and a conversation in it with one member.

#![allow(dead_code, unreachable_pub, reason = "not every test asks for all of it")]

use std::{path::Path, sync::Arc};

use antiphon_feed::{FeedOptions, Topics};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_message::{FeedHome, MessageOptions, MessageService};
use antiphon_proto::{
    log::{Member, Role},
    rpc::{NewMessage, SendRequest, SendResult, message_server::Message as _},
};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{Clock, ConversationId, Slot, UserId, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use prost::Message as _;
use tonic::{Request, Status};

pub struct World {
    pub slots: Slots,
    pub slot: Slot,
    service: MessageService,
    conversation: ConversationId,
    sender: UserId,
}

impl World {
    /// Its home under epoch 1.
    pub async fn start(folder: &Path) -> Self {
        let options = EmbeddedOptions {
            path: folder.to_owned(),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        let feed = FeedHome::new(Topics::new(FeedOptions::default()));
        let hooks = Hooks {
            observers: vec![Arc::new(feed.clone())],
            ..Hooks::default()
        };
        let slots = Slots::start(kv, SlotOptions::default(), [1; 16], hooks);
        let slot = Slot::new(7).unwrap();
        slots.grant(slot, 1, InSync::alone());
        let (conversation, sender) = (ConversationId::new(slot, 1, 2), UserId::new(slot, 1, 3));
        let join = move |txn: SlotTxn| async move {
            let (id, user) = (conversation.as_bytes().as_slice(), sender.as_bytes().as_slice());
            let member = Member {
                role: Role::Member.into(),
                ..Member::default()
            };
            let key: Bytes = pack(&(slot.number(), kind::MEMBER, id, user)).into();
            txn.set(key, member.encode_to_vec());
            Ok::<_, SlotError>(())
        };
        slots.write(slot, join).await.unwrap();
        let clock = Clock::manual(1_700_000_000_000);
        Self {
            service: MessageService::new(slots.clone(), clock, MessageOptions::default(), feed),
            slots,
            slot,
            conversation,
            sender,
        }
    }

    /// One request with these messages.
    pub async fn send(&self, messages: Vec<NewMessage>) -> Result<Vec<SendResult>, Status> {
        let request = SendRequest {
            conversation_id: self.conversation.to_bytes(),
            sender_id: self.sender.to_bytes(),
            messages,
        };
        let answer = self.service.send(Request::new(request)).await?;
        Ok(answer.into_inner().results)
    }
}

/// The message of this number.
pub fn message(number: u64) -> NewMessage {
    NewMessage {
        client_msg_id: format!("{number:08}"),
        text: "x".repeat(64),
    }
}
