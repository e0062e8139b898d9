//! Writes to the cluster: server-side apply, the `scale` subresource, annotations of pods.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use operator_core::names;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::adopt::{self, Version};
use super::client::{CallError, bounded};
use super::observe::FleetKey;
use super::views::DELETION_COST_ANNOTATION;

/// What is known of an object that is to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// This process never applied it.
    Unread,
    /// It is watched, and this version of it was seen last: only on that is it applied.
    Seen(Version),
    /// It was applied, and is not watched.
    Applied,
}

/// What an apply came to.
pub struct Applied {
    /// The object.
    pub object: DynamicObject,
    /// Whether it was taken over from another operator.
    pub adopted: bool,
}

/// Applies an object of a fleet. `spec.replicas` is never in it.
///
/// # Errors
/// [`CallError`], a conflict when it is not as it was seen; an object of that name that somebody else owns is
/// [`ApplyError::Foreign`].
pub async fn apply(client: &Client, object: &Value, basis: Basis) -> Result<Applied, ApplyError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
    let api = dynamic_api(client, object, &namespace);
    let (version, adopted) = match basis {
        Basis::Unread => {
            let found = adopt::before_first_apply(&api, &name, object).await?;
            found.map_or((None, false), |(version, adopted)| (Some(version), adopted))
        }
        Basis::Seen(version) => (Some(version), false),
        Basis::Applied => (None, false),
    };
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let apply_on = async |version: Option<&Version>| {
        let body = on(object, version);
        bounded(api.patch(&name, &params, &Patch::Apply(&body))).await
    };
    let object = match apply_on(version.as_ref()).await {
        Err(error) if error.is_invalid() && recreates(object) => {
            let begun = begin_to_recreate(&api, &name).await?;
            apply_on(begun.or(version).as_ref()).await?
        }
        applied => applied?,
    };
    Ok(Applied { object, adopted })
}

/// The object with the version in it that it is to be applied on.
fn on(object: &Value, version: Option<&Version>) -> Value {
    let mut body = object.clone();
    if let Some(Version { uid, resource_version }) = version {
        body["metadata"]["uid"] = uid.as_str().into();
        body["metadata"]["resourceVersion"] = resource_version.as_str().into();
    }
    body
}

fn recreates(object: &Value) -> bool {
    object["spec"]["strategy"]["type"] == "Recreate"
}

/// Makes Recreate the strategy of a Deployment. An apply can't: the numbers of the rolling update that was before are the API
/// server's own, so that it would not take them away, and they are refused beside Recreate. Gives back the version after that.
async fn begin_to_recreate(api: &Api<DynamicObject>, name: &str) -> Result<Option<Version>, CallError> {
    let Some(live) = bounded(api.get_opt(name)).await?.filter(|live| !recreates(&live.data)) else { return Ok(None) };
    let patch = json!({
        "metadata": {"resourceVersion": live.metadata.resource_version},
        "spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}},
    });
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let begun = bounded(api.patch(name, &params, &Patch::Merge(patch))).await?;
    Ok(Some(Version::of(&begun.metadata)))
}

/// Whether a ConfigMap is as it was applied.
///
/// # Errors
/// [`CallError`].
pub async fn stands(client: &Client, object: &Value) -> Result<bool, CallError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api = dynamic_api(client, object, &text(&object["metadata"]["namespace"]));
    let found = bounded(api.get_opt(&text(&object["metadata"]["name"]))).await?;
    Ok(found.is_some_and(|found| found.data["data"] == object["data"]))
}

/// Why an apply failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server said so.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An object of that name has another owner.
    #[error("{0} exists and belongs to somebody else; delete or rename it, or rename the WorkerDeployment")]
    Foreign(String),
}

fn dynamic_api(client: &Client, object: &Value, namespace: &str) -> Api<DynamicObject> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Writes `spec.replicas` of a Deployment, if it is still the version that the decision was based on.
///
/// # Errors
/// [`CallError`]; a conflict when the Deployment changed meanwhile.
pub async fn scale(
    client: &Client,
    namespace: &str,
    child: &str,
    resource_version: &str,
    to: u32,
) -> Result<(), CallError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams { field_manager: Some(names::SCALER_FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = json!({"metadata": {"resourceVersion": resource_version}, "spec": {"replicas": to}});
    bounded(api.patch_scale(child, &params, &Patch::Merge(patch))).await.map(|_| ())
}

/// Sets or takes away the deletion cost of a pod. A pod that is gone is no error.
///
/// # Errors
/// [`CallError`].
pub async fn set_deletion_cost(
    client: &Client,
    namespace: &str,
    pod: &str,
    cost: Option<i32>,
) -> Result<(), CallError> {
    annotate(client, namespace, pod, (DELETION_COST_ANNOTATION, cost.map(|cost| cost.to_string()))).await
}

/// Shows on a pod that it is ordered to take no new task, or no longer. A pod that is gone is no error.
///
/// # Errors
/// [`CallError`].
pub async fn show_cordon(client: &Client, namespace: &str, pod: &str, cordoned: bool) -> Result<(), CallError> {
    annotate(client, namespace, pod, (names::CORDONED_ANNOTATION, cordoned.then(|| "true".to_owned()))).await
}

/// Sets an annotation of a pod, or takes it away.
async fn annotate(
    client: &Client,
    namespace: &str,
    pod: &str,
    (annotation, value): (&str, Option<String>),
) -> Result<(), CallError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let params = PatchParams { field_manager: Some(names::SCALER_FIELD_MANAGER.into()), ..PatchParams::default() };
    match bounded(api.patch_metadata(pod, &params, &Patch::Merge(patch))).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Notes on a Deployment since when nobody wants its version, or takes the note away, if it is still the version that this was
/// decided on.
///
/// # Errors
/// [`CallError`]; a conflict when the Deployment changed meanwhile.
pub async fn note_superseded(
    client: &Client,
    namespace: &str,
    (child, resource_version): (&str, &str),
    at: Option<Timestamp>,
) -> Result<(), CallError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let annotations = json!({names::SUPERSEDED_AT_ANNOTATION: at.map(|at| at.to_string())});
    let patch = json!({"metadata": {"annotations": annotations, "resourceVersion": resource_version}});
    let params = PatchParams { field_manager: Some(names::SCALER_FIELD_MANAGER.into()), ..PatchParams::default() };
    bounded(api.patch_metadata(child, &params, &Patch::Merge(patch))).await.map(|_| ())
}

/// Changes a Deployment by a JSON merge patch that follows from what it is, with its version in it, if it is still the object of
/// this UID. Says whether it had to be changed; one that is gone, or another object, is left.
///
/// # Errors
/// [`CallError`]; a conflict when it changed meanwhile.
pub async fn patch_child(
    client: &Client,
    namespace: &str,
    (name, uid): (&str, &str),
    change: impl FnOnce(&Value) -> Option<Value>,
) -> Result<bool, CallError> {
    let resource = ApiResource::erase::<Deployment>(&());
    // Whole, with what this library does not know of.
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let Some(live) = bounded(api.get_opt(name)).await?.filter(|live| live.metadata.uid.as_deref() == Some(uid)) else {
        return Ok(false);
    };
    let mut whole = live.data;
    whole["metadata"] = json!(live.metadata);
    let Some(patch) = change(&whole) else { return Ok(false) };
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    bounded(api.patch(name, &params, &Patch::Merge(patch))).await.map(|_| true)
}

/// Deletes a Deployment, if it is still the object and version that was decided on. One that is gone is no error.
///
/// # Errors
/// [`CallError`]; a conflict when it changed meanwhile.
pub async fn delete_deployment(
    client: &Client,
    namespace: &str,
    name: &str,
    (uid, resource_version): (&str, &str),
) -> Result<(), CallError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    delete(&api, name, Preconditions { uid: Some(uid.into()), resource_version: Some(resource_version.into()) }).await
}

/// Deletes a ConfigMap that a fleet controls. One that is gone, or somebody else's, is left.
///
/// # Errors
/// [`CallError`].
pub async fn delete_config_map(client: &Client, fleet: &FleetKey<'_>, name: &str) -> Result<(), CallError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), fleet.namespace);
    let Some(found) = bounded(api.get_metadata_opt(name)).await? else { return Ok(()) };
    let meta = found.metadata;
    let owners = meta.owner_references.unwrap_or_default();
    if !owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == fleet.uid) {
        return Ok(());
    }
    delete(&api, name, Preconditions { uid: meta.uid, resource_version: meta.resource_version }).await
}

async fn delete<K>(api: &Api<K>, name: &str, preconditions: Preconditions) -> Result<(), CallError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match bounded(api.delete(name, &params)).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Gives a WorkerDeployment, Connection or ClusterConnection the finalizer that keeps it, or takes it away. Nothing else of it is
/// written.
///
/// # Errors
/// [`CallError`]; a conflict when the object changed since it was read.
pub async fn set_protected<K>(api: &Api<K>, object: &ObjectMeta, protected: bool) -> Result<(), CallError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let name = object.name.clone().unwrap_or_default();
    let others = object.finalizers.iter().flatten().filter(|one| *one != names::DELETE_PROTECTION_FINALIZER).cloned();
    let own = protected.then(|| names::DELETE_PROTECTION_FINALIZER.to_owned());
    let finalizers: Vec<_> = others.chain(own).collect();
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version}});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    match bounded(api.patch_metadata(&name, &params, &Patch::Merge(patch))).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Whether an object has that finalizer.
#[must_use]
pub fn is_protected(object: &ObjectMeta) -> bool {
    object.finalizers.iter().flatten().any(|one| one == names::DELETE_PROTECTION_FINALIZER)
}
