//! From a standby to the replica that leads: the same call with the same token, over the pods' network.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::answer::{Answer, json_answer};
use super::serve::Transport;

/// Header of a call that was relayed once, and is not again.
pub const RELAYED: &str = "x-temporal-worker-operator-relayed";
/// Deadline of a relay: the leader answers without waiting for anything.
const DEADLINE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const MOST_ANSWER: usize = 16 * 1024;

/// The way to another replica, which serves as this one does.
pub struct Relay {
    transport: Transport,
}

impl Relay {
    /// A way over the transport that this replica serves on.
    #[must_use]
    pub fn over(transport: Transport) -> Self {
        Self { transport }
    }

    /// Sends a hint on to the replica at `leader`, and gives back its answer.
    ///
    /// # Errors
    /// It can't be reached, is not the one that it should be, or does not answer in time.
    pub async fn forward(&self, leader: SocketAddr, path: &str, authorization: &HeaderValue) -> anyhow::Result<Answer> {
        timeout(DEADLINE, self.exchange(leader, path, authorization)).await.context("no answer in time")?
    }

    async fn exchange(&self, leader: SocketAddr, path: &str, authorization: &HeaderValue) -> anyhow::Result<Answer> {
        let mut authorization = authorization.clone();
        authorization.set_sensitive(true);
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header(HOST, leader.to_string())
            .header(AUTHORIZATION, authorization)
            .header(RELAYED, "1")
            .body(Empty::new())?;
        let stream = TcpStream::connect(leader).await?;
        stream.set_nodelay(true)?;
        let answer = match &self.transport {
            Transport::Plain => ask(stream, request).await?,
            Transport::Tls(certificate) => {
                let (client, name) = certificate.client();
                let stream = TlsConnector::from(client).connect(name, stream).await.context("TLS")?;
                ask(stream, request).await?
            }
        };
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        let mut answer = json_answer(head.status, body);
        if let Some(after) = head.headers.get(RETRY_AFTER) {
            answer.headers_mut().insert(RETRY_AFTER, after.clone());
        }
        Ok(answer)
    }
}

async fn ask<S>(stream: S, request: Request<Empty<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer: the sender is gone then.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
