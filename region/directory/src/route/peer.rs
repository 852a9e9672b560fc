use std::sync::Arc;

use http::Extensions;
use tonic::transport::{
    CertificateDer,
    server::{TcpConnectInfo, TlsConnectInfo},
};

const NAME_SUFFIX: &str = ".region.antiphon";

/// The region whose certificate a request from another node came with. A request without it comes from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRegion(Arc<str>);

impl PeerRegion {
    /// Whether a request with these extensions may speak for this region: as its own, or as this process.
    #[must_use]
    pub fn may_speak_for(extensions: &Extensions, region: &str) -> bool {
        extensions.get::<Self>().is_none_or(|peer| *peer.0 == *region)
    }

    /// The peer of a connection; `None` when it has shown no certificate that names a region, or needs none.
    pub(super) fn of_connection(extensions: &Extensions) -> Option<Self> {
        let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
        region_of(connection.peer_certs()?.first()?).map(Self)
    }

    /// Whether the request came over TLS.
    pub(super) fn is_needed(extensions: &Extensions) -> bool {
        extensions.get::<TlsConnectInfo<TcpConnectInfo>>().is_some()
    }
}

/// The DNS name in a certificate of this region.
pub(super) fn dns_name(region: &str) -> String {
    format!("{region}{NAME_SUFFIX}")
}

/// The region that a certificate names.
pub(super) fn region_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    let region = names.find_map(|name| name.strip_suffix(NAME_SUFFIX))?;
    (!region.is_empty() && !region.contains(['.', '*'])).then(|| region.into())
}
