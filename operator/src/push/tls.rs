//! The endpoint's certificate: from a folder that Kubernetes mounts a Secret to, read again when its content changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::RwLock;
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;

/// How often the files are looked at. Kubernetes takes about a minute to bring a changed Secret into a pod.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A certificate that follows its files.
pub struct Certificate {
    directory: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    files: Files,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Content of `tls.crt`, `tls.key` and, where there is one, `ca.crt`. No `Debug`: one is a key.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of a folder. Without `ca.crt` the certificates of `tls.crt` are believed.
    ///
    /// # Errors
    /// A file is missing or malformed; the message names it.
    pub fn read(directory: &Path) -> anyhow::Result<Arc<Self>> {
        let current = Current::of(Files::read(directory)?).with_context(|| named(directory))?;
        Ok(Arc::new(Self { directory: directory.to_owned(), current: RwLock::new(current) }))
    }

    /// Follows the files, for ever. Until changed ones can be used, the ones before stay in use.
    pub async fn follow(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(error) = self.look() {
                tracing::warn!(error = format!("{error:#}"), "the push endpoint keeps its certificate");
            }
        }
    }

    fn look(&self) -> anyhow::Result<()> {
        let files = Files::read(&self.directory)?;
        if files == self.current.read().files {
            return Ok(());
        }
        *self.current.write() = Current::of(files).with_context(|| named(&self.directory))?;
        tracing::info!("the push endpoint has a new certificate");
        Ok(())
    }

    /// To serve with.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.read().server.clone()
    }

    /// To call another replica with, which has a certificate of the same name.
    #[must_use]
    pub fn client(&self) -> (Arc<ClientConfig>, ServerName<'static>) {
        let current = self.current.read();
        (current.client.clone(), current.name.clone())
    }
}

fn named(directory: &Path) -> String {
    format!("certificate in {}", directory.display())
}

impl Files {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let authority = directory.join("ca.crt").exists().then(|| read("ca.crt")).transpose()?;
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")?, authority })
    }
}

impl Current {
    fn of(files: Files) -> anyhow::Result<Self> {
        let chain = certificates("tls.crt", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).context("tls.key holds no private key")?;
        let name = name_of(&chain[0])?;
        let mut roots = RootCertStore::empty();
        let believed = match &files.authority {
            Some(authority) => certificates("ca.crt", authority)?,
            None => chain.clone(),
        };
        for certificate in believed {
            roots.add(certificate).context("ca.crt holds a certificate that can't be used")?;
        }
        let provider = Arc::new(default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("tls.key is not the key of tls.crt")?;
        Ok(Self { files, server: server.into(), client: client.into(), name })
    }
}

fn certificates(file: &str, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().with_context(|| file.to_owned())?;
    if found.is_empty() {
        bail!("{file} holds no certificate");
    }
    Ok(found)
}

/// The first name that another replica can ask for.
fn name_of(certificate: &CertificateDer<'_>) -> anyhow::Result<ServerName<'static>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("tls.crt can't be read")?;
    let names = parsed.subject_alternative_name().context("names of tls.crt")?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let mut names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => ServerName::try_from((*name).to_owned()).ok(),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(ServerName::from)
        }
        _ => None,
    });
    names.next().context("tls.crt has no subject alternative name that is a DNS name without a wildcard, or an address")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(folder: &Path, names: &[&str]) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        key
    }

    fn name(certificate: &Certificate) -> String {
        certificate.client().1.to_str().into_owned()
    }

    #[test]
    fn changed_files_are_taken_and_unusable_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["first.example"]);
        let certificate = Certificate::read(folder.path()).unwrap();
        write(folder.path(), &["second.example"]);
        certificate.look().unwrap();
        assert_eq!(name(&certificate), "second.example");
        std::fs::write(folder.path().join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = format!("{:#}", certificate.look().unwrap_err());
        assert!(error.contains("tls.key is not the key of tls.crt"), "{error}");
        assert_eq!(name(&certificate), "second.example");
    }

    #[test]
    fn a_name_is_one_that_can_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for (names, wanted) in
            [(&["*.example", "push.example"][..], "push.example"), (&["10.0.0.7"], "10.0.0.7"), (&["::1"], "::1")]
        {
            write(folder.path(), names);
            assert_eq!(name(&Certificate::read(folder.path()).unwrap()), wanted);
        }
        write(folder.path(), &["*.example"]);
        let error = format!("{:#}", Certificate::read(folder.path()).err().unwrap());
        assert!(error.contains("subject alternative name"), "{error}");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |folder: &Path| format!("{:#}", Certificate::read(folder).err().unwrap());
        assert!(error(folder.path()).contains("tls.crt"));
        write(folder.path(), &["push.example"]);
        std::fs::write(folder.path().join("ca.crt"), "nonsense").unwrap();
        assert!(error(folder.path()).contains("ca.crt holds no certificate"), "{}", error(folder.path()));
    }
}
