//! What an edge offers: `GET /v1/transports`.

use serde::Deserialize;

use super::Transport;

/// One way to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) url: String,
    /// SHA-256 of the only certificate to take, lower-case hex.
    pub(super) certificate_sha256: Option<String>,
}

/// What an edge offers over UDP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) quic: Option<Offer>,
    pub(super) web_transport: Option<Offer>,
}

#[derive(Deserialize)]
struct Answer {
    transports: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    url: String,
    certificate_sha256: Option<String>,
}

impl Offers {
    /// Asks the edge at `server`.
    pub(super) async fn ask(http: &reqwest::Client, server: &str) -> Result<Self, String> {
        let answer = async {
            let asked = http.get(format!("{server}/v1/transports")).send().await?;
            asked.error_for_status()?.json::<Answer>().await
        };
        let answer = answer
            .await
            .map_err(|error| format!("{server}/v1/transports: {error}"))?;
        let mut offers = Self::default();
        for named in answer.transports {
            let offer = Offer {
                url: named.url,
                certificate_sha256: named.certificate_sha256,
            };
            // A name that is not known here is of a server that is newer.
            if named.name == Transport::Quic.name() {
                offers.quic = Some(offer);
            } else if named.name == Transport::WebTransport.name() {
                offers.web_transport = Some(offer);
            }
        }
        Ok(offers)
    }
}
