//! Activities that are started by themselves, as `temporal activity start` does: one at a time, or as traffic.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::Value;
use temporalio_protos::temporal::api::activity::v1::ActivityExecutionInfo;
use temporalio_protos::temporal::api::common::v1::{ActivityType, Payload, Payloads};
use temporalio_protos::temporal::api::enums::v1::ActivityExecutionStatus;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A poll that ends without an outcome is made again within this time.
const POLL_LIMIT: Duration = Duration::from_secs(20);
/// Calls of one traffic that are under way at a time.
const CALLS_AT_A_TIME: usize = 16;

/// A client of one Temporal namespace.
#[derive(Clone)]
pub struct Activities {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
}

/// What activities have in common.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Activity type.
    pub activity_type: String,
    /// Task Queue.
    pub task_queue: String,
    /// Longest time of one attempt. There may be any number of attempts.
    pub start_to_close: Duration,
}

/// An activity of some traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// When it is started, from the start of the traffic.
    pub at: Duration,
    /// Its argument, in seconds.
    pub service: Duration,
}

/// Traffic that was started.
#[derive(Clone, Debug)]
pub struct Played {
    /// Activity IDs, in the order of the arrivals.
    pub ids: Vec<String>,
    /// The longest time by which an activity was sent too late.
    pub latest: Duration,
}

/// An activity that was completed, by the server's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// When the server accepted it.
    pub accepted: Timestamp,
    /// When a Worker took it, for the last time.
    pub started: Timestamp,
    /// When it was completed.
    pub completed: Timestamp,
    /// Attempts that were started.
    pub attempt: i32,
    /// Identity of the Worker.
    pub worker: String,
}

impl Activities {
    /// Connects to the server at `host:port`, in plaintext.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(host_port: &str, namespace: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let channel = endpoint.connect().await.with_context(|| format!("connect to Temporal at {host_port}"))?;
        Ok(Self { client: WorkflowServiceClient::new(channel), namespace: namespace.to_owned() })
    }

    /// Starts an activity; returns its activity ID once the server has accepted it.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub async fn start(&self, kind: &Kind, argument: &Value) -> Result<String> {
        let activity_id = format!("{}-{:016x}", kind.task_queue, rand::random::<u64>());
        let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
        let argument = Payload { metadata, data: serde_json::to_vec(argument)?, ..Payload::default() };
        let request = wire::StartActivityExecutionRequest {
            namespace: self.namespace.clone(),
            identity: "harness".to_owned(),
            request_id: activity_id.clone(),
            activity_id: activity_id.clone(),
            activity_type: Some(ActivityType { name: kind.activity_type.clone() }),
            task_queue: Some(TaskQueue { name: kind.task_queue.clone(), ..TaskQueue::default() }),
            start_to_close_timeout: Some(kind.start_to_close.try_into()?),
            input: Some(Payloads { payloads: vec![argument] }),
            ..wire::StartActivityExecutionRequest::default()
        };
        let answer = uncut(|| {
            let (mut client, request) = (self.client.clone(), within(CALL_LIMIT, request.clone()));
            async move { client.start_activity_execution(request).await }
        });
        let answer = answer.await;
        answer.with_context(|| format!("start the activity {activity_id}"))?;
        Ok(activity_id)
    }

    /// Starts each activity at its time. `arrivals` are in the order of their times.
    ///
    /// # Errors
    /// The server refuses one, or does not answer.
    pub async fn play(&self, kind: &Kind, arrivals: &[Arrival]) -> Result<Played> {
        let (begin, room) = (Instant::now(), Arc::new(Semaphore::new(CALLS_AT_A_TIME)));
        let mut calls = JoinSet::new();
        for (number, arrival) in arrivals.iter().copied().enumerate() {
            tokio::time::sleep_until(begin + arrival.at).await;
            let place = room.clone().acquire_owned().await?;
            let (client, kind) = (self.clone(), kind.clone());
            calls.spawn(async move {
                let late = begin.elapsed().saturating_sub(arrival.at);
                let id = client.start(&kind, &arrival.service.as_secs_f64().into()).await;
                drop(place);
                id.map(|id| (number, id, late))
            });
        }
        let (mut ids, mut latest) = (vec![String::new(); arrivals.len()], Duration::ZERO);
        while let Some(call) = calls.join_next().await {
            let (number, id, late) = call??;
            latest = latest.max(late);
            ids[number] = id;
        }
        Ok(Played { ids, latest })
    }

    /// Waits until an activity is completed.
    ///
    /// # Errors
    /// It is not within `limit`, or ended otherwise.
    pub async fn completed(&self, activity_id: &str, limit: Duration) -> Result<Completed> {
        let closed = tokio::time::timeout(limit, self.closed(activity_id)).await;
        closed.with_context(|| format!("activity {activity_id} has no end after {} s", limit.as_secs()))??;
        let info = self.describe(activity_id).await?;
        if info.status() != ActivityExecutionStatus::Completed {
            bail!("activity {activity_id} ended as {:?} at attempt {}", info.status(), info.attempt);
        }
        let time = |name: &str, time: Option<(i64, i32)>| {
            let (seconds, nanos) = time.with_context(|| format!("activity {activity_id} has no {name}"))?;
            Timestamp::new(seconds, nanos).with_context(|| format!("{name} of activity {activity_id}"))
        };
        Ok(Completed {
            accepted: time("schedule_time", info.schedule_time.map(|at| (at.seconds, at.nanos)))?,
            started: time("last_started_time", info.last_started_time.map(|at| (at.seconds, at.nanos)))?,
            completed: time("close_time", info.close_time.map(|at| (at.seconds, at.nanos)))?,
            attempt: info.attempt,
            worker: info.last_worker_identity,
        })
    }

    /// Waits until every activity is completed; in the order of `ids`.
    ///
    /// # Errors
    /// One is not within `limit`, or ended otherwise.
    pub async fn all_completed(&self, ids: &[String], limit: Duration) -> Result<Vec<Completed>> {
        let (end, mut all) = (Instant::now() + limit, Vec::with_capacity(ids.len()));
        for part in ids.chunks(CALLS_AT_A_TIME) {
            let mut calls = JoinSet::new();
            for (number, id) in part.iter().cloned().enumerate() {
                let client = self.clone();
                let left = end.saturating_duration_since(Instant::now()).max(CALL_LIMIT);
                calls.spawn(async move { client.completed(&id, left).await.map(|completed| (number, completed)) });
            }
            let mut done = calls.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
            done.sort_by_key(|(number, _)| *number);
            all.extend(done.into_iter().map(|(_, completed)| completed));
        }
        Ok(all)
    }

    async fn closed(&self, activity_id: &str) -> Result<()> {
        loop {
            let request = wire::PollActivityExecutionRequest {
                namespace: self.namespace.clone(),
                activity_id: activity_id.to_owned(),
                run_id: String::new(),
            };
            let answer = uncut(|| {
                let (mut client, request) = (self.client.clone(), within(POLL_LIMIT, request.clone()));
                async move { client.poll_activity_execution(request).await }
            });
            match answer.await {
                Ok(answer) if answer.get_ref().outcome.is_some() => return Ok(()),
                Ok(_) => {}
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                Err(status) => return Err(status).with_context(|| format!("wait for activity {activity_id}")),
            }
        }
    }

    async fn describe(&self, activity_id: &str) -> Result<ActivityExecutionInfo> {
        let request = wire::DescribeActivityExecutionRequest {
            namespace: self.namespace.clone(),
            activity_id: activity_id.to_owned(),
            ..wire::DescribeActivityExecutionRequest::default()
        };
        let answer = uncut(|| {
            let (mut client, request) = (self.client.clone(), within(CALL_LIMIT, request.clone()));
            async move { client.describe_activity_execution(request).await }
        });
        let answer = answer.await.with_context(|| format!("describe the activity {activity_id}"))?;
        answer.into_inner().info.with_context(|| format!("the server says nothing of activity {activity_id}"))
    }
}

/// Makes a call, and once more when the end of its connection cut it off: the server closes each after some minutes.
async fn uncut<R, F>(call: impl Fn() -> F) -> Result<Response<R>, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    match call().await {
        Err(status) if matches!(status.code(), Code::Cancelled | Code::Unavailable) => call().await,
        answer => answer,
    }
}

fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
