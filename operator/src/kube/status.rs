//! The status of a WorkerDeployment, applied as a whole.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use operator_core::api::{API_VERSION, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::names;
use serde_json::json;

use super::client::{CallError, bounded};

/// Writes a status. It replaces what this operator wrote before.
///
/// # Errors
/// [`CallError`].
pub async fn write(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &WorkerDeploymentStatus,
) -> Result<(), CallError> {
    let api: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": "WorkerDeployment",
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    bounded(api.patch_status(name, &params, &Patch::Apply(&patch))).await.map(|_| ())
}
