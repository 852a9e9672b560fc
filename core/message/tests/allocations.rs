//! How often a message asks the allocator for memory on its way into the store: a count that is the same on every machine. Who makes it
//! larger finds it here, and who makes it smaller writes the new number down.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc};

use antiphon_feed::{FeedOptions, Topics};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_message::{FeedHome, MessageOptions, MessageService};
use antiphon_proto::{
    log::{Member, Role},
    rpc::{NewMessage, SendRequest, message_server::Message as _, send_result},
};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{Clock, ConversationId, Slot, UserId, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::Request;

/// One after the other.
const MESSAGES: u64 = 500;

struct World {
    service: MessageService,
    conversation: ConversationId,
    sender: UserId,
}

impl World {
    async fn start(folder: &Path) -> Self {
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
            service: MessageService::new(slots, clock, MessageOptions::default(), feed),
            conversation,
            sender,
        }
    }

    async fn send(&self, from: u64) {
        for number in from..from + MESSAGES {
            let message = NewMessage {
                client_msg_id: format!("{number:08}"),
                text: "x".repeat(64),
            };
            let request = SendRequest {
                conversation_id: self.conversation.to_bytes(),
                sender_id: self.sender.to_bytes(),
                messages: vec![message],
            };
            let answer = self.service.send(Request::new(request)).await.unwrap().into_inner();
            let result = answer.results.into_iter().next().unwrap().result.unwrap();
            assert!(matches!(result, send_result::Result::Stored(_)), "{result:?}");
        }
    }
}

/// What the thread of the commits allocates does not count: how many commits share an fsync there is not the same twice.
#[test]
fn a_message_allocates_as_often_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::start(folder.path()));
    runtime.block_on(world.send(0));
    let counted = allocation_counter::measure(|| runtime.block_on(world.send(MESSAGES)));
    let (count, bytes) = (counted.count_total / MESSAGES, counted.bytes_total / MESSAGES);
    assert!(
        (93..=97).contains(&count) && (13_000..=13_700).contains(&bytes),
        "{count} allocations, {bytes} bytes"
    );
}
