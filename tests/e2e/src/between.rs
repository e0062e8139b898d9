//! A proxy between a client and a Temporal server. It lets calls through, or does to them what a test says, and notes
//! what it saw of each.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use prost::bytes::{Bytes, BytesMut};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

/// Of HTTP/2: larger than anything that is sent here.
const WINDOW: u32 = 16 << 20;
/// Bytes of an answer that breaks off, which says that it has twice as many.
const HALF: usize = 1024;

/// What is done to calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Each goes on to the server after this time.
    Slow(Duration),
    /// Each is answered with `RESOURCE_EXHAUSTED`, and [`Between::DETAILS`].
    Exhausted,
    /// Each is answered with this HTTP status and a text, as by a proxy that knows nothing of gRPC.
    Http(u16),
    /// None is answered.
    Silent,
    /// Half of an answer comes, and nothing more.
    Stalled,
    /// Half of an answer comes, then the stream is reset.
    Reset,
    /// Half of an answer comes, then the stream ends as if all of it had come.
    Ended,
    /// Half of an answer comes, then the connection is closed, with everything else on it.
    Cut,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer of the server.
    Answered,
    /// The client took it back, or its connection ended.
    GivenUp,
    /// By the fault, or because its key is not taken.
    Refused,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Name of its method.
    pub method: String,
    /// Its header `authorization`; empty without one.
    pub authorization: String,
    /// Its header `grpc-timeout`; empty without one.
    pub timeout: String,
    /// How it ended; none while it is open.
    pub end: Option<End>,
}

/// The proxy. It ends with its value.
pub struct Between {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    server: Channel,
    fault: Mutex<Option<Fault>>,
    keys: Mutex<Option<Vec<String>>>,
    seen: Mutex<Vec<Seen>>,
}

/// What a call is answered with.
enum Answer {
    Whole(Box<Whole>),
    Half(Fault),
}

struct Whole {
    head: Response<()>,
    data: Bytes,
    trailers: Option<HeaderMap>,
    end: End,
}

impl From<Whole> for Answer {
    fn from(whole: Whole) -> Self {
        Self::Whole(Box::new(whole))
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Between {
    /// What stands in the details of [`Fault::Exhausted`].
    pub const DETAILS: &'static [u8] = b"\x08\x08\x12\x04slow";

    /// Listens on a port of the loopback address, before the server at `host_port`.
    ///
    /// # Errors
    /// There is no port, or no such address.
    pub async fn start(host_port: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Endpoint::from_shared(format!("http://{host_port}"))?.connect_lazy();
        let state = Arc::new(State { server, fault: Mutex::default(), keys: Mutex::default(), seen: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, state.clone())).abort_handle();
        Ok(Self { address, state, accepting })
    }

    /// Its address.
    #[must_use]
    pub fn host_port(&self) -> String {
        self.address.to_string()
    }

    /// Does this to calls that begin from now on; nothing for none.
    pub fn set(&self, fault: Option<Fault>) {
        *self.state.fault.lock() = fault;
    }

    /// Refuses calls that begin from now on without one of these API keys.
    pub fn take_keys(&self, keys: &[&str]) {
        *self.state.keys.lock() = Some(keys.iter().map(|key| format!("Bearer {key}")).collect());
    }

    /// The calls so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    /// Calls so far that ended like that.
    #[must_use]
    pub fn count(&self, end: End) -> usize {
        self.state.seen.lock().iter().filter(|seen| seen.end == Some(end)).count()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Ended with this future.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(state.clone(), stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    // Of an answer that breaks off no more than half is there to be sent, so that it is known when it was.
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).max_send_buffer_size(HALF);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    let cut = Arc::new(Notify::new());
    // Ended with this future.
    let mut calls = JoinSet::new();
    loop {
        let (request, respond) = tokio::select! {
            call = connection.accept() => call.context("the client has ended it")??,
            () = cut.notified() => return Ok(()),
        };
        calls.spawn(call(state.clone(), request, respond, cut.clone()));
        while calls.try_join_next().is_some() {}
    }
}

async fn call(
    state: Arc<State>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    cut: Arc<Notify>,
) -> Result<()> {
    let number = state.note(&request);
    let _noted = Noted { state: &state, number };
    let answer = tokio::select! {
        answer = state.answer(request) => answer?,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => bail!("the client took it back"),
    };
    match answer {
        Answer::Whole(whole) => {
            let Whole { head, data, trailers, end } = *whole;
            let mut stream = respond.send_response(head, data.is_empty() && trailers.is_none())?;
            state.end(number, end);
            if !data.is_empty() {
                stream.send_data(data, trailers.is_none())?;
            }
            trailers.map(|trailers| stream.send_trailers(trailers)).transpose()?;
        }
        Answer::Half(fault) => {
            let mut stream = half(&mut respond).await?;
            state.end(number, End::Refused);
            match fault {
                Fault::Reset => stream.send_reset(Reason::INTERNAL_ERROR),
                Fault::Ended => stream.send_data(Bytes::new(), true)?,
                Fault::Cut => cut.notify_one(),
                _ => _ = poll_fn(|cx| stream.poll_reset(cx)).await,
            }
        }
    }
    Ok(())
}

/// Notes that a call which did not end otherwise was given up.
struct Noted<'a> {
    state: &'a State,
    number: usize,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.state.end(self.number, End::GivenUp);
    }
}

impl State {
    fn note(&self, request: &Request<RecvStream>) -> usize {
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let mut seen = self.seen.lock();
        seen.push(Seen { method, authorization: header("authorization"), timeout: header("grpc-timeout"), end: None });
        seen.len() - 1
    }

    fn end(&self, number: usize, end: End) {
        self.seen.lock()[number].end.get_or_insert(end);
    }

    async fn answer(&self, request: Request<RecvStream>) -> Result<Answer> {
        let (fault, authorization) = (*self.fault.lock(), request.headers().get("authorization"));
        if self.keys.lock().as_ref().is_some_and(|keys| !keys.iter().any(|key| authorization.is_some_and(|a| a == key)))
        {
            return status(&[("grpc-status", "16"), ("grpc-message", "another key")]);
        }
        match fault {
            None => {}
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::Exhausted) => {
                let details = STANDARD_NO_PAD.encode(Between::DETAILS);
                return status(&[
                    ("grpc-status", "8"),
                    ("grpc-message", "slow"),
                    ("grpc-status-details-bin", details.as_str()),
                ]);
            }
            Some(Fault::Http(code)) => {
                let head = Response::builder().status(code).header("content-type", "text/plain").body(())?;
                let data = Bytes::from_static(b"come back later");
                return Ok(Whole { head, data, trailers: None, end: End::Refused }.into());
            }
            Some(Fault::Silent) => std::future::pending().await,
            Some(fault) => return Ok(Answer::Half(fault)),
        }
        self.forward(request).await
    }

    async fn forward(&self, request: Request<RecvStream>) -> Result<Answer> {
        let (head, mut body) = request.into_parts();
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            message.extend_from_slice(&data);
        }
        let request = Request::from_parts(head, Body::new(Full::new(message.freeze())));
        let (head, body) = self.server.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        let head = Response::from_parts(head, ());
        Ok(Whole { head, data: body.to_bytes(), trailers, end: End::Answered }.into())
    }
}

/// An answer with nothing but a status.
fn status(headers: &[(&str, &str)]) -> Result<Answer> {
    let start = Response::builder().header("content-type", "application/grpc");
    let head = headers.iter().fold(start, |head, (name, value)| head.header(*name, *value)).body(())?;
    Ok(Whole { head, data: Bytes::new(), trailers: None, end: End::Refused }.into())
}

/// Sends the first half of an answer, and waits until it was sent.
async fn half(respond: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>> {
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(head, false)?;
    let mut framed = BytesMut::zeroed(HALF);
    framed[1..5].copy_from_slice(&u32::try_from(2 * HALF)?.to_be_bytes());
    stream.send_data(framed.freeze(), false)?;
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        poll_fn(|cx| stream.poll_capacity(cx)).await.context("the client took it back")??;
    }
    Ok(stream)
}
