use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject as _;
use tonic::transport::{Certificate, CertificateDer, ClientTlsConfig, Identity, ServerTlsConfig};

use super::peer::{dns_name, region_of};

/// What a node shows to the others, and whom it believes: certificates of the deployment's CA alone, in both directions.
#[derive(Clone)]
pub struct NodeTls {
    ca: Certificate,
    identity: Identity,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file holds no certificate in PEM.
    #[error("{path} holds no certificate in PEM")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not for the region that is to show it.
    #[error("{path} has to be for the DNS name {wanted} and is for {found}")]
    OtherRegion {
        /// The file.
        path: PathBuf,
        /// The name that it ought to hold.
        wanted: String,
        /// The name that it holds.
        found: String,
    },
}

impl NodeTls {
    /// From PEM files: the CA's certificate, and the certificate and key of the node of `region`. The certificate names its region: DNS
    /// name `<region>.region.antiphon`.
    ///
    /// # Errors
    /// [`TlsError`], also for a certificate of another region.
    pub fn from_files(region: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let pem = read(certificate)?;
        let own = CertificateDer::from_pem_slice(&pem).map_err(|_| TlsError::NoCertificate {
            path: certificate.to_owned(),
        })?;
        let found = region_of(&own);
        if found.as_deref() != Some(region) {
            return Err(TlsError::OtherRegion {
                path: certificate.to_owned(),
                wanted: dns_name(region),
                found: found.map_or_else(|| "no region".to_owned(), |found| dns_name(&found)),
            });
        }
        Ok(Self {
            ca: Certificate::from_pem(read(ca)?),
            identity: Identity::from_pem(pem, read(key)?),
        })
    }

    /// Believes a server with a certificate of the deployment for this region.
    pub(super) fn client(&self, region: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(self.ca.clone())
            .identity(self.identity.clone())
            .domain_name(dns_name(region))
    }

    /// Believes clients with a certificate of the deployment, and no others.
    pub(super) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity.clone())
            .client_ca_root(self.ca.clone())
    }
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeTls")
    }
}

/// The CA of a world on one machine: made at its first start, kept in its folder, of no use elsewhere.
pub struct DevelopmentCa {
    folder: PathBuf,
}

impl DevelopmentCa {
    /// Makes certificates for these regions in `folder`, unless they are there: `ca.pem`, and for each region `<region>.pem` and
    /// `<region>.key`. Keys are readable by their owner alone.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn create<'a>(folder: &Path, regions: impl IntoIterator<Item = &'a str>) -> Result<Self, TlsError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let (ca_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
            .distinguished_name
            .push(DnType::CommonName, "Antiphon development CA");
        let key = if key_file.exists() {
            KeyPair::from_pem(&String::from_utf8_lossy(&read(&key_file)?))?
        } else {
            let key = KeyPair::generate()?;
            write(&key_file, &key.serialize_pem())?;
            key
        };
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        if !ca_file.exists() {
            write(&ca_file, &issuer.pem())?;
        }
        for region in regions {
            let (file, key_file) = (
                folder.join(format!("{region}.pem")),
                folder.join(format!("{region}.key")),
            );
            if file.exists() && key_file.exists() {
                continue;
            }
            let mut params = CertificateParams::new(vec![dns_name(region)])?;
            params.distinguished_name.push(DnType::CommonName, region);
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            write(&key_file, &key.serialize_pem())?;
            write(&file, &certificate.pem())?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// What the node of a region shows.
    ///
    /// # Errors
    /// [`TlsError::File`] when the region has no certificate here.
    pub fn node(&self, region: &str) -> Result<NodeTls, TlsError> {
        let file = |name: String| self.folder.join(name);
        NodeTls::from_files(
            region,
            &file("ca.pem".to_owned()),
            &file(format!("{region}.pem")),
            &file(format!("{region}.key")),
        )
    }

    /// The CA that was made in `folder` before.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(at(path))
}

fn write(path: &Path, pem: &str) -> Result<(), TlsError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> TlsError {
    let path = path.to_owned();
    |error| TlsError::File { path, error }
}
