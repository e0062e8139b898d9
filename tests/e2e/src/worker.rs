//! A Worker with Worker Versioning, played call by call, where no pods run.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use serde_json::Value;
use temporalio_protos::temporal::api::command::v1::command::Attributes;
use temporalio_protos::temporal::api::command::v1::{
    Command, CompleteWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
};
use temporalio_protos::temporal::api::common::v1::{Payload, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::compute::v1::{
    ComputeConfigScalingGroup, ComputeConfigScalingGroupUpdate, ComputeProvider, ComputeScaler,
};
use temporalio_protos::temporal::api::deployment::v1::{WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_protos::temporal::api::enums::v1::{CommandType, VersioningBehavior, WorkerVersioningMode};
use temporalio_protos::temporal::api::failure::v1::Failure;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::set_worker_deployment_manager_request::NewManagerIdentity;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::tasks::{queue, timed};
use crate::wait::eventually;

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Most tries of a call that the server has no time for, and the time between them.
const TRIES: u32 = 5;
const BUSY: Duration = Duration::from_secs(1);
/// A poll that waits for nothing but its registration.
const SHORT_POLL: Duration = Duration::from_secs(3);
const IDENTITY: &str = "played-worker";

/// Workflow tasks of one Task Queue.
pub struct Worker {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
    task_queue: String,
    version: Mutex<WorkerDeploymentVersion>,
}

impl Worker {
    /// A Worker of a Task Queue; it does nothing yet.
    ///
    /// # Errors
    /// The address is none.
    pub fn of(host_port: &str, namespace: &str, task_queue: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let client = WorkflowServiceClient::new(endpoint.connect_lazy());
        let version = Mutex::default();
        Ok(Self { client, namespace: namespace.into(), task_queue: task_queue.into(), version })
    }

    /// Polls as a version, so that the server knows of it and of the Task Queue.
    ///
    /// # Errors
    /// The server does not know of it in time.
    pub async fn register(&self, deployment: &str, build_id: &str) -> Result<()> {
        self.speak_for(deployment, build_id);
        eventually("the server knows the version's Task Queue", async || {
            // It ends without a task.
            let _ = self.poll(SHORT_POLL).await;
            ensure!(self.known_queues().await? > 0, "it does not");
            Ok(())
        })
        .await
    }

    /// Waits until Workers of a version poll the Task Queue for Workflows and for activities, and speaks to the server for that
    /// version from then on.
    ///
    /// # Errors
    /// The server does not know of them in time.
    pub async fn follow(&self, deployment: &str, build_id: &str) -> Result<()> {
        self.speak_for(deployment, build_id);
        eventually("the server knows of the version's Workers", async || {
            let queues = self.known_queues().await?;
            ensure!(queues >= 2, "of {queues} kinds");
            Ok(())
        })
        .await
    }

    fn speak_for(&self, deployment: &str, build_id: &str) {
        let (deployment_name, build_id) = (deployment.to_owned(), build_id.to_owned());
        *self.version.lock() = WorkerDeploymentVersion { deployment_name, build_id };
    }

    /// How many kinds of tasks the server knows its version to poll the Task Queue for.
    async fn known_queues(&self) -> Result<usize> {
        let request = wire::DescribeWorkerDeploymentVersionRequest {
            namespace: self.namespace.clone(),
            deployment_version: Some(self.version.lock().clone()),
            ..Default::default()
        };
        let answer = self.client.clone().describe_worker_deployment_version(timed(request, CALL_LIMIT)).await?;
        let queues = answer.into_inner().version_task_queues;
        Ok(queues.iter().filter(|queue| queue.name == self.task_queue).count())
    }

    /// Makes its version current.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn make_current(&self) -> Result<()> {
        let WorkerDeploymentVersion { deployment_name, build_id } = self.version.lock().clone();
        let request = wire::SetWorkerDeploymentCurrentVersionRequest {
            namespace: self.namespace.clone(),
            deployment_name,
            build_id,
            identity: IDENTITY.into(),
            ..Default::default()
        };
        let set = async || {
            self.client.clone().set_worker_deployment_current_version(timed(request.clone(), CALL_LIMIT)).await
        };
        Ok(patiently(set).await.map(|_| ())?)
    }

    /// What the server has of its Worker Deployment: the token that each change of the routing replaces, the Build ID of the
    /// current version, and the manager's identity.
    ///
    /// # Errors
    /// The server does not know of it.
    pub async fn routing(&self) -> Result<(Vec<u8>, String, String)> {
        let deployment_name = self.version.lock().deployment_name.clone();
        let request = wire::DescribeWorkerDeploymentRequest { namespace: self.namespace.clone(), deployment_name };
        let describe =
            async || self.client.clone().describe_worker_deployment(timed(request.clone(), CALL_LIMIT)).await;
        let answer = patiently(describe).await?;
        let info = answer.worker_deployment_info.context("no description")?;
        let routing = info.routing_config.context("no routing")?;
        let current = routing.current_deployment_version.map(|version| version.build_id).unwrap_or_default();
        Ok((answer.conflict_token, current, info.manager_identity))
    }

    /// Build IDs of the versions that the server knows of a Worker Deployment.
    ///
    /// # Errors
    /// It does not know of it.
    pub async fn versions_of(&self, deployment: &str) -> Result<BTreeSet<String>> {
        let (namespace, deployment_name) = (self.namespace.clone(), deployment.to_owned());
        let request = wire::DescribeWorkerDeploymentRequest { namespace, deployment_name };
        let answer = self.client.clone().describe_worker_deployment(timed(request, CALL_LIMIT)).await?.into_inner();
        let versions = answer.worker_deployment_info.context("no description")?.version_summaries;
        let build_ids = versions.into_iter().filter_map(|version| version.deployment_version);
        Ok(build_ids.map(|version| version.build_id).collect())
    }

    /// Sends a request that was printed in the JSON form of its message: the first scaling group of it.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn set_compute_config(&self, request: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let group = &request["computeConfigScalingGroups"]["push"]["scalingGroup"];
        let scaling_group = ComputeConfigScalingGroup {
            provider: Some(ComputeProvider {
                r#type: text(&group["provider"]["type"]),
                details: Some(payload(&group["provider"]["details"])?),
                ..Default::default()
            }),
            scaler: Some(ComputeScaler {
                r#type: text(&group["scaler"]["type"]),
                details: Some(payload(&group["scaler"]["details"])?),
            }),
            ..Default::default()
        };
        let mut update = ComputeConfigScalingGroupUpdate { scaling_group: Some(scaling_group), ..Default::default() };
        let mask = text(&request["computeConfigScalingGroups"]["push"]["updateMask"]);
        update.update_mask.get_or_insert_default().paths = mask.split(',').map(str::to_owned).collect();
        let version = &request["deploymentVersion"];
        let request = wire::UpdateWorkerDeploymentVersionComputeConfigRequest {
            namespace: text(&request["namespace"]),
            deployment_version: Some(WorkerDeploymentVersion {
                deployment_name: text(&version["deploymentName"]),
                build_id: text(&version["buildId"]),
            }),
            compute_config_scaling_groups: [("push".to_owned(), update)].into(),
            request_id: text(&request["requestId"]),
            ..Default::default()
        };
        let call =
            self.client.clone().update_worker_deployment_version_compute_config(timed(request, CALL_LIMIT)).await;
        call.context("set the compute provider").map(|_| ())
    }

    /// Starts a Workflow; says when the server accepted it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn start_workflow(&self) -> Result<Timestamp> {
        let workflow_id = format!("{}-{:08x}", self.task_queue, rand::random::<u32>());
        let request = wire::StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_id: workflow_id.clone(),
            request_id: workflow_id.clone(),
            workflow_type: Some(WorkflowType { name: "Played".into() }),
            task_queue: Some(queue(&self.task_queue)),
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(timed(request, CALL_LIMIT)).await.context("start a Workflow")?;
        let execution = Some(WorkflowExecution { workflow_id, run_id: String::new() });
        let request = wire::DescribeWorkflowExecutionRequest { namespace: self.namespace.clone(), execution };
        let answer = self.client.clone().describe_workflow_execution(timed(request, CALL_LIMIT)).await?.into_inner();
        let start = answer.workflow_execution_info.and_then(|info| info.start_time).context("no start time")?;
        Ok(Timestamp::new(start.seconds, start.nanos)?)
    }

    /// Takes the waiting Workflow task and completes the Workflow.
    ///
    /// # Errors
    /// None waits.
    pub async fn complete_workflow(&self) -> Result<()> {
        let complete = CompleteWorkflowExecutionCommandAttributes { result: None };
        let attributes = Attributes::CompleteWorkflowExecutionCommandAttributes(complete);
        self.end_workflow(CommandType::CompleteWorkflowExecution, attributes).await
    }

    /// Takes the waiting Workflow task and fails the Workflow.
    ///
    /// # Errors
    /// None waits.
    pub async fn fail_workflow(&self, message: &str) -> Result<()> {
        let failure = Some(Failure { message: message.to_owned(), ..Failure::default() });
        let attributes =
            Attributes::FailWorkflowExecutionCommandAttributes(FailWorkflowExecutionCommandAttributes { failure });
        self.end_workflow(CommandType::FailWorkflowExecution, attributes).await
    }

    async fn end_workflow(&self, command: CommandType, attributes: Attributes) -> Result<()> {
        let task = self.poll(CALL_LIMIT).await?;
        ensure!(!task.task_token.is_empty(), "no Workflow task waits");
        let request = wire::RespondWorkflowTaskCompletedRequest {
            namespace: self.namespace.clone(),
            identity: IDENTITY.into(),
            task_token: task.task_token,
            commands: vec![Command {
                command_type: command.into(),
                attributes: Some(attributes),
                ..Default::default()
            }],
            versioning_behavior: VersioningBehavior::AutoUpgrade.into(),
            deployment_options: Some(self.options()),
            ..Default::default()
        };
        self.client.clone().respond_workflow_task_completed(timed(request, CALL_LIMIT)).await?;
        Ok(())
    }

    async fn poll(&self, limit: Duration) -> Result<wire::PollWorkflowTaskQueueResponse> {
        let request = wire::PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            identity: IDENTITY.into(),
            task_queue: Some(queue(&self.task_queue)),
            deployment_options: Some(self.options()),
            ..Default::default()
        };
        Ok(self.client.clone().poll_workflow_task_queue(timed(request, limit)).await?.into_inner())
    }

    fn options(&self) -> WorkerDeploymentOptions {
        let WorkerDeploymentVersion { deployment_name, build_id } = self.version.lock().clone();
        WorkerDeploymentOptions {
            deployment_name,
            build_id,
            worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
        }
    }
}

/// Makes an identity the manager of a Worker Deployment, as whoever has it does, or takes the manager away where it is empty.
///
/// # Errors
/// The server refuses.
pub async fn set_manager(host_port: &str, namespace: &str, deployment: &str, manager: &str) -> Result<()> {
    let identity = if manager.is_empty() { IDENTITY } else { manager };
    let request = wire::SetWorkerDeploymentManagerRequest {
        namespace: namespace.into(),
        deployment_name: deployment.into(),
        identity: identity.into(),
        new_manager_identity: Some(NewManagerIdentity::ManagerIdentity(manager.into())),
        ..Default::default()
    };
    let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
    let client = WorkflowServiceClient::new(endpoint.connect_lazy());
    let set = async || client.clone().set_worker_deployment_manager(timed(request.clone(), CALL_LIMIT)).await;
    patiently(set).await.with_context(|| format!("make {manager:?} the manager"))?;
    Ok(())
}

/// Makes a call that may be made twice, again where the server had no time for it: it serves a Worker Deployment one call after
/// another.
///
/// # Errors
/// The last answer, or one of another kind.
pub async fn patiently<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<T, Status> {
    for _ in 1..TRIES {
        match call().await {
            Err(status) if [Code::ResourceExhausted, Code::DeadlineExceeded].contains(&status.code()) => {
                tokio::time::sleep(BUSY).await;
            }
            answer => return answer.map(Response::into_inner),
        }
    }
    call().await.map(Response::into_inner)
}

/// Gives the traffic of a Worker Deployment to Workers without Worker Versioning, as a user does who took it from its manager.
///
/// # Errors
/// The server refuses, as it does while such Workers don't poll all of its Task Queues.
pub async fn hand_back(host_port: &str, namespace: &str, deployment: &str) -> Result<()> {
    set_manager(host_port, namespace, deployment, "").await?;
    let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
    let mut client = WorkflowServiceClient::new(endpoint.connect_lazy());
    let request = wire::SetWorkerDeploymentCurrentVersionRequest {
        namespace: namespace.into(),
        deployment_name: deployment.into(),
        identity: IDENTITY.into(),
        ..Default::default()
    };
    client.set_worker_deployment_current_version(timed(request, CALL_LIMIT)).await.context("set no version current")?;
    Ok(())
}

/// Bytes are base64 in the JSON form of a message.
fn payload(value: &Value) -> Result<Payload> {
    let bytes = |value: &Value| serde_json::from_value::<ByteString>(value.clone()).map(|bytes| bytes.0);
    let metadata = [("encoding".to_owned(), bytes(&value["metadata"]["encoding"])?)].into();
    Ok(Payload { metadata, data: bytes(&value["data"])?, ..Default::default() })
}
