//! A local service for handlers that have one: it gives back what it gets, in this very process, so that none of its CPU time
//! is a Worker's.

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A service on a port of the loopback address. It ends with this value.
pub struct Service {
    /// Its address.
    pub url: String,
    serving: AbortHandle,
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/echo", listener.local_addr()?);
        let echo = async |body: Bytes| ([(CONTENT_TYPE, "application/json")], body);
        let routes = Router::new().route("/echo", post(echo));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
        Ok(Self { url, serving })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
