//! Makes what temporal-worker-controller wrote the operator's own, in one write an object that changes no value of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use operator_core::adoption::{self, Ownership, PEER_MANAGERS};
use operator_core::api::WorkerDeployment;
use operator_core::names;
use serde_json::{Value, json};

use super::apply::ApplyError;
use super::client::{CallError, bounded};

/// An object as it is: what is written on it holds for no other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
}

impl Version {
    /// By the metadata of an answer.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// What an object of a fleet is before its first apply, asked of the API server itself: the caches are selected by label, and an
/// object that they don't show may exist. Of a Deployment that the peer made the operator becomes the owner of its fields. Gives back
/// the version to apply on, and whether there was something to take over; nothing when there is no object.
///
/// # Errors
/// An object of another owner is [`ApplyError::Foreign`]; [`CallError`], a conflict when it changed meanwhile.
pub async fn before_first_apply(
    api: &Api<DynamicObject>,
    name: &str,
    object: &Value,
) -> Result<Option<(Version, bool)>, ApplyError> {
    let Some(found) = bounded(api.get_metadata_opt(name)).await? else { return Ok(None) };
    let owner = &object["metadata"]["ownerReferences"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (ownership, uid) = (Ownership::of(&found.metadata), text(&owner["uid"]));
    if !ownership.is(&text(&owner["name"]), &uid) {
        return Err(ApplyError::Foreign(format!("{} {name:?}", text(&object["kind"]))));
    }
    let fields = adoption::of_child(&found.metadata);
    if fields.is_none() && ownership.names(&uid) {
        return Ok(Some((Version::of(&found.metadata), false)));
    }
    let patch = Patch::Merge(of_child(&found.metadata, fields, owner));
    let taken = bounded(api.patch_metadata(name, &params(), &patch)).await?;
    Ok(Some((Version::of(&taken.metadata), true)))
}

fn of_child(found: &ObjectMeta, fields: Option<Vec<ManagedFieldsEntry>>, owner: &Value) -> Value {
    let mut metadata = json!({"resourceVersion": found.resource_version});
    if let Some(fields) = fields {
        metadata["managedFields"] = json!(fields);
        metadata["annotations"] = json!({names::MADE_BY_ANNOTATION: PEER_MANAGERS[0]});
    }
    // There is one controller, and it is this object now.
    let is_other = |one: &&OwnerReference| one.controller != Some(true);
    let owners = found.owner_references.iter().flatten().filter(is_other).map(|one| json!(one));
    metadata["ownerReferences"] = owners.chain([owner.clone()]).collect();
    json!({"metadata": metadata})
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// Leaves of managed fields only those of managers that may be the peer, without the fields.
pub fn keep_peers(entries: &mut Vec<ManagedFieldsEntry>) {
    entries.retain(|entry| entry.manager.as_deref().is_some_and(|manager| PEER_MANAGERS.contains(&manager)));
    entries.iter_mut().for_each(|entry| entry.fields_v1 = None);
    entries.shrink_to_fit();
}

/// Makes the fields of a WorkerDeployment's status that the peer wrote the operator's own, so that a later apply takes away what it
/// no longer says.
///
/// # Errors
/// [`CallError`], a conflict when the object changed meanwhile; it being gone is no error.
pub async fn take_status(client: &Client, namespace: &str, name: &str) -> Result<(), CallError> {
    let resource = ApiResource::erase::<WorkerDeployment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let Some(PartialObjectMeta { metadata: found, .. }) = bounded(api.get_metadata_opt(name)).await? else {
        return Ok(());
    };
    let Some(fields) = adoption::of_fleet(&found) else { return Ok(()) };
    let patch = json!({"metadata": {"resourceVersion": found.resource_version, "managedFields": fields}});
    bounded(api.patch_metadata(name, &params(), &Patch::Merge(patch))).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_gets_the_object_as_its_only_controller_and_keeps_its_other_owners() {
        let found = serde_json::from_value(json!({"resourceVersion": "7", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "o"},
            {"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders", "uid": "before",
                "controller": true},
        ]}));
        let owner = json!({"kind": "WorkerDeployment", "name": "orders", "uid": "now", "controller": true});
        let patch = of_child(&found.unwrap(), None, &owner);
        let uids: Vec<_> =
            patch["metadata"]["ownerReferences"].as_array().unwrap().iter().map(|one| &one["uid"]).collect();
        assert_eq!(uids, ["o", "now"]);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert!(patch["metadata"].get("managedFields").is_none() && patch["metadata"].get("annotations").is_none());
    }

    #[test]
    fn of_managed_fields_no_more_is_kept_than_that_the_peer_has_some() {
        let entry = |manager: &str| json!({"manager": manager, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}});
        let mut entries: Vec<ManagedFieldsEntry> =
            serde_json::from_value(json!([entry("kubectl"), entry("temporal-worker-controller")])).unwrap();
        keep_peers(&mut entries);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].fields_v1, None);
    }
}
