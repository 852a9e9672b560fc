use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use antiphon_proto::client::{Message, ServerFrame, server_frame::Body};
use parking_lot::Mutex;

use crate::talker::Shared;

/// Of what is broken, as many are told in words.
const SHOWN_MAX: usize = 20;

/// What the devices of one conversation have under each seq: a digest of the first that somebody had.
#[derive(Debug, Default)]
pub(crate) struct Agreed(Mutex<HashMap<u64, u64>>);

impl Agreed {
    /// Whether this is what everybody else has under that seq.
    pub(crate) fn on(&self, seq: u64, sender_id: &str, client_msg_id: &str, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (sender_id, client_msg_id, text).hash(&mut hasher);
        let digest = hasher.finish();
        *self.0.lock().entry(seq).or_insert(digest) == digest
    }
}

/// What came otherwise than it was sent.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    count: AtomicUsize,
    shown: Mutex<Vec<String>>,
}

impl Broken {
    pub(crate) fn tell(&self, what: &str) {
        if self.count.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX {
            self.shown.lock().push(what.to_owned());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The first of them, in words.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.lock().clone()
    }
}

/// Whether messages came in their order, and each as its sender and everybody else has it, to a device that has these conversations;
/// `pushed_seqs` is how far its session was pushed, in each of them.
pub(crate) fn judge(frame: &ServerFrame, conversations: &[Arc<Shared>], pushed_seqs: &mut [u64], broken: &Broken) {
    let (id, messages) = match &frame.body {
        Some(Body::Message(message)) => (&message.conversation_id, slice::from_ref(message)),
        Some(Body::Page(page)) => (&page.conversation_id, &page.messages[..]),
        _ => return,
    };
    let mut places = conversations.iter().zip(pushed_seqs);
    let Some((conversation, pushed_seq)) = places.find(|(conversation, _)| conversation.id == *id) else {
        broken.tell(&format!("a message of {id} came to one who is no member"));
        return;
    };
    let mut of_page = 0;
    let before = match frame.body {
        Some(Body::Page(_)) => &mut of_page,
        _ => pushed_seq,
    };
    for message in messages {
        let Message {
            conversation_id,
            seq,
            sender_id,
            client_msg_id,
            text,
            ..
        } = message;
        if seq <= before {
            broken.tell(&format!("{id}: {seq} came after {before}"));
        }
        *before = *seq;
        if conversation_id != id || !conversation.agreed.on(*seq, sender_id, client_msg_id, text) {
            broken.tell(&format!("{id}: {seq} is not the same everywhere"));
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::client::Page;

    use super::*;

    #[test]
    fn what_comes_otherwise_than_it_was_sent_is_told() {
        let message = |seq: u64, text: &str| Message {
            conversation_id: "chat".to_owned(),
            seq,
            sender_id: "bob".to_owned(),
            client_msg_id: "1".to_owned(),
            text: text.to_owned(),
            sent_at_ms: 0,
        };
        let pushed = Body::Message;
        let page = |messages: Vec<Message>| {
            Body::Page(Page {
                conversation_id: "chat".to_owned(),
                messages,
                ..Page::default()
            })
        };
        let of_others = Message {
            conversation_id: "others".to_owned(),
            ..message(9, "a")
        };
        let frames = [
            (pushed(message(2, "a")), 0),
            (pushed(message(3, "b")), 0),
            // A page may bring what was there.
            (page(vec![message(1, "x"), message(2, "a")]), 0),
            (page(vec![message(2, "a"), message(1, "x")]), 1),
            (pushed(message(3, "b")), 2),
            (pushed(message(4, "c")), 2),
            (page(vec![message(4, "d")]), 3),
            (pushed(of_others), 4),
        ];
        let conversations = [Arc::new(Shared::new("chat".to_owned(), 2, 0))];
        let (broken, mut pushed_seqs) = (Broken::default(), [1]);
        for (body, count) in frames {
            let told = format!("{body:?}");
            let frame = ServerFrame {
                id: String::new(),
                body: Some(body),
            };
            judge(&frame, &conversations, &mut pushed_seqs, &broken);
            assert_eq!(broken.count(), count, "{told}");
        }
    }

    #[test]
    fn all_have_the_same_under_one_seq_or_do_not_agree() {
        let agreed = Agreed::default();
        assert!(agreed.on(1, "alice", "1", "text") && agreed.on(2, "alice", "1", "text"));
        assert!(agreed.on(1, "alice", "1", "text"));
        assert!(!agreed.on(1, "bob", "1", "text"));
        assert!(!agreed.on(1, "alice", "2", "text"));
        assert!(!agreed.on(2, "alice", "1", "other"));
    }
}
