//! A Temporal server, Worker processes built on the runtime, and activities to give them.

#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub mod pids;
pub mod stream;
mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{TemporalOptions, TemporalServer};
use serde_json::{Value, json};
use temporalio_protos::temporal::api::activity::v1::{ActivityExecutionInfo, activity_execution_outcome};
use temporalio_protos::temporal::api::common::v1::{ActivityType, Header, Payload, Payloads, RetryPolicy};
use temporalio_protos::temporal::api::failure::v1::ApplicationFailureInfo;
use temporalio_protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use temporalio_protos::temporal::api::workflowservice::v1::{
    DescribeActivityExecutionRequest, PollActivityExecutionRequest, RequestCancelActivityExecutionRequest,
    StartActivityExecutionRequest,
};
use tonic::transport::Channel;

pub use worker::Worker;

/// Deadline of a condition that a test waits for.
pub const SOON: Duration = Duration::from_secs(30);
/// Labels of activities of Task Queue `q`.
pub const WORK: &str = r#"task_queue="q",task_type="activity""#;
/// Temporal namespace of the tests.
pub const NAMESPACE: &str = "default";

/// Path of a program under test, or of an example.
pub fn program(name: &str) -> PathBuf {
    // Tests are in <target>/debug/deps, programs one folder up, examples beside.
    let tests = std::env::current_exe().expect("the test knows itself");
    let programs = tests.parent().and_then(Path::parent).expect("tests lie two folders deep");
    let found = [programs.join(name), programs.join("examples").join(name)].into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is not in {}; build it with: cargo build --workspace --bins --examples", programs.display())
    })
}

pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Folder of the project.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the tests are two folders deep").to_owned()
}

/// Waits until `condition` gives a value.
pub async fn wait_for<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A Temporal server with a client.
pub struct Server {
    pub temporal: TemporalServer,
    pub client: WorkflowServiceClient<Channel>,
}

/// An activity to start: no Workflow is needed for it.
pub struct Activity<'a> {
    pub activity_type: &'a str,
    pub task_queue: &'a str,
    pub input: Vec<Payload>,
    pub start_to_close: Duration,
    pub heartbeat: Option<Duration>,
    pub attempts: i32,
    pub retry_interval: Option<Duration>,
    pub header: Vec<(&'static str, Payload)>,
}

impl Default for Activity<'_> {
    fn default() -> Self {
        Self {
            activity_type: "Work",
            task_queue: "q",
            input: vec![json_payload(&json!({"n": 1}))],
            start_to_close: Duration::from_secs(60),
            heartbeat: None,
            attempts: 1,
            retry_interval: None,
            header: Vec::new(),
        }
    }
}

/// How an activity ended.
#[derive(Debug)]
pub enum Ended {
    Result(Value),
    Failure { message: String, info: Box<ApplicationFailureInfo> },
    Cancelled,
}

impl Ended {
    /// Type and message of the failure that it has to be.
    pub fn failure(self) -> (String, String) {
        match self {
            Self::Failure { message, info } => (info.r#type, message),
            other => panic!("no failure: {other:?}"),
        }
    }

    /// What the server was told of the failure that it has to be.
    pub fn info(self) -> ApplicationFailureInfo {
        match self {
            Self::Failure { info, .. } => *info,
            other => panic!("no failure: {other:?}"),
        }
    }

    /// The result that it has to be.
    pub fn result(self) -> Value {
        match self {
            Self::Result(value) => value,
            other => panic!("no result: {other:?}"),
        }
    }
}

pub fn json_payload(value: &Value) -> Payload {
    payload("json/plain", &value.to_string())
}

pub fn payload(encoding: &str, data: &str) -> Payload {
    let metadata = [("encoding".to_owned(), encoding.as_bytes().to_vec())].into();
    Payload { metadata, data: data.as_bytes().to_vec(), ..Default::default() }
}

impl Server {
    pub async fn start() -> Result<Self> {
        let temporal = TemporalServer::start(TemporalOptions::default()).await?;
        let channel = Channel::from_shared(format!("http://{}", temporal.host_port()))?.connect_lazy();
        Ok(Self { temporal, client: WorkflowServiceClient::new(channel) })
    }

    /// Starts an activity; the answer is its ID.
    pub async fn start_activity(&self, activity: Activity<'_>) -> Result<String> {
        let activity_id = format!("{}-{:08x}", activity.activity_type, rand::random::<u32>());
        let request = StartActivityExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            identity: "test".to_owned(),
            request_id: activity_id.clone(),
            activity_id: activity_id.clone(),
            activity_type: Some(ActivityType { name: activity.activity_type.to_owned() }),
            task_queue: Some(TaskQueue { name: activity.task_queue.to_owned(), ..Default::default() }),
            start_to_close_timeout: Some(activity.start_to_close.try_into()?),
            heartbeat_timeout: activity.heartbeat.map(TryInto::try_into).transpose()?,
            retry_policy: Some(RetryPolicy {
                maximum_attempts: activity.attempts,
                initial_interval: activity.retry_interval.map(TryInto::try_into).transpose()?,
                ..Default::default()
            }),
            input: Some(Payloads { payloads: activity.input }),
            header: Some(Header {
                fields: activity.header.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            }),
            ..Default::default()
        };
        self.client.clone().start_activity_execution(request).await?;
        Ok(activity_id)
    }

    /// Waits for the end of an activity.
    pub async fn end_of(&self, activity_id: &str) -> Ended {
        wait_for("the end of an activity", SOON, async || self.poll(activity_id).await).await
    }

    async fn poll(&self, activity_id: &str) -> Option<Ended> {
        let (namespace, activity_id) = (NAMESPACE.to_owned(), activity_id.to_owned());
        let request = PollActivityExecutionRequest { namespace, activity_id, run_id: String::new() };
        let mut client = self.client.clone();
        let poll = client.poll_activity_execution(request);
        let answer = tokio::time::timeout(Duration::from_secs(5), poll).await.ok()?.ok()?.into_inner();
        Some(match answer.outcome?.value? {
            activity_execution_outcome::Value::Result(payloads) => {
                let data = payloads.payloads.first().map_or(&[][..], |payload| &payload.data);
                Ended::Result(if data.is_empty() { Value::Null } else { serde_json::from_slice(data).expect("JSON") })
            }
            activity_execution_outcome::Value::Failure(failure) => match failure.failure_info {
                Some(FailureInfo::CanceledFailureInfo(_)) => Ended::Cancelled,
                Some(FailureInfo::ApplicationFailureInfo(info)) => {
                    Ended::Failure { message: failure.message, info: Box::new(info) }
                }
                other => panic!("another kind of failure: {other:?}"),
            },
        })
    }

    /// Payloads of the result of an activity, once it has one.
    pub async fn result_of(&self, activity_id: &str) -> Vec<Payload> {
        let (namespace, activity_id) = (NAMESPACE.to_owned(), activity_id.to_owned());
        let request = PollActivityExecutionRequest { namespace, activity_id, run_id: String::new() };
        wait_for("the result of an activity", SOON, async || {
            let answer = self.client.clone().poll_activity_execution(request.clone()).await.ok()?.into_inner();
            match answer.outcome?.value? {
                activity_execution_outcome::Value::Result(payloads) => Some(payloads.payloads),
                other => panic!("no result: {other:?}"),
            }
        })
        .await
    }

    /// Runs an activity to its end.
    pub async fn run(&self, activity: Activity<'_>) -> Result<Ended> {
        let activity_id = self.start_activity(activity).await?;
        Ok(self.end_of(&activity_id).await)
    }

    /// What the server knows of an activity.
    pub async fn describe(&self, activity_id: &str) -> Result<ActivityExecutionInfo> {
        let request = DescribeActivityExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            activity_id: activity_id.to_owned(),
            include_last_failure: true,
            include_heartbeat_details: true,
            ..Default::default()
        };
        let answer = self.client.clone().describe_activity_execution(request).await?.into_inner();
        answer.info.context("no info")
    }

    /// Asks for the cancellation of an activity.
    pub async fn cancel(&self, activity_id: &str) -> Result<()> {
        let request = RequestCancelActivityExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            activity_id: activity_id.to_owned(),
            identity: "test".to_owned(),
            ..Default::default()
        };
        self.client.clone().request_cancel_activity_execution(request).await?;
        Ok(())
    }

    /// Output of a `temporal` command, as JSON.
    pub fn cli(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.temporal.cli()?.args(arguments).args(["--output", "json"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// Configuration with one `exec` handler for activity type `Work` on Task Queue `q`.
pub fn exec(command: &[&str]) -> Value {
    config(json!({"name": "worker", "exec": {"command": command}}))
}

/// Configuration with one handler, named `worker`, for activity type `Work` on Task Queue `q`.
pub fn config(handler: Value) -> Value {
    json!({
        "version": 1,
        "taskQueues": ["q"],
        "handlers": [handler],
        "activities": [{"type": "Work", "handler": "worker"}],
    })
}
