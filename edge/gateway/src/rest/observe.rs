//! Around every request: its span, its metric, its time limit, the address that it counts for.

use std::{net::IpAddr, sync::Arc, time::Duration};

use antiphon_types::{ErrorCode, trace};
use axum::{
    extract::{MatchedPath, Request, State},
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tracing::Instrument as _;

use crate::{limits::counted, problem::Problem, serve::Peer, shared::Shared};

pub(super) async fn observe(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let peer = peer_of(&request, shared.options.trusted_proxies);
    request.extensions_mut().insert(peer.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("http", method = %request.method(), route, status = tracing::field::Empty);
    if let Some(traceparent) = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
    {
        trace::continue_from(&span, traceparent);
    }

    let limit_ms = shared.options.request_timeout_ms;
    let answer = async {
        if let Err(refusal) = shared.limits.addresses.take(&counted(peer.address)) {
            return Problem::from(refusal).into_response();
        }
        match tokio::time::timeout(Duration::from_millis(limit_ms), next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                let detail = format!("the request took longer than {limit_ms} ms; its outcome is unknown");
                Problem::new(ErrorCode::DeadlineExceeded, detail).into_response()
            }
        }
    };
    let response = answer.instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    metrics::counter!("antiphon_http_requests_total", "route" => route, "status" => response.status().as_str().to_owned())
        .increment(1);
    response
}

/// The caller: the other end of the connection, or whom the trusted proxies in between say they speak for.
fn peer_of(request: &Request, trusted_proxies: usize) -> Peer {
    let peer = request
        .extensions()
        .get::<Peer>()
        .cloned()
        .unwrap_or_else(Peer::unknown);
    match forwarded_for(request.headers(), trusted_proxies) {
        Some(address) => peer.on_behalf_of(address),
        None => peer,
    }
}

/// Each proxy appends the address it sees, so with n trusted ones the n-th entry from the right is the last that can be believed.
fn forwarded_for(headers: &HeaderMap, trusted_proxies: usize) -> Option<IpAddr> {
    let from_right = trusted_proxies.checked_sub(1)?;
    let values = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let entries: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    entries.into_iter().rev().nth(from_right)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_is_believed_only_as_far_as_proxies_are_trusted() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 1.1.1.1".parse().unwrap());
        headers.append("x-forwarded-for", "2.2.2.2".parse().unwrap());
        let address = |trusted| forwarded_for(&headers, trusted).map(|address| address.to_string());
        assert_eq!(address(0), None);
        assert_eq!(address(1).as_deref(), Some("2.2.2.2"));
        assert_eq!(address(2).as_deref(), Some("1.1.1.1"));
        assert_eq!(address(9), None);
    }
}
