//! What stands for a region's edge: requests of clients go by the region's route.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use antiphon_directory::Route;
use antiphon_proto::rpc::{conversation_server, message_server};
use antiphon_types::Slot;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

/// The header that names a request's slot.
pub(crate) const SLOT: &str = "x-slot";

/// Passes the requests of one service on.
#[derive(Clone)]
pub(crate) struct Edge<const MESSAGES: bool> {
    route: Route,
}

impl Edge<true> {
    pub(crate) fn routes(route: &Route) -> Routes {
        let conversations = Edge::<false> { route: route.clone() };
        Routes::new(Edge::<true> { route: route.clone() }).add_service(conversations)
    }
}

impl NamedService for Edge<true> {
    const NAME: &'static str = message_server::SERVICE_NAME;
}

impl NamedService for Edge<false> {
    const NAME: &'static str = conversation_server::SERVICE_NAME;
}

impl<const MESSAGES: bool> Service<Request<Body>> for Edge<MESSAGES> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let number = request
            .headers()
            .get(SLOT)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let slot = number.and_then(Slot::new).unwrap_or(Slot::DEPLOYMENT);
        Box::pin(self.route.to(slot).call(request))
    }
}
