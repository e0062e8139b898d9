//! Connections: how many, for how long, with TLS or without.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::tls::Certificate;
use super::{Backend, Endpoint};

/// Connections at a time. A Temporal server has one from each of its hosts that runs the provider.
const CONNECTIONS: usize = 128;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time until the next request's head is there, the wait between two requests included.
const HEAD: Duration = Duration::from_secs(10);
/// A connection is not kept for longer.
const CONNECTION: Duration = Duration::from_secs(300);
/// After a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a request's head; hyper asks for 8192 at least.
const HEAD_BYTES: usize = 16 * 1024;

/// What connections are made of.
#[derive(Clone)]
pub enum Transport {
    /// TLS.
    Tls(Arc<Certificate>),
    /// Nothing: tokens can be read on their way.
    Plain,
}

/// Serves the endpoint, and follows its certificate; ends only with the process.
///
/// # Errors
/// None after the start.
pub async fn serve<B: Backend>(
    endpoint: Arc<Endpoint<B>>,
    listener: TcpListener,
    transport: Transport,
) -> anyhow::Result<()> {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let follow = async {
        match &transport {
            Transport::Tls(certificate) => certificate.follow().await,
            Transport::Plain => std::future::pending().await,
        }
    };
    let accept = async {
        loop {
            let permit = free.clone().acquire_owned().await.context("the limit of connections is gone")?;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (endpoint, transport) = (endpoint.clone(), transport.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        // A connection that fails is its client's business.
                        if let Err(error) = connection(endpoint, stream, transport).await {
                            tracing::debug!(error = format!("{error:#}"), "connection to the push endpoint");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the push endpoint can't accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        result = accept => result,
        () = follow => Ok(()),
    }
}

async fn connection<B: Backend>(
    endpoint: Arc<Endpoint<B>>,
    stream: TcpStream,
    transport: Transport,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match transport {
        Transport::Plain => requests(endpoint, stream).await,
        Transport::Tls(certificate) => {
            let acceptor = TlsAcceptor::from(certificate.server());
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.context("no handshake in time")??;
            requests(endpoint, stream).await
        }
    }
}

async fn requests<B: Backend, S>(endpoint: Arc<Endpoint<B>>, stream: S) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let endpoint = endpoint.clone();
        async move { Ok::<_, Infallible>(endpoint.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    timeout(CONNECTION, connection).await.context("the connection was kept for too long")??;
    Ok(())
}
