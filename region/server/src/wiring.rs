//! The only place that wires: which part is handed to which.

use std::{path::Path, sync::Arc, time::Duration};

use antiphon_conversation::ConversationService;
use antiphon_delivery::DeliveryWorker;
use antiphon_directory::{Route, Table, TableWatch};
use antiphon_feed::Topics;
use antiphon_gateway::Gateway;
use antiphon_identity::{Identity, TokenVerifier};
use antiphon_kv::Kv;
use antiphon_message::{FeedHome, MessageService};
use antiphon_presence::{MaySee, PresenceService};
use antiphon_proto::rpc::{PairExistsRequest, conversation_client::ConversationClient};
use antiphon_slot::{CommitObserver, Hooks, Lease, SlotOptions, Slots, protocol::InSync};
use antiphon_types::{Clock, Slot};
use anyhow::{Context as _, Result};
use rand::random;
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    admin::Readiness,
    config::Config,
    deployment::Membership,
    edge::{Edge, Threads},
    metrics::observe_tasks,
    regions::{Opened, RegionsRunning},
    stamp::{self, Opener},
    store,
};

/// How often it is looked whether a signing key is due.
const KEY_CARE: Duration = Duration::from_secs(60);
/// What the gateway knows of keys before it has asked for them.
const NO_KEYS: &str = r#"{"keys":[]}"#;

/// A running node.
pub(crate) struct Node {
    kv: Kv,
    slots: Slots,
    regions: Option<RegionsRunning>,
    presence: PresenceService,
    delivery: DeliveryWorker,
    gateway: Gateway,
    connections: JoinHandle<()>,
    _edge: Threads,
    keys: JoinHandle<()>,
    stop: CancellationToken,
}

impl Node {
    /// Opens the store in `folder`, starts every part and takes connections at `edge`.
    ///
    /// # Errors
    /// What could not be started.
    pub(crate) async fn start(
        config: &Config,
        (folder, membership): (&Path, Option<Membership>),
        edge: Edge,
        readiness: &Readiness,
    ) -> Result<Self> {
        let region = &config.node.region;
        let clock = Clock::system();
        let kv = store::open(config, folder).await?;
        readiness.store_opened(kv.clone());
        let opened = match membership {
            Some(membership) => Some(Opened::open(membership, folder, &clock).await?),
            None => None,
        };
        if let Some(opened) = &opened {
            readiness.directory_opened(opened.directory.clone());
        }
        let opener = match &opened {
            Some(opened) => opened.opener().await?,
            None => Opener::Alone,
        };
        stamp::check(&kv, opener)
            .await
            .with_context(|| store::place(config, folder))?;
        if store::is_shared(config) {
            stamp::check_name(&kv, &config.deployment.name)
                .await
                .with_context(|| store::place(config, folder))?;
        }
        let regions = match opened {
            Some(opened) => Some(opened.join(&kv, store::is_shared(config)).await?),
            None => None,
        };
        let route = match &regions {
            Some(regions) => regions.route.clone(),
            None => Route::new(region, TableWatch::new(Table::single(region))),
        };

        // The feed observes the slots and reads from them, so it is there before them and hears of them after.
        let topics = Topics::new((&config.delivery).into());
        let feed = FeedHome::new(topics.clone());
        let observers: Vec<Arc<dyn CommitObserver>> = vec![Arc::new(feed.clone())];
        let carriers = vec![
            antiphon_identity::carrier(route.clone()),
            antiphon_conversation::carrier(route.clone()),
        ];
        let slots = Slots::start(
            kv.clone(),
            SlotOptions::from(&config.slot),
            random(),
            Hooks {
                observers,
                carriers,
                shipping: regions.as_ref().map(|regions| regions.home.shipping()),
                lease: regions
                    .as_ref()
                    .map_or_else(Lease::endless, |regions| regions.lease.clone()),
            },
        );
        feed.serve(slots.clone());

        let identity = Identity::new(slots.clone(), route.clone(), clock.clone(), (&config.identity).into())?;
        let conversation = ConversationService::new(
            slots.clone(),
            route.clone(),
            clock.clone(),
            (&config.conversation).into(),
        );
        let message = MessageService::new(slots.clone(), clock.clone(), (&config.message).into(), feed.clone());
        let presence = PresenceService::start(
            slots.clone(),
            topics.clone(),
            clock.clone(),
            (&config.presence).into(),
            Some(may_see(route.clone())),
        );
        let delivery = DeliveryWorker::new(route.clone(), clock.clone(), (&config.delivery).into());
        let services = Routes::new(identity.clone().into_server())
            .add_service(conversation.into_server())
            .add_service(message.into_server())
            .add_service(feed.into_server())
            .add_service(presence.clone().into_server())
            .add_service(delivery.clone().into_server());
        route.serve(services.clone());

        let regions = match regions {
            Some(regions) => Some(regions.run((slots.clone(), topics), services).await?),
            None => {
                Slot::all().for_each(|slot| slots.grant(slot, 1, InSync::alone()));
                let opened = slots.recover().await;
                let opened = opened.context("what the slots still have to carry cannot be read")?;
                tracing::debug!(opened, "slots with something to carry");
                None
            }
        };
        readiness.slots_granted();

        let stop = CancellationToken::new();
        let keys = tokio::spawn(rotate_keys(identity, stop.clone()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(observe_tasks("node")));
        let verifier = TokenVerifier::new(&config.identity.issuer, NO_KEYS).context("token keys")?;
        let threads = Threads::start()?;
        let (gateway, connections) = threads.serve(edge, || Gateway::new(route, verifier, clock, config.into()))?;
        readiness.gateway_listens();
        Ok(Self {
            kv,
            slots,
            regions,
            presence,
            delivery,
            gateway,
            connections,
            _edge: threads,
            keys,
            stop,
        })
    }

    /// Sends sessions away, finishes what is queued, closes the store. Connections that have not ended after `patience` are cut.
    ///
    /// # Errors
    /// When the store could not be closed in order; what was acknowledged is durable all the same.
    pub(crate) async fn stop(self, patience: Duration) -> Result<()> {
        if !self.gateway.drain(patience).await {
            tracing::warn!(
                patience_ms = patience.as_millis(),
                "connections that did not end were cut"
            );
        }
        self.stop.cancel();
        for task in [self.connections, self.keys] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the node failed");
            }
        }
        self.delivery.close().await;
        self.presence.close().await;
        let registry = match self.regions {
            Some(regions) => regions.stop().await,
            None => {
                self.slots.close().await;
                None
            }
        };
        if let Some(registry) = registry {
            registry.close().await;
        }
        self.kv.close().await.context("the store could not be closed")
    }
}

/// Rotates the signing keys on a quiet deployment too.
async fn rotate_keys(identity: Identity, stop: CancellationToken) {
    loop {
        if let Err(error) = identity.rotate_keys_if_due().await {
            tracing::warn!(%error, "the signing keys could not be looked after");
        }
        if stop.run_until_cancelled(time::sleep(KEY_CARE)).await.is_none() {
            return;
        }
    }
}

/// Users who talk directly with each other see each other's presence.
fn may_see(route: Route) -> MaySee {
    Arc::new(move |asker, user| {
        let slot = asker.min(user).slot();
        let mut conversations = ConversationClient::new(route.to(slot));
        Box::pin(async move {
            let request = PairExistsRequest {
                user_id: asker.to_bytes(),
                peer_id: user.to_bytes(),
            };
            let answer = conversations.pair_exists(request).await;
            answer.is_ok_and(|answer| answer.into_inner().exists)
        })
    })
}
