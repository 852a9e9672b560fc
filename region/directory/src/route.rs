use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use antiphon_proto::refusal;
use antiphon_types::Slot;
use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, service::Routes};
use tower::Service;

use crate::TableWatch;

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
    local: OnceLock<Routes>,
}

impl Route {
    /// The routing of a node in `region`. Requests wait for nothing: before [`Route::serve`] they are refused as unavailable.
    #[must_use]
    pub fn new(region: &str, table: TableWatch) -> Self {
        Self {
            shared: Arc::new(Shared {
                region: region.into(),
                table,
                local: OnceLock::new(),
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

    /// A channel to whoever serves `slot`.
    #[must_use]
    pub fn to(&self, slot: Slot) -> SlotRoute {
        SlotRoute {
            route: self.clone(),
            slot: Some(slot),
        }
    }

    /// A channel to a node of the region of this name.
    #[must_use]
    pub fn to_region(&self, name: &str) -> SlotRoute {
        let _ = name;
        self.here()
    }

    /// A channel to this region's own node (its delivery worker).
    #[must_use]
    pub fn here(&self) -> SlotRoute {
        SlotRoute {
            route: self.clone(),
            slot: None,
        }
    }
}

/// A channel to the owner of one slot; see [`Route::to`].
#[derive(Clone)]
pub struct SlotRoute {
    route: Route,
    slot: Option<Slot>,
}

type Answer = Result<Response<Body>, Infallible>;

impl Service<Request<Body>> for SlotRoute {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, <Routes as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = &self.route.shared;
        if let Some(slot) = self.slot {
            let table = shared.table.load();
            let placement = table.placement(slot);
            if *placement.home != *shared.region {
                let message = format!(
                    "{slot:?} is homed in {} and this node reaches {} alone",
                    placement.home, shared.region
                );
                let status = refusal::not_home(message, Some(placement.home.to_string()), placement.epoch);
                return Either::Left(ready(Ok(status.into_http())));
            }
        }
        match shared.local.get() {
            Some(services) => Either::Right(services.clone().call(request)),
            None => {
                let status = refusal::status("UNAVAILABLE", "the services of this node are starting", Some(100));
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}
