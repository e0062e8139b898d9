//! An object as it would be stored after a manifest is applied: by a request that the API server checks, completes and does not
//! store.

use anyhow::{Context as _, Result};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::bounded;

/// The object of a manifest: with the manifest's spec as a whole, and its labels and annotations beside those that are there.
/// Without `metadata.namespace` it is in that of the kubeconfig.
///
/// # Errors
/// The manifest is no object, or the API server refuses it.
pub async fn as_applied<K: DeserializeOwned>(client: &Client, manifest: Value) -> Result<K> {
    let (given, resource) = read(manifest)?;
    let namespace = given.metadata.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    stored(&Api::namespaced_with(client.clone(), &namespace, &resource), given).await
}

/// The same of a kind whose objects are in no namespace.
///
/// # Errors
/// The manifest is no object, or the API server refuses it.
pub async fn as_applied_in_cluster<K: DeserializeOwned>(client: &Client, manifest: Value) -> Result<K> {
    let (given, resource) = read(manifest)?;
    stored(&Api::all_with(client.clone(), &resource), given).await
}

fn read(manifest: Value) -> Result<(DynamicObject, ApiResource)> {
    let given: DynamicObject = serde_json::from_value(manifest).context("is no Kubernetes object")?;
    let types = given.types.as_ref().context("kind: is missing")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    Ok((given, resource))
}

async fn stored<K: DeserializeOwned>(api: &Api<DynamicObject>, given: DynamicObject) -> Result<K> {
    let name = given.metadata.name.clone().context("metadata.name: is missing; give the object a name")?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let kind = given.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let refused = || {
        let namespace = api.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{kind} {namespace}{name}")
    };
    let result = match bounded(api.get_opt(&name)).await.with_context(refused)? {
        Some(stored) => bounded(api.replace(&name, &params, &replaced(stored, &given))).await,
        None => bounded(api.create(&params, &given)).await,
    };
    let object = serde_json::to_value(result.with_context(refused)?)?;
    serde_json::from_value(object).with_context(refused)
}

fn replaced(mut stored: DynamicObject, given: &DynamicObject) -> DynamicObject {
    let (meta, own) = (&mut stored.metadata, &given.metadata);
    meta.labels.get_or_insert_default().extend(own.labels.clone().unwrap_or_default());
    meta.annotations.get_or_insert_default().extend(own.annotations.clone().unwrap_or_default());
    stored.data["spec"] = given.data.get("spec").cloned().unwrap_or_else(|| json!({}));
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_replaces_the_spec_and_adds_labels_and_annotations() {
        let object = |value: Value| -> DynamicObject { serde_json::from_value(value).unwrap() };
        let stored = object(json!({"metadata": {"name": "a", "uid": "u", "labels": {"old": "1"}},
            "spec": {"replicas": 3, "template": {}}, "status": {"x": 1}}));
        let given = object(json!({"metadata": {"name": "a", "labels": {"new": "2"}}, "spec": {"template": {}}}));
        let now = serde_json::to_value(replaced(stored, &given)).unwrap();
        assert_eq!(now["spec"], json!({"template": {}}), "a field that the manifest leaves out is gone");
        assert_eq!(now["metadata"]["labels"], json!({"old": "1", "new": "2"}));
        assert_eq!((&now["metadata"]["uid"], &now["status"]["x"]), (&json!("u"), &json!(1)));
    }
}
