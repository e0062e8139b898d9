//! The ConfigMap with the state of a fleet's scaling.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use operator_core::checkpoint;

use super::client::{CallError, bounded};
use super::observe::FleetKey;

/// Reads the text of a fleet's checkpoint; none when there is none that belongs to the fleet.
///
/// # Errors
/// [`CallError`].
pub async fn read(client: &Client, fleet: &FleetKey<'_>) -> Result<Option<String>, CallError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), fleet.namespace);
    let Some(mut found) = bounded(api.get_opt(&checkpoint::name(fleet.name))).await? else { return Ok(None) };
    let owners = found.metadata.owner_references.take().unwrap_or_default();
    let ours = owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == fleet.uid);
    Ok(found.data.filter(|_| ours).and_then(|mut data| data.remove(checkpoint::KEY)))
}
