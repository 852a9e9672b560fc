//! What the upstream stream has to be told: a set, not a queue, so that it is bounded by what is followed.

use ahash::AHashMap;
use antiphon_proto::rpc::Interest;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A conversation's or user's id.
pub(crate) type Topic = [u8; 16];

/// Topics in one message to the upstream.
const TOPICS_MAX: usize = 1_000;

/// Topics whose subscription is to be told.
#[derive(Default)]
pub(crate) struct Interests {
    /// The topic, and whether it is wanted.
    untold: Mutex<AHashMap<Topic, bool>>,
    changed: Notify,
}

impl Interests {
    pub(crate) fn subscribe(&self, topic: &Topic) {
        self.untold.lock().insert(*topic, true);
        self.changed.notify_one();
    }

    pub(crate) fn unsubscribe(&self, topic: &Topic) {
        self.untold.lock().insert(*topic, false);
        self.changed.notify_one();
    }

    /// A new stream knows nothing: forgets what was to be told and wants `topics`.
    pub(crate) fn want_again(&self, topics: Vec<Topic>) {
        let mut untold = self.untold.lock();
        untold.retain(|_, wanted| *wanted);
        untold.extend(topics.into_iter().map(|topic| (topic, true)));
        drop(untold);
        self.changed.notify_one();
    }

    /// What is to be told next; `None` when everything is.
    pub(crate) fn take(&self) -> Option<Interest> {
        let mut untold = self.untold.lock();
        if untold.is_empty() {
            return None;
        }
        let mut interest = Interest::default();
        let mut left = TOPICS_MAX;
        untold.retain(|topic, wanted| {
            if left == 0 {
                return true;
            }
            left -= 1;
            let topics = if *wanted { &mut interest.subscribe } else { &mut interest.unsubscribe };
            topics.push(Bytes::copy_from_slice(topic));
            false
        });
        if untold.is_empty() {
            untold.shrink_to(TOPICS_MAX);
        }
        Some(interest)
    }

    /// Waits until there is something to tell.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_topic_counts() {
        let interests = Interests::default();
        interests.subscribe(&[1; 16]);
        interests.unsubscribe(&[1; 16]);
        interests.subscribe(&[2; 16]);
        let interest = interests.take().unwrap();
        assert_eq!(interest.subscribe, [Bytes::from_static(&[2; 16])]);
        assert_eq!(interest.unsubscribe, [Bytes::from_static(&[1; 16])]);
        assert_eq!(interests.take(), None);
    }

    #[test]
    fn many_topics_go_in_several_messages() {
        let interests = Interests::default();
        interests.want_again((0..2_500_u32).map(|number| {
            let mut topic = [0; 16];
            topic[..4].copy_from_slice(&number.to_be_bytes());
            topic
        }).collect());
        let mut told = Vec::new();
        while let Some(interest) = interests.take() {
            told.push(interest.subscribe.len());
        }
        assert_eq!(told, [1_000, 1_000, 500]);
    }
}
