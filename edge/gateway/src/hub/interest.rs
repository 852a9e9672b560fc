//! What the upstream stream has to be told: a set, not a queue, so that it is bounded by what is followed.

use ahash::AHashMap;
use antiphon_feed::Topic;
use antiphon_proto::rpc::Interest;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Topics in one message to the upstream.
const TOPICS_MAX: usize = 1_000;

/// Topics whose subscription is to be told.
#[derive(Default)]
pub(crate) struct Interests {
    untold: Mutex<AHashMap<Topic, Untold>>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Untold {
    Subscribe,
    Unsubscribe,
    /// Unsubscribe, then subscribe: to subscribe twice says nothing new, and the tail would not come.
    Again,
}

impl Interests {
    pub(crate) fn subscribe(&self, topic: Topic) {
        let mut untold = self.untold.lock();
        let now = match untold.get(&topic) {
            None | Some(Untold::Subscribe) => Untold::Subscribe,
            Some(Untold::Unsubscribe | Untold::Again) => Untold::Again,
        };
        untold.insert(topic, now);
        drop(untold);
        self.changed.notify_one();
    }

    pub(crate) fn unsubscribe(&self, topic: Topic) {
        self.untold.lock().insert(topic, Untold::Unsubscribe);
        self.changed.notify_one();
    }

    /// Forgets what was to be told: a new stream knows nothing, and all that is followed is subscribed anew after this.
    pub(crate) fn forget(&self) {
        self.untold.lock().clear();
    }

    /// What is to be told next; `None` when everything is.
    pub(crate) fn take(&self) -> Option<Interest> {
        let mut untold = self.untold.lock();
        if untold.is_empty() {
            return None;
        }
        let mut interest = Interest::default();
        let mut left = TOPICS_MAX;
        untold.retain(|topic, what| {
            if left == 0 {
                return true;
            }
            left -= 1;
            if *what == Untold::Subscribe {
                interest.subscribe.push(topic.to_bytes());
                return false;
            }
            interest.unsubscribe.push(topic.to_bytes());
            let again = *what == Untold::Again;
            *what = Untold::Subscribe;
            again
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
    use antiphon_types::{ConversationId, Slot};

    use super::*;

    fn topic(number: u64) -> Topic {
        ConversationId::new(Slot::DEPLOYMENT, 1, number).into()
    }

    #[test]
    fn the_last_word_on_a_topic_counts() {
        let interests = Interests::default();
        interests.subscribe(topic(1));
        interests.unsubscribe(topic(1));
        interests.subscribe(topic(2));
        let interest = interests.take().unwrap();
        assert_eq!(interest.subscribe, [topic(2).to_bytes()]);
        assert_eq!(interest.unsubscribe, [topic(1).to_bytes()]);
        assert_eq!(interests.take(), None);
    }

    #[test]
    fn who_comes_back_at_once_is_subscribed_anew() {
        let interests = Interests::default();
        interests.unsubscribe(topic(1));
        interests.subscribe(topic(1));
        let (first, second) = (interests.take().unwrap(), interests.take().unwrap());
        assert_eq!((first.unsubscribe.len(), first.subscribe.len()), (1, 0));
        assert_eq!((second.unsubscribe.len(), second.subscribe.len()), (0, 1));
        assert_eq!(interests.take(), None);
    }

    #[test]
    fn many_topics_go_in_several_messages() {
        let interests = Interests::default();
        interests.unsubscribe(topic(9_999));
        interests.forget();
        (0..2_500).for_each(|number| interests.subscribe(topic(number)));
        let mut told = Vec::new();
        while let Some(interest) = interests.take() {
            told.push(interest.subscribe.len());
        }
        assert_eq!(told, [1_000, 1_000, 500]);
    }
}
