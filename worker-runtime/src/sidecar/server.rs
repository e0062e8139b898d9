//! The door of the sidecar: HTTP/2 without TLS, for the other containers of the pod.

use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::budget::REQUEST_WINDOW;
use super::proxy::Proxy;
use super::traffic::Traffic;
use crate::gather::Gathering;
use crate::lifecycle::{Lifecycle, Stage};
use crate::transport::LARGEST_WINDOW;

/// Calls under way at a time on a connection: a Worker has a poll for each of its pollers, and a call for each task.
const MOST_CALLS: u32 = 10_000;
/// First byte of TLS (RFC 8446 section 5.1, a handshake record).
const TLS: u8 = 22;
/// Pause after a connection that can't be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// A Worker that was gone for longer was started anew.
const STARTED_ANEW: Duration = Duration::from_millis(500);

const SPEAKS_TLS: &str = "the Worker speaks TLS to the sidecar, which takes plain connections from within the pod alone: switch \
     TLS off in the Worker's code, as for TEMPORAL_TLS=false; the sidecar adds it";

/// Serves connections. Never returns.
pub async fn serve(listener: TcpListener, proxy: Proxy, traffic: Traffic, lifecycle: Lifecycle) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, proxy.clone(), traffic.clone(), lifecycle.clone());
                tokio::spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of the Worker can't be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, proxy: Proxy, traffic: Traffic, lifecycle: Lifecycle) {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    if !matches!(stream.peek(&mut first).await, Ok(1)) {
        return;
    }
    if first[0] == TLS {
        tracing::error!("{SPEAKS_TLS}");
        lifecycle.note(Some(SPEAKS_TLS.to_owned()));
        return;
    }
    if lifecycle.noted().as_deref() == Some(SPEAKS_TLS) {
        lifecycle.note(None);
    }
    let was_alone = traffic.alone_for();
    let _connected = traffic.connect();
    if lifecycle.stage() >= Stage::Draining && was_alone.is_some_and(|alone| alone >= STARTED_ANEW) {
        lifecycle.serve_again();
    }
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, std::convert::Infallible>(proxy.call(request).await) }
    });
    let served = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MOST_CALLS)
        .initial_stream_window_size(REQUEST_WINDOW)
        .initial_connection_window_size(LARGEST_WINDOW)
        .serve_connection(TokioIo::new(Gathering::over(stream, Some(0))), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the Worker ended");
    }
}
