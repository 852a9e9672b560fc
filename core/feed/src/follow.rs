use std::{pin::Pin, sync::Arc};

use antiphon_proto::{
    refusal,
    rpc::{FeedBatch, Interest},
};
use antiphon_types::ErrorCode;
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{FeedError, FeedStream, Subscriber, Topic, Topics};

/// Topics that one message of interest may name.
pub const INTEREST_LEN_MAX: usize = 10_000;

/// Messages of interest whose first tails may be under way at once; beyond it no more are taken.
const JOINING_MAX: usize = 8;

/// What a hop answers on a `Follow` stream.
pub type Followed = Pin<Box<dyn Stream<Item = Result<FeedBatch, Status>> + Send>>;

/// A hop of the delivery tree, as those who follow it see it.
pub trait Hop: Send + Sync + 'static {
    /// A subscriber follows these topics from now on. What the hop counts, it counts before this returns; each topic is owed a
    /// first `tail`, which the future offers while other items pass.
    fn joined(self: &Arc<Self>, subscriber: &Arc<Subscriber>, topics: Vec<Topic>) -> BoxFuture<'static, ()>;

    /// A subscriber follows these topics no more.
    fn left(self: &Arc<Self>, topics: &[Topic]);
}

/// Serves one `Follow` stream: takes interest, gives batches, until [`Topics::close`]. Dropping the answer ends the subscriptions.
#[must_use]
pub fn follow<H: Hop>(hop: Arc<H>, topics: &Arc<Topics>, interest: Streaming<Interest>) -> Followed {
    let (subscriber, items) = topics.subscriber();
    let follower = Follower {
        hop,
        subscriber: Arc::new(subscriber),
        items,
        interest,
        joining: FuturesUnordered::new(),
    };
    let batches = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let batch = follower.next().await?;
        let rest = batch.is_ok().then_some(follower);
        Some((batch, rest))
    });
    batches.take_until(topics.closed()).boxed()
}

struct Follower<H: Hop> {
    hop: Arc<H>,
    subscriber: Arc<Subscriber>,
    items: FeedStream,
    interest: Streaming<Interest>,
    joining: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<H: Hop> Follower<H> {
    /// The next batch; none when whoever followed has gone.
    async fn next(&mut self) -> Option<Result<FeedBatch, Status>> {
        loop {
            tokio::select! {
                interest = self.interest.next(), if self.joining.len() < JOINING_MAX => match interest? {
                    Ok(interest) => {
                        if let Err(refused) = self.take(&interest) {
                            return Some(Err(refused));
                        }
                    }
                    Err(status) => {
                        debug!(%status, "a follower left");
                        return None;
                    }
                },
                Some(()) = self.joining.next() => {}
                batch = self.items.next() => return Some(batch?.map_err(|error| refused(&error))),
            }
        }
    }

    /// Whatever is subscribed has joined and whatever is unsubscribed has left, also where the rest is refused: the hop counts
    /// on it.
    fn take(&self, interest: &Interest) -> Result<(), Status> {
        let len = interest.subscribe.len().max(interest.unsubscribe.len());
        if len > INTEREST_LEN_MAX {
            let message = format!("{len} topics in one message are over the limit of {INTEREST_LEN_MAX}");
            return Err(refusal::status(ErrorCode::InvalidArgument.as_str(), message, None));
        }
        let (mut left, mut joined) = (parse(&interest.unsubscribe)?, parse(&interest.subscribe)?);
        left.retain(|topic| self.subscriber.unsubscribe(topic));
        self.hop.left(&left);

        let mut refusal = None;
        joined.retain(|topic| {
            let is_new = self.subscriber.subscribe(*topic);
            is_new.unwrap_or_else(|error| {
                refusal = Some(error);
                false
            })
        });
        self.joining.push(self.hop.joined(&self.subscriber, joined));
        refusal.map_or(Ok(()), |error| Err(refused(&error)))
    }
}

impl<H: Hop> Drop for Follower<H> {
    fn drop(&mut self) {
        self.hop.left(&self.subscriber.followed());
    }
}

fn parse(ids: &[Bytes]) -> Result<Vec<Topic>, Status> {
    let topics = ids.iter().map(|id| Topic::try_from(id.as_ref()));
    topics
        .collect::<Result<_, _>>()
        .map_err(|error| refusal::status(ErrorCode::InvalidArgument.as_str(), error.to_string(), None))
}

fn refused(error: &FeedError) -> Status {
    refusal::status(ErrorCode::ResourceExhausted.as_str(), error.to_string(), Some(100))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use antiphon_proto::rpc::{
        feed_client::FeedClient,
        feed_server::{Feed, FeedServer},
    };
    use futures_util::FutureExt as _;
    use tokio::time::timeout;
    use tonic::{Request, Response};

    use super::*;
    use crate::FeedOptions;

    struct Silent;

    struct Service {
        topics: Arc<Topics>,
    }

    impl Hop for Silent {
        fn joined(self: &Arc<Self>, _: &Arc<Subscriber>, _: Vec<Topic>) -> BoxFuture<'static, ()> {
            std::future::ready(()).boxed()
        }

        fn left(self: &Arc<Self>, _: &[Topic]) {}
    }

    #[tonic::async_trait]
    impl Feed for Service {
        type FollowStream = Followed;

        async fn follow(&self, request: Request<Streaming<Interest>>) -> Result<Response<Followed>, Status> {
            Ok(Response::new(follow(
                Arc::new(Silent),
                &self.topics,
                request.into_inner(),
            )))
        }
    }

    #[tokio::test]
    async fn a_hop_that_closes_ends_who_follows_it_and_who_comes_later() {
        let topics = Topics::new(FeedOptions::default());
        let service = Service { topics: topics.clone() };
        let mut client = FeedClient::new(FeedServer::new(service));
        let mut early = client.follow(stream::pending()).await.unwrap().into_inner();
        assert!(early.message().now_or_never().is_none(), "it ends by itself");
        topics.close();
        let mut late = client.follow(stream::pending()).await.unwrap().into_inner();
        for followed in [&mut early, &mut late] {
            let ended = timeout(Duration::from_secs(10), followed.message()).await;
            assert_eq!(ended.expect("it goes on").unwrap(), None);
        }
    }
}
