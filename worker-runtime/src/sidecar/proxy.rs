//! One call of the Worker, from its request to its answer.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use hyper::body::Incoming;
use operator_core::contract;
use prometheus::{IntCounterVec, Opts};
use prost::Message as _;
use temporal_wire::{Malformed, Method};
use temporalio_common::protos::temporal::api::worker::v1::WorkerSlotsInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::RecordWorkerHeartbeatRequest;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderName};
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, request, response};
use tonic::{Code, Status};

use super::budget::{Budget, Share};
use super::calls::{Call, Lane, Poll, bytes_of};
use super::frame::{self, Message};
use super::payloads::Payloads;
use super::traffic::{OpenPoll, Traffic};
use super::upstream::{self, TIMEOUT, Upstream};
use crate::cordon::Cordon;
use crate::lifecycle::{Lifecycle, Stage};
use crate::link::Link;
use crate::metrics::{Metrics, TaskType};
use crate::transport::POLL_TIMEOUT;

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const STATUS: &str = "grpc-status";
const DETAILS: &str = "grpc-status-details-bin";

/// Time that a poll is held which may not begin, before it is answered with nothing.
const HOLD: Duration = Duration::from_secs(10);
/// Bytes of messages that are kept here at a time, before and after a change of their payloads.
const MESSAGES: usize = 32 * 1024 * 1024;

/// Carries calls over. Cheap to clone.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    traffic: Traffic,
    payloads: Payloads,
    cordon: Cordon,
    lifecycle: Lifecycle,
    budget: Budget,
    calls: IntCounterVec,
}

/// A request whose message was read.
struct Asked {
    head: request::Parts,
    message: Bytes,
    /// Time that the Worker waits for the answer.
    time: Duration,
    share: Option<Share>,
    method: &'static Method,
    call: Call,
}

/// An answer that was read.
struct Answer {
    head: response::Parts,
    message: Message,
    code: Code,
}

impl Answer {
    /// Whether the server has taken note of what it was told, or never will.
    fn is_final(&self) -> bool {
        !matches!(
            self.code,
            Code::Unavailable
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::Internal
                | Code::Unknown
        )
    }
}

impl Proxy {
    /// Carries calls over `link`.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn new(
        link: Link,
        traffic: Traffic,
        payloads: Payloads,
        (cordon, lifecycle): (Cordon, Lifecycle),
        metrics: &Metrics,
    ) -> Result<Self, prometheus::Error> {
        let calls = IntCounterVec::new(
            Opts::new(contract::METRIC_SIDECAR_CALLS, "Calls of the Worker, by method and status."),
            &["method", "code"],
        )?;
        metrics.register(Box::new(calls.clone()))?;
        let budget = Budget::new(MESSAGES);
        let upstream = Upstream::new(link, budget.clone());
        Ok(Self(Arc::new(Inner { upstream, traffic, payloads, cordon, lifecycle, budget, calls })))
    }

    /// The answer to a call.
    pub async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(method) = temporal_wire::method(request.uri().path()) else {
            self.0.calls.with_label_values(&["other", "passed"]).inc();
            let (head, body) = request.into_parts();
            return self.0.upstream.pass(head, Body::new(body)).await;
        };
        let (call, name) = (Call::of(method.path), name(method));
        let has_payloads = method.request.is_some() || method.response.is_some();
        let looks = call != Call::Other || has_payloads && self.0.payloads.are_encrypted();
        let answer = if looks { self.look(request, method, call).await } else { Ok(self.carry(request, name).await) };
        let (answer, code) = answer.unwrap_or_else(|status| {
            tracing::warn!(method = name, code = ?status.code(), "call failed: {}", status.message());
            (status.clone().into_http(), status.code())
        });
        self.0.calls.with_label_values(&[name, &format!("{code:?}")]).inc();
        answer
    }

    /// Carries a call over as it is.
    async fn carry(&self, request: Request<Incoming>, name: &str) -> (Response<Body>, Code) {
        let (mut head, body) = request.into_parts();
        let time = upstream::bound(&mut head.headers);
        let answer = self.0.upstream.ask(name, head, Body::new(body), time).await;
        let code = answer.code();
        (Response::from_parts(answer.head, answer.framed.body()), code)
    }

    /// Carries a call over whose messages are looked into.
    async fn look(
        &self,
        request: Request<Incoming>,
        method: &'static Method,
        call: Call,
    ) -> Result<(Response<Body>, Code), Status> {
        let (mut head, body) = request.into_parts();
        let encoding = head.headers.remove(ENCODING);
        let encoding = encoding.as_ref().map(HeaderValue::as_bytes);
        let time = upstream::bound(&mut head.headers);
        let read = tokio::time::timeout(time, Message::read(body, encoding, &self.0.budget)).await;
        let Message { bytes, share, .. } =
            read.map_err(|_| Status::deadline_exceeded("the request did not come within the time that it has"))??;
        let message = bytes.ok_or_else(|| Status::internal("a call came without a message"))?;
        // What is to be read here must not be compressed.
        head.headers.remove(ACCEPT_ENCODING);
        let asked = Asked { head, message, time, share, method, call };
        let answer = match call {
            Call::Poll(task_type) => self.poll(asked, task_type).await?,
            _ => self.tell(asked).await?,
        };
        let Some(answer) = answer else { return Ok((no_task(), Code::Ok)) };
        let code = answer.code;
        Ok((self.give(answer, method)?, code))
    }

    /// Polls, or gives nothing: the server has no task, or the Worker is not to get one.
    async fn poll(&self, mut asked: Asked, task_type: TaskType) -> Result<Option<Answer>, Status> {
        let poll = Poll::read(task_type, &asked.message).map_err(unreadable)?;
        let _asked = self.0.traffic.ask(&poll);
        if tokio::time::timeout(HOLD, self.may_begin(&poll)).await.is_err() {
            return Ok(None);
        }
        // Nothing may come between: who waits for idle looks at what is open.
        let open = self.0.traffic.open(&poll);
        asked.head.headers.insert(TIMEOUT, upstream::timeout(POLL_TIMEOUT));
        let call = asked.call;
        let answer = self.forward(asked).await?;
        self.take(call, &answer, &poll.lane, Some(open))?;
        Ok(Some(answer))
    }

    /// Waits until a poll may begin.
    async fn may_begin(&self, poll: &Poll) {
        if !poll.sticky {
            self.0.cordon.lifted().await;
        }
        self.0.lifecycle.is_serving().await;
    }

    /// Any other call.
    async fn tell(&self, mut asked: Asked) -> Result<Option<Answer>, Status> {
        let call = asked.call;
        if self.0.cordon.is_on() || self.0.lifecycle.stage() >= Stage::Draining {
            let stripped = call.without_eager(&asked.message).map_err(unreadable)?;
            asked.message = stripped.unwrap_or(asked.message);
        }
        if call == Call::Heartbeat {
            self.hear(&asked.message);
        }
        let task = call.ends(&asked.message).map_err(unreadable)?;
        let started = if call == Call::Start { Some(started_on(&asked.message)?) } else { None };
        let answer = self.forward(asked).await?;
        let ended = task.filter(|_| answer.is_final()).and_then(|(token, word)| self.0.traffic.end(&token, word));
        // Without a pause after the end of the task: what comes along is seen to go on.
        if let Some(lane) = ended.or(started) {
            self.take(call, &answer, &lane, None)?;
        }
        Ok(Some(answer))
    }

    /// Notes the tasks that an answer brings.
    fn take(&self, call: Call, answer: &Answer, lane: &Lane, mut open: Option<OpenPoll>) -> Result<(), Status> {
        let Some(message) = &answer.message.bytes else { return Ok(()) };
        for (task_type, task) in call.tasks(message).map_err(unreadable)? {
            let lane = Lane { task_queue: lane.task_queue.clone(), task_type };
            match open.take() {
                Some(open) => open.brought(lane, &task),
                None => self.0.traffic.begin(lane, &task, None),
            }
        }
        Ok(())
    }

    /// Takes note of the slots that the Worker tells of.
    fn hear(&self, message: &Bytes) {
        let heartbeats = RecordWorkerHeartbeatRequest::decode(message.clone()).unwrap_or_default().worker_heartbeat;
        for heartbeat in heartbeats {
            let all = |info: &Option<WorkerSlotsInfo>| {
                let slots =
                    info.as_ref().map(|info| info.current_available_slots.saturating_add(info.current_used_slots));
                slots.and_then(|slots| u32::try_from(slots).ok()).filter(|slots| *slots > 0)
            };
            let kinds = [
                (TaskType::Activity, all(&heartbeat.activity_task_slots_info)),
                (TaskType::Workflow, all(&heartbeat.workflow_task_slots_info)),
                (TaskType::Nexus, all(&heartbeat.nexus_task_slots_info)),
            ];
            for (task_type, slots) in kinds {
                let lane = Lane { task_queue: heartbeat.task_queue.clone(), task_type };
                slots.into_iter().for_each(|slots| self.0.traffic.told(&lane, slots));
            }
        }
    }

    /// Sends a request with its payloads encrypted, and reads the answer.
    async fn forward(&self, asked: Asked) -> Result<Answer, Status> {
        let Asked { head, message, time, share, method, .. } = asked;
        let message = match method.request {
            Some(kind) => self.0.payloads.seal(message, &temporal_wire::MESSAGES[kind])?,
            None => message,
        };
        // The share ends with what is sent: who waits for an answer must not keep those waiting that are to be read.
        let answer = self.0.upstream.ask(name(method), head, frame::body(message, None, share), time).await;
        let code = answer.code();
        let upstream::Answer { mut head, framed } = answer;
        let encoding = head.headers.remove(ENCODING);
        let message = framed.message(encoding.as_ref().map(HeaderValue::as_bytes))?;
        Ok(Answer { head, message, code })
    }

    /// An answer with its payloads decrypted, those of an error's details among them.
    fn give(&self, answer: Answer, method: &Method) -> Result<Response<Body>, Status> {
        let Answer { mut head, message: Message { bytes, mut trailers, share }, .. } = answer;
        for headers in trailers.iter_mut().chain([&mut head.headers]) {
            self.open_details(headers);
        }
        let Some(mut bytes) = bytes else { return Ok(Response::from_parts(head, frame::end(trailers))) };
        if let Some(kind) = method.response {
            bytes = self.0.payloads.open(bytes, &temporal_wire::MESSAGES[kind])?;
        }
        Ok(Response::from_parts(head, frame::body(bytes, trailers, share)))
    }

    fn open_details(&self, headers: &mut HeaderMap) {
        let Some(details) = headers.get(DETAILS).filter(|_| self.0.payloads.are_encrypted()) else { return };
        let bytes = STANDARD.decode(details).or_else(|_| STANDARD_NO_PAD.decode(details)).unwrap_or_default();
        let opened = self.0.payloads.open(bytes.into(), &temporal_wire::MESSAGES[temporal_wire::STATUS]);
        let value = opened.ok().and_then(|opened| HeaderValue::try_from(STANDARD_NO_PAD.encode(opened)).ok());
        value.into_iter().for_each(|value| _ = headers.insert(DETAILS, value));
    }
}

/// What a method is called, without its service.
fn name(method: &Method) -> &'static str {
    method.path.rsplit('/').next().unwrap_or_default()
}

/// The Task Queue on which a request starts a Workflow.
fn started_on(request: &[u8]) -> Result<Lane, Status> {
    let name = bytes_of(request, 5).and_then(|queue| bytes_of(queue, 1)).map_err(unreadable)?;
    Ok(Lane { task_queue: String::from_utf8_lossy(name).into_owned(), task_type: TaskType::Workflow })
}

/// The answer to a poll for which there is no task.
fn no_task() -> Response<Body> {
    let trailers = HeaderMap::from_iter([(HeaderName::from_static(STATUS), HeaderValue::from_static("0"))]);
    let mut answer = Response::new(frame::body(Bytes::new(), Some(trailers), None));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn unreadable(problem: Malformed) -> Status {
    Status::internal(format!("a message can't be read: {problem}"))
}
