//! Tasks: activities that are started by themselves, as `temporal activity start` does.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use temporalio_protos::temporal::api::activity::v1::ActivityExecutionInfo;
use temporalio_protos::temporal::api::common::v1::{ActivityType, Payload, Payloads};
use temporalio_protos::temporal::api::enums::v1::ActivityExecutionStatus;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use temporalio_protos::temporal::api::workflowservice::v1::{
    DescribeActivityExecutionRequest, PollActivityExecutionRequest, StartActivityExecutionRequest,
};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Temporal namespace of all tasks.
pub const NAMESPACE: &str = "default";
/// Activity type of all tasks.
pub const ACTIVITY_TYPE: &str = "Echo";
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A poll that ends without an outcome is made again within this time.
const COMPLETION_LIMIT: Duration = Duration::from_secs(60);
const POLL_LIMIT: Duration = Duration::from_secs(20);

/// Starts tasks and waits for their end.
pub struct Tasks {
    client: WorkflowServiceClient<Channel>,
}

/// A task that was completed, by the server's clock, which is this machine's.
#[derive(Clone, Debug)]
pub struct Completed {
    /// When the server accepted it.
    pub accepted: Timestamp,
    /// When a Worker took it.
    pub started: Timestamp,
    /// When it was completed.
    pub completed: Timestamp,
    /// The Worker.
    pub worker: String,
}

impl Tasks {
    /// Connects to a server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(host_port: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let channel = endpoint.connect().await.with_context(|| format!("connect to Temporal at {host_port}"))?;
        Ok(Self { client: WorkflowServiceClient::new(channel) })
    }

    /// Starts a task; returns its activity ID once the server has accepted it.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub async fn start(&self, task_queue: &str) -> Result<String> {
        let activity_id = format!("{task_queue}-{:08x}", rand::random::<u32>());
        let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
        let argument = Payload { metadata, data: b"1".to_vec(), ..Payload::default() };
        let request = StartActivityExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            identity: "bench".to_owned(),
            request_id: activity_id.clone(),
            activity_id: activity_id.clone(),
            activity_type: Some(ActivityType { name: ACTIVITY_TYPE.to_owned() }),
            task_queue: Some(TaskQueue { name: task_queue.to_owned(), ..TaskQueue::default() }),
            start_to_close_timeout: Some(Duration::from_secs(30).try_into()?),
            input: Some(Payloads { payloads: vec![argument] }),
            ..StartActivityExecutionRequest::default()
        };
        let answer = self.client.clone().start_activity_execution(within(CALL_LIMIT, request)).await;
        answer.with_context(|| format!("start the activity {activity_id}"))?;
        Ok(activity_id)
    }

    /// Waits until a task is completed, on its first attempt.
    ///
    /// # Errors
    /// It is not completed within a minute, or ended otherwise.
    pub async fn completed(&self, activity_id: &str) -> Result<Completed> {
        tokio::time::timeout(COMPLETION_LIMIT, self.closed(activity_id))
            .await
            .with_context(|| format!("activity {activity_id} has no end after {} s", COMPLETION_LIMIT.as_secs()))??;
        let info = self.describe(activity_id).await?;
        let status = info.status();
        ensure!(
            status == ActivityExecutionStatus::Completed && info.attempt == 1,
            "activity {activity_id} ended as {status:?} at attempt {}",
            info.attempt
        );
        let time = |name: &str, time: Option<(i64, i32)>| {
            let (seconds, nanos) = time.with_context(|| format!("activity {activity_id} has no {name}"))?;
            Timestamp::new(seconds, nanos).with_context(|| format!("{name} of activity {activity_id}"))
        };
        Ok(Completed {
            accepted: time("schedule_time", info.schedule_time.map(|at| (at.seconds, at.nanos)))?,
            started: time("last_started_time", info.last_started_time.map(|at| (at.seconds, at.nanos)))?,
            completed: time("close_time", info.close_time.map(|at| (at.seconds, at.nanos)))?,
            worker: info.last_worker_identity,
        })
    }

    async fn closed(&self, activity_id: &str) -> Result<()> {
        loop {
            let request = PollActivityExecutionRequest {
                namespace: NAMESPACE.to_owned(),
                activity_id: activity_id.to_owned(),
                run_id: String::new(),
            };
            let answer = self.client.clone().poll_activity_execution(within(POLL_LIMIT, request)).await;
            match answer {
                Ok(answer) if answer.get_ref().outcome.is_some() => return Ok(()),
                Ok(_) => {}
                Err(status) if status.code() == tonic::Code::DeadlineExceeded => {}
                Err(status) => return Err(status).with_context(|| format!("wait for activity {activity_id}")),
            }
        }
    }

    async fn describe(&self, activity_id: &str) -> Result<ActivityExecutionInfo> {
        let request = DescribeActivityExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            activity_id: activity_id.to_owned(),
            ..DescribeActivityExecutionRequest::default()
        };
        let answer = self.client.clone().describe_activity_execution(within(CALL_LIMIT, request)).await;
        let answer = answer.with_context(|| format!("describe the activity {activity_id}"))?;
        answer.into_inner().info.with_context(|| format!("the server says nothing of activity {activity_id}"))
    }
}

fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
