//! Whom a client believes: what the system's authorities vouch for, or the one certificate of this hash.

use std::sync::{Arc, LazyLock};

use data_encoding::HEXLOWER;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};

/// An HTTP client over TCP that takes the certificate with this SHA-256 (lower-case hex) and no other, or without one those that the system's
/// authorities vouch for.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the place where it is told which provider to use"
)]
#[allow(
    clippy::expect_used,
    reason = "what is built of settings that do not change is built or never was"
)]
pub fn http_client(certificate_sha256: Option<&str>) -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(https(certificate_sha256));
    builder.build().expect("an HTTP client")
}

/// The TLS of [`http_client`], for other clients of HTTP/1.1.
#[must_use]
pub fn https(certificate_sha256: Option<&str>) -> ClientConfig {
    client_config(rustls::DEFAULT_VERSIONS, b"http/1.1", certificate_sha256)
}

/// TLS for the protocol of that name (ALPN). It remembers sessions, so clones of one resume each other's.
pub(crate) fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    protocol: &[u8],
    certificate_sha256: Option<&str>,
) -> ClientConfig {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    #[allow(clippy::expect_used, reason = "this provider has what each version of TLS needs")]
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(versions)
        .expect("a version of TLS");
    let mut config = match certificate_sha256 {
        Some(sha256) => {
            let pinned = Pinned {
                sha256: sha256.to_owned(),
                provider: PROVIDER.clone(),
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(pinned))
                .with_no_client_auth()
        }
        None => builder.with_root_certificates(roots()).with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

/// The authorities of this system; a system without any believes nobody.
fn roots() -> Arc<RootCertStore> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(errors = ?found.errors, "this system has no certificates of authorities");
        }
        Arc::new(roots)
    });
    ROOTS.clone()
}

/// Takes one certificate, whoever has signed it.
#[derive(Debug)]
struct Pinned {
    sha256: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if HEXLOWER.encode(&Sha256::digest(end_entity)) == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the certificate is not the one that was offered".to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
