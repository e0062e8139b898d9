//! A TLS endpoint before a Temporal server, which lets clients with a certificate of its authority in.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use temporalio_protos::temporal::api::workflowservice::v1::GetSystemInfoRequest;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::tasks::timed;

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// First byte of a TLS connection (RFC 8446 section 5.1, a handshake record).
const TLS: u8 = 22;

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub pem: String,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The certificate's serial number.
    pub serial: u64,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for a name or an address, good until the end of `year`.
    ///
    /// # Errors
    /// No key can be made.
    pub fn sign(&self, name: &str, year: i32) -> Result<Signed> {
        let (key, serial) = (KeyPair::generate()?, rand::random::<u64>() >> 1);
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 12, 31);
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem(), serial })
    }

    fn revoke(&self, signed: &Signed) -> Result<CertificateRevocationListDer<'static>> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(signed.serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.der().clone())
    }
}

/// A connection that was let in.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Serial number of the client's certificate.
    pub serial: u64,
    /// The client's address.
    pub peer: IpAddr,
    /// When it was let in.
    pub at: Instant,
    /// When something was last sent, either way.
    pub last: Instant,
    /// Whether it is still there.
    pub open: bool,
}

/// A connection that was not let in.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The client's address.
    pub peer: IpAddr,
    /// Why.
    pub why: String,
}

/// The endpoint: it forwards what clients with a certificate send, and notes whose certificates it saw. It ends with its
/// value.
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    authority: Authority,
    own: Signed,
    shared: Arc<Shared>,
    accepts: AbortHandle,
}

struct Shared {
    target: String,
    acceptor: Mutex<TlsAcceptor>,
    seen: Mutex<Vec<Seen>>,
    refused: Mutex<Vec<Refused>>,
    plaintext: AtomicUsize,
    revoked: watch::Sender<Option<u64>>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl Endpoint {
    /// Listens on an address of this machine, before the server at `target` (`host:port`).
    ///
    /// # Errors
    /// There is no such address.
    pub async fn start(authority: Authority, host: IpAddr, target: &str) -> Result<Self> {
        let own = authority.sign(&host.to_string(), 2099)?;
        Self::start_as(own, authority, host, target).await
    }

    /// The same with another certificate than one that fits.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_as(own: Signed, authority: Authority, host: IpAddr, target: &str) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            acceptor: Mutex::new(acceptor(&authority, &own, None)?),
            seen: Mutex::default(),
            refused: Mutex::default(),
            plaintext: AtomicUsize::new(0),
            revoked: watch::Sender::new(None),
        });
        let accepts = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, authority, own, shared, accepts })
    }

    /// Who signs the certificates that it lets in, and its own.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Connections that a certificate opened, oldest first.
    #[must_use]
    pub fn seen(&self, signed: &Signed) -> Vec<Seen> {
        self.shared.seen.lock().iter().filter(|seen| seen.serial == signed.serial).copied().collect()
    }

    /// Connections that were not let in, oldest first.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.shared.refused.lock().clone()
    }

    /// Connections on which something else than TLS began.
    #[must_use]
    pub fn plaintext(&self) -> usize {
        self.shared.plaintext.load(Ordering::SeqCst)
    }

    /// Revokes a certificate: those who were let in by it are cut off, and it opens no further connection.
    ///
    /// # Errors
    /// The revocation can't be signed.
    pub fn revoke(&self, signed: &Signed) -> Result<()> {
        let revoked = self.authority.revoke(signed)?;
        *self.shared.acceptor.lock() = acceptor(&self.authority, &self.own, Some(revoked))?;
        self.shared.revoked.send_replace(Some(signed.serial));
        Ok(())
    }

    /// Asks the server something, over a connection of its own with this certificate.
    ///
    /// # Errors
    /// It is not let in, or the server does not answer.
    pub async fn call(&self, signed: &Signed) -> Result<()> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority.pem))
            .identity(Identity::from_pem(&signed.certificate, &signed.key));
        let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", self.address))?;
        let channel = endpoint.tls_config(tls)?.connect_timeout(CALL_LIMIT).connect().await?;
        let request = timed(GetSystemInfoRequest::default(), CALL_LIMIT);
        WorkflowServiceClient::new(channel).get_system_info(request).await?;
        Ok(())
    }
}

fn acceptor(
    authority: &Authority,
    own: &Signed,
    revoked: Option<CertificateRevocationListDer<'static>>,
) -> Result<TlsAcceptor> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).with_crls(revoked).allow_unknown_revocation_status();
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(clients.build()?).with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection shows its certificate: none goes on with what an earlier one was let in by.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(tokio_rustls::rustls::server::NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ended with this future.
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let peer = peer.ip();
            if let Err(error) = serve(stream, peer, &shared).await {
                shared.refused.lock().push(Refused { peer, why: format!("{error:#}") });
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards a connection to its end.
///
/// # Errors
/// It is not let in, or the server can't be reached.
async fn serve(stream: TcpStream, peer: IpAddr, shared: &Shared) -> Result<()> {
    let mut first = [TLS];
    stream.peek(&mut first).await?;
    if first[0] != TLS {
        shared.plaintext.fetch_add(1, Ordering::SeqCst);
    }
    let acceptor = shared.acceptor.lock().clone();
    let client = acceptor.accept(stream).await?;
    let certificates = client.get_ref().1.peer_certificates().context("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificates[0])?;
    let serial = certificate.raw_serial().iter().fold(0, |serial, byte| serial << 8 | u64::from(*byte));
    let server = TcpStream::connect(&shared.target).await?;
    let number = {
        let (mut seen, at) = (shared.seen.lock(), Instant::now());
        seen.push(Seen { serial, peer, at, last: at, open: true });
        seen.len() - 1
    };
    let note = || shared.seen.lock()[number].last = Instant::now();
    let ((client_reads, client_writes), (server_reads, server_writes)) = (split(client), split(server));
    let mut revoked = shared.revoked.subscribe();
    // Either side may end it as it likes.
    tokio::select! {
        _ = forward(client_reads, server_writes, note) => {}
        _ = forward(server_reads, client_writes, note) => {}
        _ = revoked.wait_for(|revoked| *revoked == Some(serial)) => {}
    }
    shared.seen.lock()[number].open = false;
    Ok(())
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    note: impl Fn(),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        note();
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}
