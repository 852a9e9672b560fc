//! What an edge shows devices to prove who it is.
//!
//! From files, which are looked at again and again so that a renewed certificate is taken over without a restart; or made here, for
//! development: short-lived, because browsers accept a certificate by its hash only then.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use antiphon_types::{Clock, TimestampMs};
use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring::{self, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use super::secret;

/// How long a certificate made here is good: browsers take 14 days at most by hash.
const DEVELOPMENT_LIFE: Duration = Duration::from_secs(13 * 24 * 60 * 60);
/// When another takes its place.
const DEVELOPMENT_RENEWAL: Duration = Duration::from_secs(6 * 24 * 60 * 60);
/// A certificate made here is good a little earlier: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or holds no such thing.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the key is of a kind that is not known here.
    #[error("the certificate and its key: {0}")]
    Key(#[from] rustls::Error),
    /// None could be made.
    #[error("a certificate for development: {0}")]
    Made(#[from] rcgen::Error),
}

/// The certificate of an edge, whichever it is now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificates {
    source: Arc<Source>,
    current: Arc<Current>,
}

#[derive(Debug)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    Development {
        names: Vec<String>,
        kept: PathBuf,
        clock: Clock,
    },
}

#[derive(Debug)]
struct Current(ArcSwap<Shown>);

#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    sha256: Option<String>,
    made_at_ms: TimestampMs,
    /// What the files held.
    read: (Vec<u8>, Vec<u8>),
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl Certificates {
    /// From PEM files: a chain, the edge's own first, and its key.
    ///
    /// # Errors
    /// Names the file, or says that the two do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        Self::of(Source::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Makes one for these names and addresses, and another before it runs out. It is in the file `kept`, with its key, so that devices
    /// know the edge again after a restart.
    ///
    /// # Errors
    /// When none can be made, as for a name that is none; or the file cannot be written.
    pub fn development(names: Vec<String>, kept: &Path, clock: Clock) -> Result<Self, CertificateError> {
        Self::of(Source::Development {
            names,
            kept: kept.to_owned(),
            clock,
        })
    }

    fn of(source: Source) -> Result<Self, CertificateError> {
        let shown = source.show()?;
        Ok(Self {
            source: Arc::new(source),
            current: Arc::new(Current(ArcSwap::from_pointee(shown))),
        })
    }

    /// TLS of these versions for the protocol of that name (ALPN), with the certificate that there is at each handshake.
    pub(super) fn tls(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> io::Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        tls.alpn_protocols = vec![protocol.to_vec()];
        Ok(tls)
    }

    /// For connections of TCP that speak HTTP. Sessions are resumed by tickets, which cost the edge no memory.
    pub(crate) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let mut tls = self.tls(rustls::DEFAULT_VERSIONS, b"http/1.1")?;
        tls.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
        Ok(Arc::new(tls).into())
    }

    /// SHA-256 of the certificate, lower-case hex, by which a device can tell one that no authority has signed; none of one from files.
    pub(crate) fn sha256(&self) -> Option<String> {
        self.current.0.load().sha256.clone()
    }

    /// Takes over what the files hold, and makes another certificate when it is time; for ever. Connections stay: a certificate is shown
    /// at a handshake.
    pub(crate) async fn look_after(self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            match tokio::task::spawn_blocking({
                let certificates = self.clone();
                move || certificates.look()
            })
            .await
            {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true)) => tracing::info!("another certificate is shown to devices"),
                Ok(Err(error)) => tracing::warn!(%error, "the certificate that was shown before is kept"),
            }
        }
    }

    /// True when another is shown now.
    fn look(&self) -> Result<bool, CertificateError> {
        let shown = self.current.0.load();
        let is_same = match &*self.source {
            Source::Files { certificate, key } => (read(certificate)?, read(key)?) == shown.read,
            Source::Development { clock, .. } => is_good(shown.made_at_ms, clock.now_ms()),
        };
        if !is_same {
            self.current.0.store(Arc::new(self.source.show()?));
        }
        Ok(!is_same)
    }
}

impl Source {
    fn show(&self) -> Result<Shown, CertificateError> {
        match self {
            Self::Files { certificate, key } => {
                let read = (read(certificate)?, read(key)?);
                let certified = certified(&read.0, &read.1, (certificate, key))?;
                Ok(Shown {
                    key: Arc::new(certified),
                    sha256: None,
                    made_at_ms: 0,
                    read,
                })
            }
            Self::Development { names, kept, clock } => {
                let now_ms = clock.now_ms();
                let before = Made::read(kept).filter(|made| made.names == *names && is_good(made.at_ms, now_ms));
                let made = match before {
                    Some(made) => made,
                    None => Made::new(names, now_ms, kept)?,
                };
                let certified = certified(made.pem.as_bytes(), made.pem.as_bytes(), (kept, kept))?;
                Ok(Shown {
                    sha256: Some(HEXLOWER.encode(&Sha256::digest(certified.end_entity_cert()?))),
                    key: Arc::new(certified),
                    made_at_ms: made.at_ms,
                    read: Default::default(),
                })
            }
        }
    }
}

/// A certificate made here, as its file holds it: a line of when and for which names, and PEM of itself and of its key.
struct Made {
    at_ms: TimestampMs,
    names: Vec<String>,
    pem: String,
}

impl Made {
    /// None when there is no such file, or something else in it.
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (about, pem) = text.split_once('\n')?;
        let mut about = about.split(' ').map(str::to_owned);
        let at_ms = about.next()?.parse().ok()?;
        certified(pem.as_bytes(), pem.as_bytes(), (path, path)).ok()?;
        Some(Self {
            at_ms,
            names: about.collect(),
            pem: pem.to_owned(),
        })
    }

    fn new(names: &[String], at_ms: TimestampMs, path: &Path) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::new(names)?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + DEVELOPMENT_LIFE - CLOCK_SKEW).into();
        let private = KeyPair::generate()?;
        let pem = params.self_signed(&private)?.pem() + &private.serialize_pem();
        let text = format!("{at_ms} {}\n{pem}", names.join(" "));
        secret::write(path, text.as_bytes()).map_err(|error| file(path, &error))?;
        Ok(Self {
            at_ms,
            names: names.to_owned(),
            pem,
        })
    }
}

/// Whether a certificate made here at that time need not make way for another yet.
fn is_good(made_at_ms: TimestampMs, now_ms: TimestampMs) -> bool {
    let age_ms = now_ms.checked_sub(made_at_ms);
    age_ms.is_some_and(|age_ms| Duration::from_millis(age_ms) < DEVELOPMENT_RENEWAL)
}

/// A chain and its key, of the files at `paths`.
fn certified(chain: &[u8], key: &[u8], paths: (&Path, &Path)) -> Result<CertifiedKey, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| file(paths.0, &error))?;
    if chain.is_empty() {
        return Err(file(paths.0, &"there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|error| file(paths.1, &error))?;
    let certified = CertifiedKey::new(chain, any_supported_type(&private)?);
    certified.keys_match()?;
    Ok(certified)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|error: io::Error| file(path, &error))
}

fn file(path: &Path, reason: &impl std::fmt::Display) -> CertificateError {
    CertificateError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let private = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&private).unwrap();
        let (at, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&at, certificate.pem()).unwrap();
        fs::write(&key, private.serialize_pem()).unwrap();
        (at, key)
    }

    #[test]
    fn a_renewed_file_is_taken_over_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write(folder.path(), "one.example");
        let certificates = Certificates::from_files(&certificate, &key).unwrap();
        let shown = || certificates.current.0.load().key.cert[0].clone();
        let first = shown();
        assert!(!certificates.look().unwrap());
        assert_eq!(certificates.sha256(), None);

        write(folder.path(), "two.example");
        assert!(certificates.look().unwrap());
        let second = shown();
        assert_ne!(first, second);

        // Half of a renewal: the key is still the one before.
        let pem = KeyPair::generate().unwrap().serialize_pem();
        fs::write(&key, pem).unwrap();
        assert!(certificates.look().is_err());
        assert_eq!(shown(), second);
        fs::write(&certificate, "nothing").unwrap();
        let error = certificates.look().unwrap_err().to_string();
        assert!(error.contains("certificate.pem: "), "{error}");
    }

    #[test]
    fn one_for_development_is_known_by_its_hash_and_another_comes_before_it_runs_out() {
        let clock = Clock::manual(1_800_000_000_000);
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.pem");
        let start = |name: &str| Certificates::development(vec![name.to_owned()], &kept, clock.clone()).unwrap();
        let certificates = start("localhost");
        let shown = || certificates.current.0.load().key.cert[0].clone();
        let hash_of = |certificate: &CertificateDer<'_>| Some(HEXLOWER.encode(&Sha256::digest(certificate)));
        let first = shown();
        assert_eq!(certificates.sha256(), hash_of(&first));
        clock.advance(5 * 24 * 60 * 60 * 1_000);
        assert!(!certificates.look().unwrap());
        clock.advance(24 * 60 * 60 * 1_000);
        assert!(certificates.look().unwrap());
        assert_ne!(shown(), first);
        assert_eq!(certificates.sha256(), hash_of(&shown()));

        let hash = certificates.sha256();
        assert_eq!(start("localhost").sha256(), hash, "after a restart");
        assert_ne!(start("127.0.0.1").sha256(), hash, "of other names");
        fs::write(&kept, "half of it").unwrap();
        let mended = start("localhost").sha256();
        assert_eq!(start("localhost").sha256(), mended);
    }
}
