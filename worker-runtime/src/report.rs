//! Tells the server how an activity ended, and keeps trying while the server is away.
//!
//! Core gives up on a result after ten seconds without the server, and the task would run a second time once it times
//! out. So results are reported here, for as long as the server may want them, and core is told afterwards.

use std::time::Duration;

use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads};
use temporalio_common::protos::temporal::api::deployment::v1::WorkerDeploymentOptions;
use temporalio_common::protos::temporal::api::enums::v1::{ApplicationErrorCategory, WorkerVersioningMode};
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    RespondActivityTaskCanceledRequest, RespondActivityTaskCompletedRequest, RespondActivityTaskFailedRequest,
};
use tonic::{Code, Request, Status};

use crate::codec::CodecError;
use crate::encryption::Encryption;
use crate::link::Link;
use crate::settings::Settings;

/// Time of one call. A call on a connection that died in silence ends with it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait between two calls.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The shortest delay of a retry.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How an activity ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result.
    Completed(Payload),
    /// With a failure.
    Failed(Box<Failed>),
    /// As somebody asked for.
    Cancelled,
    /// The server no longer waits for it; nothing is reported.
    Forgotten,
}

/// A failure of an activity.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Closed set of words: the `reason` of the metric, and the failure's type unless the handler chose one.
    pub reason: &'static str,
    /// What happened, and what to do.
    pub message: String,
    /// What the server makes of it.
    pub terms: Terms,
}

/// What the server makes of a failure. By default it retries by the activity's policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Type that a retry policy can name; the reason if there is none.
    pub failure_type: Option<String>,
    /// Whether the server must not retry.
    pub non_retryable: bool,
    /// When it retries, in place of the policy's time.
    pub next_retry_delay: Option<Duration>,
    /// Values for the caller.
    pub details: Vec<Payload>,
    /// Whether it is a usual thing that nobody has to be told of.
    pub benign: bool,
    /// Where it happened, in the words of the handler's language.
    pub stack_trace: String,
}

impl Outcome {
    /// Value of the `outcome` label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Reports the ends of activities.
#[derive(Clone)]
pub struct Reporter {
    link: Link,
    namespace: String,
    identity: String,
    deployment: Option<WorkerDeploymentOptions>,
    encryption: Encryption,
}

impl Reporter {
    /// Reports as the Worker that `settings` describe.
    pub fn new(link: Link, settings: &Settings, encryption: Encryption) -> Self {
        let deployment = settings.version.as_ref().map(|version| WorkerDeploymentOptions {
            deployment_name: version.deployment.clone(),
            build_id: version.build_id.clone(),
            worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
        });
        let (namespace, identity) = (settings.namespace.clone(), settings.identity.clone());
        Self { link, namespace, identity, deployment, encryption }
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
        let mut service = self.link.connection().workflow_service();
        let (task_token, identity) = (task_token.to_vec(), self.identity.clone());
        let (namespace, deployment_options) = (self.namespace.clone(), self.deployment.clone());
        match outcome {
            Outcome::Completed(payload) => {
                let payloads = self.encryption.seal(vec![payload.clone()]).map_err(not_sealed)?;
                let result = Some(Payloads { payloads });
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
            Outcome::Failed(failed) => {
                let failure = Some(self.encryption.seal_failure(failure(failed)).map_err(not_sealed)?);
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

/// What can't be encrypted is not sent: the next try may find a key.
fn not_sealed(error: CodecError) -> Status {
    Status::internal(error.to_string())
}

fn failure(failed: &Failed) -> Failure {
    let Failed { reason, message, terms } = failed;
    let category = if terms.benign { ApplicationErrorCategory::Benign } else { ApplicationErrorCategory::Unspecified };
    let info = ApplicationFailureInfo {
        r#type: terms.failure_type.clone().unwrap_or_else(|| (*reason).to_owned()),
        non_retryable: terms.non_retryable,
        details: (!terms.details.is_empty()).then(|| Payloads { payloads: terms.details.clone() }),
        // The server takes zero for none.
        next_retry_delay: terms.next_retry_delay.and_then(|delay| delay.max(AT_ONCE).try_into().ok()),
        category: category.into(),
    };
    Failure {
        message: message.clone(),
        source: "worker-runtime".to_owned(),
        stack_trace: terms.stack_trace.clone(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(terms: Terms) -> (Failure, ApplicationFailureInfo) {
        let failed = Failed { reason: "HandlerFailed", message: "handler \"x\" exited with code 1".into(), terms };
        let failure = failure(&failed);
        let Some(FailureInfo::ApplicationFailureInfo(info)) = failure.failure_info.clone() else {
            panic!("{failure:?}")
        };
        (failure, info)
    }

    #[test]
    fn failures_are_retryable_and_typed_by_their_reason() {
        let (_, info) = told(Terms::default());
        assert_eq!((info.r#type.as_str(), info.non_retryable, &info.details), ("HandlerFailed", false, &None));
        assert_eq!(info.category(), ApplicationErrorCategory::Unspecified);
    }

    #[test]
    fn what_a_handler_chose_reaches_the_server() {
        let (failure, info) = told(Terms {
            failure_type: Some("Declined".into()),
            non_retryable: true,
            next_retry_delay: Some(Duration::from_millis(2500)),
            details: vec![Payload::default()],
            benign: true,
            stack_trace: "at line 1".into(),
        });
        assert_eq!((info.r#type.as_str(), info.non_retryable), ("Declined", true));
        let delay = info.next_retry_delay.as_ref().unwrap();
        assert_eq!((delay.seconds, delay.nanos), (2, 500_000_000));
        assert_eq!(info.details.as_ref().map(|details| details.payloads.len()), Some(1));
        assert_eq!((info.category(), failure.stack_trace.as_str()), (ApplicationErrorCategory::Benign, "at line 1"));
    }
}
