//! REST: one file a resource. The OpenAPI document is made from the handlers themselves.

mod accounts;
mod conversations;
mod document;
mod extract;
mod keys;
mod members;
mod messages;
mod observe;
mod presence;
#[cfg(test)]
mod tests;
mod tokens;
mod transports;
mod users;
mod values;

use std::{sync::Arc, time::Duration};

use antiphon_types::ErrorCode;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{StatusCode, header},
    middleware,
    response::IntoResponse as _,
};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{problem::Problem, shared::Shared, transport};

/// How long a page may remember that it may ask.
const CORS_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Every route, and the document that describes them.
pub(crate) fn router(shared: &Arc<Shared>) -> (Router, String) {
    let (router, document) = OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(tokens::log_in, tokens::log_out))
        .routes(routes!(tokens::refresh))
        .routes(routes!(keys::jwks))
        .routes(routes!(users::by_name))
        .routes(routes!(users::by_id))
        .routes(routes!(conversations::list, conversations::create))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::remove, members::set_role))
        .routes(routes!(messages::history, messages::send))
        .routes(routes!(messages::read))
        .routes(routes!(presence::query))
        .routes(routes!(transports::list))
        .routes(routes!(transport::connect))
        .routes(routes!(document::openapi))
        .split_for_parts();
    // The document is plain data: writing it as JSON cannot fail.
    let document = document.to_json().unwrap_or_default();
    let router = router
        .fallback(async || Problem::new(ErrorCode::NotFound, "there is nothing at this path").into_response())
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::with_status(
                status,
                ErrorCode::InvalidArgument,
                "this path does not take this method",
            )
            .into_response()
        })
        .layer(axum::Extension(document::DocumentJson(document.as_str().into())))
        .layer(DefaultBodyLimit::max(shared.options.body_bytes_max))
        .layer(middleware::from_fn_with_state(shared.clone(), observe::observe))
        .layer(cors())
        .with_state(shared.clone());
    (router, document)
}

/// Pages of any origin may ask: what they may do is in the token that they send along, and nothing is in cookies.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(Any)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER])
        .max_age(CORS_MAX_AGE)
}
