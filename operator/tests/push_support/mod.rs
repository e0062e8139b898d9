//! An endpoint with an operator behind it that the test plays, and a client that sees every byte of the answer.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use operator_core::push_token::{Grant, Invalid, KEY_BYTES, PushKey};
use parking_lot::Mutex;
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use temporal_worker_operator::push::tls::Certificate;
use temporal_worker_operator::push::{Backend, Endpoint, Fleet, Leader, Metrics, Relay, Transport, serve};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// UID of the fleet `prod/orders`.
pub const FLEET: &str = "orders-uid";

/// What the endpoint is told, and what it asked for.
pub struct Operator {
    serial: Result<u64, Invalid>,
    leader: Mutex<Leader>,
    hints: Mutex<Vec<String>>,
}

impl Operator {
    pub fn leading() -> Self {
        Self { serial: Ok(2), leader: Mutex::new(Leader::Here), hints: Mutex::default() }
    }

    /// One whose fleets ask for another serial number.
    pub fn asking_for(serial: Result<u64, Invalid>) -> Self {
        Self { serial, ..Self::leading() }
    }

    pub fn with(self, leader: Leader) -> Self {
        self.set(leader);
        self
    }

    pub fn set(&self, leader: Leader) {
        *self.leader.lock() = leader;
    }

    pub fn hints(&self) -> Vec<String> {
        self.hints.lock().clone()
    }
}

impl Backend for Operator {
    fn fleet(&self, namespace: &str, name: &str) -> Option<Fleet> {
        let known = namespace == "prod" && ["orders", "payments"].contains(&name);
        known.then(|| Fleet { uid: format!("{name}-uid"), serial: self.serial.clone(), replicas: 3 })
    }

    async fn key(&self) -> Result<PushKey, String> {
        Ok(key(1))
    }

    fn leader(&self) -> Leader {
        *self.leader.lock()
    }

    fn hint(&self, fleet_uid: &str) {
        self.hints.lock().push(fleet_uid.to_owned());
    }
}

pub fn key(byte: u8) -> PushKey {
    PushKey::new(&[byte; KEY_BYTES]).unwrap()
}

/// A certificate of an authority of its own, in a folder.
pub fn certificate() -> (tempfile::TempDir, Arc<Certificate>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(["*.wild.example".to_owned(), "push.operator.svc".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("tls.crt", names.signed_by(&key, &authority).unwrap().pem());
    write("tls.key", key.serialize_pem());
    write("ca.crt", authority.pem());
    let certificate = Certificate::read(folder.path()).unwrap();
    (folder, certificate)
}

/// A running endpoint.
pub struct Bed {
    pub address: SocketAddr,
    pub operator: Arc<Operator>,
    transport: Transport,
}

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    /// All of it.
    pub text: String,
}

impl Bed {
    pub async fn plain(operator: Operator) -> Self {
        Self::start(operator, Transport::Plain).await
    }

    pub async fn tls(operator: Operator, certificate: Arc<Certificate>) -> Self {
        Self::start(operator, Transport::Tls(certificate)).await
    }

    async fn start(operator: Operator, transport: Transport) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let operator = Arc::new(operator);
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let endpoint = Endpoint::new(operator.clone(), Relay::over(transport.clone()), metrics);
        tokio::spawn(serve(endpoint, listener, transport.clone()));
        Self { address, operator, transport }
    }

    /// The token of `prod/orders`.
    pub fn token(&self) -> String {
        key(1).issue(&Grant { fleet_uid: FLEET.into(), serial: 2 })
    }

    pub fn path(&self, namespace: &str, name: &str) -> String {
        format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    }

    /// Writes the scale of `prod/orders`.
    pub async fn put(&self, token: &str, body: &str) -> Answer {
        self.call("PUT", &format!("{}/scale", self.path("prod", "orders")), Some(token), body).await
    }

    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: push\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect(self.address).await.unwrap();
        let text = match &self.transport {
            Transport::Plain => exchange(stream, &request).await,
            Transport::Tls(certificate) => {
                let (client, name) = certificate.client();
                exchange(TlsConnector::from(client).connect(name, stream).await.unwrap(), &request).await
            }
        };
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"));
        Answer { code: code.unwrap_or_else(|| panic!("no code: {text}")), body, text }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    // A body that is refused by its length need not be taken: the write may fail then.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Where logs go.
#[derive(Clone)]
pub struct Sink(pub Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
