//! Where a client connects.

use std::collections::VecDeque;

/// The edges that a client knows, in the order in which it tries them.
#[derive(Debug)]
pub(crate) struct Edges {
    /// The one that the app has named.
    configured: String,
    /// Never empty; the first is the one to try.
    ring: VecDeque<String>,
}

impl Edges {
    pub(crate) fn new(configured: &str) -> Self {
        Self {
            configured: configured.to_owned(),
            ring: [configured.to_owned()].into(),
        }
    }

    /// The one to try.
    pub(crate) fn first(&self) -> &str {
        self.ring.front().unwrap_or(&self.configured)
    }

    /// The first one has welcomed us, and named others.
    pub(crate) fn welcomed(&mut self, others: Vec<String>) {
        let first = self.first().to_owned();
        self.set([first].into_iter().chain(others));
    }

    /// The first one sends us to others; without any it is to be tried again itself.
    pub(crate) fn sent_away(&mut self, to: Vec<String>) {
        let known: Vec<String> = self.ring.iter().cloned().collect();
        self.set(to.into_iter().chain(known));
    }

    /// The first one was not reached: it is tried again after all others.
    pub(crate) fn failed(&mut self) {
        self.ring.rotate_left(1);
    }

    fn set(&mut self, edges: impl Iterator<Item = String>) {
        let mut ring = VecDeque::new();
        for edge in edges.chain([self.configured.clone()]) {
            let edge = edge.trim_end_matches('/').to_owned();
            if !ring.contains(&edge) {
                ring.push_back(edge);
            }
        }
        self.ring = ring;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(edges: &[&str]) -> Vec<String> {
        edges.iter().map(|edge| (*edge).to_owned()).collect()
    }

    #[test]
    fn an_edge_that_is_lost_is_tried_again_and_then_the_others() {
        let mut edges = Edges::new("http://a");
        edges.welcomed(names(&["http://b", "http://c/"]));
        let mut tried = Vec::new();
        for _ in 0..5 {
            tried.push(edges.first().to_owned());
            edges.failed();
        }
        assert_eq!(tried, ["http://a", "http://b", "http://c", "http://a", "http://b"]);
    }

    #[test]
    fn who_is_sent_away_tries_what_was_named_in_that_order_and_comes_back_at_last() {
        let mut edges = Edges::new("http://a");
        edges.welcomed(names(&["http://b", "http://c"]));
        edges.sent_away(names(&["http://c", "http://b"]));
        assert_eq!(edges.ring, ["http://c", "http://b", "http://a"]);
        edges.welcomed(names(&["http://b"]));
        assert_eq!(
            edges.ring,
            ["http://c", "http://b", "http://a"],
            "the configured one is kept"
        );
        edges.sent_away(Vec::new());
        assert_eq!(edges.first(), "http://c");
    }
}
