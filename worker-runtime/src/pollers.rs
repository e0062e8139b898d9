//! Whether the server lists this process among the pollers of a Task Queue.

use std::time::Duration;

use temporalio_client::Connection;
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeTaskQueueRequest;
use tonic::{Code, Request};

use crate::settings::Settings;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until the server lists a poll of this process on a Task Queue. A server that does not let this process ask is
/// taken at its word that it let it connect.
pub async fn registered(connection: &Connection, settings: &Settings, task_queue: &str, kind: TaskQueueType) {
    let waits = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    for wait in backon::BackoffBuilder::build(waits) {
        match tokio::time::timeout(CALL_TIMEOUT, listed(connection, settings, task_queue, kind)).await {
            Ok(Ok(true)) => return,
            Ok(Err(Code::PermissionDenied | Code::Unimplemented)) => {
                tracing::info!(task_queue, "may not ask for the pollers of this Task Queue; ready without");
                return;
            }
            Ok(Ok(false) | Err(_)) | Err(_) => tokio::time::sleep(wait).await,
        }
    }
}

async fn listed(
    connection: &Connection,
    settings: &Settings,
    task_queue: &str,
    kind: TaskQueueType,
) -> Result<bool, Code> {
    let request = DescribeTaskQueueRequest {
        namespace: settings.namespace.clone(),
        task_queue: Some(TaskQueue { name: task_queue.to_owned(), ..Default::default() }),
        task_queue_type: kind.into(),
        ..Default::default()
    };
    let answer = connection.workflow_service().describe_task_queue(Request::new(request)).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.pollers.iter().any(|poller| poller.identity == settings.identity))
}
