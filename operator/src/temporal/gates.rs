//! Test Workflows of gates: they are started by a reconcile, and read by the poller.

use std::time::Duration;

use operator_core::observed::{FailureClass, TemporalFailure, TestRun, TestStatus};
use temporalio_protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_protos::temporal::api::enums::v1::{
    HistoryEventFilterType, WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use temporalio_protos::temporal::api::failure::v1::Failure;
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_protos::temporal::api::workflow::v1::VersioningOverride;
use temporalio_protos::temporal::api::workflow::v1::versioning_override::{
    Override, PinnedOverride, PinnedOverrideBehavior,
};
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use tokio::time::Instant;
use tonic::Code;

use super::api::{self, DEADLINE, Method};
use super::budget::Kind;
use super::connection::Connection;
use super::errors::CallError;

/// Time that a test Workflow gets.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(3600);
/// Causes of a failure that are read.
const CAUSES: usize = 5;

/// A test Workflow to start. No `Debug`: its argument may be a Secret's.
#[derive(Clone, Copy)]
pub struct TestStart<'a> {
    /// Temporal namespace.
    pub namespace: &'a str,
    /// Name of the Worker Deployment.
    pub deployment: &'a str,
    /// Version that it is pinned to.
    pub build_id: &'a str,
    /// Its Workflow ID. One that exists is left as it is, whatever became of it.
    pub workflow_id: &'a str,
    /// Its Workflow Type.
    pub workflow_type: &'a str,
    /// Its Task Queue.
    pub task_queue: &'a str,
    /// JSON text of its only argument, if it has one.
    pub argument: Option<&'a [u8]>,
    /// Who starts it.
    pub identity: &'a str,
}

/// Starts a test Workflow, and gives its run ID; none when there was one of its ID.
///
/// # Errors
/// The server refused, or could not be asked.
pub async fn start(connection: &Connection, test: TestStart<'_>) -> Result<Option<String>, TemporalFailure> {
    let message = wire::StartWorkflowExecutionRequest {
        namespace: test.namespace.to_owned(),
        workflow_id: test.workflow_id.to_owned(),
        // The same for each try: a reply that was lost makes no second Workflow.
        request_id: test.workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: test.workflow_type.to_owned() }),
        task_queue: Some(api::task_queue(test.task_queue.to_owned())),
        input: test.argument.map(|json| Payloads { payloads: vec![json_payload(json)] }),
        workflow_execution_timeout: EXECUTION_TIMEOUT.try_into().ok(),
        identity: test.identity.to_owned(),
        workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate.into(),
        workflow_id_conflict_policy: WorkflowIdConflictPolicy::Fail.into(),
        versioning_override: Some(pinned(test.deployment, test.build_id)),
        ..Default::default()
    };
    let budget = connection.budget(test.namespace);
    budget.take(Kind::Queue, Instant::now() + DEADLINE).await.map_err(|error| error.failure)?;
    let method = Method::StartWorkflowExecution;
    let answer = api::call(connection, method, test.namespace, message, async |mut client, request| {
        client.start_workflow_execution(request).await
    });
    match answer.await {
        Ok(started) => {
            budget.answered(Kind::Queue);
            Ok(Some(started.run_id))
        }
        Err(error) if error.code == Code::AlreadyExists => Ok(None),
        Err(error) => {
            if error.failure.class == FailureClass::ResourceExhausted {
                budget.exhausted(Kind::Queue, error.refusal, Instant::now());
            }
            Err(error.failure)
        }
    }
}

fn json_payload(json: &[u8]) -> Payload {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Payload { metadata, data: json.to_vec(), ..Default::default() }
}

fn pinned(deployment: &str, build_id: &str) -> VersioningOverride {
    let version = WorkerDeploymentVersion { deployment_name: deployment.to_owned(), build_id: build_id.to_owned() };
    let pinned = PinnedOverride { behavior: PinnedOverrideBehavior::Pinned.into(), version: Some(version) };
    VersioningOverride { r#override: Some(Override::Pinned(pinned)), ..Default::default() }
}

/// The last run of a Workflow; `None` when the server has none of that ID.
pub(super) async fn read(
    connection: &Connection,
    namespace: &str,
    workflow_id: &str,
) -> Result<Option<TestRun>, CallError> {
    let execution = WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() };
    let message =
        wire::DescribeWorkflowExecutionRequest { namespace: namespace.to_owned(), execution: Some(execution) };
    let method = Method::DescribeWorkflowExecution;
    let answer = api::call(connection, method, namespace, message, async |mut client, request| {
        client.describe_workflow_execution(request).await
    });
    let Some(answer) = api::found(answer.await)? else { return Ok(None) };
    let Some(info) = answer.workflow_execution_info else {
        return Err(CallError::local(FailureClass::Other, "DescribeWorkflowExecution answered without a Workflow"));
    };
    let status = status(info.status());
    let execution = info.execution.unwrap_or_default();
    let failure = if status.is_failure() { failure(connection, namespace, &execution).await? } else { None };
    Ok(Some(TestRun { run_id: execution.run_id, status, failure }))
}

/// A run that was continued as new, or holds still, goes on.
fn status(status: WorkflowExecutionStatus) -> TestStatus {
    match status {
        WorkflowExecutionStatus::Completed => TestStatus::Completed,
        WorkflowExecutionStatus::Failed => TestStatus::Failed,
        WorkflowExecutionStatus::Canceled => TestStatus::Canceled,
        WorkflowExecutionStatus::Terminated => TestStatus::Terminated,
        WorkflowExecutionStatus::TimedOut => TestStatus::TimedOut,
        _ => TestStatus::Running,
    }
}

/// What the last event of a Workflow says of its failure; nothing to an identity that may not read it.
async fn failure(
    connection: &Connection,
    namespace: &str,
    execution: &WorkflowExecution,
) -> Result<Option<String>, CallError> {
    let message = wire::GetWorkflowExecutionHistoryRequest {
        namespace: namespace.to_owned(),
        execution: Some(execution.clone()),
        maximum_page_size: 1,
        history_event_filter_type: HistoryEventFilterType::CloseEvent.into(),
        ..Default::default()
    };
    let method = Method::GetWorkflowExecutionHistory;
    let answer = api::call(connection, method, namespace, message, async |mut client, request| {
        client.get_workflow_execution_history(request).await
    });
    match answer.await {
        Ok(answer) => Ok(answer.history.and_then(|history| history.events.last().and_then(said))),
        Err(error) if error.unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

fn said(event: &HistoryEvent) -> Option<String> {
    let text = match event.attributes.as_ref()? {
        Attributes::WorkflowExecutionFailedEventAttributes(failed) => messages(failed.failure.as_ref()?),
        Attributes::WorkflowExecutionTerminatedEventAttributes(terminated) => terminated.reason.clone(),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The message of a failure, and those of its causes that say more.
fn messages(failure: &Failure) -> String {
    let mut said: Vec<&str> = Vec::new();
    for one in std::iter::successors(Some(failure), |failure| failure.cause.as_deref()).take(CAUSES) {
        if !one.message.is_empty() && !said.iter().any(|before| before.contains(&one.message)) {
            said.push(&one.message);
        }
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_causes_once_each_and_no_deeper_than_five() {
        let mut failure = Failure::default();
        for depth in (0..9).rev() {
            let message = ["activity error", "", "activity error", "disk full"].get(depth).copied().unwrap_or("deep");
            let cause = Some(Box::new(failure)).filter(|_| depth < 8);
            failure = Failure { message: message.into(), cause, ..Failure::default() };
        }
        assert_eq!(messages(&failure), "activity error: disk full: deep");
        assert_eq!(messages(&Failure::default()), "");
    }

    #[test]
    fn what_is_neither_a_success_nor_a_failure_goes_on() {
        for going in [WorkflowExecutionStatus::ContinuedAsNew, WorkflowExecutionStatus::Unspecified] {
            assert_eq!(status(going), TestStatus::Running);
        }
    }
}
