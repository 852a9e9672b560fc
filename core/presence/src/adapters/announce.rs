//! Changes of presence on the home's feed.

use antiphon_feed::{Topic, Topics};
use antiphon_proto::{
    client::{Presence, ServerFrame, server_frame},
    rpc::{FeedItem, feed_item},
};
use antiphon_types::trace;
use prost::Message as _;

use crate::roster::Change;

/// Tells everyone who watches the user.
pub(crate) fn announce(topics: &Topics, Change { user, shown }: Change) {
    let to = if shown.online { "online" } else { "offline" };
    metrics::counter!("antiphon_presence_changes_total", "to" => to).increment(1);
    let topic = Topic::from(user);
    if !topics.has_subscribers(&topic) {
        return;
    }
    let presence = Presence {
        user_id: user.to_string(),
        online: shown.online,
        last_seen_ms: shown.last_seen_ms,
    };
    let frame = ServerFrame {
        id: String::new(),
        body: Some(server_frame::Body::Presence(presence)),
    };
    let item = FeedItem {
        topic: topic.to_bytes(),
        body: Some(feed_item::Body::Frame(frame.encode_to_vec().into())),
        traceparent: trace::current(),
    };
    topics.publish(topic, item);
}
