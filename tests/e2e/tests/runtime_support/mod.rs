//! A Temporal server, Worker processes built on the runtime, and activities to give them.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod pids;

pub mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{TemporalOptions, TemporalServer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
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

/// A Worker process, killed with its value.
pub struct Worker {
    child: Child,
    folder: TempDir,
    http: reqwest::Client,
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

impl Worker {
    /// Starts the shared runtime, and waits until it is ready.
    pub async fn ready(server: &Server, config: Value, limits: Value) -> Result<Self> {
        let worker = Self::start(&server.temporal.host_port(), &config, &limits, &[])?;
        worker.wait_ready().await;
        Ok(worker)
    }

    /// Runs one activity with a handler, and says how it failed: type and message.
    pub async fn failure(configuration: Value, limits: Value) -> Result<(String, String)> {
        let server = Server::start().await?;
        let worker = Self::ready(&server, configuration, limits).await?;
        let failure = server.run(Activity::default()).await?.failure();
        let reason = format!(r#"reason="{}",task_queue="q""#, failure.0);
        worker.wait_metric("activity_failures_total", &reason, 1.0).await;
        worker.wait_metric("tasks_ended_total", &format!(r#"outcome="failed",{WORK}"#), 1.0).await;
        Ok(failure)
    }

    /// Starts the shared runtime.
    pub fn start(address: &str, config: &Value, limits: &Value, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program("worker-runtime"));
        command.arg("run");
        Self::start_program(command, address, config, limits, environment)
    }

    /// Starts a program that is built on the runtime.
    pub fn start_program(
        mut command: Command,
        address: &str,
        config: &Value,
        limits: &Value,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config_file, limits_file) = (folder.path().join("runtime.json"), folder.path().join("limits.json"));
        std::fs::write(&config_file, config.to_string())?;
        std::fs::write(&limits_file, limits.to_string())?;
        let child = command
            .env("WORKER_RUNTIME_CONFIG", config_file)
            .env("WORKER_RUNTIME_LIMITS", limits_file)
            .env("WORKER_RUNTIME_METRICS_BIND_ADDRESS", "127.0.0.1:0")
            .env("WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", "127.0.0.1:0")
            .env("TEMPORAL_ADDRESS", address)
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("POD_NAME", format!("pod-{:08x}", rand::random::<u32>()))
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()
            .with_context(|| format!("{:?}", command.get_program()))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, folder, http })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until `text` is in the log.
    pub async fn wait_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), SOON, async || self.log().contains(text).then_some(())).await;
    }

    /// Address of a port: `metrics` or `probes`.
    pub async fn address(&self, what: &str) -> SocketAddr {
        wait_for("an open port", SOON, async || {
            self.log().lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["fields"]["what"] == what).then(|| line["fields"]["address"].as_str()?.parse().ok()).flatten()
            })
        })
        .await
    }

    /// Status and body of a path of the probes; none when nobody answers.
    pub async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.address("probes").await);
        let response = self.http.get(url).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// Status and body of what a path of the probes says to a POST.
    pub async fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<(u16, String)> {
        let url = format!("http://{}{path}", self.address("probes").await);
        let response = self.http.post(url).json(body).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits for a status of `/readyz`.
    pub async fn wait_readiness(&self, status: u16) {
        wait_for(&format!("/readyz to answer {status}"), SOON, async || {
            (self.probe("/readyz").await?.0 == status).then_some(())
        })
        .await;
    }

    pub async fn wait_ready(&self) {
        let begun = Instant::now();
        while !matches!(self.probe("/readyz").await, Some((200, _))) {
            assert!(begun.elapsed() < SOON, "not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Value of a metric with these labels, in the order of the alphabet.
    pub async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.address("metrics").await);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        let start = format!("temporal_worker_runtime_{name}{{{labels}}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }

    /// Waits until a metric has a value.
    pub async fn wait_metric(&self, name: &str, labels: &str, value: f64) {
        wait_for(&format!("{name}{{{labels}}} to be {value}"), SOON, async || {
            (self.metric(name, labels).await == Some(value)).then_some(())
        })
        .await;
    }

    /// Waits until a metric is above a value.
    pub async fn wait_metric_above(&self, name: &str, labels: &str, value: f64) {
        wait_for(&format!("{name}{{{labels}}} to be above {value}"), SOON, async || {
            self.metric(name, labels).await.is_some_and(|now| now > value).then_some(())
        })
        .await;
    }

    /// Waits until a metric without labels has a value.
    pub async fn wait_gauge(&self, name: &str, value: f64) {
        let url = format!("http://{}/metrics", self.address("metrics").await);
        let line = format!("temporal_worker_runtime_{name} {value}");
        wait_for(&format!("{name} to be {value}"), SOON, async || {
            let text = self.http.get(&url).send().await.ok()?.text().await.ok()?;
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    /// Replaces its limits file, as the kubelet does: at once.
    pub fn write_limits(&self, limits: &Value) -> Result<()> {
        self.write("limits.json", limits)
    }

    /// Replaces its configuration file.
    pub fn write_config(&self, config: &Value) -> Result<()> {
        self.write("runtime.json", config)
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let file = self.folder.path().join(name);
        let unfinished = file.with_extension("new");
        std::fs::write(&unfinished, content.to_string())?;
        Ok(std::fs::rename(unfinished, file)?)
    }

    /// Asks it to end, as Kubernetes does.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?)
    }

    /// Waits for its end.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("still runs after {within:?}:\n{}", self.log())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the Worker:\n{}", self.log());
        }
    }
}
