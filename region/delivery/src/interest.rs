//! What the edges below want of one home, as a value: counts, known tails, and what is still to be said upstream.

use std::collections::{HashMap, HashSet};

use antiphon_feed::Topic;
use antiphon_types::Seq;

/// The interest of all edges in the topics of one home.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    topics: HashMap<Topic, Wanted>,
    to_subscribe: HashSet<Topic>,
    to_unsubscribe: HashSet<Topic>,
    /// Grows with each new link.
    link: u64,
}

#[derive(Debug, Default)]
struct Wanted {
    edges: usize,
    /// The highest seq that has passed; none until the home has told its tail.
    tail: Option<Seq>,
}

impl Interests {
    /// One more edge follows `topic`. Returns the tail to tell it; none when the home's own answer is still to come, which
    /// every edge gets.
    pub(crate) fn join(&mut self, topic: Topic) -> Option<Seq> {
        let wanted = self.topics.entry(topic).or_default();
        wanted.edges += 1;
        if wanted.edges == 1 && !self.to_unsubscribe.remove(&topic) {
            self.to_subscribe.insert(topic);
        }
        wanted.tail
    }

    /// One edge fewer follows `topic`. Until the home has been told, it feeds on, and its tail is kept for who comes back. False when
    /// nobody wants it here.
    pub(crate) fn leave(&mut self, topic: Topic) -> bool {
        let Some(wanted) = self.topics.get_mut(&topic).filter(|wanted| wanted.edges > 0) else {
            return false;
        };
        wanted.edges -= 1;
        if wanted.edges == 0 {
            self.drop_topic(topic);
        }
        true
    }

    fn drop_topic(&mut self, topic: Topic) {
        if self.to_subscribe.remove(&topic) {
            self.topics.remove(&topic);
        } else {
            self.to_unsubscribe.insert(topic);
        }
    }

    /// Takes out the topics that have another home now, each with the edges that want it.
    pub(crate) fn take_out(&mut self, moved: impl Fn(&Topic) -> bool) -> Vec<(Topic, usize)> {
        let wanted = self
            .topics
            .iter()
            .filter(|(topic, wanted)| wanted.edges > 0 && moved(topic));
        let taken: Vec<(Topic, usize)> = wanted.map(|(topic, wanted)| (*topic, wanted.edges)).collect();
        for (topic, _) in &taken {
            if let Some(wanted) = self.topics.get_mut(topic) {
                wanted.edges = 0;
            }
            self.drop_topic(*topic);
        }
        taken
    }

    /// Takes in a topic that had another home before. Its edges are told what they missed by the new home's tail.
    pub(crate) fn take_in(&mut self, topic: Topic, edges: usize) {
        for _ in 0..edges {
            self.join(topic);
        }
        if let Some(wanted) = self.topics.get_mut(&topic) {
            wanted.tail = None;
        }
    }

    /// A message or tail of `topic` has come: what joins from now on is told at least this.
    pub(crate) fn passed(&mut self, topic: Topic, seq: Seq) {
        if let Some(wanted) = self.topics.get_mut(&topic) {
            wanted.tail = Some(wanted.tail.unwrap_or(0).max(seq));
        }
    }

    /// The link is new: all has to be said again, and tails are unknown until the home tells them.
    /// Returns the number of the link.
    pub(crate) fn link_is_new(&mut self) -> u64 {
        for topic in self.to_unsubscribe.drain() {
            self.topics.remove(&topic);
        }
        self.to_subscribe = self.topics.keys().copied().collect();
        for wanted in self.topics.values_mut() {
            wanted.tail = None;
        }
        self.link += 1;
        self.link
    }

    /// Whether this is the number of the link there is now: what is taken belongs to it alone.
    pub(crate) const fn is_link(&self, link: u64) -> bool {
        self.link == link
    }

    /// Takes up to `len_max` topics each to subscribe and to unsubscribe.
    pub(crate) fn take(&mut self, len_max: usize) -> (Vec<Topic>, Vec<Topic>) {
        let subscribe: Vec<_> = self.to_subscribe.iter().copied().take(len_max).collect();
        let unsubscribe: Vec<_> = self.to_unsubscribe.iter().copied().take(len_max).collect();
        for topic in &subscribe {
            self.to_subscribe.remove(topic);
        }
        for topic in &unsubscribe {
            self.to_unsubscribe.remove(topic);
            self.topics.remove(topic);
        }
        (subscribe, unsubscribe)
    }

    /// Whether nothing is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many topics are wanted.
    pub(crate) fn len(&self) -> usize {
        self.topics.len() - self.to_unsubscribe.len()
    }
}

#[cfg(test)]
mod tests {
    use antiphon_types::{ConversationId, Slot};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Join(u8),
        Leave(u8),
        Take(usize),
        NewLink,
        Passed(u8, Seq),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8).prop_map(Step::Join),
            4 => (0..4_u8).prop_map(Step::Leave),
            3 => (1..4_usize).prop_map(Step::Take),
            1 => Just(Step::NewLink),
            2 => (0..4_u8, 0..9_u64).prop_map(|(topic, seq)| Step::Passed(topic, seq)),
        ]
    }

    fn topic(number: u8) -> Topic {
        ConversationId::new(Slot::DEPLOYMENT, 1, number.into()).into()
    }

    proptest! {
        /// Whatever joins and leaves in whatever order, the home ends up feeding exactly what is wanted.
        #[test]
        fn the_home_is_told_what_is_wanted(steps in prop::collection::vec(step(), 0..200)) {
            let mut interests = Interests::default();
            let mut wanted = [0_usize; 4];
            let mut at_home: HashSet<Topic> = HashSet::new();
            for step in steps {
                match step {
                    Step::Join(number) => {
                        wanted[usize::from(number)] += 1;
                        interests.join(topic(number));
                    }
                    Step::Leave(number) if wanted[usize::from(number)] > 0 => {
                        wanted[usize::from(number)] -= 1;
                        interests.leave(topic(number));
                    }
                    Step::Leave(_) => {}
                    Step::Take(len_max) => {
                        let (subscribe, unsubscribe) = interests.take(len_max);
                        for topic in unsubscribe {
                            prop_assert!(at_home.remove(&topic), "unsubscribed twice");
                        }
                        for topic in subscribe {
                            prop_assert!(at_home.insert(topic), "subscribed twice");
                        }
                    }
                    Step::NewLink => {
                        at_home.clear();
                        interests.link_is_new();
                    }
                    Step::Passed(number, seq) => interests.passed(topic(number), seq),
                }
            }
            let (subscribe, unsubscribe) = interests.take(usize::MAX);
            at_home.retain(|topic| !unsubscribe.contains(topic));
            at_home.extend(subscribe);
            let expected: HashSet<Topic> =
                (0..4).filter(|number| wanted[usize::from(*number)] > 0).map(topic).collect();
            prop_assert_eq!(interests.len(), expected.len());
            prop_assert_eq!(at_home, expected);
        }
    }

    #[test]
    fn who_comes_back_before_the_home_was_told_is_told_the_tail() {
        let mut interests = Interests::default();
        interests.join(topic(1));
        assert_eq!(interests.take(9).0, [topic(1)]);
        interests.passed(topic(1), 3);
        interests.leave(topic(1));
        interests.passed(topic(1), 4);
        assert_eq!(interests.join(topic(1)), Some(4));
        assert_eq!(interests.take(9), (vec![], vec![]));
    }

    #[test]
    fn who_joins_later_is_told_what_has_passed() {
        let mut interests = Interests::default();
        assert_eq!(interests.join(topic(1)), None);
        interests.passed(topic(1), 7);
        assert_eq!(interests.join(topic(1)), Some(7));
        interests.link_is_new();
        assert_eq!(interests.join(topic(1)), None);
    }
}
