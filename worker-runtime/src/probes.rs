//! HTTP: `/metrics` on one port; `/healthz`, `/readyz`, `/drained` and the orders on the other.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use operator_core::contract::DRAINED_PATH;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::orders::Orders;

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
    pub async fn open(
        options: &Options,
        metrics: Metrics,
        lifecycle: Lifecycle,
        orders: Orders,
    ) -> Result<Self, BindError> {
        let mut ports = Self { close: CancellationToken::new(), servers: JoinSet::new() };
        let app = Router::new().route("/metrics", get(async move || metrics.render()));
        ports.listen(options.metrics_bind_address, "metrics", "metrics-bind-address", app).await?;
        let app = probes(lifecycle).merge(orders.routes());
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

fn probes(lifecycle: Lifecycle) -> Router {
    let ready = lifecycle.clone();
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async move || readiness(ready.stage())))
        .route(DRAINED_PATH, get(async move || drained(&lifecycle, DRAIN_BEGINS_WITHIN).await))
}

fn readiness(stage: Stage) -> (StatusCode, &'static str) {
    match stage {
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Stage::Serving => (StatusCode::OK, "ok"),
        Stage::Draining | Stage::Drained => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
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
    let url = format!("http://{address}{DRAINED_PATH}");
    match reqwest::Client::builder().no_proxy().build()?.get(&url).send().await {
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
        assert_eq!(stages.map(|stage| readiness(stage).0.as_u16()), [503, 200, 503, 503]);
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
