//! Tells the server how an activity ended, and keeps trying while the server is away.
//!
//! Core gives up on a result after ten seconds without the server, and the task would run a second time once it times
//! out. So results are reported here, for as long as the server may want them, and core is told afterwards.

use std::time::Duration;

use temporalio_client::Connection;
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads};
use temporalio_common::protos::temporal::api::deployment::v1::WorkerDeploymentOptions;
use temporalio_common::protos::temporal::api::enums::v1::WorkerVersioningMode;
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    RespondActivityTaskCanceledRequest, RespondActivityTaskCompletedRequest, RespondActivityTaskFailedRequest,
};
use tonic::{Code, Request, Status};

use crate::settings::Settings;

/// Time of one call. A call on a connection that died in silence ends with it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait between two calls.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How an activity ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result.
    Completed(Payload),
    /// With a failure that the server retries by the activity's policy.
    Failed {
        /// Closed set of words: the failure's type, and the `reason` of the metric.
        reason: &'static str,
        /// What happened, and what to do.
        message: String,
    },
    /// As somebody asked for.
    Cancelled,
    /// The server no longer waits for it; nothing is reported.
    Forgotten,
}

impl Outcome {
    /// Value of the `outcome` label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Reports the ends of activities.
#[derive(Clone)]
pub struct Reporter {
    connection: Connection,
    namespace: String,
    identity: String,
    deployment: Option<WorkerDeploymentOptions>,
}

impl Reporter {
    /// Reports as the Worker that `settings` describe.
    pub fn new(connection: Connection, settings: &Settings) -> Self {
        let deployment = settings.version.as_ref().map(|version| WorkerDeploymentOptions {
            deployment_name: version.deployment.clone(),
            build_id: version.build_id.clone(),
            worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
        });
        let (namespace, identity) = (settings.namespace.clone(), settings.identity.clone());
        Self { connection, namespace, identity, deployment }
    }

    /// Reports until the server has it or says that it no longer wants it. Drop the future to give up.
    pub async fn report(&self, task_token: &[u8], outcome: &Outcome) {
        let mut waits = backon::BackoffBuilder::build(
            backon::ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(MAX_WAIT)
                .with_jitter()
                .without_max_times(),
        );
        loop {
            let call = tokio::time::timeout(CALL_TIMEOUT, self.call(task_token, outcome));
            let status = match call.await {
                Ok(Ok(())) => return,
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            match status.code() {
                // It timed out meanwhile, or its Workflow ended: the server's history says why.
                Code::NotFound => {
                    tracing::info!(outcome = outcome.label(), "the server no longer waits for this activity");
                    return;
                }
                Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
                    tracing::error!(outcome = outcome.label(), code = ?status.code(), message = status.message(),
                        "the server refuses the end of an activity; it will time out");
                    return;
                }
                code => tracing::warn!(
                    outcome = outcome.label(),
                    ?code,
                    message = status.message(),
                    "cannot report the end of an activity; trying again"
                ),
            }
            tokio::time::sleep(waits.next().unwrap_or(MAX_WAIT)).await;
        }
    }

    async fn call(&self, task_token: &[u8], outcome: &Outcome) -> Result<(), Status> {
        let mut service = self.connection.workflow_service();
        let (task_token, identity) = (task_token.to_vec(), self.identity.clone());
        let (namespace, deployment_options) = (self.namespace.clone(), self.deployment.clone());
        match outcome {
            Outcome::Completed(payload) => {
                let result = Some(Payloads { payloads: vec![payload.clone()] });
                let request = RespondActivityTaskCompletedRequest {
                    task_token,
                    result,
                    identity,
                    namespace,
                    deployment_options,
                    ..Default::default()
                };
                service.respond_activity_task_completed(Request::new(request)).await.map(drop)
            }
            Outcome::Failed { reason, message } => {
                let failure = Some(failure(reason, message));
                let request = RespondActivityTaskFailedRequest {
                    task_token,
                    failure,
                    identity,
                    namespace,
                    deployment_options,
                    ..Default::default()
                };
                service.respond_activity_task_failed(Request::new(request)).await.map(drop)
            }
            Outcome::Cancelled => {
                let request = RespondActivityTaskCanceledRequest {
                    task_token,
                    identity,
                    namespace,
                    deployment_options,
                    ..Default::default()
                };
                service.respond_activity_task_canceled(Request::new(request)).await.map(drop)
            }
            Outcome::Forgotten => Ok(()),
        }
    }
}

fn failure(reason: &str, message: &str) -> Failure {
    let info = ApplicationFailureInfo { r#type: reason.to_owned(), ..Default::default() };
    Failure {
        message: message.to_owned(),
        source: "worker-runtime".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retryable_and_typed() {
        let failure = failure("HandlerFailed", "handler \"x\" exited with code 1");
        let Some(FailureInfo::ApplicationFailureInfo(info)) = failure.failure_info else { panic!("{failure:?}") };
        assert_eq!((info.r#type.as_str(), info.non_retryable), ("HandlerFailed", false));
    }
}
