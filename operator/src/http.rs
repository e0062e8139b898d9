//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Serves metrics until `stop`.
///
/// # Errors
/// When the address can't be listened on.
pub async fn serve_metrics(address: SocketAddr, registry: Registry, stop: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(registry);
    serve(address, router, stop).await
}

/// Serves the probes until `stop`: healthy while the process runs, ready once the caches of `scopes` scopes are filled.
///
/// # Errors
/// When the address can't be listened on.
pub async fn serve_probes(
    address: SocketAddr,
    ready: Arc<watch::Sender<usize>>,
    scopes: usize,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let readyz = move |State(ready): State<Arc<watch::Sender<usize>>>| async move {
        let filled = *ready.borrow();
        if filled >= scopes {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("caches of {filled} of {scopes} scopes are filled\n"))
        }
    };
    let router = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz)).with_state(ready);
    serve(address, router, stop).await
}

async fn metrics(State(registry): State<Registry>) -> Result<String, StatusCode> {
    TextEncoder::new().encode_to_string(&registry.gather()).map_err(|error| {
        tracing::error!(%error, "metrics can't be written");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

async fn serve(address: SocketAddr, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}
