//! The calls to a Temporal server, each with a deadline and its error sorted into a class. Callers take the budget's
//! token first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use operator_core::observed::{
    FailureClass, LaneKey, LaneStats, Ramp, RateLimit, TaskType, VersionStatus, VersionSummary,
};
use temporalio_protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_protos::temporal::api::enums::v1::{TaskQueueKind, TaskQueueType};
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::connection::Connection;
use super::errors::CallError;
use super::readings::{
    count, current_build_id, is_unversioned, lane, lane_stats, ramp, rate_limit, status, summary, time,
};

/// Time that a call gets.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The calls that are made, by the server's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    DescribeTaskQueue,
    ListTaskQueuePartitions,
    ListWorkerDeployments,
    ListWorkflowExecutions,
    DescribeWorkerDeployment,
    DescribeWorkerDeploymentVersion,
    ListWorkers,
    DescribeWorker,
    SetWorkerDeploymentCurrentVersion,
    SetWorkerDeploymentRampingVersion,
    SetWorkerDeploymentManager,
    UpdateWorkerDeploymentVersionMetadata,
    DeleteWorkerDeploymentVersion,
    DeleteWorkerDeployment,
    StartWorkflowExecution,
    DescribeWorkflowExecution,
    GetWorkflowExecutionHistory,
}

impl Method {
    /// The server's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DescribeTaskQueue => "DescribeTaskQueue",
            Self::ListTaskQueuePartitions => "ListTaskQueuePartitions",
            Self::ListWorkerDeployments => "ListWorkerDeployments",
            Self::ListWorkflowExecutions => "ListWorkflowExecutions",
            Self::DescribeWorkerDeployment => "DescribeWorkerDeployment",
            Self::DescribeWorkerDeploymentVersion => "DescribeWorkerDeploymentVersion",
            Self::ListWorkers => "ListWorkers",
            Self::DescribeWorker => "DescribeWorker",
            Self::SetWorkerDeploymentCurrentVersion => "SetWorkerDeploymentCurrentVersion",
            Self::SetWorkerDeploymentRampingVersion => "SetWorkerDeploymentRampingVersion",
            Self::SetWorkerDeploymentManager => "SetWorkerDeploymentManager",
            Self::UpdateWorkerDeploymentVersionMetadata => "UpdateWorkerDeploymentVersionMetadata",
            Self::DeleteWorkerDeploymentVersion => "DeleteWorkerDeploymentVersion",
            Self::DeleteWorkerDeployment => "DeleteWorkerDeployment",
            Self::StartWorkflowExecution => "StartWorkflowExecution",
            Self::DescribeWorkflowExecution => "DescribeWorkflowExecution",
            Self::GetWorkflowExecutionHistory => "GetWorkflowExecutionHistory",
        }
    }

    /// Whether it only asks, so that "there is none" is an answer.
    fn asks(self) -> bool {
        matches!(
            self,
            Self::DescribeTaskQueue
                | Self::ListTaskQueuePartitions
                | Self::ListWorkerDeployments
                | Self::ListWorkflowExecutions
                | Self::DescribeWorkerDeployment
                | Self::DescribeWorkerDeploymentVersion
                | Self::ListWorkers
                | Self::DescribeWorker
                | Self::DescribeWorkflowExecution
                | Self::GetWorkflowExecutionHistory
        )
    }
}

/// What a Worker Deployment's own description says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentReading {
    /// Build ID of the current version; none when unversioned Workers get the traffic.
    pub current_build_id: Option<String>,
    /// The version that gets a share of the traffic.
    pub ramp: Option<Ramp>,
    /// Every version in a word, sorted by Build ID. One is kept for each fleet, and most have a version or two.
    pub summaries: Box<[(String, VersionSummary)]>,
    /// Token that a change of the routing must carry.
    pub conflict_token: Vec<u8>,
    /// Identity that alone may change the routing; empty when anybody may.
    pub manager_identity: String,
    /// Identity that changed it last.
    pub last_modifier_identity: String,
    /// Whether it is what the fleet's status had, of which a list said that the traffic is still so: then `summaries` are missing.
    pub remembered: bool,
}

/// What a version's description says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VersionReading {
    /// The server's own word.
    pub status: VersionStatus,
    /// Lanes that its Workers have polled.
    pub lanes: BTreeSet<LaneKey>,
    /// Statistics by lane; a lane without is one that the server sent none for.
    pub stats: BTreeMap<LaneKey, LaneStats>,
    /// When it was last the current version, by the server's clock.
    pub last_current_at: Option<Timestamp>,
    /// When its drainage last changed, by the server's clock.
    pub drainage_changed_at: Option<Timestamp>,
}

/// Partitions of a Task Queue. At least one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// Of its Workflow tasks.
    pub workflow: usize,
    /// Of its activity tasks, and those of other kinds.
    pub activity: usize,
}

impl Partitions {
    /// Partitions of one kind of task.
    #[must_use]
    pub fn of(self, task_type: TaskType) -> usize {
        match task_type {
            TaskType::Workflow => self.workflow,
            TaskType::Activity | TaskType::Nexus => self.activity,
        }
    }
}

/// Describes a Worker Deployment; `None` when the server says that there is none.
pub async fn deployment(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<Option<DeploymentReading>, CallError> {
    let message =
        wire::DescribeWorkerDeploymentRequest { namespace: namespace.to_owned(), deployment_name: name.to_owned() };
    let answer = call(connection, Method::DescribeWorkerDeployment, namespace, message, async |mut client, request| {
        client.describe_worker_deployment(request).await
    });
    let Some(answer) = found(answer.await)? else { return Ok(None) };
    let Some(info) = answer.worker_deployment_info else {
        return Err(CallError::local(FailureClass::Other, "DescribeWorkerDeployment answered without a deployment"));
    };
    let routing = info.routing_config.unwrap_or_default();
    let summaries: BTreeMap<_, _> = info.version_summaries.iter().filter_map(summary).collect();
    Ok(Some(DeploymentReading {
        current_build_id: current_build_id(&routing),
        ramp: ramp(&routing),
        summaries: summaries.into_iter().collect(),
        conflict_token: answer.conflict_token,
        manager_identity: info.manager_identity,
        last_modifier_identity: info.last_modifier_identity,
        remembered: false,
    }))
}

/// Describes a version with the statistics of its queues; `None` when the server says that there is none.
pub async fn version(
    connection: &Connection,
    namespace: &str,
    name: &str,
    build_id: &str,
) -> Result<Option<VersionReading>, CallError> {
    let message = wire::DescribeWorkerDeploymentVersionRequest {
        namespace: namespace.to_owned(),
        deployment_version: Some(WorkerDeploymentVersion {
            build_id: build_id.to_owned(),
            deployment_name: name.to_owned(),
        }),
        report_task_queue_stats: true,
        ..Default::default()
    };
    let method = Method::DescribeWorkerDeploymentVersion;
    let answer = call(connection, method, namespace, message, async |mut client, request| {
        client.describe_worker_deployment_version(request).await
    });
    let Some(answer) = found(answer.await)? else { return Ok(None) };
    let Some(info) = answer.worker_deployment_version_info else {
        return Err(CallError::local(FailureClass::Other, format!("{} answered without a version", method.as_str())));
    };
    let mut reading = VersionReading {
        status: status(&info),
        last_current_at: info.last_current_time.and_then(time),
        drainage_changed_at: info.drainage_info.and_then(|drainage| drainage.last_changed_time).and_then(time),
        ..Default::default()
    };
    for queue in &info.task_queue_infos {
        reading.lanes.extend(lane(&queue.name, queue.r#type()));
    }
    for queue in answer.version_task_queues {
        let Some(lane) = lane(&queue.name, queue.r#type()) else { continue };
        if let Some(stats) = &queue.stats {
            reading.stats.insert(lane.clone(), lane_stats(stats));
        }
        reading.lanes.insert(lane);
    }
    Ok(Some(reading))
}

/// Describes one lane with the statistics of all versions together. They are up to 5 s old.
pub async fn lane_statistics(connection: &Connection, namespace: &str, lane: &LaneKey) -> Result<LaneStats, CallError> {
    let message = wire::DescribeTaskQueueRequest {
        namespace: namespace.to_owned(),
        task_queue: Some(task_queue(lane.task_queue.clone())),
        task_queue_type: wire_type(lane.task_type).into(),
        report_stats: true,
        ..Default::default()
    };
    let answer = describe_task_queue(connection, namespace, message).await?;
    match &answer.stats {
        Some(stats) => Ok(LaneStats {
            rate_limit: rate_limit(&answer),
            unversioned_pollers: answer.pollers.iter().any(is_unversioned),
            ..lane_stats(stats)
        }),
        // Statistics that are missing are not a backlog of zero.
        None => Err(CallError::local(FailureClass::Other, "the server sends no statistics of Task Queues")),
    }
}

/// What the live status of a partition says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveStatus {
    /// Tasks that wait in the partition. Pinned ones are not in it.
    pub backlog: u64,
    /// The queue's rate limit, if somebody set one.
    pub rate_limit: Option<RateLimit>,
}

/// One partition of a lane as it is now; `None` when the server does not tell.
///
/// This is the deprecated status of a Task Queue: the one reading that no cache stands before.
pub async fn partition_status(
    connection: &Connection,
    namespace: &str,
    lane: &LaneKey,
    partition: usize,
) -> Result<Option<LiveStatus>, CallError> {
    let queue = &lane.task_queue;
    let name = if partition == 0 { queue.clone() } else { format!("/_sys/{queue}/{partition}") };
    #[expect(deprecated, reason = "the statistics that replace it are up to 5 s old")]
    let message = wire::DescribeTaskQueueRequest {
        namespace: namespace.to_owned(),
        task_queue: Some(task_queue(name)),
        task_queue_type: wire_type(lane.task_type).into(),
        include_task_queue_status: true,
        ..Default::default()
    };
    let answer = describe_task_queue(connection, namespace, message).await?;
    let rate_limit = rate_limit(&answer);
    #[expect(deprecated, reason = "as above")]
    let status = answer.task_queue_status;
    Ok(status.map(|status| LiveStatus { backlog: count(status.backlog_count_hint), rate_limit }))
}

/// The number of partitions of a Task Queue.
pub async fn partitions(connection: &Connection, namespace: &str, queue: &str) -> Result<Partitions, CallError> {
    let message = wire::ListTaskQueuePartitionsRequest {
        namespace: namespace.to_owned(),
        task_queue: Some(task_queue(queue.to_owned())),
    };
    let method = Method::ListTaskQueuePartitions;
    let answer = call(connection, method, namespace, message, async |mut client, request| {
        client.list_task_queue_partitions(request).await
    })
    .await?;
    Ok(Partitions {
        workflow: answer.workflow_task_queue_partitions.len().max(1),
        activity: answer.activity_task_queue_partitions.len().max(1),
    })
}

async fn describe_task_queue(
    connection: &Connection,
    namespace: &str,
    message: wire::DescribeTaskQueueRequest,
) -> Result<wire::DescribeTaskQueueResponse, CallError> {
    call(connection, Method::DescribeTaskQueue, namespace, message, async |mut client, request| {
        client.describe_task_queue(request).await
    })
    .await
}

pub(super) async fn call<M, R>(
    connection: &Connection,
    method: Method,
    namespace: &str,
    message: M,
    send: impl AsyncFnOnce(WorkflowServiceClient<Channel>, Request<M>) -> Result<Response<R>, Status>,
) -> Result<R, CallError> {
    let request = request(connection, namespace, message)?;
    let started = Instant::now();
    let answer = match tokio::time::timeout(DEADLINE, send(connection.client.clone(), request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(CallError::from(&status)),
        Err(_) => Err(CallError::timed_out(method.as_str(), DEADLINE)),
    };
    let outcome = match &answer {
        // The server did its part: what was asked for does not exist.
        Err(error) if is_absence(error) && method.asks() => Ok(()),
        Err(error) => Err(error.failure.class),
        Ok(_) => Ok(()),
    };
    connection.metrics.called(method, outcome, started.elapsed());
    match &answer {
        Err(error) if error.refused() => connection.set_refused(true),
        Err(error) if error.failure.class == FailureClass::Unreachable => {}
        _ => connection.set_refused(false),
    }
    answer
}

fn request<M>(connection: &Connection, namespace: &str, message: M) -> Result<Request<M>, CallError> {
    let Ok(namespace_header) = namespace.parse::<MetadataValue<Ascii>>() else {
        let text = format!("temporalNamespace {namespace:?} holds characters that no Temporal namespace has");
        return Err(CallError::local(FailureClass::NamespaceNotFound, text));
    };
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    let metadata = request.metadata_mut();
    metadata.insert("temporal-namespace", namespace_header);
    metadata.insert("client-name", MetadataValue::from_static("temporal-worker-operator"));
    metadata.insert("client-version", MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = &connection.authorization {
        metadata.insert("authorization", authorization.clone());
    }
    Ok(request)
}

/// Turns "there is none", which is an answer, into a value.
pub(super) fn found<R>(answer: Result<R, CallError>) -> Result<Option<R>, CallError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absence(error: &CallError) -> bool {
    error.code == Code::NotFound && error.failure.class != FailureClass::NamespaceNotFound
}

fn wire_type(task_type: TaskType) -> TaskQueueType {
    match task_type {
        TaskType::Workflow => TaskQueueType::Workflow,
        TaskType::Activity => TaskQueueType::Activity,
        TaskType::Nexus => TaskQueueType::Nexus,
    }
}

pub(super) fn task_queue(name: String) -> TaskQueue {
    TaskQueue { name, kind: TaskQueueKind::Normal.into(), normal_name: String::new() }
}
