//! The one way to whoever serves a slot.
//!
//! Requests that this node passes on are served by the other node or refused: no node passes on what came from another, so two
//! stale tables cannot bounce a request for ever.

mod call;
mod far;
mod owner;
mod peer;
mod serve;
mod tls;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use antiphon_nodes::Share;
use antiphon_types::Slot;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, service::Routes};
use tower::Service;

use self::call::Target;
use crate::TableWatch;

pub use far::{Connect, Detour, Dialer, Wire};
pub use owner::{Owner, Seen};
pub use peer::PeerRegion;
pub use serve::{serve_nodes, serve_wires};
pub use tls::{DevelopmentCa, NodeTls, TlsError};

/// The way to every slot. Cheap to clone.
///
/// `MessageClient::new(route.to(slot))` is a tonic client whether the slot is served by this process or by another.
#[derive(Clone)]
pub struct Route {
    shared: Arc<Shared>,
}

struct Shared {
    region: Arc<str>,
    table: TableWatch,
    share: Share,
    local: OnceLock<Routes>,
    far: Option<Dialer>,
}

impl Route {
    /// The routing of a node in `region` that reaches no other. Requests wait for nothing: before [`Route::serve`] they are refused
    /// as unavailable.
    #[must_use]
    pub fn new(region: &str, table: TableWatch) -> Self {
        Self::with_far(region, table, Share::alone(), None)
    }

    /// The routing of a node in `region` that reaches the others by `dialer`.
    #[must_use]
    pub fn between(region: &str, table: TableWatch, dialer: Dialer) -> Self {
        Self::with_far(region, table, Share::alone(), Some(dialer))
    }

    /// The routing of one of several nodes of `region`: those of its own region it knows by `share`, those of others by the table.
    #[must_use]
    pub fn of_node(region: &str, table: TableWatch, dialer: Dialer, share: Share) -> Self {
        Self::with_far(region, table, share, Some(dialer))
    }

    fn with_far(region: &str, table: TableWatch, share: Share, far: Option<Dialer>) -> Self {
        Self {
            shared: Arc::new(Shared {
                region: region.into(),
                table,
                share,
                local: OnceLock::new(),
                far,
            }),
        }
    }

    /// Sets the services of this process. Only the first call counts.
    pub fn serve(&self, services: Routes) {
        let _ = self.shared.local.set(services.prepare());
    }

    /// The region this node is in.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// The directory's table.
    #[must_use]
    pub fn table(&self) -> &TableWatch {
        &self.shared.table
    }

    /// Which slots are this node's.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.shared.share
    }

    /// Who serves `slot`, as far as it is known here; nobody while this region knows of no live node.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<Owner> {
        self.shared.owner(slot).0
    }

    /// How far the table and the share are now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen()
    }

    /// Waits until the table or the share is another than in `seen`, and slots may have other owners; answers at once when that is so
    /// already. Several changes may be seen as one.
    pub async fn changed(&self, seen: Seen) -> Seen {
        self.shared.changed(seen).await
    }

    /// A channel to whoever serves `slot`.
    #[must_use]
    pub fn to(&self, slot: Slot) -> SlotRoute {
        self.target(Target::Slot(slot))
    }

    /// A channel to a node of the region of this name.
    #[must_use]
    pub fn to_region(&self, name: &str) -> SlotRoute {
        self.target(Target::Region(name.into()))
    }

    /// A channel to this process of this region, or of another.
    #[must_use]
    pub fn to_owner(&self, owner: &Owner) -> SlotRoute {
        self.target(Target::Owner(owner.clone()))
    }

    /// A channel to this process itself (its delivery worker).
    #[must_use]
    pub fn here(&self) -> SlotRoute {
        self.target(Target::Here)
    }

    fn target(&self, target: Target) -> SlotRoute {
        SlotRoute {
            shared: self.shared.clone(),
            target,
        }
    }
}

/// A channel to the owner of one slot; see [`Route::to`].
#[derive(Clone)]
pub struct SlotRoute {
    shared: Arc<Shared>,
    target: Target,
}

impl Service<Request<Body>> for SlotRoute {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = call::answer(self.shared.clone(), self.target.clone(), request);
        Box::pin(async move { Ok(call.await) })
    }
}
