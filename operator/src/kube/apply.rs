//! Writes to the cluster: server-side apply, the `scale` subresource, annotations of pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use operator_core::names;
use serde_json::{Value, json};

use super::client::{CallError, bounded};
use super::views::DELETION_COST_ANNOTATION;

/// Applies an object of a fleet. `spec.replicas` is never in it.
///
/// # Errors
/// [`CallError`]; a Deployment of that name that somebody else owns is [`ApplyError::Foreign`].
pub async fn apply(client: &Client, object: &Value, known: bool) -> Result<DynamicObject, ApplyError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
    let api = dynamic_api(client, object, &namespace);
    if !known {
        refuse_foreign(&api, &name, &object["metadata"]["ownerReferences"][0]["uid"]).await?;
    }
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    Ok(bounded(api.patch(&name, &params, &Patch::Apply(object))).await?)
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

/// The cache is selected by label, so an object that it does not show may still exist: asked before the first apply.
async fn refuse_foreign(api: &Api<DynamicObject>, name: &str, owner: &Value) -> Result<(), ApplyError> {
    let Some(existing) = bounded(api.get_opt(name)).await? else { return Ok(()) };
    let owners = existing.metadata.owner_references.unwrap_or_default();
    let ours = owners.iter().any(|one| one.controller == Some(true) && Some(one.uid.as_str()) == owner.as_str());
    let kind = existing.types.map(|types| types.kind).unwrap_or_default();
    if ours { Ok(()) } else { Err(ApplyError::Foreign(format!("{kind} {name:?}"))) }
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
