//! Connections with TLS: who is believed, what is sent, and what a malformed Secret is told.

use std::sync::Arc;
use std::time::Duration;

use operator_core::observed::{FailureClass, TemporalFailure};
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use temporal_worker_operator::temporal::{
    ConnectionError, ConnectionSpec, Credentials, Limits, Metrics, Pool, PoolKey, Routing, Secret, routing,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

const SERVER_NAME: &str = "temporal.example";
const API_KEY: &str = "canary-4c1f";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for a name and its key, both PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, wants_client_certificate: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if wants_client_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config).into()
    }
}

/// What a server saw of its first connection.
#[derive(Debug)]
struct Seen {
    /// Name that the client asked for and whether it showed a certificate; none when the handshake failed.
    handshake: Option<(Option<String>, bool)>,
    /// First bytes after the handshake, or on the bare connection when there is no TLS.
    bytes: Vec<u8>,
}

async fn server(acceptor: Option<TlsAcceptor>) -> (String, oneshot::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let Some(acceptor) = acceptor else {
            let size = stream.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(size);
            let _ = tell.send(Seen { handshake: None, bytes });
            return;
        };
        let Ok(mut stream) = acceptor.accept(stream).await else {
            let _ = tell.send(Seen { handshake: None, bytes: Vec::new() });
            return;
        };
        let session = stream.get_ref().1;
        let handshake = Some((session.server_name().map(str::to_owned), session.peer_certificates().is_some()));
        let size = stream.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(size);
        let _ = tell.send(Seen { handshake, bytes });
    });
    (address, told)
}

fn pool() -> Arc<Pool> {
    Pool::new(Limits::default(), Metrics::register(&Registry::new()).unwrap())
}

fn key() -> PoolKey {
    PoolKey {
        kubernetes_namespace: "tests".into(),
        connection_uid: "c".into(),
        connection_generation: 1,
        secret: None,
        ca_secret: None,
    }
}

fn spec(host_port: &str, credentials: Credentials, ca_cert: Option<Vec<u8>>) -> ConnectionSpec {
    ConnectionSpec { host_port: host_port.into(), server_name: Some(SERVER_NAME.into()), credentials, ca_cert }
}

async fn call(spec: &ConnectionSpec) -> TemporalFailure {
    let connection = pool().connect(key(), spec).unwrap();
    let routing = Routing { namespace: "default", deployment: "d", conflict_token: b"", identity: "tests" };
    routing::set_current(&connection, routing, "b").await.expect_err("nobody answers")
}

async fn seen(told: oneshot::Receiver<Seen>) -> Seen {
    tokio::time::timeout(Duration::from_secs(5), told).await.expect("a connection").unwrap()
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_a_given_authority_signed() {
    let authority = Authority::new();
    let (address, told) = server(Some(authority.server(true))).await;
    let (cert, tls_key) = authority.issue("operator");
    let credentials = Credentials::MutualTls { cert: cert.into(), key: tls_key.into(), ca: Some(authority.pem()) };
    let failure = call(&spec(&address, credentials, None)).await;
    assert_eq!(failure.class, FailureClass::Unreachable, "the server hung up: {}", failure.message);
    assert_eq!(seen(told).await.handshake, Some((Some(SERVER_NAME.to_owned()), true)));
}

#[tokio::test]
async fn an_api_key_goes_to_no_server_that_is_not_believed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let api_key = || Credentials::ApiKey(Secret::from(API_KEY.to_owned()));

    let (address, told) = server(Some(stranger.server(false))).await;
    let failure = call(&spec(&address, api_key(), Some(authority.pem()))).await;
    assert_eq!(failure.class, FailureClass::Unreachable);
    assert!(failure.message.contains("certificate"), "{}", failure.message);
    let stranger_saw = seen(told).await;
    assert_eq!(stranger_saw.handshake, None);

    let (address, told) = server(None).await;
    call(&spec(&address, api_key(), Some(authority.pem()))).await;
    let plain = seen(told).await;
    assert_eq!(plain.bytes.first(), Some(&22), "a TLS handshake, whatever the server speaks");

    let other_name =
        ConnectionSpec { server_name: Some("other.example".into()), ..spec("", api_key(), Some(authority.pem())) };
    let (address, told) = server(Some(authority.server(false))).await;
    let failure = call(&ConnectionSpec { host_port: address, ..other_name }).await;
    assert!(failure.message.contains("certificate"), "{}", failure.message);
    let misnamed = seen(told).await;
    for saw in [stranger_saw, plain, misnamed] {
        let text = String::from_utf8_lossy(&saw.bytes).into_owned();
        assert!(!text.contains(API_KEY), "the key was sent");
    }
}

#[tokio::test]
async fn a_malformed_secret_is_named_without_its_content() {
    let authority = Authority::new();
    let (cert, tls_key) = authority.issue("operator");
    let (_, other_key) = authority.issue("operator");
    let garbage = "-----BEGIN GARBAGE-----\ncanary-77aa\n-----END GARBAGE-----\n";
    let cases = [
        ("tls.crt", garbage, &*tls_key, None),
        ("tls.crt", "", &tls_key, None),
        ("tls.key", &cert, garbage, None),
        ("ca.crt", &cert, &tls_key, Some(garbage)),
        ("tls.crt and tls.key", &cert, &other_key, None),
    ];
    for (file, cert, tls_key, ca) in cases {
        let credentials = Credentials::MutualTls {
            cert: cert.to_owned().into(),
            key: tls_key.to_owned().into(),
            ca: ca.map(|ca| ca.as_bytes().to_vec()),
        };
        let spec = ConnectionSpec { ca_cert: Some(authority.pem()), ..spec("localhost:7233", credentials, None) };
        let error = pool().connect(key(), &spec).expect_err(file);
        let shown = format!("{error} {error:?} {spec:?}");
        assert!(error.to_string().starts_with(file), "{error}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[tokio::test]
async fn what_is_no_address_name_or_key_is_refused() {
    for address in ["localhost", "", "localhost:x", "a b:1", "host:1/path", "host:99999"] {
        let spec = ConnectionSpec { server_name: None, ..spec(address, Credentials::None, None) };
        let error = pool().connect(key(), &spec).map(drop);
        assert_eq!(error, Err(ConnectionError::HostPort(address.into())), "{address:?}");
    }
    for api_key in ["", " \n", "two\nlines", "\u{7f}"] {
        let spec = spec("localhost:7233", Credentials::ApiKey(Secret::from(api_key.to_owned())), None);
        assert_eq!(pool().connect(key(), &spec).map(drop), Err(ConnectionError::ApiKey), "{api_key:?}");
    }
    let spec =
        spec("localhost:7233", Credentials::ApiKey(Secret::from(format!("{API_KEY}\n"))), Some(Authority::new().pem()));
    assert!(pool().connect(key(), &spec).is_ok(), "a line end after the key does no harm");
}

#[tokio::test]
async fn a_connection_is_shared_by_its_whole_key_and_nothing_less() {
    let pool = pool();
    let spec = ConnectionSpec { server_name: None, ..spec("localhost:7233", Credentials::None, None) };
    let first = pool.connect(key(), &spec).unwrap();
    assert!(Arc::ptr_eq(&first, &pool.get(&key()).unwrap()));
    let other_tenant = PoolKey { kubernetes_namespace: "other".into(), ..key() };
    assert!(pool.get(&other_tenant).is_none());
    assert!(!Arc::ptr_eq(&first, &pool.connect(other_tenant, &spec).unwrap()));
}
