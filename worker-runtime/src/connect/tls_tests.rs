//! Connections over TLS to a server that says what it saw.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::first;
use crate::settings::Settings;
use crate::transport::Wire;

/// What the server saw of its first call.
struct Seen {
    server_name: Option<String>,
    client_certificates: usize,
    authorization: Option<String>,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Answers `GetSystemInfo` to the first client that shows a certificate of `authority`.
async fn serve(authority: &Authority, name: &str) -> (SocketAddr, JoinHandle<Option<Seen>>) {
    let (certificate, key) = authority.sign(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.ok()?;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
        let tls = stream.get_ref().1;
        let server_name = tls.server_name().map(str::to_owned);
        let client_certificates = tls.peer_certificates().map_or(0, <[_]>::len);
        let mut calls = h2::server::handshake(stream).await.ok()?;
        let (request, mut respond) = calls.accept().await?.ok()?;
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = respond.send_response(response, false).ok()?;
        // A message without fields, and the status after it.
        body.send_data(Bytes::from_static(&[0; 5]), false).ok()?;
        body.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect()).ok()?;
        tokio::spawn(async move { while calls.accept().await.is_some() {} });
        Some(Seen { server_name, client_certificates, authorization })
    });
    (address, served)
}

fn settings(address: SocketAddr, folder: &Path, more: &[(&str, &str)]) -> Settings {
    let path = |file: &str| folder.join(file).display().to_string();
    let values = [
        ("TEMPORAL_ADDRESS", address.to_string()),
        ("TEMPORAL_NAMESPACE", "orders".to_owned()),
        ("TEMPORAL_TLS_CLIENT_CERT_PATH", path("tls.crt")),
        ("TEMPORAL_TLS_CLIENT_KEY_PATH", path("tls.key")),
        ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", path("ca.crt")),
        ("TEMPORAL_TLS_SERVER_NAME", "temporal.example".to_owned()),
    ];
    let more: Vec<_> = more.iter().map(|(key, value)| (*key, (*value).to_owned())).chain(values).collect();
    Settings::read(|name| more.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()), "host").unwrap()
}

fn write(folder: &Path, ca: &str, client: &(String, String)) {
    for (file, text) in [("ca.crt", ca), ("tls.crt", &client.0), ("tls.key", &client.1)] {
        std::fs::write(folder.join(file), text).unwrap();
    }
}

#[tokio::test]
async fn client_certificate_authority_name_and_api_key_reach_the_server() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (address, served) = serve(&authority, "temporal.example").await;
    write(folder.path(), &authority.pem, &authority.sign("worker"));
    let settings = settings(address, folder.path(), &[("TEMPORAL_API_KEY", "key-1")]);
    first(&settings, &Wire::default()).await.map(drop).unwrap();
    let seen = served.await.unwrap().unwrap();
    assert_eq!(seen.server_name.as_deref(), Some("temporal.example"));
    assert_eq!(seen.client_certificates, 1);
    assert_eq!(seen.authorization.as_deref(), Some("Bearer key-1"));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (address, served) = serve(&authority, "temporal.example").await;
    write(folder.path(), &Authority::new().pem, &authority.sign("worker"));
    let message = first(&settings(address, folder.path(), &[]), &Wire::default()).await.err().unwrap().to_string();
    assert!(message.contains("certificate") && message.contains("\"orders\""), "{message}");
    assert!(served.await.unwrap().is_none());
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (address, served) = serve(&authority, "somebody.else.example").await;
    write(folder.path(), &authority.pem, &authority.sign("worker"));
    let message = first(&settings(address, folder.path(), &[]), &Wire::default()).await.err().unwrap().to_string();
    assert!(message.contains("certificate"), "{message}");
    assert!(served.await.unwrap().is_none());
}
