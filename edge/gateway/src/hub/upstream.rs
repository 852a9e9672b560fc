//! The one stream from the region's delivery worker.

use std::{sync::Arc, time::Duration};

use antiphon_proto::rpc::{FeedBatch, Interest, delivery_client::DeliveryClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Hub, fill::backoff};

/// Messages about interest that may wait for the upstream.
const INTERESTS_MAX: usize = 16;
/// Largest batch that is read.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Follows the feed until the hub stops; whenever it ends, again.
pub(super) async fn run(hub: Arc<Hub>) {
    let stop = hub.stop.clone();
    stop.run_until_cancelled(follow_forever(&hub)).await;
}

async fn follow_forever(hub: &Arc<Hub>) {
    let mut failures = 0;
    loop {
        match follow(hub, &mut failures).await {
            Ok(()) => tracing::info!("the feed has ended"),
            Err(status) => tracing::info!(code = ?status.code(), message = status.message(), "the feed has failed"),
        }
        failures += 1;
        metrics::counter!("antiphon_edge_feed_interrupted_total").increment(1);
        hub.lose_upstream();
        tokio::time::sleep(backoff(failures, BACKOFF_MAX)).await;
    }
}

async fn follow(hub: &Arc<Hub>, failures: &mut u32) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(INTERESTS_MAX);
    // A service may answer only when it has read the first message.
    let _ = sender.try_send(hub.interests.take().unwrap_or_default());
    let client = DeliveryClient::new(hub.calls.route().here());
    let mut client = client.max_decoding_message_size(BATCH_BYTES_MAX);
    let mut batches = client.follow(ReceiverStream::new(receiver)).await?.into_inner();
    *failures = 0;
    tokio::select! {
        ended = receive(hub, &mut batches) => ended,
        () = tell(hub, sender) => Ok(()),
    }
}

async fn receive(hub: &Arc<Hub>, batches: &mut Streaming<FeedBatch>) -> Result<(), Status> {
    while let Some(batch) = batches.message().await? {
        for item in batch.items {
            hub.apply(item);
        }
        // A feed that always has more must not keep the sessions of this thread from being written.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// Tells the upstream what is wanted, until it is gone.
async fn tell(hub: &Arc<Hub>, sender: mpsc::Sender<Interest>) {
    loop {
        while let Ok(permit) = sender.reserve().await {
            let Some(interest) = hub.interests.take() else { break };
            permit.send(interest);
        }
        if sender.is_closed() {
            return;
        }
        tokio::select! {
            () = hub.interests.changed() => {}
            () = sender.closed() => return,
        }
    }
}
