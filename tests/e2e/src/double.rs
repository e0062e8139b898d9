//! A server that hands out activities as fast as they are taken, gives the arguments of a query back as its result, and
//! knows nothing else: for what a Worker process does in hundreds of thousands of tasks, which take a real server an
//! hour, and for messages that are larger than a real server takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use temporalio_protos::temporal::api::common::v1::{ActivityType, Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A poll without a task is answered after this time, a second before the runtime gives it up.
const POLL_TIME: Duration = Duration::from_secs(10);
const ACTIVITY_TIME: Duration = Duration::from_secs(600);
/// Of HTTP/2: larger than anything that is sent here.
const WINDOW: u32 = 16 << 20;

/// An activity that is handed out.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Activity type.
    pub activity_type: &'static str,
    /// Its only argument.
    pub input: Payload,
}

/// A running server on a port of the loopback address. It ends with this value.
pub struct Double {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct State {
    activities: Mutex<Vec<Handed>>,
    ends: Mutex<Ends>,
    /// Tasks that there are in all, the handed out ones too.
    wanted: watch::Sender<u64>,
    completed: watch::Sender<u64>,
    queried: Mutex<Vec<Payload>>,
}

#[derive(Default)]
struct Ends {
    given: u64,
    /// Of each task, whether it was completed.
    completed: Vec<bool>,
    last_result: Option<Payload>,
    /// What must not be.
    problem: Option<String>,
}

impl Double {
    /// Starts it, without a task.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(shared.clone(), stream));
            }
        });
        Ok(Self { address, state, accepting: accepting.abort_handle() })
    }

    /// Its address.
    #[must_use]
    pub fn host_port(&self) -> String {
        self.address.to_string()
    }

    /// Hands out `count` more tasks, of `activities` in turns, and waits until each was completed, once.
    ///
    /// # Errors
    /// One failed, was completed twice, or they were not all completed within the limit.
    pub async fn run(&self, activities: &[Handed], count: u64, limit: Duration) -> Result<()> {
        *self.state.activities.lock() = activities.to_vec();
        self.state.wanted.send_modify(|wanted| *wanted += count);
        let (wanted, mut completed) = (*self.state.wanted.borrow(), self.state.completed.subscribe());
        let all = completed.wait_for(|completed| *completed >= wanted || self.state.ends.lock().problem.is_some());
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        if let Some(problem) = self.state.ends.lock().problem.take() {
            bail!("{problem}");
        }
        ensure!(in_time, "{} of {wanted} tasks were completed in time", *self.state.completed.borrow());
        Ok(())
    }

    /// The result of the task that was completed last.
    #[must_use]
    pub fn last_result(&self) -> Option<Payload> {
        self.state.ends.lock().last_result.clone()
    }

    /// The arguments of queries so far, without their data: what they say of themselves, and how many they are.
    #[must_use]
    pub fn queried(&self) -> Vec<Payload> {
        self.state.queried.lock().clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    /// The answer to a poll: a task, or none after a while.
    async fn poll(&self) -> wire::PollActivityTaskQueueResponse {
        let mut wanted = self.wanted.subscribe();
        let task = async {
            loop {
                if let Some(task) = self.take(*wanted.borrow_and_update()) {
                    return task;
                }
                if wanted.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(POLL_TIME, task).await.unwrap_or_default()
    }

    fn take(&self, wanted: u64) -> Option<wire::PollActivityTaskQueueResponse> {
        let (activities, mut ends) = (self.activities.lock(), self.ends.lock());
        let number = ends.given;
        if number >= wanted {
            return None;
        }
        let handed = activities.get(usize::try_from(number).ok()? % activities.len())?;
        ends.given += 1;
        ends.completed.push(false);
        let now = std::time::SystemTime::now();
        Some(wire::PollActivityTaskQueueResponse {
            task_token: number.to_be_bytes().to_vec(),
            workflow_namespace: "default".into(),
            workflow_type: Some(WorkflowType { name: "Load".into() }),
            workflow_execution: Some(WorkflowExecution { workflow_id: "load".into(), run_id: "run".into() }),
            activity_type: Some(ActivityType { name: handed.activity_type.into() }),
            activity_id: number.to_string(),
            input: Some(Payloads { payloads: vec![handed.input.clone()] }),
            scheduled_time: Some(now.into()),
            current_attempt_scheduled_time: Some(now.into()),
            started_time: Some(now.into()),
            attempt: 1,
            start_to_close_timeout: ACTIVITY_TIME.try_into().ok(),
            ..Default::default()
        })
    }

    fn complete(&self, request: wire::RespondActivityTaskCompletedRequest) {
        let number = <[u8; 8]>::try_from(request.task_token).map(u64::from_be_bytes).unwrap_or(u64::MAX);
        let mut ends = self.ends.lock();
        let done = usize::try_from(number).ok().and_then(|number| ends.completed.get_mut(number));
        match done.map(|done| std::mem::replace(done, true)) {
            Some(false) => {}
            Some(true) => ends.problem = Some(format!("task {number} was completed twice")),
            None => ends.problem = Some("a task was completed that there is none of".to_owned()),
        }
        ends.last_result = request.result.and_then(|result| result.payloads.into_iter().next());
        drop(ends);
        self.completed.send_modify(|completed| *completed += 1);
    }

    /// The answer to a call.
    async fn answer(&self, method: &str, message: Bytes) -> Result<Vec<u8>> {
        Ok(match method {
            "PollActivityTaskQueue" => self.poll().await.encode_to_vec(),
            "RespondActivityTaskCompleted" => {
                self.complete(wire::RespondActivityTaskCompletedRequest::decode(message)?);
                Vec::new()
            }
            "RespondActivityTaskFailed" => {
                let failed = wire::RespondActivityTaskFailedRequest::decode(message)?;
                let why = failed.failure.map(|failure| failure.message).unwrap_or_default();
                self.ends.lock().problem = Some(format!("a task failed: {why}"));
                // Wakes who waits.
                self.completed.send_modify(|_| {});
                Vec::new()
            }
            "QueryWorkflow" => {
                let query_result =
                    wire::QueryWorkflowRequest::decode(message)?.query.and_then(|query| query.query_args);
                let payloads = query_result.iter().flat_map(|payloads| &payloads.payloads);
                self.queried.lock().extend(
                    payloads.map(|payload| Payload { metadata: payload.metadata.clone(), ..Payload::default() }),
                );
                wire::QueryWorkflowResponse { query_result, ..Default::default() }.encode_to_vec()
            }
            // What every other message says by default is fine with a Worker.
            _ => Vec::new(),
        })
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let state = state.clone();
        tokio::spawn(async move {
            // A Worker that ends takes its polls back.
            let _ = call_of(&state, request, respond).await;
        });
    }
    Ok(())
}

async fn call_of(state: &State, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    // A byte that says whether it is compressed, and four for its length.
    ensure!(message.first() == Some(&0), "{method}: a message that is not there, or compressed");
    let answer = state.answer(&method, message.freeze().slice(5..)).await?;
    let mut framed = BytesMut::with_capacity(5 + answer.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(answer.len()).context("an answer of gigabytes")?);
    framed.extend_from_slice(&answer);
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(framed.freeze(), false)?;
    stream.send_trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]))?;
    Ok(())
}
