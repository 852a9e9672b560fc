//! The only place that wires: which part is handed to which.

use std::{path::Path, sync::Arc};

use antiphon_conversation::ConversationService;
use antiphon_delivery::DeliveryWorker;
use antiphon_directory::{Route, Table, TableWatch};
use antiphon_feed::Topics;
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_message::{FeedHome, MessageService};
use antiphon_slot::{CommitObserver, SlotOptions, Slots};
use antiphon_types::Clock;
use anyhow::{Context as _, Result};
use rand::random;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::{
    admin::Readiness,
    config::{Config, StoreEngine},
};

/// A running node.
pub(crate) struct Node {
    kv: Kv,
    slots: Slots,
    delivery: DeliveryWorker,
}

impl Node {
    /// Opens the store in `folder`, starts every part and takes connections on `edge`.
    ///
    /// # Errors
    /// What could not be started.
    pub(crate) async fn start(
        config: &Config,
        folder: &Path,
        edge: TcpListener,
        readiness: &Readiness,
    ) -> Result<Self> {
        let region = &config.node.region;
        let table = TableWatch::new(Table::single(region));
        let route = Route::new(region, table);

        let clock = Clock::system();
        let kv = open_store(config, folder).await?;
        readiness.store_opened(kv.clone());

        // The feed observes the slots and reads from them, so it is there before them and hears of them after.
        let feed = FeedHome::new(Topics::new((&config.delivery).into()));
        let observers: Vec<Arc<dyn CommitObserver>> = vec![Arc::new(feed.clone())];
        let carriers = vec![antiphon_conversation::carrier(route.clone())];
        let slots = Slots::start(
            kv.clone(),
            SlotOptions::from(&config.slot),
            random(),
            observers,
            carriers,
        );
        feed.serve(slots.clone());

        let conversation = ConversationService::new(
            slots.clone(),
            route.clone(),
            clock.clone(),
            (&config.conversation).into(),
        );
        let message = MessageService::new(slots.clone(), clock.clone(), (&config.message).into(), feed.clone());
        let delivery = DeliveryWorker::new(route.clone(), clock, (&config.delivery).into());
        route.serve(
            Routes::new(conversation.into_server())
                .add_service(message.into_server())
                .add_service(feed.into_server())
                .add_service(delivery.clone().into_server()),
        );

        let placements = route.table().load();
        for slot in placements.homed_in(region) {
            slots.grant(slot, placements.placement(slot).epoch);
        }
        readiness.slots_granted();
        let opened = slots
            .recover()
            .await
            .context("what the slots still have to carry cannot be read")?;
        tracing::debug!(opened, "slots with something to carry");
        drop(edge);
        Ok(Self { kv, slots, delivery })
    }

    /// Sends sessions away, finishes what is queued, closes the store.
    ///
    /// # Errors
    /// When the store could not be closed in order; what was acknowledged is durable all the same.
    pub(crate) async fn stop(self) -> Result<()> {
        self.delivery.close().await;
        self.slots.close().await;
        self.kv.close().await.context("the store could not be closed")
    }
}

async fn open_store(config: &Config, folder: &Path) -> Result<Kv> {
    let path = folder.join("store");
    let StoreEngine::Embedded = config.store.engine;
    let options = EmbeddedOptions {
        path: path.clone(),
        cache_bytes: config.store.cache_bytes,
        watches_max: config.store.watches_max,
    };
    let opened = Kv::open_embedded(options).await;
    opened.with_context(|| format!("the store in {} cannot be opened", path.display()))
}
