//! A reverse proxy before an API server that makes paths short, as many do: `/b/../a` becomes `/a`.

use std::path::PathBuf;

use anyhow::Result;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kube::Client;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::crossing;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Problem>;

/// The proxy. It ends with its value.
pub struct Shortening {
    folder: TempDir,
    _way: JoinSet<()>,
}

impl Shortening {
    /// Listens on a port of the loopback address, before the API server that `client` is for.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(client: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config"), crossing::kubeconfig(listener.local_addr()?)?)?;
        let mut way = JoinSet::new();
        way.spawn(accept(listener, client));
        Ok(Self { folder, _way: way })
    }

    /// A kubeconfig by which the API server is reached this way.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }
}

async fn accept(listener: TcpListener, client: Client) {
    // Ended with this future.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let client = client.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| forward(client.clone(), request));
            // It ends as the client does.
            _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(client: Client, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // They are of this connection alone.
    head.headers.remove(hyper::header::HOST);
    head.headers.remove(hyper::header::CONNECTION);
    head.uri = shortened(&head.uri)?;
    let answer = client.send(Request::from_parts(head, body.into())).await?;
    Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
}

fn shortened(uri: &Uri) -> Result<Uri, Problem> {
    let mut kept = Vec::new();
    for part in uri.path().split('/') {
        match part {
            "" | "." => {}
            ".." => _ = kept.pop(),
            part => kept.push(part),
        }
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("/{}{query}", kept.join("/")).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_up_is_taken_out_and_the_query_stays() {
        for (long, short) in [
            ("/api/v1/namespaces/b/secrets/../../a/secrets/x", "/api/v1/namespaces/a/secrets/x"),
            ("/api/v1/pods?limit=1&path=../x", "/api/v1/pods?limit=1&path=../x"),
            ("/", "/"),
        ] {
            assert_eq!(shortened(&long.parse().unwrap()).unwrap().to_string(), short);
        }
    }
}
