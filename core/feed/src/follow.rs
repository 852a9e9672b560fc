use std::{future::Future, pin::Pin, sync::Arc};

use antiphon_proto::{
    refusal,
    rpc::{FeedBatch, Interest},
};
use antiphon_types::ErrorCode;
use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{FeedError, FeedStream, Subscriber, Topic, Topics};

/// Topics that one message of interest may name.
pub const INTEREST_LEN_MAX: usize = 10_000;

/// What a hop answers on a `Follow` stream.
pub type Followed = Pin<Box<dyn Stream<Item = Result<FeedBatch, Status>> + Send>>;

/// A hop of the delivery tree, as those who follow it see it.
pub trait Hop: Send + Sync + 'static {
    /// A subscriber follows these topics from now on; each is owed a first `tail`.
    fn joined(&self, subscriber: &Subscriber, topics: Vec<Topic>) -> impl Future<Output = ()> + Send;

    /// A subscriber follows these topics no more.
    fn left(&self, topics: &[Topic]);
}

/// Serves one `Follow` stream: takes interest, gives batches. Dropping the answer ends the subscriptions.
#[must_use]
pub fn follow<H: Hop>(hop: Arc<H>, topics: &Arc<Topics>, interest: Streaming<Interest>) -> Followed {
    let (subscriber, items) = topics.subscriber();
    let follower = Follower {
        hop,
        subscriber,
        items,
        interest,
    };
    let batches = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let batch = follower.next().await?;
        let rest = batch.is_ok().then_some(follower);
        Some((batch, rest))
    });
    batches.boxed()
}

struct Follower<H: Hop> {
    hop: Arc<H>,
    subscriber: Subscriber,
    items: FeedStream,
    interest: Streaming<Interest>,
}

impl<H: Hop> Follower<H> {
    /// The next batch; none when whoever followed has gone.
    async fn next(&mut self) -> Option<Result<FeedBatch, Status>> {
        loop {
            tokio::select! {
                interest = self.interest.next() => match interest? {
                    Ok(interest) => {
                        if let Err(refused) = self.take(interest).await {
                            return Some(Err(refused));
                        }
                    }
                    Err(status) => {
                        debug!(%status, "a follower left");
                        return None;
                    }
                },
                batch = self.items.next() => return Some(batch?.map_err(|error| refused(&error))),
            }
        }
    }

    async fn take(&self, interest: Interest) -> Result<(), Status> {
        let len = interest.subscribe.len().max(interest.unsubscribe.len());
        if len > INTEREST_LEN_MAX {
            let message = format!("{len} topics in one message are over the limit of {INTEREST_LEN_MAX}");
            return Err(refusal::status(ErrorCode::InvalidArgument.as_str(), message, None));
        }
        let mut left = Vec::new();
        for bytes in &interest.unsubscribe {
            let topic = parse(bytes)?;
            if self.subscriber.unsubscribe(&topic) {
                left.push(topic);
            }
        }
        self.hop.left(&left);
        let mut joined = Vec::with_capacity(interest.subscribe.len());
        for bytes in &interest.subscribe {
            let topic = parse(bytes)?;
            if self.subscriber.subscribe(topic).map_err(|error| refused(&error))? {
                joined.push(topic);
            }
        }
        self.hop.joined(&self.subscriber, joined).await;
        Ok(())
    }
}

impl<H: Hop> Drop for Follower<H> {
    fn drop(&mut self) {
        self.hop.left(&self.subscriber.followed());
    }
}

fn parse(bytes: &[u8]) -> Result<Topic, Status> {
    Topic::try_from(bytes)
        .map_err(|error| refusal::status(ErrorCode::InvalidArgument.as_str(), error.to_string(), None))
}

fn refused(error: &FeedError) -> Status {
    refusal::status(ErrorCode::ResourceExhausted.as_str(), error.to_string(), Some(100))
}
