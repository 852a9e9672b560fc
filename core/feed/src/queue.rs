//! The queue of one subscriber, as a value.

use std::collections::{HashMap, VecDeque};

use antiphon_proto::rpc::{FeedItem, feed_item::Body};
use bytes::Bytes;

/// Bounds of the queues of a hop.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// Items that may wait for one subscriber.
    pub queue_len_max: usize,
    /// Bytes of frames that may wait for one subscriber.
    pub queue_bytes_max: usize,
    /// Changes of membership and revoked logins that may wait beyond that.
    pub reserve_len_max: usize,
    /// Items in one batch.
    pub batch_len_max: usize,
    /// Topics of one subscriber.
    pub topics_per_subscriber_max: usize,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            queue_len_max: 16_384,
            queue_bytes_max: 16 << 20,
            reserve_len_max: 16_384,
            batch_len_max: 256,
            topics_per_subscriber_max: 1_000_000,
        }
    }
}

/// What waits for one subscriber.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<FeedItem>,
    bytes: usize,
    /// Topics of which something was left out, with the highest seq of it.
    marks: HashMap<Bytes, u64>,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits.
    Queued,
    /// It was left out and its topic is marked, or it is soft state that the next one replaces.
    LeftOut,
    /// It may not be left out and there is no room: the stream has to end.
    Overflow,
}

impl Queue {
    pub(crate) fn push(&mut self, item: FeedItem, options: &FeedOptions) -> Pushed {
        let bytes = frame_bytes(&item);
        let is_full = self.items.len() >= options.queue_len_max || self.bytes + bytes > options.queue_bytes_max;
        match &item.body {
            Some(Body::Message(message)) => {
                if let Some(mark) = self.marks.get_mut(&item.topic) {
                    *mark = message.seq.max(*mark);
                    return Pushed::LeftOut;
                }
                if is_full {
                    self.marks.insert(item.topic, message.seq);
                    return Pushed::LeftOut;
                }
            }
            Some(Body::Tail(tail)) => {
                if let Some(mark) = self.marks.get_mut(&item.topic) {
                    *mark = (*tail).max(*mark);
                    return Pushed::LeftOut;
                }
                if is_full {
                    self.marks.insert(item.topic, *tail);
                    return Pushed::LeftOut;
                }
            }
            Some(Body::Membership(_) | Body::Revoked(_)) => {
                if self.items.len() >= options.queue_len_max + options.reserve_len_max {
                    return Pushed::Overflow;
                }
            }
            Some(Body::Frame(_) | Body::OwnFrame(_)) | None => {
                if is_full {
                    return Pushed::LeftOut;
                }
            }
        }
        self.bytes += bytes;
        self.items.push_back(item);
        Pushed::Queued
    }

    /// Takes up to `len_max` items; the marks come when nothing else waits.
    pub(crate) fn take(&mut self, len_max: usize) -> Vec<FeedItem> {
        if self.items.is_empty() {
            let topics: Vec<Bytes> = self.marks.keys().take(len_max).cloned().collect();
            let tails = topics.into_iter().filter_map(|topic| {
                let seq = self.marks.remove(&topic)?;
                Some(FeedItem {
                    topic,
                    body: Some(Body::Tail(seq)),
                    traceparent: String::new(),
                })
            });
            return tails.collect();
        }
        let taken: Vec<_> = self.items.drain(..len_max.min(self.items.len())).collect();
        self.bytes -= taken.iter().map(frame_bytes).sum::<usize>();
        taken
    }

    /// Forgets the mark of a topic that is not followed any more.
    pub(crate) fn forget(&mut self, topic: &[u8]) {
        self.marks.remove(topic);
    }
}

fn frame_bytes(item: &FeedItem) -> usize {
    match &item.body {
        Some(Body::Message(message)) => message.frame.len(),
        Some(Body::Frame(frame)) => frame.len(),
        Some(Body::OwnFrame(own)) => own.frame.len(),
        Some(Body::Tail(_) | Body::Membership(_) | Body::Revoked(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::{log::MembershipChanged, rpc::PushedMessage};
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number; 16])
    }

    fn message(of: u8, seq: u64) -> FeedItem {
        let frame = Bytes::from_static(b"0123456789");
        let message = PushedMessage {
            seq,
            frame,
            ..PushedMessage::default()
        };
        FeedItem {
            topic: topic(of),
            body: Some(Body::Message(message)),
            traceparent: String::new(),
        }
    }

    fn membership(of: u8, version: u64) -> FeedItem {
        let change = MembershipChanged {
            version,
            ..MembershipChanged::default()
        };
        FeedItem {
            topic: topic(of),
            body: Some(Body::Membership(change)),
            traceparent: String::new(),
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Message(u8),
        Membership(u8),
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3_u8).prop_map(Step::Message),
            1 => (0..3_u8).prop_map(Step::Membership),
            2 => (1..6_usize).prop_map(Step::Take),
        ]
    }

    proptest! {
        /// A receiver that fetches up to each tail has every message in order, and every change of membership.
        #[test]
        fn nothing_is_lost_without_a_mark_and_order_is_kept(steps in prop::collection::vec(step(), 1..300)) {
            let options = FeedOptions { queue_len_max: 8, queue_bytes_max: 70, reserve_len_max: 1_000, ..FeedOptions::default() };
            let mut queue = Queue::default();
            let mut sent = [0_u64; 3];
            let mut versions = [0_u64; 3];
            let mut seen = [0_u64; 3];
            let mut seen_versions = [0_u64; 3];
            let mut receive = |items: Vec<FeedItem>| {
                for item in items {
                    let of = usize::from(item.topic[0]);
                    match item.body.unwrap() {
                        Body::Message(message) => {
                            assert_eq!(message.seq, seen[of] + 1, "out of order");
                            seen[of] = message.seq;
                        }
                        Body::Tail(tail) => {
                            assert!(tail > seen[of], "a tail that says nothing new");
                            seen[of] = tail;
                        }
                        Body::Membership(change) => {
                            assert_eq!(change.version, seen_versions[of] + 1, "a change was left out");
                            seen_versions[of] = change.version;
                        }
                        Body::Frame(_) | Body::OwnFrame(_) | Body::Revoked(_) => unreachable!(),
                    }
                }
                (seen, seen_versions)
            };
            for step in steps {
                match step {
                    Step::Message(of) => {
                        sent[usize::from(of)] += 1;
                        queue.push(message(of, sent[usize::from(of)]), &options);
                    }
                    Step::Membership(of) => {
                        versions[usize::from(of)] += 1;
                        prop_assert_eq!(queue.push(membership(of, versions[usize::from(of)]), &options), Pushed::Queued);
                    }
                    Step::Take(len_max) => {
                        receive(queue.take(len_max));
                    }
                }
                prop_assert!(queue.bytes <= options.queue_bytes_max);
            }
            loop {
                let items = queue.take(16);
                let is_end = items.is_empty();
                let seen = receive(items);
                if is_end {
                    prop_assert_eq!(seen, (sent, versions));
                    break;
                }
            }
            prop_assert_eq!(queue.bytes, 0);
        }
    }

    #[test]
    fn a_full_reserve_ends_the_stream() {
        let options = FeedOptions {
            queue_len_max: 1,
            reserve_len_max: 1,
            ..FeedOptions::default()
        };
        let mut queue = Queue::default();
        assert_eq!(queue.push(membership(0, 1), &options), Pushed::Queued);
        assert_eq!(queue.push(membership(0, 2), &options), Pushed::Queued);
        assert_eq!(queue.push(membership(0, 3), &options), Pushed::Overflow);
    }
}
