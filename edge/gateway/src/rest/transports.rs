//! `/v1/transports`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shared::Shared;

/// How devices may connect to this edge, the ones that suit a phone on a bad network first.
#[derive(Deserialize, Serialize, ToSchema)]
pub(super) struct Transports {
    transports: Vec<Offer>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Offer {
    /// `quic`, `webtransport` or `websocket`.
    name: String,
    /// Where: `quic://HOST:PORT`, `https://HOST:PORT/v1/connect`, `wss://HOST:PORT/v1/connect` or `ws://…`.
    url: String,
    /// SHA-256 of the only certificate to be taken, lower-case hex: of one that was made for development and that no authority has
    /// signed. It changes every few days.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
}

/// Lists the transports that this edge offers.
#[utoipa::path(
    get, path = "/v1/transports", tag = "session",
    responses((status = 200, description = "Where and how to connect", body = Transports))
)]
pub(super) async fn list(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Transports> {
    let authority = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = authority.unwrap_or("localhost");
    let host = host_of(authority);
    let https = shared.https.get();
    let is_proxied = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) == Some(b"https");
    let scheme = if https.is_some() || is_proxied { "wss" } else { "ws" };
    let mut transports = Vec::new();
    if let Some(udp) = shared.udp.get() {
        let certificate_sha256 = udp.certificates.sha256();
        let mut offer = |name: &str, advertised: &str, url: String| {
            let url = if advertised.is_empty() {
                url
            } else {
                advertised.to_owned()
            };
            transports.push(Offer {
                name: name.to_owned(),
                url,
                certificate_sha256: certificate_sha256.clone(),
            });
        };
        let (quic, web) = (udp.quic.local_addr(), udp.web_transport.local_addr());
        if let (Ok(quic), Ok(web)) = (quic, web) {
            let options = &shared.options;
            offer("quic", &options.quic_url, format!("quic://{host}:{}", quic.port()));
            let url = format!("https://{host}:{}/v1/connect", web.port());
            offer("webtransport", &options.web_transport_url, url);
        }
    }
    transports.push(Offer {
        name: "websocket".to_owned(),
        url: format!("{scheme}://{authority}/v1/connect"),
        certificate_sha256: https.and_then(|https| https.certificates.sha256()),
    });
    Json(Transports { transports })
}

/// The host of `HOST` or `HOST:PORT`; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    port_at.map_or(authority, |at| &authority[..at])
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn a_host_is_without_its_port() {
        for (authority, host) in [
            ("edge.example:7400", "edge.example"),
            ("edge.example", "edge.example"),
            ("[2001:db8::1]:7400", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
