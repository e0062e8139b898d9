//! What the tests of the Temporal side share: a real server, the operator's poller on it, and a minimal Worker.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{TemporalOptions, TemporalServer};
use operator_core::observed::{DeploymentInfo, LaneKey, LaneStats, Observation, TaskType, TemporalState};
use prometheus::Registry;
use temporal_worker_operator::changes::{Changes, FleetId};
use temporal_worker_operator::temporal::{
    Connection, ConnectionSpec, Credentials, Limits, Metrics, Phase, Poller, Pool, PoolKey, Watch,
};
use temporalio_protos::temporal::api::common::v1::WorkflowType;
use temporalio_protos::temporal::api::deployment::v1::{WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_protos::temporal::api::enums::v1::WorkerVersioningMode;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflow::v1::VersioningOverride;
use temporalio_protos::temporal::api::workflow::v1::versioning_override::{
    Override, PinnedOverride, PinnedOverrideBehavior,
};
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use temporalio_protos::temporal::api::workflowservice::v1::{
    PollWorkflowTaskQueueRequest, StartWorkflowExecutionRequest,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

pub const NAMESPACE: &str = "default";

/// A server and everything of the operator that talks to it.
pub struct Bed {
    pub server: TemporalServer,
    pub client: WorkflowServiceClient<Channel>,
    pub registry: Registry,
    pub changes: Arc<Changes>,
    pub pool: Arc<Pool>,
    pub poller: Arc<Poller>,
    started: AtomicUsize,
}

impl Bed {
    pub async fn start() -> Result<Self> {
        Self::with(TemporalOptions::default(), Limits::default()).await
    }

    pub async fn with(options: TemporalOptions, limits: Limits) -> Result<Self> {
        let server = TemporalServer::start(options).await?;
        let channel = Endpoint::from_shared(format!("http://{}", server.host_port()))?.connect_lazy();
        let registry = Registry::new();
        let metrics = Metrics::register(&registry)?;
        let changes = Changes::new();
        Ok(Self {
            server,
            client: WorkflowServiceClient::new(channel),
            registry,
            pool: Pool::new(limits, metrics.clone()),
            poller: Poller::new(changes.clone(), metrics),
            changes,
            started: AtomicUsize::new(0),
        })
    }

    /// A connection to the server, as of a Connection named `name`.
    pub fn connection(&self, name: &str) -> Result<Arc<Connection>> {
        self.connection_to(name, &self.server.host_port())
    }

    pub fn connection_to(&self, name: &str, host_port: &str) -> Result<Arc<Connection>> {
        let key = PoolKey {
            kubernetes_namespace: "tests".into(),
            connection_uid: name.into(),
            connection_generation: 1,
            secret: None,
            ca_secret: None,
        };
        let spec = ConnectionSpec {
            host_port: host_port.into(),
            server_name: None,
            credentials: Credentials::None,
            ca_cert: None,
        };
        Ok(self.pool.connect(key, &spec)?)
    }

    /// A watch of a fleet with versioning disabled and one lane of Workflow tasks for each queue.
    pub fn watch(&self, fleet: &str, queues: &[String], phase: Phase) -> Result<Watch> {
        Ok(Watch {
            fleet: fleet.into(),
            namespace: NAMESPACE.into(),
            connection: self.connection("main")?,
            deployment_name: None,
            build_ids: Vec::new(),
            main: None,
            lanes: queues.iter().map(|queue| workflow_lane(queue)).collect(),
            phase,
            gated: false,
            remembered: None,
        })
    }

    /// A watch of a fleet with one version.
    pub fn versioned(
        &self,
        fleet: &str,
        deployment: &str,
        build_id: &str,
        queues: &[&str],
        phase: Phase,
    ) -> Result<Watch> {
        let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
        let watch = self.watch(fleet, &queues, phase)?;
        let (build_ids, main) = (vec![build_id.into()], Some(build_id.into()));
        Ok(Watch { deployment_name: Some(deployment.into()), build_ids, main, ..watch })
    }

    /// What a fleet's Worker Deployment is, once it is as `holds` says and fresh.
    pub async fn info_when(&self, fleet: &str, holds: impl Fn(&DeploymentInfo) -> bool) -> Result<DeploymentInfo> {
        let info = |state: &TemporalState| state.deployment.known().cloned().flatten();
        let state = self.when(fleet, Duration::from_secs(15), |state| info(state).is_some_and(|info| holds(&info)));
        info(&state.await?).context("it was there")
    }

    /// Starts a Workflow: its first task waits on the queue. Ends once the server has accepted it.
    pub async fn start_workflow(&self, queue: &str) -> Result<()> {
        self.start_workflow_as(queue, None).await
    }

    pub async fn start_pinned_workflow(&self, queue: &str, deployment: &str, build_id: &str) -> Result<()> {
        let version = WorkerDeploymentVersion { deployment_name: deployment.into(), build_id: build_id.into() };
        let pinned = PinnedOverride { behavior: PinnedOverrideBehavior::Pinned.into(), version: Some(version) };
        let pinned = VersioningOverride { r#override: Some(Override::Pinned(pinned)), ..Default::default() };
        self.start_workflow_as(queue, Some(pinned)).await
    }

    async fn start_workflow_as(&self, queue: &str, versioning_override: Option<VersioningOverride>) -> Result<()> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let request = StartWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_id: format!("test-{number}"),
            request_id: format!("request-{number}"),
            workflow_type: Some(WorkflowType { name: "Test".into() }),
            task_queue: Some(TaskQueue { name: queue.into(), ..Default::default() }),
            versioning_override,
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(request).await.context("start a Workflow")?;
        Ok(())
    }

    /// Polls a queue for Workflow tasks as a Worker of a version does, until the value is dropped.
    pub fn poll_as_worker(&self, queue: &str, deployment: &str, build_id: &str) -> WorkerPolls {
        let request = PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.into(),
            identity: "test-worker".into(),
            task_queue: Some(TaskQueue { name: queue.into(), ..Default::default() }),
            deployment_options: Some(WorkerDeploymentOptions {
                deployment_name: deployment.into(),
                build_id: build_id.into(),
                worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
            }),
            ..Default::default()
        };
        let mut client = self.client.clone();
        WorkerPolls(tokio::spawn(async move {
            loop {
                let mut poll = tonic::Request::new(request.clone());
                poll.set_timeout(Duration::from_secs(60));
                if let Err(status) = client.poll_workflow_task_queue(poll).await {
                    eprintln!("poll failed: {status}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }))
    }

    pub fn state(&self, fleet: &str) -> TemporalState {
        self.poller.snapshot(&fleet.into(), Instant::now())
    }

    /// The backlog of a lane, if it is known and fresh.
    pub fn backlog(&self, fleet: &str, queue: &str) -> Option<u64> {
        known(&self.state(fleet), queue).map(|stats| stats.backlog)
    }

    /// Waits until what was seen of a fleet satisfies a condition, looking only when the poller says that it changed.
    pub async fn when(
        &self,
        fleet: &str,
        limit: Duration,
        holds: impl Fn(&TemporalState) -> bool,
    ) -> Result<TemporalState> {
        let wanted = FleetId::from(fleet);
        let wait = async {
            loop {
                let state = self.state(fleet);
                if holds(&state) {
                    return state;
                }
                while self.changes.next().await != wanted {}
            }
        };
        let ended = tokio::time::timeout(limit, wait).await;
        ended.with_context(|| format!("not within {} s; last seen: {:?}", limit.as_secs(), self.state(fleet)))
    }

    /// Calls made so far, by method and outcome; `None` counts all.
    pub fn calls(&self, method: Option<&str>, outcome: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let calls = families.iter().filter(|family| family.name() == "temporal_worker_operator_temporal_calls_total");
        let matches = |labels: &[prometheus::proto::LabelPair], name: &str, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| labels.iter().any(|label| label.name() == name && label.value() == wanted))
        };
        calls
            .flat_map(|family| family.get_metric())
            .filter(|metric| matches(metric.get_label(), "method", method))
            .filter(|metric| matches(metric.get_label(), "outcome", outcome))
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }
}

/// Ends the polls of a minimal Worker when it is dropped.
pub struct WorkerPolls(JoinHandle<()>);

impl Drop for WorkerPolls {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn workflow_lane(queue: &str) -> LaneKey {
    LaneKey { task_queue: queue.into(), task_type: TaskType::Workflow }
}

pub fn known(state: &TemporalState, queue: &str) -> Option<LaneStats> {
    state.lanes.get(&workflow_lane(queue)).and_then(Observation::known).copied()
}

pub fn lanes(queues: &[&str]) -> BTreeSet<LaneKey> {
    queues.iter().map(|queue| workflow_lane(queue)).collect()
}

/// The value below which a share of all values lies.
pub fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * share).round() as usize]
}
