//! The operator's poller and its baseline, side by side on one server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::TemporalServer;
use operator_core::observed::{LaneKey, Observation, TaskType, TemporalState};
use prometheus::Registry;
use rand::RngExt as _;
use temporal_worker_operator::changes::{Changes, FleetId};
use temporal_worker_operator::temporal::{
    ConnectionSpec, Credentials, Limits, Metrics, Phase, Poller, Pool, PoolKey, Watch,
};
use temporalio_protos::temporal::api::common::v1::WorkflowType;
use temporalio_protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use temporalio_protos::temporal::api::workflowservice::v1::{DescribeTaskQueueRequest, StartWorkflowExecutionRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};

const NAMESPACE: &str = "default";
const FLEET: &str = "fleet";
/// Period of the baseline.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);
/// Time in which every Task Queue must have been read once.
const READY: Duration = Duration::from_secs(60);

type Client = WorkflowServiceClient<Channel>;

/// Tasks by Task Queue, as either has seen them.
#[derive(Clone)]
pub struct Counts {
    /// As the operator's poller has.
    pub poller: watch::Receiver<Vec<u64>>,
    /// As the ordinary statistics say, asked each second.
    pub statistics: watch::Receiver<Vec<u64>>,
}

/// Both on one server. They end with this value.
pub struct Watchers {
    client: Client,
    registry: Registry,
    counts: Counts,
    _tasks: JoinSet<()>,
}

impl Watchers {
    /// Starts both on as many idle Task Queues; ends when both have read all.
    ///
    /// # Errors
    /// The server can't be read.
    pub async fn start(server: &TemporalServer, queues: usize) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{}", server.host_port()))?.connect_lazy();
        let client = WorkflowServiceClient::new(channel);
        let registry = Registry::new();
        let mut tasks = JoinSet::new();
        let poller = start_poller(server, queues, &registry, &mut tasks).await?;
        let statistics = start_statistics(&client, queues, &mut tasks);
        Ok(Self { client, registry, counts: Counts { poller, statistics }, _tasks: tasks })
    }

    /// What either has seen, from now on.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Calls that the poller has made.
    pub fn calls(&self) -> f64 {
        let families = self.registry.gather();
        let calls = families.iter().filter(|family| family.name() == "temporal_worker_operator_temporal_calls_total");
        calls.flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value()).sum()
    }

    /// Starts a Workflow: its first task waits on the queue. Ends once the server has accepted it.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn add_task(&self, queue: usize, number: usize) -> Result<()> {
        let id = format!("task-{number}");
        let request = StartWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_id: id.clone(),
            request_id: id,
            workflow_type: Some(WorkflowType { name: "Waits".into() }),
            task_queue: Some(TaskQueue { name: name(queue), ..Default::default() }),
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(request).await.context("start a Workflow")?;
        Ok(())
    }
}

fn name(queue: usize) -> String {
    format!("queue-{queue}")
}

fn lane(queue: usize) -> LaneKey {
    LaneKey { task_queue: name(queue), task_type: TaskType::Workflow }
}

/// The operator's own poller on a fleet at zero, looked at whenever it says that something changed.
async fn start_poller(
    server: &TemporalServer,
    queues: usize,
    registry: &Registry,
    tasks: &mut JoinSet<()>,
) -> Result<watch::Receiver<Vec<u64>>> {
    let metrics = Metrics::register(registry)?;
    let (changes, fleet) = (Changes::new(), FleetId::from(FLEET));
    let poller = Poller::new(changes.clone(), metrics.clone());
    let key = PoolKey {
        kubernetes_namespace: "bench".into(),
        connection_uid: "bench".into(),
        connection_generation: 1,
        secret: None,
        ca_secret: None,
    };
    let spec = ConnectionSpec {
        host_port: server.host_port(),
        server_name: None,
        credentials: Credentials::None,
        ca_cert: None,
    };
    poller.set(Watch {
        fleet: fleet.clone(),
        namespace: NAMESPACE.into(),
        connection: Pool::new(Limits::default(), metrics).connect(key, &spec)?,
        deployment_name: None,
        build_ids: Vec::new(),
        main: None,
        lanes: (0..queues).map(lane).collect(),
        phase: Phase::AtZero,
        gated: false,
        remembered: None,
    });
    let state = || poller.snapshot(&fleet, tokio::time::Instant::now());
    let all_read = async {
        while (0..queues).any(|queue| backlog(&state(), queue).is_none()) {
            changes.next().await;
        }
    };
    tokio::time::timeout(READY, all_read).await.context("not every Task Queue was read in time")?;
    let (sender, receiver) = watch::channel(vec![0; queues]);
    tasks.spawn(follow(poller, changes, fleet, sender));
    Ok(receiver)
}

async fn follow(poller: Arc<Poller>, changes: Arc<Changes>, fleet: FleetId, counts: watch::Sender<Vec<u64>>) {
    loop {
        let state = poller.snapshot(&fleet, tokio::time::Instant::now());
        counts.send_modify(|counts| {
            for (queue, count) in counts.iter_mut().enumerate() {
                *count = backlog(&state, queue).unwrap_or(*count);
            }
        });
        changes.next().await;
    }
}

fn backlog(state: &TemporalState, queue: usize) -> Option<u64> {
    state.lanes.get(&lane(queue)).and_then(Observation::known).map(|stats| stats.backlog)
}

fn start_statistics(client: &Client, queues: usize, tasks: &mut JoinSet<()>) -> watch::Receiver<Vec<u64>> {
    let (sender, receiver) = watch::channel(vec![0; queues]);
    let sender = Arc::new(sender);
    for queue in 0..queues {
        tasks.spawn(poll_statistics(client.clone(), queue, sender.clone()));
    }
    receiver
}

async fn poll_statistics(mut client: Client, queue: usize, counts: Arc<watch::Sender<Vec<u64>>>) {
    let request = DescribeTaskQueueRequest {
        namespace: NAMESPACE.into(),
        task_queue: Some(TaskQueue { name: name(queue), ..Default::default() }),
        task_queue_type: TaskQueueType::Workflow.into(),
        report_stats: true,
        ..Default::default()
    };
    let first = rand::rng().random_range(Duration::ZERO..STATISTICS_EVERY);
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + first, STATISTICS_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let Ok(answer) = client.describe_task_queue(request.clone()).await else { continue };
        let stats = answer.into_inner().stats;
        let count = stats.and_then(|stats| u64::try_from(stats.approximate_backlog_count).ok());
        if let Some(count) = count {
            counts.send_modify(|counts| counts[queue] = count);
        }
    }
}
