//! Changes of the routing. A reconcile waits for these; they follow from what was read before.

use std::collections::HashMap;

use operator_core::names;
use operator_core::observed::TemporalFailure;
use temporalio_protos::temporal::api::common::v1::Payload;
use temporalio_protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::set_worker_deployment_manager_request::NewManagerIdentity;
use tokio::time::Instant;

use super::api::{self, DEADLINE, Method};
use super::budget::Kind;
use super::connection::Connection;
use super::errors::CallError;

/// The Worker Deployment whose routing is changed, and the reading that the change follows from.
#[derive(Clone, Copy, Debug)]
pub struct Routing<'a> {
    /// Temporal namespace.
    pub namespace: &'a str,
    /// Name of the Worker Deployment.
    pub deployment: &'a str,
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
pub async fn set_current(connection: &Connection, routing: Routing<'_>, build_id: &str) -> Result<(), TemporalFailure> {
    let message = wire::SetWorkerDeploymentCurrentVersionRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        build_id: build_id.to_owned(),
        conflict_token: routing.conflict_token.to_vec(),
        identity: routing.identity.to_owned(),
        ..Default::default()
    };
    let method = Method::SetWorkerDeploymentCurrentVersion;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.set_worker_deployment_current_version(request).await
    });
    within_budget(connection, routing.namespace, call).await.map(drop)
}

/// Gives a version a share of new Workflows, in percent. With no Build ID and 0 % nobody has a share any more. The server
/// checks what it checks of [`set_current`].
///
/// # Errors
/// As [`set_current`].
pub async fn set_ramping(
    connection: &Connection,
    routing: Routing<'_>,
    (build_id, percent): (&str, u8),
) -> Result<(), TemporalFailure> {
    let message = wire::SetWorkerDeploymentRampingVersionRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        build_id: build_id.to_owned(),
        percentage: f32::from(percent),
        conflict_token: routing.conflict_token.to_vec(),
        identity: routing.identity.to_owned(),
        ..Default::default()
    };
    let method = Method::SetWorkerDeploymentRampingVersion;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.set_worker_deployment_ramping_version(request).await
    });
    within_budget(connection, routing.namespace, call).await.map(drop)
}

/// Makes the caller the manager: only its identity may change the routing then. Gives the token for the next change.
///
/// # Errors
/// As [`set_current`].
pub async fn claim_manager(connection: &Connection, routing: Routing<'_>) -> Result<Vec<u8>, TemporalFailure> {
    let message = wire::SetWorkerDeploymentManagerRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        new_manager_identity: Some(NewManagerIdentity::ManagerIdentity(routing.identity.to_owned())),
        conflict_token: routing.conflict_token.to_vec(),
        identity: routing.identity.to_owned(),
    };
    let method = Method::SetWorkerDeploymentManager;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.set_worker_deployment_manager(request).await
    });
    within_budget(connection, routing.namespace, call).await.map(|answer| answer.conflict_token)
}

/// Notes on a version who routes it, among what others note there. It needs no token, and makes none out of date.
///
/// # Errors
/// The server could not be asked, or refused.
pub async fn note_controller(
    connection: &Connection,
    routing: Routing<'_>,
    build_id: &str,
    controller_version: &str,
) -> Result<(), TemporalFailure> {
    let entry = |key: &str, text: &str| (key.to_owned(), json(text));
    let message = wire::UpdateWorkerDeploymentVersionMetadataRequest {
        namespace: routing.namespace.to_owned(),
        deployment_version: Some(version(routing, build_id)),
        upsert_entries: HashMap::from([
            entry(names::CONTROLLER_METADATA, routing.identity),
            entry(names::CONTROLLER_VERSION_METADATA, controller_version),
        ]),
        identity: routing.identity.to_owned(),
        ..Default::default()
    };
    let method = Method::UpdateWorkerDeploymentVersionMetadata;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.update_worker_deployment_version_metadata(request).await
    });
    within_budget(connection, routing.namespace, call).await.map(drop)
}

/// A text as the SDKs' default converter writes it.
fn json(text: &str) -> Payload {
    let metadata = HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]);
    Payload { metadata, data: serde_json::Value::from(text).to_string().into_bytes(), ..Payload::default() }
}

fn version(routing: Routing<'_>, build_id: &str) -> WorkerDeploymentVersion {
    WorkerDeploymentVersion { deployment_name: routing.deployment.to_owned(), build_id: build_id.to_owned() }
}

/// Whether a version must have no open Workflows that are pinned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// It must.
    Surely,
    /// It may have some: the fleet goes as a whole.
    OrNot,
}

/// Lets unversioned Workers have the traffic, though they may poll none of the Task Queues: for a fleet that goes as a whole.
///
/// # Errors
/// As [`set_current`].
pub async fn clear_current(connection: &Connection, routing: Routing<'_>) -> Result<(), TemporalFailure> {
    let message = wire::SetWorkerDeploymentCurrentVersionRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        conflict_token: routing.conflict_token.to_vec(),
        identity: routing.identity.to_owned(),
        ignore_missing_task_queues: true,
        ..Default::default()
    };
    let method = Method::SetWorkerDeploymentCurrentVersion;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.set_worker_deployment_current_version(request).await
    });
    within_budget(connection, routing.namespace, call).await.map(drop)
}

/// Deletes the server's record of a Worker Deployment without versions. One that is gone is no error.
///
/// # Errors
/// As [`delete_version`].
pub async fn delete_deployment(connection: &Connection, routing: Routing<'_>) -> Result<(), TemporalFailure> {
    let message = wire::DeleteWorkerDeploymentRequest {
        namespace: routing.namespace.to_owned(),
        deployment_name: routing.deployment.to_owned(),
        identity: routing.identity.to_owned(),
    };
    let method = Method::DeleteWorkerDeployment;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.delete_worker_deployment(request).await
    });
    within_budget(connection, routing.namespace, async { api::found(call.await) }).await.map(drop)
}

/// Deletes the server's record of a version. The server refuses while the version has traffic, or pollers within the last five
/// minutes, and with [`Drained::Surely`] while Workflows that are pinned to it are open. A version without a record is no error.
///
/// # Errors
/// [`FailedPrecondition`](operator_core::observed::FailureClass::FailedPrecondition) when the server refuses.
pub async fn delete_version(
    connection: &Connection,
    routing: Routing<'_>,
    build_id: &str,
    drained: Drained,
) -> Result<(), TemporalFailure> {
    let message = wire::DeleteWorkerDeploymentVersionRequest {
        namespace: routing.namespace.to_owned(),
        deployment_version: Some(version(routing, build_id)),
        skip_drainage: drained == Drained::OrNot,
        identity: routing.identity.to_owned(),
        ..Default::default()
    };
    let method = Method::DeleteWorkerDeploymentVersion;
    let call = api::call(connection, method, routing.namespace, message, async |mut client, request| {
        client.delete_worker_deployment_version(request).await
    });
    within_budget(connection, routing.namespace, async { api::found(call.await) }).await.map(drop)
}

/// Makes a call that takes a token of the budget for changes, and lets the budget know what came of it.
async fn within_budget<R>(
    connection: &Connection,
    namespace: &str,
    call: impl Future<Output = Result<R, CallError>>,
) -> Result<R, TemporalFailure> {
    let budget = connection.budget(namespace);
    budget.take(Kind::Routing, Instant::now() + DEADLINE).await.map_err(|error| error.failure)?;
    let answer = call.await;
    match &answer {
        Ok(_) => budget.answered(Kind::Routing),
        Err(error) if error.code == tonic::Code::ResourceExhausted => {
            budget.exhausted(Kind::Routing, error.refusal, Instant::now());
        }
        Err(_) => {}
    }
    answer.map_err(|error| error.failure)
}
