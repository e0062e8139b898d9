//! What the server's index of Workflows tells: many things by one call, a moment after they happened.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;

use super::api::{Method, call};
use super::connection::Connection;
use super::errors::CallError;
use super::readings::{current_build_id, ramp, time};

/// Worker Deployments that a list asks for: as many as the server gives out at once.
const LIST_PAGE: i32 = 1000;
/// Age up to which a started Workflow is news; more than the operator's clock and the server's are apart.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// Workflows that a list of new ones asks for.
const STARTS_PAGE: i32 = 200;

/// Build ID of the current version by the name of the Worker Deployment: those whose current version has all of the traffic.
pub type Settled = BTreeMap<String, String>;

/// Lists Worker Deployments, one page of them: one that is missing may be there all the same. The server's list follows what
/// happens after a moment.
pub async fn settled_deployments(connection: &Connection, namespace: &str) -> Result<Settled, CallError> {
    let message = wire::ListWorkerDeploymentsRequest {
        namespace: namespace.to_owned(),
        page_size: LIST_PAGE,
        ..Default::default()
    };
    let answer = call(connection, Method::ListWorkerDeployments, namespace, message, async |mut client, request| {
        client.list_worker_deployments(request).await
    });
    let settled = |deployment: wire::list_worker_deployments_response::WorkerDeploymentSummary| {
        let routing = deployment.routing_config?;
        let current = current_build_id(&routing).filter(|_| ramp(&routing).is_none());
        Some((deployment.name, current?))
    };
    Ok(answer.await?.worker_deployments.into_iter().filter_map(settled).collect())
}

/// When the newest open Workflow was started, by Task Queue, of those that were started within a minute; of these queues alone.
/// Where more were started than are told at once, some queues are missing.
pub async fn starts(
    connection: &Connection,
    namespace: &str,
    queues: &[String],
) -> Result<BTreeMap<String, Timestamp>, CallError> {
    let names = queues.iter().map(|queue| format!("'{queue}'")).collect::<Vec<_>>().join(",");
    let since = Timestamp::now() - STARTED_WITHIN;
    let message = wire::ListWorkflowExecutionsRequest {
        namespace: namespace.to_owned(),
        page_size: STARTS_PAGE,
        query: format!("ExecutionStatus = 'Running' AND StartTime > '{since}' AND TaskQueue IN ({names})"),
        ..Default::default()
    };
    let answer = call(connection, Method::ListWorkflowExecutions, namespace, message, async |mut client, request| {
        client.list_workflow_executions(request).await
    });
    let mut newest = BTreeMap::new();
    for execution in answer.await?.executions {
        let Some(at) = execution.start_time.and_then(time) else { continue };
        let known = newest.entry(execution.task_queue).or_insert(at);
        *known = at.max(*known);
    }
    Ok(newest)
}
