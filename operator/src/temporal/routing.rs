//! Changes of the routing. A reconcile waits for these; they follow from what was read before.

use operator_core::observed::TemporalFailure;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use tokio::time::Instant;

use super::api::{self, DEADLINE};
use super::budget::Kind;
use super::connection::Connection;

/// A change of the routing, and the reading that it follows from.
#[derive(Clone, Copy, Debug)]
pub struct Routing<'a> {
    /// Temporal namespace.
    pub namespace: &'a str,
    /// Name of the Worker Deployment.
    pub deployment: &'a str,
    /// Build ID of the version that is to be current.
    pub build_id: &'a str,
    /// From the reading that the change follows from. The server refuses the change when it is out of date.
    pub conflict_token: &'a [u8],
    /// Who changes it.
    pub identity: &'a str,
}

/// Makes a version the current one. The server refuses while the version has no pollers, or lacks a Task Queue that the
/// present current version has: neither check is ever waived. Setting what is set already does nothing.
///
/// # Errors
/// [`FailedPrecondition`](operator_core::observed::FailureClass::FailedPrecondition) when the routing changed meanwhile,
/// another identity manages it, or the version is not ready.
pub async fn set_current(connection: &Connection, routing: Routing<'_>) -> Result<(), TemporalFailure> {
    let message = wire::SetWorkerDeploymentCurrentVersionRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        build_id: routing.build_id.to_owned(),
        conflict_token: routing.conflict_token.to_vec(),
        identity: routing.identity.to_owned(),
        ..Default::default()
    };
    let budget = connection.budget(routing.namespace);
    budget.take(Kind::Routing, Instant::now() + DEADLINE).await.map_err(|error| error.failure)?;
    let answer = api::set_current(connection, message).await;
    match &answer {
        Ok(()) => budget.answered(Kind::Routing),
        Err(error) if error.code == tonic::Code::ResourceExhausted => {
            budget.exhausted(Kind::Routing, error.refusal, Instant::now());
        }
        Err(_) => {}
    }
    answer.map_err(|error| error.failure)
}
