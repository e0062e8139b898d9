//! HTTP: `/metrics` on one port; `/healthz`, `/readyz`, `/drained`, `/drain` and the orders on the other.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use operator_core::contract::{DRAIN_PATH, DRAINED_PATH};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::options::Addresses;
use crate::orders::Orders;
use crate::transport::Wire;

/// How long `/drained` waits for the drain to begin. In a pod that ends, every container is told within moments of the
/// others; when only a handler's container restarts, the runtime is not told at all, and the hook must not hold it up.
const DRAIN_BEGINS_WITHIN: Duration = Duration::from_secs(10);

const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// An address that can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {source}; use a free address, with --{flag}")]
pub struct BindError {
    address: SocketAddr,
    what: &'static str,
    flag: &'static str,
    source: std::io::Error,
}

/// The open ports.
#[derive(Debug)]
pub struct Ports {
    close: CancellationToken,
    servers: JoinSet<std::io::Result<()>>,
}

impl Ports {
    /// Binds both ports, and answers on them until [`Ports::close`].
    ///
    /// # Errors
    /// A port can't be bound.
    pub async fn open(options: &Addresses, metrics: Metrics, wire: &Wire, orders: Orders) -> Result<Self, BindError> {
        let mut ports = Self { close: CancellationToken::new(), servers: JoinSet::new() };
        let app = Router::new().route("/metrics", get(async move || metrics.render()));
        ports.listen(options.metrics_bind_address, "metrics", "metrics-bind-address", app).await?;
        let app = probes(wire).merge(orders.routes());
        ports.listen(options.health_probe_bind_address, "probes", "health-probe-bind-address", app).await?;
        Ok(ports)
    }

    async fn listen(
        &mut self,
        address: SocketAddr,
        what: &'static str,
        flag: &'static str,
        app: Router,
    ) -> Result<(), BindError> {
        let error = |source| BindError { address, what, flag, source };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        // Port 0 stands for a free one.
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!(%address, what, "listening");
        let close = self.close.clone();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, app).with_graceful_shutdown(close.cancelled_owned());
        self.servers.spawn(server.into_future());
        Ok(())
    }

    /// Answers the requests under way, such as a hook that waits for the drain, and closes both ports.
    pub async fn close(mut self) {
        self.close.cancel();
        let answered = async { while self.servers.join_next().await.is_some() {} };
        // A client that never takes its answer must not hold the process up.
        let _ = tokio::time::timeout(CLOSES_WITHIN, answered).await;
    }
}

fn probes(wire: &Wire) -> Router {
    let Wire { lifecycle, roll, .. } = wire.clone();
    let (ready, drains) = (lifecycle.clone(), lifecycle.clone());
    let drain = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| drain(&drains, peer).await;
    Router::new()
        .route("/healthz", get(async move || liveness(roll.stuck(Instant::now()))))
        .route("/readyz", get(async move || readiness(ready.stage(), ready.noted())))
        .route(DRAINED_PATH, get(async move || drained(&lifecycle, DRAIN_BEGINS_WITHIN).await))
        .route(DRAIN_PATH, post(drain))
}

fn liveness(stuck: Option<(String, Duration)>) -> (StatusCode, String) {
    match stuck {
        None => (StatusCode::OK, "ok".to_owned()),
        Some((task_queue, silence)) => {
            let text = format!("core has not polled Task Queue {task_queue:?} for {} s", silence.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn readiness(stage: Stage, note: Option<String>) -> (StatusCode, String) {
    let (status, word) = match stage {
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Stage::Serving => (StatusCode::OK, "ok"),
        Stage::Draining | Stage::Drained => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, note.map_or_else(|| word.to_owned(), |note| format!("{word}; {note}")))
}

/// Begins the drain, as SIGTERM does, and answers when it is over. For the pod's own preStop hook: only who is in the pod may
/// ask, because any other order is signed.
async fn drain(lifecycle: &Lifecycle, peer: SocketAddr) -> (StatusCode, &'static str) {
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "only from within the pod");
    }
    tracing::info!("asked to end by a hook");
    lifecycle.reach(Stage::Draining);
    lifecycle.reached(Stage::Drained).await;
    (StatusCode::OK, "drained")
}

async fn drained(lifecycle: &Lifecycle, begins_within: Duration) -> &'static str {
    if tokio::time::timeout(begins_within, lifecycle.reached(Stage::Draining)).await.is_err() {
        return "not draining";
    }
    lifecycle.reached(Stage::Drained).await;
    "drained"
}

/// Waits until the runtime whose probes are at `address` has drained, or does not run.
///
/// # Errors
/// It answers something else than a runtime would.
pub async fn wait_drained(address: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    hook(client.get(format!("http://{address}{DRAINED_PATH}"))).await
}

/// Has the runtime whose probes are at `address` drain, and waits until it has, or does not run.
///
/// # Errors
/// As [`wait_drained`].
pub async fn begin_drain(address: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    hook(client.post(format!("http://{address}{DRAIN_PATH}"))).await
}

async fn hook(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    match request.send().await {
        Ok(response) => {
            response.error_for_status()?;
            Ok(())
        }
        // Refused, or broken off when the process ended: either way nothing runs there any more.
        Err(error) if error.is_connect() || error.is_request() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_serving() {
        let stages = [Stage::Starting, Stage::Serving, Stage::Draining, Stage::Drained];
        assert_eq!(stages.map(|stage| readiness(stage, None).0.as_u16()), [503, 200, 503, 503]);
        let (status, text) = readiness(Stage::Serving, Some("the file is bad".to_owned()));
        assert_eq!((status.as_u16(), text.as_str()), (200, "ok; the file is bad"));
    }

    #[test]
    fn alive_while_core_polls() {
        assert_eq!(liveness(None).0.as_u16(), 200);
        let (status, text) = liveness(Some(("orders".to_owned(), Duration::from_secs(200))));
        assert!(status.as_u16() == 503 && text.contains("\"orders\"") && text.contains("200 s"), "{text}");
    }

    #[tokio::test]
    async fn only_the_pod_itself_may_begin_a_drain() {
        let lifecycle = Lifecycle::default();
        let (status, _) = drain(&lifecycle, SocketAddr::from(([10, 0, 0, 1], 9))).await;
        assert_eq!((status.as_u16(), lifecycle.stage()), (403, Stage::Starting));
        let hook = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { drain(&lifecycle, SocketAddr::from(([127, 0, 0, 1], 9))).await }
        });
        lifecycle.reached(Stage::Draining).await;
        assert!(!hook.is_finished());
        lifecycle.reach(Stage::Drained);
        assert_eq!(hook.await.unwrap().0.as_u16(), 200);
    }

    #[tokio::test]
    async fn the_hook_waits_for_the_last_task() {
        let lifecycle = Lifecycle::default();
        let hook = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { drained(&lifecycle, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        lifecycle.reach(Stage::Draining);
        tokio::task::yield_now().await;
        assert!(!hook.is_finished());
        lifecycle.reach(Stage::Drained);
        assert_eq!(hook.await.unwrap(), "drained");
    }

    #[tokio::test]
    async fn a_restart_of_one_container_is_not_held_up() {
        assert_eq!(drained(&Lifecycle::default(), Duration::from_millis(10)).await, "not draining");
    }
}
