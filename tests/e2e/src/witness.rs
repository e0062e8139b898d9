//! A proxy before a Temporal server with an address for each of several parties, over TLS. It notes who shows which credential
//! where, and for what.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use prost::Message as _;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::endpoint::Authority;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Problem>;

/// Bytes before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Tag of a message's first field, a text: the Temporal namespace in requests.
const FIRST_TEXT: u8 = 0x0a;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the address that it came to.
    pub address: &'static str,
    /// API key; empty without one.
    pub key: String,
    /// Name of its method.
    pub method: String,
    /// Temporal namespace that it is for.
    pub namespace: String,
    /// Worker Deployment that it names, if its method names one.
    pub deployment: Option<String>,
    /// Bytes of the message.
    pub bytes: usize,
    /// Whether a text is in it that [`Witness::look_for`] named.
    pub is_marked: bool,
}

/// The proxy. It ends with its value.
pub struct Witness {
    /// Certificate of who signs its own, PEM.
    pub authority: String,
    addresses: BTreeMap<&'static str, SocketAddr>,
    state: Arc<State>,
    _ways: JoinSet<()>,
}

struct State {
    server: Channel,
    acceptor: TlsAcceptor,
    seen: Mutex<Vec<Call>>,
    retired: Mutex<Vec<String>>,
    marks: Mutex<Vec<String>>,
}

impl Witness {
    /// Listens on an address for each name, before the server at `host_port`.
    ///
    /// # Errors
    /// There is no port, or no certificate.
    pub async fn start(host_port: &str, names: &[&'static str]) -> Result<Self> {
        let authority = Authority::new()?;
        let own = authority.sign("127.0.0.1", 2099)?;
        let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let state = Arc::new(State {
            server: Endpoint::from_shared(format!("http://{host_port}"))?.connect_lazy(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            seen: Mutex::default(),
            retired: Mutex::default(),
            marks: Mutex::default(),
        });
        let (mut addresses, mut ways) = (BTreeMap::new(), JoinSet::new());
        for name in names {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.insert(*name, listener.local_addr()?);
            ways.spawn(accept(listener, state.clone(), name));
        }
        Ok(Self { authority: authority.pem, addresses, state, _ways: ways })
    }

    /// An address, as `host:port`.
    #[must_use]
    pub fn host_port(&self, name: &str) -> String {
        self.addresses.get(name).map(ToString::to_string).unwrap_or_default()
    }

    /// The calls so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Call> {
        self.state.seen.lock().clone()
    }

    /// Looks for a text in the messages of calls that come from now on.
    pub fn look_for(&self, text: &str) {
        self.state.marks.lock().push(text.to_owned());
    }

    /// Refuses calls with this key from now on.
    pub fn retire(&self, key: &str) {
        self.state.retired.lock().push(key.to_owned());
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, address: &'static str) {
    // Ended with this future.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            // It ends as the client does.
            _ = serve(stream, state, address).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, address: &'static str) -> Result<(), Problem> {
    stream.set_nodelay(true)?;
    let stream = state.acceptor.clone().accept(stream).await?;
    let service = service_fn(move |request| answer(state.clone(), address, request));
    Builder::new(TokioExecutor::new()).http2_only().serve_connection(TokioIo::new(stream), service).await
}

async fn answer(
    state: Arc<State>,
    address: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    let message = body.collect().await?.to_bytes();
    let mut call = Call::of(address, &head, &message).context("a call that is not understood")?;
    let holds = |mark: &String| message.windows(mark.len()).any(|part| part == mark.as_bytes());
    call.is_marked = state.marks.lock().iter().any(holds);
    let is_retired = state.retired.lock().contains(&call.key);
    state.seen.lock().push(call);
    if is_retired {
        let refused = Response::builder().header("content-type", "application/grpc").header("grpc-status", "16");
        return Ok(refused.body(Empty::new().map_err(|never| match never {}).boxed_unsync())?);
    }
    let request = Request::from_parts(head, tonic::body::Body::new(Full::new(message)));
    let answer = state.server.clone().oneshot(request).await?;
    Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
}

impl Call {
    fn of(address: &'static str, head: &Parts, message: &[u8]) -> Result<Self> {
        let method = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let authorization = head.headers.get("authorization").map(|value| value.to_str()).transpose()?;
        let key = authorization.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let bytes = message.len();
        let message = message.get(PREFIX..).context("no message")?;
        let (namespace, deployment) = (first_text(message)?, deployment(&method, message)?);
        Ok(Self { address, key, method, namespace, deployment, bytes, is_marked: false })
    }
}

fn first_text(message: &[u8]) -> Result<String> {
    let Some((&FIRST_TEXT, mut rest)) = message.split_first() else { return Ok(String::new()) };
    let length = prost::decode_length_delimiter(&mut rest)?;
    Ok(String::from_utf8(rest.get(..length).context("a text that is cut off")?.to_vec())?)
}

fn deployment(method: &str, message: &[u8]) -> Result<Option<String>> {
    Ok(match method {
        "DescribeWorkerDeployment" => Some(wire::DescribeWorkerDeploymentRequest::decode(message)?.deployment_name),
        "DescribeWorkerDeploymentVersion" => {
            let request = wire::DescribeWorkerDeploymentVersionRequest::decode(message)?;
            request.deployment_version.map(|version| version.deployment_name)
        }
        "SetWorkerDeploymentCurrentVersion" => {
            Some(wire::SetWorkerDeploymentCurrentVersionRequest::decode(message)?.deployment_name)
        }
        "SetWorkerDeploymentManager" => Some(wire::SetWorkerDeploymentManagerRequest::decode(message)?.deployment_name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_its_first_field_and_what_it_names() {
        let request =
            wire::DescribeWorkerDeploymentRequest { namespace: "tn".into(), deployment_name: "a/orders".into() };
        let message = request.encode_to_vec();
        assert_eq!(first_text(&message).unwrap(), "tn");
        assert_eq!(deployment("DescribeWorkerDeployment", &message).unwrap().as_deref(), Some("a/orders"));
        assert_eq!((first_text(&[]).unwrap(), deployment("GetSystemInfo", &[]).unwrap()), (String::new(), None));
    }
}
