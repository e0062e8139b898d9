//! Certificates that change under load: a Worker behind an endpoint that asks for client certificates.

mod runtime_support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use runtime_support::{Activity, SOON, Server, Worker, assert_says, exec, wait_for};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Certificate and key of `name`, PEM, good until the end of `year`.
    fn sign(&self, name: &str, year: i32) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// A TLS endpoint before a server: it forwards what clients with a certificate send, and notes whose certificates it saw.
struct Endpoint {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn start(authority: &Authority, server: &Server) -> Result<Self> {
        let (certificate, key) = authority.sign("localhost", 2099)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let (seen, target) = (Arc::<Mutex<Vec<String>>>::default(), server.temporal.host_port());
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted, target) = (acceptor.clone(), noted.clone(), target.clone());
                tokio::spawn(async move { forward(&acceptor, stream, &target, &noted).await });
            }
        });
        Ok(Self { address, seen })
    }

    fn has_seen(&self, name: &str) -> bool {
        self.seen.lock().expect("no panic").iter().any(|seen| seen == name)
    }
}

async fn forward(acceptor: &TlsAcceptor, stream: TcpStream, target: &str, noted: &Mutex<Vec<String>>) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().context("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificates[0])?;
    let name = certificate.subject().iter_common_name().next().context("no name")?.as_str()?.to_owned();
    noted.lock().expect("no panic").push(name);
    let mut server = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// The files of a Worker's connection.
struct Files(TempDir);

impl Files {
    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    /// Replaces certificate and key, as the kubelet does: each file at once.
    fn write(&self, (certificate, key): &(String, String)) -> Result<()> {
        for (file, text) in [("tls.key", key), ("tls.crt", certificate)] {
            let path = self.path(file);
            let unfinished = format!("{path}.new");
            std::fs::write(&unfinished, text)?;
            std::fs::rename(unfinished, Path::new(&path))?;
        }
        Ok(())
    }

    fn start(&self, endpoint: &Endpoint) -> Result<Worker> {
        let (ca, certificate, key) = (self.path("ca.crt"), self.path("tls.crt"), self.path("tls.key"));
        let environment = [
            ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", ca.as_str()),
            ("TEMPORAL_TLS_CLIENT_CERT_PATH", certificate.as_str()),
            ("TEMPORAL_TLS_CLIENT_KEY_PATH", key.as_str()),
        ];
        Worker::start(&endpoint.address, &exec(&["sh", "-c", "sleep 0.2; echo 7"]), &json!({}), &environment)
    }
}

/// Starts activities until it is told to stop.
async fn stream(server: Arc<Server>, stop: Arc<AtomicBool>) -> Result<Vec<String>> {
    let mut started = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        started.push(server.start_activity(Activity { attempts: 0, ..Activity::default() }).await?);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Ok(started)
}

#[tokio::test]
async fn a_new_certificate_counts_within_ten_seconds_and_no_task_fails() -> Result<()> {
    let authority = Authority::new()?;
    let server = Arc::new(Server::start().await?);
    let endpoint = Endpoint::start(&authority, &server).await?;
    let files = Files(tempfile::tempdir()?);
    std::fs::write(files.path("ca.crt"), &authority.pem)?;
    files.write(&authority.sign("first", 2090)?)?;
    let worker = files.start(&endpoint)?;
    worker.wait_ready().await;
    assert!(endpoint.has_seen("first") && !endpoint.has_seen("second"));

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(stream(server.clone(), stop.clone()));
    let ended = r#"outcome="completed",task_queue="q",task_type="activity""#;
    worker.wait_metric_above("tasks_ended_total", ended, 10.0).await;
    files.write(&authority.sign("second", 2091)?)?;
    let within = Duration::from_secs(10);
    wait_for("the second certificate", within, async || endpoint.has_seen("second").then_some(())).await;
    let at_change = worker.metric("tasks_ended_total", ended).await.unwrap_or_default();
    worker.wait_metric_above("tasks_ended_total", ended, at_change + 40.0).await;

    // What can't be used is said, and changes nothing.
    files.write(&("no certificate".to_owned(), "no key".to_owned()))?;
    worker.wait_log("goes on with the credentials that it has").await;
    assert_says(&worker.log(), &["tls.crt", "PEM"]);
    let at_change = worker.metric("tasks_ended_total", ended).await.unwrap_or_default();
    worker.wait_metric_above("tasks_ended_total", ended, at_change + 40.0).await;

    stop.store(true, Ordering::SeqCst);
    for activity_id in load.await?? {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(7));
        assert_eq!(server.describe(&activity_id).await?.attempt, 1, "an attempt failed");
    }
    let status = worker.probe("/readyz").await.map(|(status, _)| status);
    assert_eq!(status, Some(200));
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_over_is_named_with_its_end_and_its_successor_is_taken() -> Result<()> {
    let authority = Authority::new()?;
    let server = Server::start().await?;
    let endpoint = Endpoint::start(&authority, &server).await?;
    let files = Files(tempfile::tempdir()?);
    std::fs::write(files.path("ca.crt"), &authority.pem)?;
    files.write(&authority.sign("old", 2020)?)?;
    let worker = files.start(&endpoint)?;
    worker.wait_log("is over since 2020-12-31").await;
    assert_says(&worker.log(), &["tls.crt", "renew it"]);
    assert!(!endpoint.has_seen("old"));
    files.write(&authority.sign("new", 2090)?)?;
    wait_for("the new certificate", SOON, async || endpoint.has_seen("new").then_some(())).await;
    worker.wait_ready().await;
    Ok(())
}
