//! One gRPC channel to a Temporal server, with its credentials.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::budget::{Budget, Budgets};
use super::metrics::Metrics;
use super::pool::PoolKey;

const USER_AGENT: &str = concat!("temporal-worker-operator/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A Temporal frontend closes a connection that is pinged more often than each 10 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A connection that went silent is given up after at most [`KEEP_ALIVE`] and this.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that no log, error or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// How the operator shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It does not.
    None,
    /// By a client certificate.
    MutualTls {
        /// `tls.crt`, PEM.
        cert: Secret,
        /// `tls.key`, PEM.
        key: Secret,
        /// `ca.crt`, PEM: certificates that may sign the server's, beside the system's own.
        ca: Option<Vec<u8>>,
    },
    /// By an API key. Implies TLS.
    ApiKey(Secret),
}

/// What a `Connection` and its Secrets say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSpec {
    /// `host:port` of the frontend.
    pub host_port: String,
    /// Name that the server's certificate is verified against; the host where it is absent.
    pub server_name: Option<String>,
    /// Credentials.
    pub credentials: Credentials,
    /// PEM of certificates that may sign the server's, beside the system's own.
    pub ca_cert: Option<Vec<u8>>,
}

/// A specification that no connection can be made from. Never holds content of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Not an address.
    #[error("hostPort {0:?} is not an address; write host:port")]
    HostPort(String),
    /// Not a name for TLS.
    #[error("tls.serverName {0:?} is not a DNS name or IP address that TLS can verify")]
    ServerName(String),
    /// A file that is not what it should be.
    #[error("{file} holds no valid PEM {expected}; write it again into the Secret")]
    Pem {
        /// Key in the Secret.
        file: &'static str,
        /// `certificate` or `private key`.
        expected: &'static str,
    },
    /// Certificate and key are each well formed and can't be used together.
    #[error(
        "tls.crt and tls.key can't be used together: the key does not belong to the certificate, or its kind is not supported"
    )]
    KeyPair,
    /// A client certificate whose time is over.
    #[error("the client certificate in tls.crt expired at {0}; write a new one, with its key, into the Secret")]
    Expired(Timestamp),
    /// An API key that does not fit in a header.
    #[error("the API key is empty or holds characters that a header can't carry; write the key alone into the Secret")]
    ApiKey,
    /// Neither the system nor the Connection names any signer.
    #[error("TLS can't be set up: {0}; name a caCertSecretRef if the image has no root certificates")]
    Tls(String),
}

/// A channel and the credentials that go with each call. Connects on first use, and again whenever it has to.
pub struct Connection {
    key: PoolKey,
    host_port: String,
    pub(super) client: WorkflowServiceClient<Channel>,
    pub(super) authorization: Option<MetadataValue<Ascii>>,
    pub(super) metrics: Metrics,
    /// When the client certificate expires.
    not_after: Option<Timestamp>,
    refused: AtomicBool,
    budgets: Arc<Budgets>,
}

impl Connection {
    pub(super) fn new(
        key: PoolKey,
        spec: &ConnectionSpec,
        budgets: Arc<Budgets>,
        metrics: Metrics,
    ) -> Result<Self, ConnectionError> {
        let channel = endpoint(spec)?.connect_lazy();
        Ok(Self {
            key,
            host_port: spec.host_port.clone(),
            client: WorkflowServiceClient::new(channel),
            authorization: authorization(&spec.credentials)?,
            metrics,
            not_after: not_after(&spec.credentials),
            refused: AtomicBool::new(false),
            budgets,
        })
    }

    /// What it was made from.
    #[must_use]
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// `host:port` of the frontend.
    #[must_use]
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// Checks that the credentials may still be used.
    ///
    /// # Errors
    /// [`ConnectionError::Expired`].
    pub fn check_validity(&self, now: Timestamp) -> Result<(), ConnectionError> {
        match self.not_after {
            Some(not_after) if not_after < now => Err(ConnectionError::Expired(not_after)),
            _ => Ok(()),
        }
    }

    /// Whether the server refused the credentials in the last call: the Secret may have changed, read it again now.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// The budget of calls to one Temporal namespace of this server, shared with every other connection to it.
    pub(super) fn budget(&self, namespace: &str) -> Arc<Budget> {
        self.budgets.of(&self.host_port, namespace)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("key", &self.key).field("host_port", &self.host_port).finish_non_exhaustive()
    }
}

fn endpoint(spec: &ConnectionSpec) -> Result<Endpoint, ConnectionError> {
    let tls = tls(spec)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bad_address = || ConnectionError::HostPort(spec.host_port.clone());
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", spec.host_port)).map_err(|_| bad_address())?;
    if endpoint.uri().port().is_none() || !matches!(endpoint.uri().path(), "" | "/") {
        return Err(bad_address());
    }
    let endpoint = endpoint
        .user_agent(USER_AGENT)
        .map_err(|_| bad_address())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let Some(tls) = tls else { return Ok(endpoint) };
    // An image without root certificates can still verify by the given ones alone.
    let has_own_roots = !signers(spec).is_empty();
    let with_system_roots = endpoint.clone().tls_config(tls.clone().with_native_roots());
    let configured =
        if has_own_roots { with_system_roots.or_else(|_| endpoint.tls_config(tls)) } else { with_system_roots };
    configured.map_err(|error| tls_error(spec, &error))
}

fn tls(spec: &ConnectionSpec) -> Result<Option<ClientTlsConfig>, ConnectionError> {
    let mut tls = ClientTlsConfig::new();
    match &spec.credentials {
        Credentials::None if spec.server_name.is_none() => return Ok(None),
        Credentials::None | Credentials::ApiKey(_) => {}
        Credentials::MutualTls { cert, key, .. } => {
            check_certificates("tls.crt", &cert.0)?;
            PrivateKeyDer::from_pem_slice(&key.0)
                .map_err(|_| ConnectionError::Pem { file: "tls.key", expected: "private key" })?;
            tls = tls.identity(Identity::from_pem(&cert.0, &key.0));
        }
    }
    for ca in signers(spec) {
        check_certificates("ca.crt", ca)?;
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some(name) = &spec.server_name {
        tls = tls.domain_name(name);
    }
    Ok(Some(tls))
}

fn signers(spec: &ConnectionSpec) -> Vec<&Vec<u8>> {
    let from_secret = match &spec.credentials {
        Credentials::MutualTls { ca, .. } => ca.as_ref(),
        Credentials::None | Credentials::ApiKey(_) => None,
    };
    from_secret.into_iter().chain(&spec.ca_cert).collect()
}

fn check_certificates(file: &'static str, pem: &[u8]) -> Result<(), ConnectionError> {
    let invalid = ConnectionError::Pem { file, expected: "certificate" };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    if certificates.is_ok_and(|found| !found.is_empty()) { Ok(()) } else { Err(invalid) }
}

/// End of the client certificate's validity; none where it can't be read, which TLS has its own word for.
fn not_after(credentials: &Credentials) -> Option<Timestamp> {
    let Credentials::MutualTls { cert, .. } = credentials else { return None };
    let certificate = CertificateDer::from_pem_slice(&cert.0).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Sorts out why TLS could not be configured. The files were read before, so what remains is how they fit together.
fn tls_error(spec: &ConnectionSpec, error: &tonic::transport::Error) -> ConnectionError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    let name = spec.server_name.as_deref();
    if name.is_some_and(|name| rustls_pki_types::ServerName::try_from(name).is_err()) {
        return ConnectionError::ServerName(name.unwrap_or_default().to_owned());
    }
    match spec.credentials {
        Credentials::MutualTls { .. } if !text.contains("native") => ConnectionError::KeyPair,
        _ => ConnectionError::Tls(text),
    }
}

fn authorization(credentials: &Credentials) -> Result<Option<MetadataValue<Ascii>>, ConnectionError> {
    let Credentials::ApiKey(key) = credentials else { return Ok(None) };
    let key = std::str::from_utf8(&key.0).map_err(|_| ConnectionError::ApiKey)?.trim();
    if key.is_empty() {
        return Err(ConnectionError::ApiKey);
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| ConnectionError::ApiKey)?;
    value.set_sensitive(true);
    Ok(Some(value))
}
