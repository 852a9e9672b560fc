use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_proto::rpc::{
    Credit, Fetch, FollowerFrame, FollowerFrames, FollowerHello, Held, Leave, follower_frame::Body,
};
use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What the home is to be told. Of each slot the latest counts, so that it is bounded by the slots that are followed.
#[derive(Default)]
pub(crate) struct Outgoing {
    untold: Mutex<Untold>,
    changed: Notify,
}

#[derive(Default)]
struct Untold {
    hello: Option<FollowerHello>,
    leave: BTreeSet<u32>,
    fetch: BTreeMap<u32, Fetch>,
    held: BTreeMap<u32, Held>,
    credit: u64,
    pong: Option<u64>,
    /// The stream is gone.
    ended: bool,
}

impl Outgoing {
    pub(crate) fn new(hello: FollowerHello) -> Arc<Self> {
        let untold = Untold {
            hello: Some(hello),
            ..Untold::default()
        };
        Arc::new(Self {
            untold: Mutex::new(untold),
            changed: Notify::new(),
        })
    }

    pub(crate) fn fetch(&self, fetch: Fetch) {
        self.tell(|untold| {
            untold.held.remove(&fetch.slot);
            untold.fetch.insert(fetch.slot, fetch);
        });
    }

    pub(crate) fn held(&self, held: Held) {
        self.tell(|untold| {
            untold.held.insert(held.slot, held);
        });
    }

    pub(crate) fn leave(&self, slot: u32) {
        self.tell(|untold| {
            untold.fetch.remove(&slot);
            untold.held.remove(&slot);
            untold.leave.insert(slot);
        });
    }

    pub(crate) fn credit(&self, bytes: u64) {
        if bytes > 0 {
            self.tell(|untold| untold.credit += bytes);
        }
    }

    pub(crate) fn pong(&self, number: u64) {
        self.tell(|untold| untold.pong = Some(number));
    }

    /// Ends the stream.
    pub(crate) fn end(&self) {
        self.tell(|untold| untold.ended = true);
    }

    fn tell(&self, tell: impl FnOnce(&mut Untold)) {
        tell(&mut self.untold.lock());
        self.changed.notify_one();
    }

    /// The messages of a stream.
    pub(crate) fn messages(self: Arc<Self>) -> impl Stream<Item = FollowerFrames> + Send + 'static {
        stream::unfold(self, |outgoing| async move {
            loop {
                if let Some(message) = outgoing.take()? {
                    return Some((message, outgoing));
                }
                outgoing.changed.notified().await;
            }
        })
    }

    /// All there is to tell; `None` when the stream is to end.
    fn take(&self) -> Option<Option<FollowerFrames>> {
        let untold = std::mem::take(&mut *self.untold.lock());
        if untold.ended {
            return None;
        }
        let hello = untold.hello.into_iter().map(Body::Hello);
        let leave = untold.leave.into_iter().map(|slot| Body::Leave(Leave { slot }));
        let fetch = untold.fetch.into_values().map(Body::Fetch);
        let held = untold.held.into_values().map(Body::Held);
        let credit = (untold.credit > 0).then_some(Body::Credit(Credit { bytes: untold.credit }));
        let pong = untold.pong.map(Body::Pong);
        let bodies = hello.chain(leave).chain(fetch).chain(held).chain(credit).chain(pong);
        let frames: Vec<_> = bodies.map(|body| FollowerFrame { body: Some(body) }).collect();
        Some((!frames.is_empty()).then_some(FollowerFrames { frames }))
    }
}
