//! The way of an operator to the API server and the Temporal server, on which it is killed before and after each of its writes.
//!
//! A write that is seen for the first time kills the operator and reaches nobody. The second time it reaches the server, and the
//! operator is killed before it hears of that. From the third time on it passes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kube::Client;
use kube::config::Kubeconfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Problem>;

/// How often the operator was killed at a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blows {
    /// Before it was done.
    pub before: usize,
    /// After it was done.
    pub after: usize,
}

/// Both ways.
pub struct Crossing {
    folder: TempDir,
    temporal: SocketAddr,
    state: Arc<State>,
    // Ended with this value.
    _ways: JoinSet<()>,
}

struct State {
    api_server: Client,
    temporal: Channel,
    /// The process that is to be killed; while there is none, writes wait.
    operator: watch::Sender<Option<i32>>,
    writes: Mutex<BTreeMap<String, Blows>>,
}

/// What is done with a request.
enum Verdict {
    Pass,
    KillBefore,
    KillAfter,
}

#[derive(Clone, Copy)]
enum Way {
    ApiServer,
    Temporal,
}

impl Crossing {
    /// Ways to the API server that `client` is for, and to the Temporal server at `host:port`.
    ///
    /// # Errors
    /// The address is none.
    pub async fn start(client: Client, temporal: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{temporal}"))?.connect_lazy();
        let state = Arc::new(State {
            api_server: client,
            temporal: channel,
            operator: watch::Sender::new(None),
            writes: Mutex::default(),
        });
        let mut ways = JoinSet::new();
        let mut listen = async |way| {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            ways.spawn(accept(listener, state.clone(), way));
            anyhow::Ok(address)
        };
        let (api_server, temporal) = (listen(Way::ApiServer).await?, listen(Way::Temporal).await?);
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config"), kubeconfig(api_server)?)?;
        Ok(Self { folder, temporal, state, _ways: ways })
    }

    /// A kubeconfig by which the API server is reached this way.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The Temporal server's `host:port` on this way.
    #[must_use]
    pub fn host_port(&self) -> String {
        self.temporal.to_string()
    }

    /// Says which process is the operator now: its writes are let on from here.
    pub fn operator_is(&self, pid: i32) {
        self.state.operator.send_replace(Some(pid));
    }

    /// All writes so far, with the blows at each.
    #[must_use]
    pub fn writes(&self) -> BTreeMap<String, Blows> {
        self.state.writes.lock().clone()
    }
}

/// A kubeconfig for an API server that is reached without TLS.
pub(crate) fn kubeconfig(api_server: SocketAddr) -> Result<String> {
    let config: Kubeconfig = serde_json::from_value(serde_json::json!({
        "clusters": [{"name": "crossing", "cluster": {"server": format!("http://{api_server}")}}],
        "users": [{"name": "operator", "user": {}}],
        "contexts": [{"name": "crossing", "context": {"cluster": "crossing", "user": "operator"}}],
        "current-context": "crossing",
    }))?;
    Ok(serde_yaml::to_string(&config)?)
}

async fn accept(listener: TcpListener, state: Arc<State>, way: Way) {
    // Ended with this future.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), way, request));
            // It ends as the operator does.
            _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(state: Arc<State>, way: Way, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let verdict = match name(way, &head, &body) {
        Some(name) => {
            // What the operator writes while it is started is held until it can be killed.
            state.operator.subscribe().wait_for(Option::is_some).await?;
            state.judge(name)
        }
        None => Verdict::Pass,
    };
    let request = Request::from_parts(head, body);
    match verdict {
        Verdict::Pass => return state.send(way, request).await,
        Verdict::KillBefore => {}
        Verdict::KillAfter => _ = state.send(way, request).await?,
    }
    state.kill()?;
    // It does not hear this any more.
    let mut answer = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    Ok(answer)
}

impl State {
    fn judge(&self, name: String) -> Verdict {
        let mut writes = self.writes.lock();
        let blows = writes.entry(name).or_default();
        match blows {
            Blows { before: 0, .. } => {
                blows.before += 1;
                Verdict::KillBefore
            }
            Blows { after: 0, .. } => {
                blows.after += 1;
                Verdict::KillAfter
            }
            _ => Verdict::Pass,
        }
    }

    fn kill(&self) -> Result<()> {
        let pid = self.operator.send_replace(None).context("the operator was killed at another write meanwhile")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill the operator")
    }

    async fn send(&self, way: Way, mut request: Request<Bytes>) -> Result<Response<Body>, Problem> {
        // They are of this connection alone.
        request.headers_mut().remove(hyper::header::HOST);
        request.headers_mut().remove(hyper::header::CONNECTION);
        match way {
            Way::ApiServer => {
                let answer = self.api_server.send(request.map(Into::into)).await?;
                Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
            Way::Temporal => {
                let request = request.map(|body| tonic::body::Body::new(Full::new(body)));
                let answer = self.temporal.clone().oneshot(request).await?;
                Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        }
    }
}

/// Whether a request is a write that counts.
fn is_write(way: Way, head: &Parts) -> bool {
    let path = head.uri.path();
    match way {
        // None is part of a plan: events tell what was done, and the operator's own key is another one each time.
        Way::ApiServer => head.method != "GET" && !["/events", "/secrets"].iter().any(|kind| path.contains(kind)),
        Way::Temporal => {
            let method = path.rsplit('/').next().unwrap_or_default();
            ["Set", "Update", "Delete", "Start"].iter().any(|verb| method.starts_with(verb))
        }
    }
}

/// What a write is called, if it counts: the same when it is made again after a restart.
fn name(way: Way, head: &Parts, body: &[u8]) -> Option<String> {
    if !is_write(way, head) {
        return None;
    }
    let path = head.uri.path();
    match way {
        Way::Temporal => {
            let method = path.rsplit('/').next().unwrap_or_default();
            Some(format!("Temporal {method} {:016x}", digest(body)))
        }
        Way::ApiServer => {
            let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
            // A condition that another one has followed meanwhile is not written again.
            let is_status = path.ends_with("/status");
            strip(&mut body);
            let what = if is_status { reason(&body)? } else { format!("{:016x}", digest(body.to_string().as_bytes())) };
            Some(format!("Kubernetes {} {} {what}", head.method, path.split("/namespaces/").last().unwrap_or(path)))
        }
    }
}

/// Takes away what differs each time: versions of objects, and moments.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| {
                let is_moment = value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok());
                key != "resourceVersion" && !is_moment
            });
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The reason of the condition `Ready` in a status.
fn reason(body: &Value) -> Option<String> {
    let conditions = body["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    ready["reason"].as_str().map(str::to_owned)
}

fn digest(bytes: &[u8]) -> u64 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    u64::from_be_bytes(hash[..8].try_into().unwrap_or_default())
}
