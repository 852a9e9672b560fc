//! `/.well-known/jwks.json`

use std::sync::Arc;

use axum::{extract::State, http::header, response::IntoResponse};

use crate::{problem::Problem, shared::Shared};

/// The public keys that verify access tokens, as a JWK set (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "identity",
    responses(
        (status = 200, description = "A JWK set"),
        (status = 503, description = "UNAVAILABLE", body = Problem),
    )
)]
pub(super) async fn jwks(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Problem> {
    let jwks = shared.calls.jwks().await?;
    Ok((
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "public, max-age=60"),
        ],
        jwks,
    ))
}
