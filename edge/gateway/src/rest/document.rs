//! The OpenAPI document.

use std::sync::Arc;

use axum::{Extension, http::header, response::IntoResponse};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

/// What the handlers do not say of themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Antiphon", description = "Instant messaging. Refusals are problem documents (RFC 9457) with a stable `code`."),
    modifiers(&Bearer),
    tags(
        (name = "identity", description = "Accounts and tokens"),
        (name = "conversations", description = "Conversations and their members"),
        (name = "messages", description = "Messages and what was read"),
        (name = "session", description = "Live sessions and presence"),
    )
)]
pub(super) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", scheme);
    }
}

/// The document as it is served.
#[derive(Clone)]
pub(super) struct DocumentJson(pub(super) Arc<str>);

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "identity", responses((status = 200, description = "The OpenAPI document")))]
pub(super) async fn openapi(Extension(DocumentJson(document)): Extension<DocumentJson>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}
